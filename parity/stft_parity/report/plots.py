"""What the page draws: errors by size."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from stft_parity.compare.tolerances import OWN_ERROR
from stft_parity.results import Report

#: Errors beyond these, in units of the reference's own, are drawn at the edge.
LEAST_SHOWN, MOST_SHOWN = 1e-2, 1e30

Point = tuple[float, float]


@dataclass(frozen=True)
class Panel:
    """Errors of one function against n_fft; all places are shares of the panel, from below left.

    Attributes:
        op: ``"stft"`` or ``"istft"``.
        description: what is seen, in words.
        across, up: ticks with their text.
        passing: of each size the place across, the median, the largest error of cases that pass.
        failing: least and largest error of each size, of cases that fail.
        lines: heights of the reference's own error and of what is admitted.
    """

    op: str
    description: str
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    passing: tuple[tuple[float, float, float], ...]
    failing: tuple[Point, ...]
    lines: tuple[tuple[float, str], ...]


def measure_errors(report: Report) -> list[Panel]:
    """One panel for each function of which errors were measured."""
    measured: dict[str, list[tuple[int, float, bool]]] = {}
    for result in report.results:
        size, error = result.case.label("n_fft"), result.error
        if error is not None and size.isdigit() and int(size):
            shown = min(max(error, LEAST_SHOWN), MOST_SHOWN) if error == error else MOST_SHOWN
            measured.setdefault(result.case.op, []).append((int(size), shown, result.failed))
    highest = max((error for found in measured.values() for _, error, _ in found), default=1.0)
    decades = math.ceil(math.log10(max(highest, 10.0)))
    return [_make_panel(op, found, decades) for op, found in measured.items()]


def _make_panel(op: str, found: list[tuple[int, float, bool]], decades: int) -> Panel:
    sizes = sorted({size for size, _, _ in found})
    first, octaves = math.log2(sizes[0]), math.log2(sizes[-1] / sizes[0]) or 1.0
    low = math.log10(LEAST_SHOWN)

    def across(size: int) -> float:
        return (math.log2(size) - first) / octaves

    def up(error: float) -> float:
        return (math.log10(error) - low) / (decades - low)

    good: dict[int, list[float]] = {}
    bad: dict[int, list[float]] = {}
    for size, error, failed in found:
        (bad if failed else good).setdefault(size, []).append(error)
    ticks = sorted({0, len(sizes) - 1, *range(0, len(sizes), math.ceil(len(sizes) / 6))})
    every = math.ceil((decades - low) / 8)
    largest = max((max(errors) for errors in good.values()), default=0.0)
    return Panel(
        op,
        f"{len(sizes)} sizes from {sizes[0]} to {sizes[-1]}; of the cases that pass the largest "
        f"error is {largest:.2g}; of {sum(map(len, bad.values()))} failing ones "
        f"{max((max(errors) for errors in bad.values()), default=0.0):.2g}.",
        tuple((across(sizes[n]), str(sizes[n])) for n in ticks),
        tuple((up(10.0**n), f"{10.0**n:g}") for n in range(int(low), decades + 1, every)),
        tuple((across(n), up(statistics.median(e)), up(max(e))) for n, e in sorted(good.items())),
        tuple((across(n), up(pick(e))) for n, e in sorted(bad.items()) for pick in (min, max)),
        ((up(1.0), "the reference's own error"), (up(OWN_ERROR), f"{OWN_ERROR:g} times that")),
    )
