"""What the page draws: errors by size, and the two arguments that tell best which cases fail."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from stft_parity.compare.tolerances import OWN_ERROR
from stft_parity.report import tables
from stft_parity.results import Report, Result

#: Errors beyond these, in units of the reference's own, are drawn at the edge.
LEAST_SHOWN, MOST_SHOWN = 1e-2, 1e30
#: Rows and columns of a table of two arguments: those in which most cases fail.
MOST_SHOWN_VALUES = 12

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


@dataclass(frozen=True)
class Pair:
    """Cases of one function by the values of two arguments.

    Attributes:
        op: ``"stft"`` or ``"istft"``.
        down, across: the arguments.
        rows, columns: their values, of which most cases fail.
        counts: of a pair of values, how many cases fail and how many there are.
        left_out: how many values are not among them.
    """

    op: str
    down: str
    across: str
    rows: list[str]
    columns: list[str]
    counts: dict[tuple[str, str], tuple[int, int]]
    left_out: int


def find_pairs(report: Report) -> list[Pair]:
    """The two arguments of each function whose values tell best which of its cases fail."""
    shown, found = tables.make_label(report), []
    for op in dict.fromkeys(result.case.op for result in report.failures):
        mine = [result for result in report.results if result.case.op == op]
        columns = _read_columns(mine, shown)
        failed = np.array([result.failed for result in mine])
        scores = {pair: _score(columns[pair[0]], columns[pair[1]], failed)
                  for pair in combinations(columns, 2)}  # fmt: skip
        best = max(scores, key=lambda pair: scores[pair], default=None)
        if best is not None and scores[best] > 0:
            found.append(_count_pair(op, best, mine, shown))
    return found


Numbers = np.ndarray[Any, np.dtype[Any]]


def _read_columns(results: list[Result], shown: tables.Label) -> dict[str, Numbers]:
    """A number for each case's value of each argument that all cases have and that has several."""
    labels = [
        {argument: shown(argument, value) for argument, value in result.case.labels}
        for result in results
    ]
    names = [name for name in labels[0] if name != "op" and all(name in one for one in labels)]
    codes = {name: np.unique([one[name] for one in labels], return_inverse=True)[1]
             for name in names}  # fmt: skip
    return {name: column for name, column in codes.items() if column.max() > 0}


def _score(first: Numbers, second: Numbers, failed: Numbers) -> float:
    """The share of failing cases among the others in the cell of an average failing case.

    A case does not count for itself: else arguments of many values would tell everything.
    """
    cells = first * (int(second.max()) + 1) + second
    every, bad = np.bincount(cells), np.bincount(cells, failed)
    return float((bad * np.maximum(bad - 1, 0) / np.maximum(every - 1, 1)).sum() / failed.sum())


def _count_pair(op: str, pair: tuple[str, str], mine: list[Result], shown: tables.Label) -> Pair:
    down, across = pair
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    rows, columns = Counter[str](), Counter[str]()
    for result in mine:
        row, column = (shown(name, result.case.label(name)) for name in pair)
        bad, every = counts.get((row, column), (0, 0))
        counts[row, column] = bad + result.failed, every + 1
        rows[row] += result.failed
        columns[column] += result.failed
    kept, others = (
        tables.in_order(value for value, _ in failing.most_common(MOST_SHOWN_VALUES))
        for failing in (rows, columns)
    )
    left_out = len(rows) + len(columns) - len(kept) - len(others)
    return Pair(op, down, across, kept, others, counts, left_out)
