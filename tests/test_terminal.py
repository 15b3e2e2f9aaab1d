"""What the commands print where there is no terminal."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
from rich.console import Console

from torch_mlx_spectro import terminal
from torch_mlx_spectro.bench import session as bench
from torch_mlx_spectro.errors import Problem
from torch_mlx_spectro.terminal import fitting


def test_a_log_has_a_line_for_about_each_tenth_with_the_time_that_is_left() -> None:
    log, now = io.StringIO(), 100.0
    show = terminal.lines_of_progress("measuring", log, lambda: now)
    for done in range(1, 101):
        now += 4
        show(done, 100, f"case {done}")
    lines = log.getvalue().splitlines()
    assert lines[0] == "measuring: 10 of 100 in 0:00:40, 0:06:00 left, case 10"
    assert lines[-1] == "measuring: 100 of 100 in 0:06:40, 0:00:00 left, case 100"
    assert len(lines) == 10


def test_a_short_work_does_not_fill_the_log() -> None:
    log, now = io.StringIO(), 0.0
    show = terminal.lines_of_progress("measuring", log, lambda: now)
    for done in range(1, 9):
        now += 4
        show(done, 8, "")
    assert [line.split()[1] for line in log.getvalue().splitlines()] == ["3", "6"]


def test_a_bench_without_a_terminal_tells_its_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with bench.progress("measuring") as show:
        show(1, 6, "HTDemucs")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(terminal, "BETWEEN_LINES", 0.0)
    with bench.progress("measuring") as show:
        show(2, 6, "HTDemucs")
    assert capsys.readouterr().err == "measuring: 2 of 6 in 0:00:00, 0:00:00 left, HTDemucs\n"


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


WIDTHS = (60, 80, 120)
WORDS = st.text("abcdefghij-/.1", min_size=1, max_size=fitting.LONGEST_WORD)
TEXTS = st.lists(WORDS, max_size=12).map(" ".join)
NUMBERS = st.sampled_from(["", "1", "12.3 ms", "1.23e-05", "cpu, native"])


def print_in(width: int, *printed: object) -> list[str]:
    """What a terminal of this width shows, without blanks at the ends of lines."""
    file = io.StringIO()
    for one in printed:
        Console(file=file, width=width, markup=False, highlight=False, emoji=False).print(one)
    return [line.rstrip() for line in file.getvalue().splitlines()]


@st.composite
def tables(draw: st.DrawFn) -> fitting.Table:
    texts, numbers = draw(st.integers(1, 4)), draw(st.integers(0, 8))
    heading = st.lists(WORDS.map(lambda word: word[:12]), max_size=3).map(" ".join)
    row = st.tuples(*[TEXTS] * texts, *[NUMBERS] * numbers)
    rows = draw(st.lists(st.one_of(row, row, TEXTS), min_size=1, max_size=5))
    headings = draw(st.tuples(*[heading] * (texts + numbers)))
    return terminal.table(headings[:texts], headings[texts:], draw(TEXTS), rows)


@pytest.mark.parametrize("width", WIDTHS)
@hypothesis.settings(max_examples=40)
@hypothesis.given(made=tables())
def test_a_table_fits_folds_no_word_and_loses_none(width: int, made: fitting.Table) -> None:
    lines = print_in(width, made)
    assert max(map(len, lines), default=0) <= width
    printed = Counter(" ".join(lines).split())
    for row in made.rows:
        printed.subtract(Counter((row if isinstance(row, str) else " ".join(row)).split()))
    assert min(printed.values(), default=0) >= 0, printed


def test_a_table_gets_narrower_before_it_becomes_a_list() -> None:
    numbers = [f"number {n}" for n in range(6)]
    made = terminal.table(("name",), tuple(numbers), "title", [("a name", *["12345"] * 6)])
    title, top, head, *_ = print_in(120, made)
    assert (title, top) == ("title", "")
    assert head.split() == ["name", *" ".join(numbers).split()]
    assert any(line.split() == ["a", "name", *["12345"] * 6] for line in print_in(60, made))
    assert print_in(40, made) == [
        "title",
        "name",
        "  a name",
        "    number 0 12345   number 1 12345",
        "    number 2 12345   number 3 12345",
        "    number 4 12345   number 5 12345",
        "",
    ]


def test_rows_below_a_heading_are_in_the_columns_of_all() -> None:
    rows = ["heading", ("a", "1"), "another heading", ("longer", "123")]
    lines = print_in(60, terminal.table(("name",), ("n",), "title", rows))
    assert lines == [
        "title",
        " name       n",
        "──────────────",
        "heading",
        " a          1",
        "another heading",
        " longer   123",
        "",
    ]


def test_a_path_that_is_longer_than_a_column_folds() -> None:
    path = "/" + "folder/" * 20
    lines = print_in(60, terminal.table(("", ""), rows=[("files", path)]))
    assert "".join("".join(lines).split()) == f"files{path}"
