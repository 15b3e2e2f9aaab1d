"""What ``bench`` shows: a report and a comparison as tables, and a picture (by matplotlib)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..terminal import table
from .cases import HOST_TABLE, MLX_TABLE, OWN, TABLES, UNIT
from .comparing import LEVEL, THRESHOLD, Change, Comparison, read_case
from .running import NATIVE
from .schema import Accuracy, Machine, Report, Summary, Timing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: The load per CPU above which a machine counts as busy.
BUSY = 0.5


def print_report(report: Report, console: Console) -> None:
    """Print every table of the report, what failed, and what it was measured on."""
    for name in dict.fromkeys(timing["table"] for timing in report["timings"]):
        if name != HOST_TABLE:
            _print_timings(name, report["timings"], console)
    _print_host(report, console)
    if report["accuracy"]:
        _print_accuracy(report["accuracy"], console)
    if report["costs"]:
        rows = [
            (
                cost["what"],
                f"{cost['value']:.1f} {cost['unit']}",
                "" if cost["native"] is None else f"{cost['native']:.1f} {cost['unit']}",
            )
            for cost in report["costs"]
        ]
        console.print(table(("Costs",), ("", "native"), rows=rows))
    failures = (
        f"FAILED: {failure['operation']}, {read_case(failure['case'])}, {failure['backend']}:"
        f" {failure['reason']}"
        for failure in report["failures"]
    )
    absent = (f"without {name}: {reason}" for name, reason in report["unavailable"].items())
    for line in (*failures, *absent):
        console.print(line)
    print_machine(report["machine"], console)


def _print_timings(name: str, timings: list[Timing], console: Console) -> None:
    """Print a table: a line for each operation and size, and below it a line for each side."""
    cells: dict[str, list[tuple[str, ...]]] = {}
    for timing in timings:
        if timing["table"] == name:
            words = f"{timing['operation']}, {read_case(timing['case'])}"
            cells.setdefault(words, []).append(_timing_row(timing))
    title = TABLES[name].title if name in TABLES else name
    reference = TABLES[name].reference if name in TABLES else NATIVE
    heads = ("backend", "ms", "quartiles", "n", f"{reference} / it", "quartiles")
    _print_cells(f"{title}: medians", heads, cells, console)


def _print_cells(
    title: str, heads: tuple[str, ...], cells: dict[str, list[tuple[str, ...]]], console: Console
) -> None:
    """Print rows below the words that they belong to, all in columns of the same widths."""
    rows = chain.from_iterable((words, *part) for words, part in cells.items())
    console.print(table(heads[:1], heads[1:], title, rows))


def _timing_row(timing: Timing) -> tuple[str, ...]:
    """Return the cells of a timing; if others computed the backend's calls, name them."""
    ratio, seconds, name = timing["ratio"], timing["seconds"], timing["backend"]
    others = ", ".join(timing["computed_by"])
    return (
        name if others == name else f"{name}, by {others}",
        _number(1e3 * seconds["median"]),
        _quartiles(seconds, 1e3),
        str(seconds["n"]),
        "" if ratio is None else f"{ratio['median']:.2f}x",
        "" if ratio is None else _quartiles(ratio),
    )


def _print_host(report: Report, console: Console) -> None:
    """Print the host's time in units of an allocation, and whether a device was there."""
    chosen = [timing for timing in report["timings"] if timing["table"] == HOST_TABLE]
    if not chosen:
        return
    units = [1e6 * timing["seconds"]["median"] for timing in chosen if timing["backend"] == UNIT]
    title = (
        f"{TABLES[HOST_TABLE].title}, {read_case(chosen[0]['case'])},\n"
        f"in units of one {UNIT} ({_number(sum(units) / len(units))} us): medians"
    )
    rows, shown = [], ""
    for timing in chosen:
        ratio, seconds, operation = timing["ratio"], timing["seconds"], timing["operation"]
        if ratio is not None:
            rows.append(
                (
                    operation if operation != shown else "",
                    timing["backend"],
                    _number(1 / ratio["median"]),
                    f"{_number(1 / ratio['high'])}-{_number(1 / ratio['low'])}",
                    _number(1e6 * seconds["median"]),
                    str(seconds["n"]),
                )
            )
            shown = operation
    console.print(table(("", "backend"), ("units", "quartiles", "us", "n"), title, rows))
    if report["machine"]["device"] == "cpu":
        console.print(
            "Without a device: kernels of the mps backend that compute nothing, on the host's"
            " tensors.",
        )


def _print_accuracy(errors: list[Accuracy], console: Console) -> None:
    numbers = ("istft(stft(x)) - x", "stft against float64", "istft against float64")
    rows = [
        (
            str(read_case(error["case"])) if error["backend"] in (NATIVE, OWN) else "",
            error["backend"],
            f"{error['round_trip']:.2e}",
            f"{error['stft']:.2e}",
            f"{error['istft']:.2e}",
        )
        for error in errors
    ]
    console.print(table(("size", "backend"), numbers, TABLES["accuracy"].title, rows))


def print_machine(machine: Machine, console: Console) -> None:
    """Print the machine of the measurements, and whether it was busy."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    device = machine["device"]
    if machine["device_name"] != machine["processor"]:
        device += f" ({machine['device_name']})"
    console.print(
        f"{machine['processor']}, {machine['cpus']} CPUs, {machine['threads']} threads of torch;"
        f" tensors on {device}; {machine['system']} {machine['system_release']}; {versions}",
    )
    load = machine["load"]
    if load is not None and load > BUSY * machine["cpus"]:
        console.print(
            f"The machine was busy with something else (load {load:.1f} before the run): these"
            " are no numbers to publish.",
        )


def print_pipeline(report: Mapping[str, Any], console: Console) -> None:
    """Print a row for each model and backend."""
    numbers = ("ms", "stft ms", "istft ms", "calls", "of the whole", "native / it", "computed by")
    title = f"Models of audio-separator, {report['sizes']}, random weights, one stereo segment"
    rows = [
        (
            part["model"] if part["backend"] == NATIVE else "",
            part["backend"],
            f"{1e3 * part['seconds']['median']:.0f}",
            f"{1e3 * part['stft']:.1f}",
            f"{1e3 * part['istft']:.1f}",
            str(part["calls"]),
            f"{part['share']:.1%}",
            "" if part["ratio"] is None else f"{part['ratio']:.2f}x",
            "" if part["ratio"] is None else ", ".join(part["computed_by"]),
        )
        for part in report["parts"]
    ]
    console.print(table(("model", "backend"), numbers, title, rows))
    print_machine(report["machine"], console)


def print_metal(report: Mapping[str, Any], console: Console) -> None:
    """Print what calls move, and how long that takes at the bandwidth of named GPUs."""
    gpus = [gpu["name"] for gpu in report["gpus"]]
    heads = ("", "runs", "MB in+out", "floor", "group", "waits", *gpus)
    cells: dict[str, list[tuple[str, ...]]] = {}
    for counts in report["counts"]:
        words = f"{counts['operation']}, {read_case(counts['case'])}"
        times = (counts["predicted"].get(name) for name in gpus)
        row = (
            counts["side"],
            str(counts["launches"]),
            f"{_number(counts['read'] / 1e6)}+{_number(counts['written'] / 1e6)}",
            f"{counts['floor']:.2f}x",
            str(counts["memory"]),
            f"{counts['barriers']:.0f}",
            *("" if seconds is None else _number(1e6 * seconds) for seconds in times),
        )
        cells.setdefault(words, []).append(row)
    _print_cells("What Metal kernels move, counted in the emulator", heads, cells, console)
    bandwidths = ", ".join(
        f"{gpu['name']} {gpu['bandwidth'] / 1e9:.0f} GB/s and {gpu['cores']} cores"
        for gpu in report["gpus"]
    )
    peer, seconds = report["peer"], sum(counts["seconds"] for counts in report["counts"])
    lines = (
        "runs: launches of a call. MB in+out: device memory that is read and written, counted once"
        " for each threadgroup. floor: times the bytes of signal and spectrum. group: bytes of"
        " threadgroup memory. waits: a group's barriers.",
        "The last columns are a prediction, not a measurement: us for these bytes alone"
        f" ({bandwidths}). Ours are planned for the cores that are named.",
        f"mlx-spectro {peer}: its kernels were emulated; of MLX's own operations the inputs and"
        " outputs are counted once."
        if peer
        else "without mlx-spectro: it is not installed",
        f"Counting took {seconds:.0f} s; of ours one row of a batch was computed.",
    )
    for line in lines:
        console.print(line, soft_wrap=not console.is_terminal)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print every cell that changed, and how many did not."""
    for line in comparison.machines:
        console.print(f"different machines, {line}: only ratios mean something")
    for name, (old, new) in comparison.versions.items():
        console.print(f"{name}: {old} before, {new} now")
    changed = [change for change in comparison.changes if change.verdict != "same"]
    if changed:
        numbers = ("before", "now", "a call takes", "chance", "verdict")
        changed.sort(key=lambda change: -change.slower)
        console.print(table(("operation", "size", "backend"), numbers, rows=map(_row, changed)))
    same = len(comparison.changes) - len(changed)
    console.print(
        f"{len(comparison.regressions)} regressions, {len(changed)} changes in"
        f" {len(comparison.changes)} measurements; {same} are the same to {THRESHOLD:.0%}"
        f" (chance of a false regression by noise as passes show it: at most {LEVEL:.0%})",
    )
    missing = (f"not measured now: {words}" for words in comparison.missing)
    for line in (*missing, *(f"FAILED: {words}" for words in comparison.broken)):
        console.print(line)


def _row(change: Change) -> tuple[str, ...]:
    words = change.operation, str(change.case), change.backend
    if change.table == "accuracy":
        return *words, f"{change.old:.2e}", f"{change.new:.2e}", "", "", change.verdict
    ratios = f"{change.old:.2f}x", f"{change.new:.2f}x"
    return *words, *ratios, f"{change.slower:+.0%}", f"{change.chance:.1e}", change.verdict


def _quartiles(summary: Summary, scale: float = 1.0) -> str:
    return f"{_number(scale * summary['low'])}-{_number(scale * summary['high'])}"


def _number(value: float) -> str:
    """Write a number with three digits."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


#: Width of the picture, and what a row of it and its margins are high.
INCHES, ROW_INCHES, MARGIN_INCHES = 8.0, 0.19, 1.3
_MARKERS = "osv^DPX*p<>hd"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#777777")


def draw(report: Report, kind: str) -> bytes:
    """Draw speed-ups and their quartiles on a logarithmic axis, a row for each operation and size.

    Args:
        report: has timings; without any the picture says so.
        kind: ``"png"``, ``"svg"`` or ``"pdf"``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    # The object interface: pyplot would pick a backend and keep figures in global state.
    from matplotlib.figure import Figure

    rows = _list_rows(report)
    figure = Figure(
        figsize=(INCHES, MARGIN_INCHES + ROW_INCHES * max(3, len(rows))), layout="constrained"
    )
    axis = figure.subplots()
    backends = [name for name in report["settings"]["backends"] if name != NATIVE]
    for index, backend in enumerate(backends):
        # The dots of a row are below each other, so that no interval hides another.
        shift = (index - (len(backends) - 1) / 2) * 0.6 / max(1, len(backends))
        _draw_dots(axis, rows, backend, shift, index)
    axis.axvline(1, color="black", lw=0.8, zorder=0)
    axis.set_yticks(range(len(rows)), [words for words, _ in rows], fontsize=7)
    axis.tick_params(axis="y", length=0)
    for (_, sides), label in zip(rows, axis.get_yticklabels(), strict=True):
        label.set_fontweight("normal" if sides else "bold")
    axis.set_ylim(max(3, len(rows)) - 0.5, -0.5)  # the first row on top
    machine = report["machine"]
    axis.set_title(
        f"{machine['device_name']}, torch {machine['versions']['torch']}", loc="left", fontsize=9
    )
    if any(sides for _, sides in rows):
        _scale_ratios(axis, rows)
        axis.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=4)
    else:
        axis.text(0.5, 0.5, "nothing was timed", transform=axis.transAxes, ha="center")
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=150)
    return file.getvalue()


#: The words of a row, and the ratios of native's time to those of backends.
Row = tuple[str, dict[str, Summary]]


def _list_rows(report: Report) -> list[Row]:
    """List what was timed against native, below the title of each table."""
    rows: dict[tuple[str, str], dict[str, Summary]] = {}
    for timing in report["timings"]:
        name, ratio = timing["table"], timing["ratio"]
        if name not in (HOST_TABLE, MLX_TABLE) and ratio is not None:  # sides are backends
            rows.setdefault((name, ""), {})  # a heading
            words = f"{timing['operation']}, {read_case(timing['case'])}"
            rows.setdefault((name, words), {})[timing["backend"]] = ratio
    return [
        (words or (TABLES[name].title if name in TABLES else name), sides)
        for (name, words), sides in rows.items()
    ]


def _draw_dots(axis: Axes, rows: Sequence[Row], backend: str, shift: float, index: int) -> None:
    """Draw the medians of a backend as dots, and the quartiles as lines."""
    found = [(at, sides[backend]) for at, (_, sides) in enumerate(rows) if backend in sides]
    if not found:
        return
    ratios = [ratio for _, ratio in found]
    axis.errorbar(
        [ratio["median"] for ratio in ratios],
        [at + shift for at, _ in found],
        xerr=[
            [ratio["median"] - ratio["low"] for ratio in ratios],
            [ratio["high"] - ratio["median"] for ratio in ratios],
        ],
        fmt=_MARKERS[index % len(_MARKERS)],
        color=COLOURS[index % len(COLOURS)],
        ms=4,
        lw=1.2,
        label=backend,
    )


def _scale_ratios(axis: Axes, rows: Sequence[Row]) -> None:
    """Give the axis of ratios ticks that people read, and 1x a place on it."""
    found = [ratio for _, sides in rows for ratio in sides.values()]
    low = min(1.0, *(ratio["low"] for ratio in found)) / 1.15
    high = max(1.0, *(ratio["high"] for ratio in found)) * 1.15
    axis.set(xscale="log", xlim=(low, high))
    ticks = [
        scale * digit
        for scale in (0.01, 0.1, 1.0, 10.0, 100.0)
        for digit in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    ]
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_xticks(shown, [f"{tick:g}x" for tick in shown], fontsize=8)
    axis.set_xticks([], minor=True)
    axis.grid(axis="x", color="#dddddd", lw=0.6, zorder=0)
    axis.set_xlabel("speed-up over native torch: medians, quartiles", fontsize=8)
