"""A report as a picture: bars of each table, and the speed-up against size; needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .cases import TABLES
from .comparing import read_case
from .running import NATIVE
from .schema import Report, Summary, Timing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES, ROW_INCHES = 11.0, 3.2
COLOURS = ("#777777", "#0072b2", "#d55e00", "#009e73", "#cc79a7")


def draw(report: Report, kind: str) -> bytes:
    """The picture as the bytes of a file.

    Args:
        report: with timings; without any the picture says so.
        kind: ``"png"``, ``"svg"`` or ``"pdf"``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    # The object interface: pyplot would pick a backend and keep figures in global state.
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(timing["table"] for timing in report["timings"]))
    rows = len(names) + 1
    figure = Figure(figsize=(INCHES, ROW_INCHES * rows), layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
    backends = [NATIVE, *report["settings"]["backends"]]
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(backends)}
    for axis, name in zip(axes, names, strict=False):
        chosen = [timing for timing in report["timings"] if timing["table"] == name]
        _draw_bars(axis, TABLES[name].title if name in TABLES else name, chosen, colours)
    _draw_ratios(axes[-1], report["timings"], colours)
    machine = report["machine"]
    figure.suptitle(f"{machine['device_name']}, torch {machine['versions']['torch']}", fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=110)
    return file.getvalue()


def _draw_bars(axis: Axes, title: str, timings: Sequence[Timing], colours: dict[str, str]) -> None:
    """Medians as bars and quartiles as whiskers, on a logarithmic scale: sizes lie far apart."""
    places: dict[str, dict[str, Timing]] = {}
    for timing in timings:
        label = f"{timing['operation']}\n{read_case(timing['case'])}".replace(" n_fft", "\nn_fft")
        places.setdefault(label, {})[timing["backend"]] = timing
    width = 0.8 / len(colours)
    for index, (backend, colour) in enumerate(colours.items()):
        shown = {at: sides[backend] for at, sides in enumerate(places.values()) if backend in sides}
        seconds = [timing["seconds"] for timing in shown.values()]
        if shown:
            axis.bar(
                [at + (index - (len(colours) - 1) / 2) * width for at in shown],
                [1e3 * taken["median"] for taken in seconds],
                width,
                yerr=_whiskers(seconds, 1e3),
                color=colour,
                label=backend,
                error_kw={"lw": 0.8},
            )
    axis.set_yscale("log")
    axis.set_ylabel("ms")
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_xticks(range(len(places)), list(places), fontsize=6)
    axis.legend(fontsize=7, frameon=False)


def _whiskers(summaries: Sequence[Summary], scale: float = 1.0) -> list[list[float]]:
    """How far the quartiles are below and above the medians."""
    return [
        [scale * (one["median"] - one["low"]) for one in summaries],
        [scale * (one["high"] - one["median"]) for one in summaries],
    ]


def _draw_ratios(axis: Axes, timings: Sequence[Timing], colours: dict[str, str]) -> None:
    """Native time over ours against the samples in all frames."""
    series: dict[tuple[str, str], list[tuple[int, Any]]] = {}
    for timing in timings:
        if timing["ratio"] is not None:
            case = read_case(timing["case"])
            point = case.rows * case.frames * case.n_fft, timing["ratio"]
            series.setdefault((timing["backend"], timing["operation"]), []).append(point)
    markers = dict(zip(dict.fromkeys(operation for _, operation in series), "osv^DP", strict=False))
    for (backend, operation), points in series.items():
        points.sort(key=lambda point: point[0])
        sizes, ratios = zip(*points, strict=True)
        axis.errorbar(
            sizes,
            [ratio["median"] for ratio in ratios],
            yerr=_whiskers(ratios),
            color=colours.get(backend, COLOURS[0]),
            marker=markers[operation],
            lw=0.9,
            ms=4,
            label=f"{backend}, {operation}",
        )
    axis.axhline(1, color="black", lw=0.6)
    axis.set_title("Speed-up against size, quartiles", loc="left", fontsize=10)
    axis.set_ylabel("native / backend")
    if not series:
        axis.text(0.5, 0.5, "nothing was timed", transform=axis.transAxes, ha="center")
        return
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("samples in all frames")
    axis.legend(fontsize=6, frameon=False, ncols=2)
