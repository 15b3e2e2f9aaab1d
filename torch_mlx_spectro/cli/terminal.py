"""Where the commands print."""

from __future__ import annotations

from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

#: Columns where there is no terminal: lines in a file or a pipe are not folded.
UNFOLDED = 10_000


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
