"""What the commands print where there is no terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from torch_mlx_spectro import terminal
from torch_mlx_spectro.bench import session as bench
from torch_mlx_spectro.errors import Problem


def test_a_log_has_a_line_now_and_then() -> None:
    log, now = io.StringIO(), 100.0
    show = terminal.lines_of_progress("measuring", log, lambda: now)
    for done in range(8):
        show(done, 8, f"case {done}")
        now += 10
    assert log.getvalue() == "measuring: 3 of 8, case 3\nmeasuring: 6 of 8, case 6\n"


def test_a_bench_without_a_terminal_tells_its_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with bench.progress("measuring") as show:
        show(1, 6, "HTDemucs")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(terminal, "BETWEEN_LINES", 0.0)
    with bench.progress("measuring") as show:
        show(2, 6, "HTDemucs")
    assert capsys.readouterr().err == "measuring: 2 of 6, HTDemucs\n"


def test_the_first_problem_that_is_there_is_raised() -> None:
    terminal.refuse([(False, "no"), ("", "no"), (None, "no")])
    with pytest.raises(Problem, match="second"):
        terminal.refuse([(0, "first"), ([1], "second"), (True, "third")])


@pytest.mark.parametrize(
    ("name", "lacks"),
    [(None, False), ("", False), ("-", False), ("a.json", False), ("no/folder/a.json", True)],
)
def test_a_file_is_asked_for_in_a_folder_that_exists(
    name: str | None, lacks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert terminal.lacks_folder(name) is lacks
    assert terminal.lacks_folder(None if name is None else Path(name)) is lacks


def test_a_file_is_written_or_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.write_file("json", tmp_path / "a", "text\n")
    terminal.write_file("plot", str(tmp_path / "b"), b"\x00")
    assert (tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes() == b"text\n\x00"
    terminal.write_file("json", "-", "text\n")
    assert capsys.readouterr().out == "text\n"
    with pytest.raises(Problem, match=f"--json {tmp_path}: "):
        terminal.write_file("json", tmp_path, "text")


def test_a_table_has_its_rows() -> None:
    made = terminal.table(("name",), ("n",), "title", [("a", "1"), ["b", "2"]])
    assert [list(column.cells) for column in made.columns] == [["a", "b"], ["1", "2"]]
