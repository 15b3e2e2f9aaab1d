"""The file that ``parity --new`` writes: it runs at once, and its verdict is right."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from needs import needs_mlx

import stft_parity as parity
from stft_parity.__main__ import main
from stft_parity.cases import Case
from stft_parity.report.tables import headline
from stft_parity.results import Result
from stft_parity.starting import TEMPLATES, write_adapter

#: Ordinary calls: what is wrong with others is a matter of conventions.
ORDINARY = [case for case in parity.select("quick") if not case.fault and case.use == "plain"]
#: In which an error is in the numbers themselves.
NUMBERS = ("values", "shape", "gradient of input", "gradient of window")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)
    sys.modules.pop("begun", None)


def find_wrong(report: parity.Report) -> list[Result]:
    """Find the cases whose numbers are wrong, or that are refused."""
    return [
        result
        for result in report.results
        if result.verdict == "raised" or any(d.aspect in NUMBERS for d in result.differences)
    ]


@pytest.mark.parametrize("arrays", ["numpy", "torch", pytest.param("mlx", marks=needs_mlx)])
def test_it_runs_at_once_and_its_numbers_are_right(folder: Path, arrays: str) -> None:
    assert write_adapter(folder / "begun.py", arrays) == ("stft-parity begun --html begun.html")
    report = parity.run(candidate="begun", cases=ORDINARY)
    assert find_wrong(report) == []
    measured = [result for result in report.results if result.error is not None]
    assert {result.case.op for result in measured} == {"stft", "istft"}
    assert len(measured) > 150  # most of what there is
    with_gradients = [result for result in measured if result.case.differentiate]
    assert (with_gradients == []) == (arrays == "numpy")


@pytest.mark.parametrize(
    ("line", "instead", "op"),
    [
        ('mode="reflect")', 'mode="edge")', "stft"),
        ("[..., ::hop_length, :]", "[..., ::hop_length + 1, :]", "stft"),
        ("+= window**2", "+= window", "istft"),
        ("first = n_fft // 2 if center else 0", "first = 0", "istft"),
    ],
)
def test_what_is_put_into_it_wrongly_is_found(
    folder: Path, line: str, instead: str, op: str
) -> None:
    path = folder / "begun.py"
    write_adapter(path)
    text = path.read_text()
    assert line in text
    path.write_text(text.replace(line, instead))
    wrong = find_wrong(parity.run(candidate="begun", cases=_few()))
    assert {result.case.op for result in wrong} == {op}


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_the_pages_first_lines_are_those_of_its_commands(folder: Path, mode: str) -> None:
    """Conventions after them, such as texts of errors, are those of one release of torch."""
    path = folder / "begun.py"
    write_adapter(path)
    path.write_text(path.read_text().replace('sides, mode="reflect")', f'sides, mode="{mode}")'))
    report = parity.run(candidate="begun", cases="quick")
    values = headline(report).partition(";")[0]
    assert values.startswith("values: compared in ")
    page = (ROOT / "docs/parity.md").read_text()
    assert page.count(f"```text\n{values};") == 1


def _few() -> list[Case]:
    return [case for case in ORDINARY if not case.differentiate][::8]


def test_it_says_what_else_torch_takes_and_how_to_run_it(tmp_path: Path) -> None:
    for arrays in TEMPLATES:
        path = tmp_path / f"my_{arrays}.py"
        command = write_adapter(path, arrays, "compare")
        text = path.read_text()
        assert command == f"compare my_{arrays} --html my_{arrays}.html"
        assert f"    {command}\n" in text
        assert "COMMAND" not in text
        for name in ("normalized", "onesided", "return_complex"):
            assert name in text


@pytest.mark.parametrize("name", ["my-parity.py", "parity.txt", "class.py", "2.py"])
def test_a_name_that_is_no_modules_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name it as a module"):
        write_adapter(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("mine = 1\n")
    with pytest.raises(ValueError, match="is there already"):
        write_adapter(path)
    assert path.read_text() == "mine = 1\n"


def test_the_suites_own_command_writes_it_and_compares_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main(["--new", "begun.py"]) == 0
    assert "stft-parity begun --html begun.html" in capsys.readouterr().out
    chosen = ["--select", "rows=3", "--select", "signal=noise", "--select", "fault=none"]
    chosen += ["--select", "center=False", "--aspects", "values,shape,dtype"]
    monkeypatch.setattr("stft_parity.__main__._SHORT", -1.0)  # as if it took longer
    assert main(["begun", *chosen]) == 0
    told = capsys.readouterr()
    assert "wrong in 0" in told.out
    assert re.search(r"^comparing (\d+)/\1 in 0:\d\d:\d\d, 0:00:00 left$", told.err, re.MULTILINE)
    for given, said in (
        (["--new", "begun.py"], "is there already"),
        (["--arrays", "mlx"], "--arrays goes with --new"),
        ([], "name a candidate"),
    ):
        assert main(given) == 2
        assert said in capsys.readouterr().err
