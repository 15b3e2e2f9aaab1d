"""The runner of PyTorch's own tests, on a small test file and on its parts."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cli_process import python
from needs import needs_emulator
from torchs_own import run
from torchs_own.run import Misuse, Outcome, Side

TESTS = """\
import os, unittest
import torch

PATCHED = torch.stft.__code__.co_filename != torch.functional.split.__code__.co_filename
WINDOW = torch.hann_window(16)


def helper_of_stft(dtype):
    return torch.stft(torch.ones(64, dtype=dtype), 16, window=WINDOW.to(dtype), return_complex=True)


class TestTiny(unittest.TestCase):
    def test_stft_agrees(self):
        self.assertEqual(helper_of_stft(torch.float32).shape, (9, 17))

    def test_stft_in_double(self):
        dtype = torch.double
        self.assertEqual(helper_of_stft(dtype).dtype.to_real(), dtype)

    def test_roundtrip(self):
        def inner():
            return torch.istft(helper_of_stft(torch.float32), 16, window=WINDOW)
        torch.testing.assert_close(inner(), torch.ones(64))

    def test_stft_differs(self):
        self.assertFalse(PATCHED, f"{object()} sees the patch\\nor so")

    def test_stft_fails(self):
        self.assertEqual(f"{object()}", "")

    @unittest.skip("not today")
    def test_stft_skipped(self):
        pass

    @unittest.expectedFailure
    def test_stft_unexpected(self):
        with self.subTest("passes"):
            helper_of_stft(torch.float32)

    def test_stft_subtests(self):
        for i in range(3):
            with self.subTest(i):
                self.assertEqual(i, 0)

    def test_other(self):
        raise AssertionError("was run")


class TestUnprepared(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise OSError("no stft today")

    def test_stft(self):
        pass
"""
DIFFERING = "TestTiny.test_stft_differs"
CRASHING = """\
import os, unittest, torch
PATCHED = "torch_mlx_spectro" in torch.stft.__globals__["__name__"]

class TestTiny(unittest.TestCase):
    def test_istft_1(self):
        pass
    def test_istft_2(self):
        if PATCHED:
            os._exit(7)
    def test_istft_3(self):
        pass
"""


def listed(folder: Path, *tests: str, more: str = "") -> Path:
    path = folder / "known.toml"
    entries = (f'[[difference]]\ntest = "{test}"\nreason = "sees it"\n{more}\n' for test in tests)
    path.write_text("".join(entries))
    return path


def side(**outcomes: str) -> Side:
    tests = list(outcomes)
    return Side([*tests, "unchosen"], tests, {t: Outcome(what) for t, what in outcomes.items()})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tests") / "test_tiny.py"
    path.write_text(TESTS)
    return path


@pytest.fixture(scope="module")
def told(tiny: Path) -> dict[str, Any]:
    known = str(listed(tiny.parent))
    ended = python(run.__file__, tiny.name, "--json", "--known", known, cwd=tiny.parent)
    assert (ended.returncode, ended.stderr) == (1, "")
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def row_of(told: dict[str, Any], test: str) -> dict[str, Any]:
    (row,) = (row for row in told["tests"] if row["test"] == test)
    return row


def test_only_the_test_that_sees_the_patch_differs(told: dict[str, Any]) -> None:
    assert told["problems"] == [f"{DIFFERING}: differs"]
    assert (told["ok"], told["differing"]) == (False, 1)
    row = row_of(told, DIFFERING)
    assert row["native"] == {"outcome": "passed", "detail": ""}
    message = "True is not false : <object object at 0x...> sees the patch"
    assert row["patched"] == {"outcome": "failed", "detail": f"AssertionError: {message}"}


def test_outcomes_are_told_in_the_words_of_the_tests(told: dict[str, Any]) -> None:
    outcomes = {row["test"]: (*row["native"].values(),) for row in told["tests"]}
    assert outcomes == {
        "TestTiny.test_roundtrip": ("passed", ""),
        "TestTiny.test_stft_agrees": ("passed", ""),
        DIFFERING: ("passed", ""),
        "TestTiny.test_stft_fails": (
            "failed",
            "AssertionError: '<object object at 0x...>' != ''",
        ),
        "TestTiny.test_stft_in_double": ("passed", ""),
        "TestTiny.test_stft_skipped": ("skipped", "not today"),
        "TestTiny.test_stft_subtests": ("failed", "AssertionError: 1 != 0"),
        "TestTiny.test_stft_unexpected": ("failed", "passed unexpectedly"),
        "TestUnprepared.test_stft": ("not run", ""),
        "setUpClass (test_tiny.TestUnprepared)": ("failed", "OSError: no stft today"),
    }
    assert told["outcomes"]["native"] == {"passed": 4, "failed": 4, "skipped": 1, "not run": 1}


def test_calls_under_the_patch_are_counted(told: dict[str, Any]) -> None:
    stats = told["stats"]
    assert stats["calls"] == {"stft/mlx": 3, "istft/mlx": 1, "stft/native": 1}
    assert (stats["accelerated"], stats["native"], stats["launches"]) == (4, 1, 0)
    assert stats["fallbacks"] == {
        f"dtype torch.float64 of {name} is not accelerated": 1 for name in ("input", "window")
    }
    assert row_of(told, "TestTiny.test_roundtrip")["stats"]["accelerated"] == 2


def test_a_known_difference_is_no_failure_and_the_table_says_all(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = listed(tiny.parent, DIFFERING, more="single = true")
    assert run.main([str(tiny), "--known", str(known), "--single", "-k", "stft_"]) == 0
    printed = capsys.readouterr().out
    assert "patched calls: 3 accelerated, 0 by torch; Metal launches: 0\n" in printed
    assert "No call fell back to torch.\n" in printed
    assert "native: 3 failed, 3 passed, 1 skipped\n" in printed
    lines = {line.split()[0]: line.split() for line in printed.splitlines() if line.split()}
    assert lines[DIFFERING][-3:] == ["known", "0", "0"]
    assert lines["TestTiny.test_stft_in_double"][1:] == ["passed", "passed", "same", "1", "0"]


def test_an_entry_for_single_precision_holds_there_only(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = {None: side(a="passed"), "mlx": side(a="failed")}
    monkeypatch.setattr(run, "observe", lambda options, backend: sides[backend])
    known = str(listed(tiny.parent, "a", more="single = true"))
    assert run.main([str(tiny), "--known", known, "--single"]) == 0
    assert run.main([str(tiny), "--known", known]) == 1


@needs_emulator
def test_metal_kernels_compute_in_the_emulator(
    tiny: Path,
    metal_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(metal_cache))
    assert run.main([str(tiny), "--emulate-metal", "-k", "roundtrip", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["stats"]["launches"] == told["stats"]["accelerated"] == 2


def test_a_crash_is_the_outcome_of_the_test_that_was_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "test_crash.py"
    path.write_text(CRASHING)
    assert run.main([str(path), "--json", "--backend", "auto"]) == 1
    rows = json.loads(capsys.readouterr().out)["tests"]
    outcomes = [tuple(row["patched"].values()) for row in rows]
    assert outcomes == [("passed", ""), ("crashed", "exit code 7: "), ("not run", "")]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("import no_such_module", [], "No module named 'no_such_module'"),
        ("", [], "has no tests of stft or istft"),
        (TESTS, ["-k", "stft_of_something_else"], "-k stft_of_something_else: in the name of no"),
    ],
)
def test_what_cannot_be_compared_is_misuse(
    text: str,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "test_odd.py"
    path.write_text(text)
    assert run.main([str(path), *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert ("PATH" in printed.err) == (not arguments)


def nothing_is_run(*_: object) -> Side:
    pytest.fail("a side was run")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["no_such_file.py"], "PATH: no_such_file.py is not a file"),
        ([__file__, "--backend", "auto", "--emulate-metal"], "--emulate-metal: only --backend mlx"),
        ([__file__, "--known", "no_such_list.toml"], "--known no_such_list.toml: "),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run, "observe", nothing_is_run)
    assert run.main([*arguments, "--json"]) == 2
    printed = capsys.readouterr()
    assert named in printed.err
    assert json.loads(printed.out)["error"].startswith(named)


@pytest.mark.parametrize("arguments", [[], [__file__, "--backend", "odd"]])
def test_the_parser_names_arguments(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        run.main(arguments)
    assert exit.value.code == 2
    assert ("--backend" if arguments else "PATH") in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "text",
    [
        "[[difference]]\ntest = 'T.test'",
        "[[difference]]\ntest = 'T.test'\nreason = ' '",
        "[[difference]]\ntest = 'T.test'\nreason = 'r'\nodd = 1",
        "[difference]\ntest = 'T.test'\nreason = 'r'",
        "[[diference]]\ntest = 'T.test'\nreason = 'r'",
        2 * "[[difference]]\ntest = 'T.test'\nreason = 'r'\n",
        "difference = 3",
        "= nothing",
    ],
)
def test_a_malformed_list_is_misuse(text: str, tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text(text)
    with pytest.raises(Misuse, match=r"^--known .*known\.toml: "):
        run.read_known(path)


def test_the_list_in_the_repository_can_be_read() -> None:
    run.read_known(run.KNOWN)


@pytest.mark.parametrize(
    ("known", "problems"),
    [
        ({}, ["b: differs"]),
        ({"b": "why"}, []),
        ({"b": "why", "a": "why"}, ["a: is a known difference, but does not differ"]),
        ({"b": "why", "gone": "why"}, ["gone: a known difference, but no test"]),
    ],
)
def test_the_list_is_strict(
    known: dict[str, str],
    problems: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sides = {None: side(a="passed", b="passed"), "mlx": side(a="passed", b="failed")}
    monkeypatch.setattr(run, "observe", lambda options, backend: sides[backend])
    # "unchosen" is what -k leaves out: nothing is known of it in this run.
    path = listed(tmp_path, *known, "unchosen")
    assert run.main([__file__, "--json", "--known", str(path)]) == bool(problems)
    assert json.loads(capsys.readouterr().out)["problems"] == problems


def test_a_patched_side_that_breaks_is_a_difference() -> None:
    native, patched = side(a="passed"), Side(broken="cannot be loaded: ImportError: x")
    assert run.judge(native, patched, {}) == [
        "the patched run: cannot be loaded: ImportError: x",
        "a: differs",
    ]


def test_a_native_side_that_breaks_is_misuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "observe", lambda options, backend: Side(broken="exit code 3"))
    options: argparse.Namespace = run.parser().parse_args([__file__])
    with pytest.raises(Misuse, match=r"^PATH: .* natively: exit code 3$"):
        run.compare(options)


REAL = os.environ.get("TORCHS_SPECTRAL_TESTS", "")


@pytest.mark.skipif(not REAL, reason="TORCHS_SPECTRAL_TESTS does not name PyTorch's file")
@pytest.mark.parametrize("arguments", [[], ["--single"]], ids=["double", "single"])
def test_pytorchs_own_tests(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = run.main([REAL, "--json", *arguments])
    told = json.loads(capsys.readouterr().out)
    assert code == 0, told.get("error") or told["problems"]
    # Not all by fallback: a file whose tests were all skipped would agree, too.
    assert told["stats"]["accelerated"] > (1000 if arguments else 0)
