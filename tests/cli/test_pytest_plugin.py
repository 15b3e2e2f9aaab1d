"""``pytest --torch-mlx-spectro`` on small suites: patched early, counted, and restored."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checkout import ROOT as CHECKOUT
from needs import needs_emulator

import torch_mlx_spectro as tms
from torch_mlx_spectro.cli import pytest_plugin
from torch_mlx_spectro.cli.pytest_plugin import Known, read_known

pytest_plugins = "pytester"

ON = "--torch-mlx-spectro"

CONFTEST = """\
import torch
KEPT = [torch.stft]  # where patch() does not look
"""
SUITE = """\
import pytest, torch
from conftest import KEPT

X, W = torch.ones(200), torch.ones(16)

@pytest.mark.parametrize("index", [1, 2])
def test_single(index):
    KEPT[0](X, 16, window=W, return_complex=True)

def test_double():
    torch.stft(X.double(), 16, window=W.double(), return_complex=True)

def test_wrong():
    assert torch.stft(X, 16, window=W, return_complex=True).dtype == torch.float32
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite, in an environment where the plugin is installed as pyproject.toml says."""
    toml = __import__("tomllib" if sys.version_info >= (3, 11) else "tomli")
    entries = toml.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["entry-points"]
    folder = pytester.mkdir("installed") / "torch_mlx_spectro_door-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torch_mlx_spectro_door\nVersion: 0\n"
    )
    lines = [f"{name} = {module}" for name, module in entries["pytest11"].items()]
    (folder / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines, ""]))
    monkeypatch.syspath_prepend(str(CHECKOUT))
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setenv("PYTHONPATH", f"{folder.parent}:{CHECKOUT}")  # of subprocesses
    monkeypatch.delenv("TORCH_MLX_SPECTRO_VERIFY", raising=False)
    found = importlib.metadata.entry_points(group="pytest11", name="torch_mlx_spectro")
    assert {entry.value for entry in found} == {"torch_mlx_spectro_pytest"}
    # The run's modules are forgotten after it: what it needs of MLX is imported before.
    with tms.backend("mlx"):
        tms.stft(torch.ones(200), 16, window=torch.ones(16), return_complex=True)
    tms.reset_stats()
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(SUITE)
    return pytester


def test_a_suite_is_accelerated_counted_and_left_as_it_was(suite: pytest.Pytester) -> None:
    before = (torch.stft, torch.istft)
    ended = suite.runpytest_inprocess(ON)
    ended.assert_outcomes(passed=3, failed=1)
    ended.stdout.fnmatch_lines(
        [
            "torch_mlx_spectro: backend mlx",
            "*= torch_mlx_spectro =*",
            "3 calls accelerated, 1 native",
            "1 fell back: dtype torch.float64 of input is not accelerated",
        ]
    )
    assert (torch.stft, torch.istft) == before
    assert not tms.is_patched()


def test_without_the_option_nothing_is_patched(suite: pytest.Pytester) -> None:
    ended = suite.runpytest_inprocess()
    ended.assert_outcomes(passed=3, failed=1)
    ended.stdout.no_fnmatch_line("*torch_mlx_spectro[!_]*")
    assert tms.stats().calls == {}


def test_an_outer_patch_is_restored(suite: pytest.Pytester) -> None:
    with tms.patch("native"):
        suite.runpytest_inprocess(ON, "-k", "single").assert_outcomes(passed=2, deselected=2)
        assert tms.is_patched()
        tms.reset_stats()
        torch.stft(torch.ones(200), 16, window=torch.ones(16), return_complex=True)
        assert tms.stats().calls == {("stft", "native"): 1}


def test_strict_and_verified(suite: pytest.Pytester) -> None:
    ended = suite.runpytest_inprocess(ON, f"{ON}-strict", f"{ON}-verify=1")
    ended.assert_outcomes(passed=2, failed=2)
    ended.stdout.fnmatch_lines(
        [
            "torch_mlx_spectro: backend mlx, strict, every call in 1 verified",
            "*NotAccelerated*",
            "3 calls accelerated, 0 native",
            "3 verified, 0 of them wrong",
        ]
    )


def test_total_fallback_is_said(suite: pytest.Pytester) -> None:
    ended = suite.runpytest_inprocess(ON, f"{ON}-backend=native")
    ended.stdout.fnmatch_lines(["0 calls accelerated, 4 native", "NOTHING WAS ACCELERATED*"])


def test_a_suite_that_unpatches_is_told(suite: pytest.Pytester) -> None:
    suite.makepyfile("import torch_mlx_spectro as tms\ndef test_it(): tms.unpatch()")
    suite.runpytest_inprocess(ON).stdout.fnmatch_lines(["a test has called unpatch()*"])


def listed(suite: pytest.Pytester, *tests: str) -> str:
    entries = [f"[[known]]\ntest = {test!r}\nreason = 'because'\n" for test in tests]
    suite.path.joinpath("known.toml").write_text("\n".join(entries))
    return f"{ON}-known=known.toml"


NAME = "test_a_known_difference_fails_as_expected"


def test_a_known_difference_fails_as_expected(suite: pytest.Pytester) -> None:
    ended = suite.runpytest_inprocess(ON, listed(suite, f"{NAME}.py::test_w*"), "-rx")
    ended.assert_outcomes(passed=3, xfailed=1)
    ended.stdout.fnmatch_lines(["XFAIL *test_wrong - known: because*"])
    assert ended.ret == pytest.ExitCode.OK


def test_a_known_difference_that_passes_is_an_error(suite: pytest.Pytester) -> None:
    ended = suite.runpytest_inprocess(ON, listed(suite, "*::test_wrong", "*::test_single[[]1]"))
    assert ended.ret == pytest.ExitCode.TESTS_FAILED
    ended = suite.runpytest_inprocess(ON, listed(suite, "*::test_wrong", "*::test_single[1]"))
    ended.assert_outcomes(passed=2, failed=1, xfailed=1)
    ended.stdout.fnmatch_lines(["*XPASS(strict)*because*"])


def test_an_entry_that_fits_no_test_fails_the_session(suite: pytest.Pytester) -> None:
    option = listed(suite, "*::test_wrong", "*::test_gone")
    ended = suite.runpytest_inprocess(ON, option, "-k", "double")
    # test_wrong was collected, if not run.
    ended.assert_outcomes(passed=1, deselected=3)
    assert ended.ret == pytest.ExitCode.TESTS_FAILED
    ended.stdout.fnmatch_lines(["ERROR known difference '?::test_gone' fits no collected test"])
    ended.stdout.no_fnmatch_line("ERROR*test_wrong*")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("known", "known.toml: "),
        ("[[difference]]\ntest = 'a'", "only \\[\\[known\\]\\]"),
        ("[known]\ntest = 'a'", "only \\[\\[known\\]\\]"),
        ("[[known]]\ntest = 'a'", "entry 1: has to have test and reason"),
        ("[[known]]\ntest = 'a'\nreason = 'b'\nwhen = 'c'", "entry 1: has to have"),
        ("[[known]]\ntest = 'a'\nreason = ' '", "entry 1: test and reason have to be texts"),
        ("[[known]]\ntest = 1\nreason = 'b'", "entry 1: test and reason have to be texts"),
        ("[[known]]\ntest = 'a'\nreason = 'b'\n" * 2, "'a' is listed 2 times"),
        (None, "No such file"),
    ],
)
def test_lists_that_are_none(text: str | None, told: str, tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(pytest.UsageError, match=told):
        read_known(path)


def test_an_empty_list_is_a_list(tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text("# nothing is known\n")
    assert read_known(path) == ()


def test_patterns() -> None:
    assert Known("a.py::test[x-*]", "r").fits("a.py::test[x-1]")
    assert not Known("a.py::test[x]", "r").fits("a.py::testx")
    assert not Known("a.py::test", "r").fits("a.py::test_more")
    assert Known("*::test_?", "r").fits("a/b.py::C::test_1")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([f"{ON}-strict"], "--torch-mlx-spectro-strict does nothing without --torch-mlx-spectro"),
        ([f"{ON}-known=x"], "--torch-mlx-spectro-known does nothing without"),
        ([ON, f"{ON}-backend=fast"], "--torch-mlx-spectro-backend must be one of"),
        ([ON, f"{ON}-verify=-1"], "--torch-mlx-spectro-verify must be 0"),
        ([ON, f"{ON}-known=gone.toml"], "gone.toml*No such file"),
        ([ON, f"{ON}-backend=native", f"{ON}-emulate-metal"], "needs the backend mlx"),
    ],
)
def test_options_that_make_no_sense(options: list[str], told: str, suite: pytest.Pytester) -> None:
    ended = suite.runpytest_inprocess(*options)
    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    ended.stderr.fnmatch_lines([f"ERROR: *{told}*"])
    assert not tms.is_patched()


@needs_emulator
def test_metal_kernels_are_emulated(
    suite: pytest.Pytester, metal_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a process of its own: it replaces the factory of kernels in MLX.
    (suite.mkdir("cache") / "torch-mlx-spectro").mkdir()
    (suite.path / "cache" / "torch-mlx-spectro" / "emulator").symlink_to(metal_cache)
    monkeypatch.setenv("XDG_CACHE_HOME", str(suite.path / "cache"))
    suite.makepyfile(
        """\
        import torch, torch_mlx_spectro as tms

        def test_kernel():
            given = (torch.ones(200), 16, 4, 16, torch.ones(16))
            assert "blocks" not in tms.explain(torch.stft, *given, return_complex=True).kernel
            torch.stft(*given, return_complex=True)
        """
    )
    ended = suite.runpytest_subprocess(ON, f"{ON}-strict", f"{ON}-emulate-metal")
    ended.assert_outcomes(passed=1)
    ended.stdout.fnmatch_lines(
        ["torch_mlx_spectro: backend mlx, Metal kernels emulated, strict", "1 calls accel*"]
    )


def test_the_door_costs_other_projects_nothing_and_can_be_closed(suite: pytest.Pytester) -> None:
    suite.makeconftest("")
    suite.makepyfile(
        """\
        import sys

        def test_nothing_is_imported(request):
            assert request.config.pluginmanager.has_plugin("torch_mlx_spectro")
            packages = {name.partition(".")[0] for name in sys.modules}
            assert not packages & {"torch", "mlx", "numpy", "rich", "torch_mlx_spectro"}
        """
    )
    ended = suite.runpytest_subprocess("-W", "error", "-k", "nothing")
    ended.assert_outcomes(passed=1)
    closed = suite.runpytest_subprocess("-p", "no:torch_mlx_spectro", ON)
    assert closed.ret == pytest.ExitCode.USAGE_ERROR
    closed.stderr.fnmatch_lines(["*unrecognized arguments: --torch-mlx-spectro*"])


def test_numbers_of_workers_are_added_and_missing_ones_are_told() -> None:
    """What pytest-xdist does: workers hand over, the process that started them adds up."""
    with tms.patch("mlx"):
        worker = pytest_plugin.Session("", (Known("gone", "r"),))
        worker.pytest_collection_modifyitems([])
        x = torch.ones(200)
        torch.stft(x, 16, window=torch.ones(16), return_complex=True)
        torch.stft(x.double(), 16, window=torch.ones(16).double(), return_complex=True)
        output: dict[str, Any] = {}
        config = SimpleNamespace(workeroutput=output)
        worker.pytest_sessionfinish(SimpleNamespace(config=config))  # type: ignore[arg-type]
        main = pytest_plugin.Session("", ())
        for _ in range(2):
            main.pytest_testnodedown(SimpleNamespace(workeroutput=output))
        main.pytest_testnodedown(SimpleNamespace())
        session = SimpleNamespace(config=SimpleNamespace(), exitstatus=pytest.ExitCode.OK)
        main.pytest_sessionfinish(session)  # type: ignore[arg-type]
    assert session.exitstatus == pytest.ExitCode.TESTS_FAILED
    lines: list[str] = []
    reporter = SimpleNamespace(section=lines.append, write_line=lines.append)
    main.pytest_terminal_summary(reporter)  # type: ignore[arg-type]
    assert lines[1:] == [
        "2 calls accelerated, 2 native",
        "2 fell back: dtype torch.float64 of input is not accelerated",
        "2 fell back: dtype torch.float64 of window is not accelerated",
        "1 workers ended without telling their numbers",
        "ERROR known difference 'gone' fits no collected test",
    ]
