"""The statistics of a run as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from ..terminal import make_console, table

if TYPE_CHECKING:
    from .. import Stats


def print_stats(stats: Stats, stream: TextIO, left: Sequence[str] = ()) -> None:
    """Print what was accelerated, what was not and why, and where the calls came from.

    Args:
        left: names of modules that keep torch's own functions.
    """
    console = make_console(stream)
    refused = f", {stats.refused} refused" if stats.refused else ""
    console.print(
        f"torch_mlx_spectro: {stats.accelerated} calls accelerated, {stats.native} native{refused}"
    )
    if stats.verified:
        console.print(
            f"{stats.verified} of them verified against native torch, {stats.mismatches} wrong"
        )
    for name in left:
        console.print(f"{name} was left to torch: it is not named stft or istft.", soft_wrap=True)
    if not stats.calls:
        console.print("Neither torch.stft nor torch.istft was called in this process.")
        return
    calls = [(f"torch.{op}", by, str(count)) for (op, by), count in sorted(stats.calls.items())]
    console.print(table(("operation", "backend"), ("calls",), rows=calls))
    for title, counts in (
        ("why a call was not accelerated", stats.fallbacks),
        ("why a call was left to torch by choice", stats.choices),
    ):
        if counts:
            ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            reasons = [(reason, str(count)) for reason, count in ordered]
            console.print(table((title,), ("calls",), rows=reasons))
    columns = ("accelerated", "native", *(("refused",) if stats.refused else ()))
    sites = [
        (site, *(str(numbers.get(column, 0)) for column in columns))
        for site, numbers in sorted(stats.sites.items())
    ]
    console.print(table(("called from",), columns, rows=sites))
