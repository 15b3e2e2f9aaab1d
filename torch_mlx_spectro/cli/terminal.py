"""Where the commands print."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

#: Columns where there is no terminal: lines in a file or a pipe are not folded.
UNFOLDED = 10_000
#: Seconds between lines about progress, where there is no terminal to draw a bar on.
BETWEEN_LINES = 30.0


def console_on(stream: TextIO) -> Console:
    """A console that prints text as it is: nothing is taken for markup."""
    width = None if stream.isatty() else UNFOLDED
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def table(text: tuple[str, ...], numbers: tuple[str, ...] = (), title: str | None = None) -> Table:
    """A table whose text columns fold where the terminal ends, so that nothing is cut off."""
    titles = any((*text, *numbers))
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", show_header=titles)
    for column in text:
        made.add_column(column, overflow="fold")
    for column in numbers:
        made.add_column(column, justify="right", no_wrap=True)
    return made


def lines_of_progress(
    description: str, stream: TextIO, clock: Callable[[], float] = time.monotonic
) -> Callable[[int, int, str], None]:
    """What tells a log now and then how far a long work is; of a short one nothing.

    Args:
        description: of the work.
        stream: the log.
        clock: returns seconds.

    Returns:
        To be called with how many parts are done, how many there are, and a remark.
    """
    told = clock()

    def show(done: int, total: int, remark: str) -> None:
        nonlocal told
        if clock() - told >= BETWEEN_LINES:
            told = clock()
            print(f"{description}: {done} of {total}, {remark}", file=stream, flush=True)

    return show
