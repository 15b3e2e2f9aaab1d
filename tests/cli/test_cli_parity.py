from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import reports
import torch
from needs import needs_emulator, needs_mlx
from small_calls import istft_case, stft_case

import stft_parity
import torch_mlx_spectro as tms
from torch_mlx_spectro import emulator, terminal
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.cli import main as cli
from torch_mlx_spectro.cli import parity
from torch_mlx_spectro.doctor import candidates as own

#: A few hundred cases are the suite's own test; here it matters what becomes of them.
FEW = (
    "--select", "pad_mode=replicate", "--select", "pad_mode=constant", "--select", "op=stft",
    "--select", "gradient=none", "--no-gradients",
)  # fmt: skip

CANDIDATES = """\
import torch
from stft_parity import Candidate, Unsupported

native = torch.stft, torch.istft

def conjugated(*args, **kwargs):
    result = native[0](*args, **kwargs)
    return result.conj().resolve_conj() if kwargs.get("pad_mode") == "replicate" else result

def modest(*args, **kwargs):
    if kwargs.get("pad_mode") == "replicate":
        raise Unsupported("pad_mode='replicate'")
    return native[0](*args, **kwargs)

def nothing(*args, **kwargs):
    raise Unsupported("it can do nothing")

class right:
    stft, istft = native

def make():
    return Candidate(conjugated, native[1], "made")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with candidates in it."""
    (tmp_path / "some_candidates.py").write_text(CANDIDATES)
    monkeypatch.chdir(tmp_path)
    # The command puts the folder there; it is taken out again.
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    sys.modules.pop("some_candidates", None)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and what was printed as JSON."""
    code = cli.main(["parity", *arguments, "--json"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, report


@needs_mlx
def test_our_own_backend_computes_it_and_what_it_does_not_is_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = ["--select", "op=stft", "--select", "window=float64", "--select", "window=ones"]
    code, report = told(capsys, *chosen)
    assert code == 0
    assert report["ok"] is True
    assert report["counts"]["known"] == 1
    assert report["counts"]["pass"] > 0
    assert report["candidate"] == "torch_mlx_spectro, backend mlx"
    assert set(report["routes"]) == {"mlx: mlx cpu blocks"}
    assert not tms.is_patched()


@needs_mlx
def test_a_call_that_fell_back_has_not_passed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("nothing.toml").write_text("")
    chosen = ["--select", "op=stft", "--select", "window=float64", "--known", "nothing.toml"]
    code, report = told(capsys, *chosen)
    assert code == 1
    assert report["counts"]["fell back"] == 1
    assert "dtype torch.float64 of window" in report["results"][0]["reason"]


def test_native_against_itself_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = told(capsys, "--backend", "native", *FEW)
    assert code == 0
    assert set(report["routes"]) == {"native: torch"}


@needs_mlx
@needs_emulator
def test_kernels_are_emulated_meanwhile(
    metal_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlx.core as mx

    before = mx.fast.metal_kernel
    machine = emulator.Machine
    monkeypatch.setattr(emulator, "Machine", lambda: machine(cache_dir=metal_cache))
    code, report = told(capsys, "--emulate-metal", "--select", "hop=n_fft", "--select", "op=stft")
    assert code == 0
    assert set(report["routes"]) == {"mlx: metal analysis"}
    assert mx.fast.metal_kernel is before


def test_a_difference_ends_with_1_and_is_written_everywhere(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--junit", "found.xml", "--html", "found.html"]
    assert cli.main(["parity", "--candidate", "some_candidates:make", *FEW, *files]) == 1
    printed = capsys.readouterr()
    assert "NOT as the reference" in printed.out
    assert "the spectrum is conjugated" in printed.out
    assert "y = torch.stft(" in printed.out
    assert printed.err == ""  # no bar where there is no terminal
    root = ElementTree.parse("found.xml").getroot()
    assert int(root.get("failures", "0")) == len(root.findall(".//failure")) > 0
    assert "the spectrum is conjugated" in Path("found.html").read_text()


def test_smaller_cases_are_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = told(capsys, "--candidate", "some_candidates:make", *FEW, "--minimise")
    assert code == 1
    (smallest,) = report["minimised"]
    assert "pad_mode='replicate'" in smallest["reproducer"]
    assert len(smallest["reproducer"]) < len(smallest["of"])
    assert smallest["verdict"] == "differs"


def test_functions_can_be_named_one_by_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = told(capsys, "--stft", "some_candidates:conjugated", *FEW)
    assert code == 1
    assert report["candidate"] == "some_candidates:conjugated"
    assert report["counts"]["differs"] == 1
    code, report = told(capsys, "--istft", "some_candidates:right.istft", "--select", "frames=2")
    assert code == 0
    assert report["counts"]["pass"] > 0


def test_what_is_unsupported_is_no_failure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = told(capsys, "--stft", "some_candidates:modest", *FEW)
    assert code == 0
    assert report["counts"]["unsupported"] == report["counts"]["pass"] == 1
    # But of a candidate that offers nothing nothing has been shown.
    code, report = told(capsys, "--stft", "some_candidates:nothing", *FEW)
    assert code == 4
    assert report["counts"]["unsupported"] == len(report["results"])


def test_known_differences_are_accepted_and_strict(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = (
        '[[difference]]\nwhere = {{ pad_mode = "{}" }}\naspects = ["values"]\nreason = "so be it"\n'
    )
    arguments = ["--candidate", "some_candidates:make", *FEW, "--known", "k.toml"]
    Path("k.toml").write_text(entry.format("replicate"))
    assert told(capsys, *arguments)[0] == 0
    Path("k.toml").write_text(entry.format("replicate") + entry.format("constant"))
    code, report = told(capsys, *arguments)
    assert code == 1
    assert "no values differs any more" in report["problems"][0]


def test_another_reference_can_be_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--candidate", "some_candidates:make", "--reference", "some_candidates:make"]
    code, report = told(capsys, *both, *FEW)
    assert code == 0
    assert report["reference"] == "some_candidates:make"


@needs_mlx
@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["--candidate", "some_candidates:make"], "some_candidates:make"),
        ([], "torch_mlx_spectro.doctor.candidates:mlx"),
        (["--backend", "native"], "torch_mlx_spectro.doctor.candidates:native"),
        (["--emulate-metal"], "torch_mlx_spectro.doctor.candidates:emulated_mlx"),
        (
            ["--emulate-metal", "--backend", "mps"],
            "torch_mlx_spectro.doctor.candidates:emulated_mps",
        ),
    ],
)
def test_other_processes_are_told_the_candidate_by_its_path(
    arguments: list[str],
    path: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "--emulate-metal" in arguments and emulator.available() is not None:
        pytest.skip(str(emulator.available()))
    passed: dict[str, Any] = {}

    def run(**options: Any) -> stft_parity.Report:
        passed.update(options)
        return reports.well()

    monkeypatch.setattr(stft_parity, "run", run)
    assert cli.main(["parity", *arguments, "--processes", "2", "--json"]) == 0
    assert (passed["candidate"], passed["processes"]) == (path, 2)
    module, _, name = path.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


@needs_mlx
@needs_emulator
@pytest.mark.parametrize(
    ("make", "route"),
    [(own.emulated_mlx, "mlx: metal analysis"), (own.emulated_mps, "mps: mps analysis")],
    ids=["mlx", "mps"],
)
def test_a_process_that_emulates_computes_by_kernels(
    metal_cache: Path, monkeypatch: pytest.MonkeyPatch, make: Any, route: str
) -> None:
    machine = emulator.Machine
    monkeypatch.setattr(emulator, "Machine", lambda: machine(cache_dir=metal_cache))
    with contextlib.ExitStack() as opened:
        monkeypatch.setattr(own, "_OPEN", opened)
        candidate = make()
        stft_case().call(candidate.stft)  # type: ignore[arg-type]
        assert candidate.route is not None
        assert candidate.route() == route


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--candidate", "a:b", "--stft", "a:b"], "either --candidate"),
        (["--candidate", "some_candidates:make", "--backend", "mlx"], "--backend is this package"),
        (["--backend", "native", "--emulate-metal"], "others have no Metal"),
        (["--stft", "a:b", "--processes", "2"], "--processes needs --candidate"),
        (["--candidate", "a", "--emulate-metal", "--processes", "2"], "emulates in one process"),
        (["--candidate", "no_such_module"], "no_such_module"),
        (["--candidate", "some_candidates:absent"], "absent"),
        (["--candidate", "some_candidates:native"], "is no candidate"),
        (["--stft", "some_candidates"], "write it as package.module:function"),
        (["--stft", "some_candidates:absent"], "no function at"),
        (["--reference", "no_such_module", "--backend", "native"], "no_such_module"),
        (["--select", "pad_mode"], "argument=value"),
        (["--select", "pad_mode=bent"], "no case of 'quick' has pad_mode=bent"),
        (["--select", "padding=reflect"], "no case of 'quick' has padding=reflect"),
        (["--known", "absent.toml"], "absent.toml"),
        (["--known", "some_candidates.py"], "some_candidates.py"),
        (["--junit", "absent/found.xml"], "there is no such folder"),
        (["--html", "absent/found.html"], "there is no such folder"),
        (["--html", ".", "--backend", "native", *FEW], "--html ."),
    ],
)
def test_wrong_usage_ends_with_2(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["parity", *arguments]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.startswith("torch-mlx-spectro parity: error: ")


@pytest.mark.parametrize(
    "arguments",
    [["--processes", "0"], ["--seed", "x"], ["--cases", "some"], ["--device", "tpu"]],
)
def test_values_that_no_option_has_end_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["parity", *arguments])
    assert ended.value.code == 2
    assert "usage: " in capsys.readouterr().err


@pytest.mark.parametrize("device", ["mps", "cuda"])
def test_a_device_that_is_not_here_is_said(
    device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(getattr(torch, device), "is_available", lambda: False)
    assert cli.main(["parity", "--device", device]) == 2
    assert "torch has no such device here" in capsys.readouterr().err


def test_aspects_are_selected_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--candidate", "some_candidates:make", *FEW]
    code, report = told(capsys, *wrong, "--aspects", "strides, warnings")
    assert (code, report["counts"]["differs"]) == (0, 0)
    code, report = told(capsys, *wrong, "--aspects", "values")
    assert code == 1
    assert set(report["aspects"]) == {"values"}
    assert cli.main(["parity", *wrong, "--aspects", "value"]) == 2
    assert "aspects are one or more of exception, warnings" in capsys.readouterr().err


def test_a_page_without_jinja_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = parity.importlib.util.find_spec
    monkeypatch.setattr(
        parity.importlib.util, "find_spec", lambda name: None if name == "jinja2" else find(name)
    )
    assert cli.main(["parity", "--html", "x.html"]) == 2
    assert "--html needs jinja2: pip install jinja2" in capsys.readouterr().err


def test_without_mlx_our_own_backend_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = {"mlx": tms.Availability(False, "there is none")}
    monkeypatch.setattr(tms, "available_backends", lambda: absent)
    assert cli.main(["parity"]) == 1
    assert "mlx is not available: there is none" in capsys.readouterr().err


def test_the_bar_shows_on_a_terminal_what_is_done_and_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    failing = stft_parity.Result(stft_case(), "raised", True)
    with own.progress() as show:
        show(1, 40, [failing])
        show(3, 40, [failing] * 3)
    assert "3/40" in terminal.getvalue()
    assert "3 failing" in terminal.getvalue()


def test_a_log_is_told_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "BETWEEN_LINES", 0.0)
    failing = stft_parity.Result(stft_case(), "raised", True)
    with own.progress() as show:
        show(1, 40, [failing])
        show(4, 40, [failing])
    assert capsys.readouterr().err == "comparing: 4 of 40 in 0:00:00, 0:00:00 left, 1 failing\n"


def test_selections_devices_and_backends_are_those_that_exist() -> None:
    assert parity.SELECTIONS == stft_parity.SELECTIONS
    for backend in registry.names():
        assert backend in tms.available_backends()
        assert isinstance(getattr(own, backend)(), stft_parity.Candidate)


def test_the_command_needs_neither_rich_nor_torch_to_tell_its_options() -> None:
    parser = argparse.ArgumentParser()
    parity.add_arguments(parser)
    assert parser.parse_args([]).cases == "quick"


@needs_mlx
def test_the_candidate_tells_who_computed_the_last_call() -> None:
    candidate = own.make_strict("mlx")
    assert candidate.route is not None
    assert candidate.fallback is not None
    stft_case().call(candidate.stft)  # type: ignore[arg-type]
    assert (candidate.route(), candidate.fallback()) == ("mlx: mlx cpu blocks", "")
    doubled = "torch.randn((3, 9, 20), dtype=torch.complex128)"
    with pytest.raises(stft_parity.FellBack, match=r"dtype torch.complex128 of input"):
        istft_case(doubled).call(candidate.istft)  # type: ignore[arg-type]
    assert candidate.route() == ""
    with pytest.raises(RuntimeError):
        stft_case(hop_length="0").call(candidate.stft)  # type: ignore[arg-type]
    assert candidate.route() == ""


@needs_mlx
def test_a_candidate_that_lets_native_compute_does_not_hide_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    candidate = own.make_strict("mlx")
    assert candidate.fallback is not None
    assert "nothing was counted" in candidate.fallback()
    with tms.backend("native"):
        tms.stft(torch.zeros(100), 16, return_complex=True, window=torch.ones(16))
    assert "native torch computed it" in candidate.fallback()


def test_new_writes_an_adapter_that_is_compared_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["parity", "--new", "begun.py"]) == 0
    said = capsys.readouterr().out
    command = "torch-mlx-spectro parity --candidate begun --html begun.html"
    assert f"  {command}\n" in said
    assert command in Path("begun.py").read_text()
    monkeypatch.setattr(sys, "path", [*sys.path])
    chosen = ("--select", "op=stft", "--select", "fault=none", "--select", "use=plain")
    cli.main(["parity", "--candidate", "begun", "--json", "--no-gradients", *chosen])
    report = json.loads(capsys.readouterr().out)
    measured = [result for result in report["results"] if result["error"] is not None]
    assert len(measured) > 80
    told = [difference["aspect"] for one in measured for difference in one["differences"]]
    assert {"values", "shape"} & set(told) == set()
    sys.modules.pop("begun")


def test_new_says_what_is_wrong_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("begun.py").touch()
    for given, said in (
        (("--new", "begun.py"), "is there already"),
        (("--new", "be-gun.py"), "name it as a module"),
        (("--new", "none/begun.py"), "No such file"),
        (("--arrays", "mlx"), "goes with --new"),
    ):
        assert cli.main(["parity", *given]) == 2
        assert said in capsys.readouterr().err
