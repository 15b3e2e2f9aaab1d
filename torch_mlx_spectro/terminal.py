"""Where the commands print and write. rich is loaded when something is printed by it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from .errors import Problem
from .fitting import Table

if TYPE_CHECKING:
    from rich.console import Console

#: In the place of a file's name: standard output.
STDOUT = "-"

#: Columns where there is no terminal: lines in a file or a pipe are not folded.
UNFOLDED = 10_000
#: Seconds between lines about progress, where there is no terminal to draw a bar on.
BETWEEN_LINES = 30.0


def make_console(stream: TextIO) -> Console:
    """Make a console that prints text as it is: it reads no markup."""
    from rich.console import Console

    width = None if stream.isatty() else UNFOLDED
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def table(
    text: tuple[str, ...],
    numbers: tuple[str, ...] = (),
    title: str | None = None,
    rows: Iterable[Sequence[str] | str] = (),
) -> Table:
    """A table of columns of texts and then columns of numbers, given by their headings."""
    return Table((*text, *numbers), len(text), title, list(rows))


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
    """Make a function that tells a log now and then how far a long work is.

    Args:
        description: of the work.
        stream: the log.
        clock: returns seconds.

    Returns:
        To be called with how many parts are done, how many there are, and a remark.
    """
    printed = clock()

    def show(done: int, total: int, remark: str) -> None:
        nonlocal printed
        if clock() - printed >= BETWEEN_LINES:
            printed = clock()
            print(f"{description}: {done} of {total}, {remark}", file=stream, flush=True)

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
