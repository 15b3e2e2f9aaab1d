"""The statistics of a run as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from ..terminal import console_on, table

if TYPE_CHECKING:
    from .. import Stats


def print_stats(stats: Stats, stream: TextIO, left: Sequence[str] = ()) -> None:
    """Print what was accelerated, what was not and why, and where the calls came from.

    Args:
        left: names of modules that keep torch's own functions.
    """
    console = console_on(stream)
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
    calls = table(("operation", "backend"), ("calls",))
    for (op, backend), count in sorted(stats.calls.items()):
        calls.add_row(f"torch.{op}", backend, str(count))
    console.print(calls)
    for title, counts in (
        ("why a call was not accelerated", stats.fallbacks),
        ("why a call was left to torch by choice", stats.choices),
    ):
        if counts:
            reasons = table((title,), ("calls",))
            for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
                reasons.add_row(reason, str(count))
            console.print(reasons)
    columns = ("accelerated", "native", *(("refused",) if stats.refused else ()))
    sites = table(("called from",), columns)
    for site, numbers in sorted(stats.sites.items()):
        sites.add_row(site, *(str(numbers.get(column, 0)) for column in columns))
    console.print(sites)
