"""How values show themselves: in a Python session by their repr, in notebooks by a small table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

#: Columns of a repr.
WIDTH = 80
#: How a cell stands in its table; notebooks have styles of their own besides.
_CELL = "vertical-align:top;padding:0.1em 1.5em 0.1em 0"


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
        return fold(self._list_pieces())

    def _repr_html_(self) -> str:
        rows = [(name, show_value(value)) for name, value in self._list_shown().items()]
        return write_html([type(self).__name__], [Table(("", ""), (), rows)])

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
    return "\n".join(['<table style="margin:0 0 1em 0">', *head, *rows, "</table>"])


def _write_row(tag: str, cells: Sequence[str], sides: Sequence[str]) -> str:
    written = (
        f'<{tag} style="text-align:{side};{_CELL}">{escape(cell)}</{tag}>'
        for cell, side in zip(cells, sides, strict=True)
    )
    return f"<tr>{''.join(written)}</tr>"
