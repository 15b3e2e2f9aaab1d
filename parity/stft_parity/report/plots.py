"""The figures of the page: errors by size, and heat maps of arguments and of their values."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from stft_parity.compare.tolerances import OWN_ERROR
from stft_parity.report import tables
from stft_parity.report.svg import (
    INK,
    LINE,
    MUTED,
    Picture,
    new_figure,
    picture,
    shade,
    verdict_colour,
)
from stft_parity.results import FAILURES, Report, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Counts = np.ndarray[Any, np.dtype[Any]]

#: Below this error in units of the reference's own nothing is told apart.
LEAST_SHOWN = 1e-2

#: Size of a heat map's cell, in inches, and of the text in it, in points.
_CELL, _CELL_TEXT = 0.26, 6.5


def error_by_size(report: Report) -> Picture | None:
    """Errors in units of the reference's own against n_fft; None when none were measured."""
    measured: dict[str, dict[int, list[Result]]] = {}
    for result in report.results:
        size = result.case.label("n_fft")
        if result.error is not None and size.isdigit():
            measured.setdefault(result.case.op, {}).setdefault(int(size), []).append(result)
    if not measured:
        return None
    figure = new_figure(10.8, 3.8)
    axes = figure.subplots(1, len(measured), sharey=True, squeeze=False)[0]
    told = []
    for panel, (op, by_size) in zip(axes, measured.items(), strict=True):
        told.append(_draw_errors(panel, op, by_size))
    low, high = axes[0].get_ylim()  # of both: once it is set, the other's values do not move it
    axes[0].set_ylim(max(LEAST_SHOWN / 2, min(low, 0.5)), max(high, 4.0))
    axes[0].set_ylabel(f"error in units of {report.reference}'s own")
    handles, names = axes[0].get_legend_handles_labels()
    legend = figure.legend(
        handles, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=8
    )
    for text in legend.get_texts():
        text.set_color(INK)
    description = "Largest and median error against float64 for each n_fft. " + " ".join(told)
    return picture(figure, "Error against n_fft", description)


def _draw_errors(panel: Axes, op: str, by_size: dict[int, list[Result]]) -> str:
    """One panel; returns what it shows in words."""
    sizes = sorted(by_size)
    good = {n: [_error(r) for r in by_size[n] if r.verdict in ("pass", "known")] for n in sizes}
    bad = [(n, _error(r)) for n in sizes for r in by_size[n] if r.failed]
    _style(panel)
    panel.set_title(f"torch.{op}", fontsize=10, color=INK, loc="left")
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xlabel("n_fft")
    panel.grid(visible=True, color=LINE, linewidth=0.6)
    kept = [n for n in sizes if good[n]]
    passed = verdict_colour("pass")
    panel.vlines(
        kept, [statistics.median(good[n]) for n in kept], [max(good[n]) for n in kept],
        color=passed, linewidth=1, alpha=0.6,
    )  # fmt: skip
    panel.plot(
        kept, [max(good[n]) for n in kept], "o", color=passed, markersize=4,
        label="largest of the cases that pass",
    )  # fmt: skip
    panel.plot(
        kept, [statistics.median(good[n]) for n in kept], "_", color=passed, markersize=7,
        label="their median",
    )  # fmt: skip
    # Of thousands of failing cases the extremes of each size are enough.
    shown = sorted({(n, pick(e for m, e in bad if m == n)) for n, _ in bad for pick in (min, max)})
    panel.plot(
        [n for n, _ in shown], [error for _, error in shown], "x", color=verdict_colour("differs"),
        markersize=6, label="failing: least and largest",
    )  # fmt: skip
    panel.axhline(1.0, color=MUTED, linewidth=1, label="the reference's own error")
    panel.axhline(
        OWN_ERROR, color=INK, linewidth=1, linestyle=(0, (4, 3)),
        label=f"{OWN_ERROR:g} times that",
    )  # fmt: skip
    largest = max((max(good[n]) for n in kept), default=0.0)
    return (
        f"torch.{op}: {len(sizes)} sizes from {sizes[0]} to {sizes[-1]}; of the cases that pass "
        f"the largest error is {largest:.2g}; of {len(bad)} failing ones "
        f"{max((e for _, e in bad), default=0.0):.2g}."
    )


def _error(result: Result) -> float:
    assert result.error is not None
    return float(np.clip(result.error, LEAST_SHOWN, 1e300))


def _style(panel: Axes) -> None:
    panel.set_facecolor("none")
    panel.tick_params(colors=MUTED, labelcolor=INK, labelsize=8, which="both")
    for spine in panel.spines.values():
        spine.set_color(LINE)
    for label in (panel.xaxis.label, panel.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(9)


@dataclass(frozen=True)
class Columns:
    """The labels of all cases as numbers, for counting pairs of them quickly.

    Attributes:
        names: of the arguments.
        values: of each argument, the names that the numbers stand for.
        codes: of each argument, a number for every case; -1 where a case has no such label.
        failed: of every case.
    """

    names: tuple[str, ...]
    values: dict[str, list[str]]
    codes: dict[str, Counts]
    failed: Counts

    def counts(self, first: str, second: str) -> tuple[Counts, Counts]:
        """All cases and the failing ones, for each pair of values of two arguments."""
        a, b = self.codes[first], self.codes[second]
        shape = len(self.values[first]), len(self.values[second])
        both = (a >= 0) & (b >= 0)
        index = a * shape[1] + b
        cells = shape[0] * shape[1]
        every = np.bincount(index[both], minlength=cells).reshape(shape)
        failing = np.bincount(index[both & self.failed], minlength=cells).reshape(shape)
        return every, failing


def columns(report: Report) -> Columns:
    """The labels of a report's cases in columns."""
    values = {argument: list(counts) for argument, counts in tables.by_argument(report).items()}
    shown = tables.make_label(report)
    number = {
        argument: {value: n for n, value in enumerate(found)} for argument, found in values.items()
    }
    codes = {argument: np.full(len(report.results), -1) for argument in values}
    for n, result in enumerate(report.results):
        for argument, value in result.case.labels:
            codes[argument][n] = number[argument][shown(argument, value)]
    failed = np.array([result.verdict in FAILURES for result in report.results], dtype=bool)
    return Columns(tuple(values), values, codes, failed)


def argument_pairs(cells: Columns) -> Picture | None:
    """Heat map of all pairs of arguments: how well two values tell whether a case fails.

    In a run without a failing case it shows how many pairs of values were tried.
    """
    names = [name for name in cells.names if len(cells.values[name]) > 1]
    if len(names) < 2:
        return None
    failing = bool(cells.failed.any())
    found: dict[tuple[str, str], float] = {}
    for first, second in combinations(names, 2):
        every, bad = cells.counts(first, second)
        if every.any():
            found[second, first] = (
                measure_share(every, bad) if failing else float((every > 0).sum())
            )
    top = 1.0 if failing else max(found.values(), default=1.0)
    kind = "differs" if failing else "pass"

    def text(value: float) -> str:
        return f"{100 * value:.0f}" if failing else f"{value:.0f}"

    shown = {
        pair: (shade(kind, value / top), text(value) if value else "", value / top)
        for pair, value in found.items()
    }
    what = (
        "How well two arguments tell failing cases: of the other cases with a failing case's two "
        "values, the percentage that fails, too"
        if failing
        else "How many different pairs of values of two arguments were compared, all as wanted"
    )
    highest = sorted(found, key=lambda pair: -found[pair])[:5]
    told = "; ".join(f"{b} and {a}: {text(found[a, b])}" for a, b in highest)
    return _heat_map(
        "Pairs of arguments", f"{what}. Highest: {told}.", names[1:], names[:-1], shown
    )


def measure_share(every: Counts, bad: Counts, total: int | None = None) -> float:
    """The share of failing cases among the others in the cell of an average failing case.

    A case does not count for itself: else arguments of many values would tell everything.

    Args:
        every: how many cases there are for each pair of values.
        bad: how many of them fail.
        total: how many fail in all, those included which have no such arguments.
    """
    total = int(bad.sum()) if total is None else total
    alike = bad * np.maximum(bad - 1, 0) / np.maximum(every - 1, 1)
    return float(alike.sum()) / total if total else 0.0


def value_pairs(cells: Columns, first: str, second: str, *, title: str) -> Picture:
    """Heat map of all values of two arguments: how many cases fail, of how many."""
    every, bad = cells.counts(first, second)
    rows = [n for n in range(len(every)) if every[n].any()]
    across = [n for n in range(every.shape[1]) if every[:, n].any()]
    shown: dict[tuple[str, str], tuple[str, str, float]] = {}
    for a in rows:
        for b in across:
            if every[a, b]:
                share = float(bad[a, b] / every[a, b])
                text = f"{bad[a, b]}/{every[a, b]}" if bad[a, b] else str(every[a, b])
                key = cells.values[first][a], cells.values[second][b]
                shown[key] = shade("differs", share), text, share
    told = "; ".join(
        f"{first}={a}, {second}={b}: {text}"
        for (a, b), (_, text, share) in sorted(shown.items(), key=lambda item: -item[1][2])[:5]
        if share > 0
    )
    description = (
        f"Cases by {first} (down) and {second} (across); of how many how many fail, where any "
        f"does. Highest shares: {told}."
    )
    names = [cells.values[first][n] for n in rows], [cells.values[second][n] for n in across]
    return _heat_map(title, description, *names, shown, wide=True)


def find_distinctive_pair(cells: Columns) -> tuple[str, str] | None:
    """The two arguments whose values tell best which cases fail; None when none does."""
    scores: dict[tuple[str, str], float] = {}
    for pair in combinations([name for name in cells.names if name != "op"], 2):
        every, bad = cells.counts(*pair)
        # Of an argument with one value there is nothing to see.
        if min((every > 0).any(axis=axis).sum() for axis in (0, 1)) > 1:
            scores[pair] = measure_share(every, bad, int(cells.failed.sum()))
    best = max(scores, key=lambda pair: scores[pair], default=None)
    return best if best is not None and scores[best] > 0 else None


def _only(cells: Columns, op: str) -> Columns:
    """The columns of the cases of one function."""
    if op not in cells.values.get("op", []):
        return cells
    mine = cells.codes["op"] == cells.values["op"].index(op)
    codes = {name: found[mine] for name, found in cells.codes.items()}
    return Columns(cells.names, cells.values, codes, cells.failed[mine])


def pictures(report: Report) -> list[Picture]:
    """All figures that the report has something to show in."""
    found = [error_by_size(report)]
    if report.results:
        cells = columns(report)
        found.append(argument_pairs(cells))
        for op in dict.fromkeys(result.case.op for result in report.results):
            mine = _only(cells, op)
            pair = find_distinctive_pair(mine)
            if pair is not None:
                found.append(value_pairs(mine, *pair, title=f"torch.{op}: {' and '.join(pair)}"))
    return [drawn for drawn in found if drawn is not None]


def _heat_map(
    title: str,
    description: str,
    rows: Sequence[str],
    across: Sequence[str],
    shown: dict[tuple[str, str], tuple[str, str, float]],
    *,
    wide: bool = False,
) -> Picture:
    """Cells by row and column: colour, text, and how strong the colour is."""
    from matplotlib.patches import Rectangle

    cell = _CELL * (1.8 if wide else 1.25)
    figure = new_figure(1.8 + cell * len(across), 1.6 + _CELL * len(rows))
    panel = figure.subplots()
    _style(panel)
    for (row, column), (colour, text, strength) in shown.items():
        x, y = across.index(column), rows.index(row)
        panel.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor=LINE, linewidth=0.6)
        )
        if text:
            weight = "bold" if strength > 0 and "/" in text else "normal"
            panel.text(
                x, y, text, ha="center", va="center", fontsize=_CELL_TEXT, color=INK, weight=weight
            )
    panel.set_xlim(-0.5, len(across) - 0.5)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_xticks(range(len(across)), across, rotation=45, ha="left", rotation_mode="anchor")
    panel.set_yticks(range(len(rows)), rows)
    panel.xaxis.tick_top()
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
    return picture(figure, title, description)
