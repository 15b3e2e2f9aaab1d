"""What people read: commands in a terminal, values in a session, their tables in notebooks.

rich is loaded when something is printed by it.
"""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from ..errors import Problem
from .fitting import Table

if TYPE_CHECKING:
    from rich.console import Console

#: In the place of a file's name: standard output.
STDOUT = "-"

#: Columns where there is no terminal: lines in a file or a pipe are not folded.
UNFOLDED = 10_000
#: Seconds between lines about progress, where there is no terminal to draw a bar on, at least.
BETWEEN_LINES = 10.0
#: And lines of the whole work, about: of a run of an hour a log needs no more.
LINES = 10

#: Columns of a repr.
WIDTH = 80
#: How a cell stands in its table; notebooks have styles of their own besides.
_CELL = "vertical-align:top;padding:0.1em 1.5em 0.1em 0"


def make_console(stream: TextIO, width: int | None = None) -> Console:
    """Make a console that prints text as it is: it reads no markup.

    Args:
        width: columns; None: those of the terminal, or lines that are not folded without one.
    """
    from rich.console import Console

    if width is None and not stream.isatty():
        width = UNFOLDED
    # In notebooks rich would display the text there, and write nothing to the stream.
    return Console(
        file=stream, width=width, highlight=False, markup=False, emoji=False, force_jupyter=False
    )


def table(
    text: tuple[str, ...],
    numbers: tuple[str, ...] = (),
    title: str | None = None,
    rows: Iterable[Sequence[str] | str] = (),
) -> Table:
    """A table of columns of texts and then columns of numbers, given by their headings."""
    return Table((*text, *numbers), len(text), title, list(rows))


class Rows(NamedTuple):
    """Rows of text, with numbers at their end.

    Attributes:
        text: the titles of the columns with text.
        numbers: the titles of the columns with numbers, which come after those.
        rows: one value for each column.
    """

    text: tuple[str, ...]
    numbers: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def print_tables(console: Console, lines: Iterable[str], tables: Iterable[Rows]) -> None:
    """Print lines, and tables below them."""
    for line in lines:
        console.print(line)
    for one in tables:
        console.print(table(one.text, one.numbers, rows=one.rows))


def write_text(lines: Iterable[str], tables: Iterable[Rows]) -> str:
    """Write lines and tables as a text that fits the terminal, or 80 columns without one."""
    stream = io.StringIO()
    console = make_console(stream, shutil.get_terminal_size().columns)
    print_tables(console, lines, tables)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


@contextmanager
def progress(description: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show on stderr how far a long work is: a bar on a terminal, else a line now and then.

    Yields:
        What is to be called with how many parts are done, how many there are, and a remark.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lines_of_progress(description, sys.stderr)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
        console=console,
    ) as bar:
        task = bar.add_task(description, total=None, remark="")
        yield lambda done, total, remark: bar.update(
            task, completed=done, total=total, remark=remark
        )


def lines_of_progress(
    description: str, stream: TextIO, clock: Callable[[], float] = time.monotonic
) -> Callable[[int, int, str], None]:
    """Make a function that tells a log some ten times how far a work is, and how long it takes.

    Args:
        description: of the work.
        stream: the log.
        clock: returns seconds.

    Returns:
        To be called with how many parts are done, how many there are, and a remark.
    """
    begun = printed = clock()
    told = 0

    def show(done: int, total: int, remark: str) -> None:
        nonlocal printed, told
        now = clock()
        if now - printed < BETWEEN_LINES or LINES * (done - told) < total:
            return
        printed, told = now, done
        left = (now - begun) * (total - done) / max(done, 1)
        past, left_over = (timedelta(seconds=round(seconds)) for seconds in (now - begun, left))
        line = f"{description}: {done} of {total} in {past}, {left_over} left, {remark}"
        print(line, file=stream, flush=True)

    return show


def refuse(problems: Iterable[tuple[object, str]]) -> None:
    """Raise the first of some problems that is there; each is a condition and what to say of it.

    Raises:
        Problem: a condition holds.
    """
    for holds, message in problems:
        if holds:
            raise Problem(message)


def lacks_folder(path: str | Path | None) -> bool:
    """Whether a file is asked for in a folder that does not exist."""
    return path not in (None, "", STDOUT) and not Path(str(path)).resolve().parent.is_dir()


def write_file(option: str, path: str | Path, content: str | bytes) -> None:
    """Write the file of an option; in the place of its name :data:`STDOUT` prints a text.

    Raises:
        Problem: it cannot be written.
    """
    if path == STDOUT:
        print(content, end="")
        return
    try:
        Path(path).write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise Problem(f"--{option} {path}: {error.strerror}") from None


class Shown:
    """A value that shows itself by its name and what it consists of."""

    def _list_shown(self) -> Mapping[str, object]:
        """Return what it consists of, by the names of its arguments."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return fold(self._list_pieces())

    def _repr_html_(self) -> str:
        rows = [(name, show_value(value)) for name, value in self._list_shown().items()]
        return write_html([type(self).__name__], [Rows(("", ""), (), rows)])

    def _list_pieces(self) -> list[str]:
        """Return the repr in pieces, between which a line may end."""
        found = list[str]()
        for name, value in self._list_shown().items():
            first, *others = _list_pieces(value)
            found += [f"{name}={first}", *others]
            found[-1] += ","
        first, *others = found
        return [f"{type(self).__name__}({first}", *others[:-1], f"{others[-1][:-1]})"]


class Words(str):
    """Words in the place of a value that has no short repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{self}>"


def _list_pieces(value: object) -> list[str]:
    if isinstance(value, Shown):
        return value._list_pieces()
    if isinstance(value, tuple) and len(value) > 1:
        first, *others, last = map(repr, value)
        return [f"({first},", *(f"{one}," for one in others), f"{last})"]
    return [repr(value)]


def show_value(value: object) -> str:
    """Write a value in a cell: texts as they are, several in a row."""
    if isinstance(value, tuple) and all(isinstance(one, str) for one in value):
        return "; ".join(value) or "none"
    return str(value) if isinstance(value, str) else repr(value)


def fold(pieces: Iterable[str]) -> str:
    """Put pieces into lines of at most :data:`WIDTH` columns; one that is longer has its own."""
    first, *others = pieces
    lines = [first]
    for piece in others:
        if len(lines[-1]) + 1 + len(piece) <= WIDTH:
            lines[-1] += f" {piece}"
        else:
            lines.append(f"    {piece}")
    return "\n".join(lines)


def show_seconds(seconds: float) -> str:
    """Write seconds with a unit that people read: ``850 µs``, ``1.2 s``, ``12 min``."""
    size = abs(seconds)
    if size >= 600:
        return f"{seconds / 60:,.0f} min"
    for least, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")):
        if size >= least:
            return f"{seconds / least:.3g} {unit}"
    return "0 s"


def write_html(lines: Iterable[str], tables: Iterable[Rows]) -> str:
    """Write lines and tables as HTML, all text escaped; the first line is in bold."""
    first, *others = map(escape, lines)
    head = "<br>".join([f"<b>{first}</b>", *others])
    return "\n".join([f"<div><p>{head}</p>", *map(_write_table, tables), "</div>"])


def _write_table(table: Rows) -> str:
    titles = [*table.text, *table.numbers]
    sides = ["left"] * len(table.text) + ["right"] * len(table.numbers)
    head = [_write_row("th", titles, sides)] if any(titles) else []
    rows = [_write_row("td", row, sides) for row in table.rows]
    return "\n".join(['<table style="margin:0 0 1em 0">', *head, *rows, "</table>"])


def _write_row(tag: str, cells: Sequence[str], sides: Sequence[str]) -> str:
    written = (
        f'<{tag} style="text-align:{side};{_CELL}">{escape(cell)}</{tag}>'
        for cell, side in zip(cells, sides, strict=True)
    )
    return f"<tr>{''.join(written)}</tr>"
