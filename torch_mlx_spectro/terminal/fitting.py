"""Tables that fit the terminal. rich is loaded when one is printed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

#: Letters of the longest word, a path for example, that no column of a table folds.
LONGEST_WORD = 32
#: Lines that a text of a table may fill.
MOST_LINES = 6


@dataclass
class Table:
    """A table that fits every terminal, and a list of its rows where no table can.

    Texts and headings fold between words. Numbers do not fold, nor do words of up to
    :data:`LONGEST_WORD` letters. Where the terminal is too narrow for that, or a text would fill
    more than some :data:`MOST_LINES` lines, each row is printed as lines of a heading and a value.
    Nothing is cut off.

    Attributes:
        headings: of all columns; if all are empty, none is shown.
        texts: how many of the columns are texts, the first ones; the others are numbers.
        title: a line above.
        rows: a string in the place of cells is a heading of the rows below it.
    """

    headings: tuple[str, ...]
    texts: int
    title: str | None
    rows: list[Sequence[str] | str]

    def add_row(self, *cells: str) -> None:
        self.rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield what rich prints."""
        from rich.text import Text

        if self.title:
            yield Text(self.title, style="italic")
        # Columns get closer to each other before texts fold.
        for folds, gap in itertools.product((False, True), (3, 2, 1)):
            widths = self._choose_widths(options.max_width, gap, folds)
            if widths is not None:
                yield from self._draw_rows(widths, gap)
                return
        yield from self._list_rows(options.max_width)

    def _choose_widths(self, room: int, gap: int, folds: bool) -> list[int] | None:
        """Choose a width for each column; None if there is no room for the texts of all.

        Args:
            room: columns of the terminal.
            gap: blanks between two columns of the table.
            folds: texts may take several lines.
        """
        from rich.cells import cell_len

        rows = [row for row in self.rows if not isinstance(row, str)]
        least, most = [], []
        for index, column in enumerate(zip(self.headings, *rows, strict=True)):
            lines = [line for cell in column for line in cell.splitlines()]
            most.append(max([1, *map(cell_len, lines)]))
            if index >= self.texts:  # of numbers the heading alone folds
                least.append(max([1, *map(cell_len, [*column[0].split(), *column[1:]])]))
            elif folds:
                longest = max(map(cell_len, " ".join(column).split()), default=1)
                least.append(min(longest, LONGEST_WORD))
            else:
                least.append(most[-1])
        room -= gap * len(self.headings) + 1
        if sum(least) > room:
            return None
        widths = least
        for level in range(max(most, default=0), 0, -1):  # the widest columns fold first
            widths = [max(low, min(high, level)) for low, high in zip(least, most, strict=True)]
            if sum(widths) <= room:
                break
        folded = (high > MOST_LINES * width for high, width in zip(most, widths, strict=True))
        return None if any(folded) else widths

    def _draw_rows(self, widths: Sequence[int], gap: int) -> Iterator[RenderableType]:
        """Draw columns of these widths; the rows below each heading are a part of the table."""
        from rich import box
        from rich.table import Column
        from rich.table import Table as Part
        from rich.text import Text

        has_parts = any(isinstance(row, str) for row in self.rows)

        def begin(has_heading: bool) -> Part:
            columns = (
                Column(
                    heading,
                    width=width,
                    overflow="fold",
                    justify="left" if index < self.texts else "right",
                )
                for index, (heading, width) in enumerate(zip(self.headings, widths, strict=True))
            )
            # A blank, which the box draws, is between columns in any case.
            return Part(
                *columns,
                box=box.SIMPLE_HEAD,
                padding=(0, gap // 2, 0, gap // 3),
                show_header=has_heading,
                show_edge=not has_parts,
            )

        part = begin(any(self.headings))
        for row in self.rows:
            if isinstance(row, str):
                yield part
                yield Text(row)
                part = begin(False)
            else:
                part.add_row(*row)
        yield part
        if has_parts:
            yield Text()

    def _list_rows(self, room: int) -> Iterator[RenderableType]:
        """List every row as its first cell and, below it, headings and values."""
        from rich.cells import cell_len
        from rich.padding import Padding
        from rich.table import Column
        from rich.table import Table as Pairs
        from rich.text import Text

        headings = self.headings[1 : self.texts]
        words = max(map(cell_len, " ".join(headings).split()), default=0)
        # Headings that take more than a third of a line fold, so that values have room.
        width = min(max(map(cell_len, headings), default=0), max(words, room // 3))
        if self.headings[0]:
            yield Text(self.headings[0], style="underline")
        for row in self.rows:
            if isinstance(row, str):
                yield Text(row)
                continue
            if row[0]:  # else it is that of the row above
                yield Padding(Text(row[0], style="bold"), (0, 2))
            pairs = Pairs.grid(
                Column(width=width, overflow="fold"), Column(overflow="fold"), padding=(0, 2, 0, 0)
            )
            numbers = ""
            for index, (heading, value) in enumerate(zip(self.headings, row, strict=True)):
                if index and value and index < self.texts:
                    pairs.add_row(heading, value)
                elif index and value:
                    item = f"{heading} {value}".strip()
                    ends = len(numbers.rpartition("\n")[2] + item) + 8 > room
                    numbers += f"{chr(10) if ends else '   ' if numbers else ''}{item}"
            yield Padding(pairs, (0, 0, 0, 4))
            if numbers:
                yield Padding(Text(numbers), (0, 0, 0, 4))
        yield Text()
