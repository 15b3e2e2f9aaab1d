"""How values show themselves: in a Python session by their repr, in notebooks by a small table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

#: Columns of a repr.
WIDTH = 80


class Table(NamedTuple):
    """Rows of text, with numbers at their end.

    Attributes:
        text: the titles of the columns with text.
        numbers: the titles of the columns with numbers, which come after those.
        rows: one value for each column.
    """

    text: tuple[str, ...]
    numbers: tuple[str, ...]
    rows: Sequence[Sequence[str]]


class Shown:
    """A value that shows itself by its name and what it consists of."""

    def _list_shown(self) -> Mapping[str, object]:
        """Return what it consists of, by the names of its arguments."""
        raise NotImplementedError

    def __repr__(self) -> str:
        parts = (f"{name}={value!r}" for name, value in self._list_shown().items())
        return fold(f"{type(self).__name__}({', '.join(parts)})")

    def _repr_html_(self) -> str:
        rows = [(name, show_value(value)) for name, value in self._list_shown().items()]
        return write_html([type(self).__name__], [Table(("", ""), (), rows)])


def show_value(value: object) -> str:
    """Write a value in a cell: texts as they are, several in a row."""
    if isinstance(value, tuple):
        return "; ".join(map(show_value, value))
    return value if isinstance(value, str) else repr(value)


def fold(text: str, indent: str = "    ") -> str:
    """Break a text into lines of at most :data:`WIDTH` columns, at spaces alone."""
    return textwrap.fill(
        text,
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def show_seconds(seconds: float) -> str:
    """Write seconds with a unit that people read: ``850 µs``, ``1.2 s``, ``12 min``."""
    size = abs(seconds)
    if size >= 600:
        return f"{seconds / 60:,.0f} min"
    for least, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if size >= least:
            return f"{seconds / least:.3g} {unit}"
    return f"{seconds * 1e6:.2g} µs" if seconds else "0 s"


def write_html(lines: Iterable[str], tables: Iterable[Table]) -> str:
    """Write lines and tables as HTML, all text escaped; the first line is in bold."""
    first, *others = map(escape, lines)
    head = "<br>".join([f"<b>{first}</b>", *others])
    return "\n".join([f"<div><p>{head}</p>", *map(_write_table, tables), "</div>"])


def _write_table(table: Table) -> str:
    titles = [*table.text, *table.numbers]
    sides = ["left"] * len(table.text) + ["right"] * len(table.numbers)
    head = [_write_row("th", titles, sides)] if any(titles) else []
    rows = [_write_row("td", row, sides) for row in table.rows]
    return "\n".join(["<table>", *head, *rows, "</table>"])


def _write_row(tag: str, cells: Sequence[str], sides: Sequence[str]) -> str:
    written = (
        f'<{tag} style="text-align:{side};vertical-align:top">{escape(cell)}</{tag}>'
        for cell, side in zip(cells, sides, strict=True)
    )
    return f"<tr>{''.join(written)}</tr>"
