"""The statistics of a run as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from .. import Stats


def print_stats(stats: Stats, stream: TextIO) -> None:
    """Print what was accelerated, what fell back and why, and where the calls came from."""
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    console.print(
        f"torch_mlx_spectro: {stats.accelerated} calls accelerated, {stats.native} native"
    )
    if not stats.calls:
        console.print("Neither torch.stft nor torch.istft was called in this process.")
        return
    calls = _table("operation", "backend", "calls")
    for (op, backend), count in sorted(stats.calls.items()):
        calls.add_row(f"torch.{op}", backend, str(count))
    console.print(calls)
    if stats.fallbacks:
        reasons = _table("why a call fell back to native", "calls")
        for reason, count in _most_first(stats.fallbacks):
            reasons.add_row(reason, str(count))
        console.print(reasons)
    sites = _table("called from", "accelerated", "native")
    for site, counts in sorted(stats.sites.items()):
        sites.add_row(site, str(counts["accelerated"]), str(counts["native"]))
    console.print(sites)


def _most_first(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _table(*columns: str) -> Table:
    """A table whose text columns fold, so that no path or reason is cut off; counts are right."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        if column in ("calls", "accelerated", "native"):
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table
