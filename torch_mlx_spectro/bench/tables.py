"""What ``bench`` shows: a report and a comparison as tables, and a picture (by matplotlib)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..terminal import table
from .cases import HOST_TABLE, MLX_TABLE, TABLES, UNIT
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
        console.print(line, soft_wrap=True)
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
    every = [heads, *(row for rows in cells.values() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    console.print(title, style="italic")
    for words, rows in ("", []), *cells.items():
        if words:
            console.print(words, soft_wrap=True)
        made = table(heads[:1], heads[1:], rows=rows)
        made.show_header, made.show_edge = not words, False
        for column, width in zip(made.columns, widths, strict=True):
            column.min_width = width
        console.print(made)
    console.print()


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
            soft_wrap=True,
        )


def _print_accuracy(errors: list[Accuracy], console: Console) -> None:
    numbers = ("istft(stft(x)) - x", "stft against float64", "istft against float64")
    rows = [
        (
            str(read_case(error["case"])) if error["backend"] == NATIVE else "",
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
        soft_wrap=True,
    )
    load = machine["load"]
    if load is not None and load > BUSY * machine["cpus"]:
        console.print(
            f"The machine was busy with something else (load {load:.1f} before the run): these"
            " are no numbers to publish.",
            soft_wrap=True,
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
        console.print(f"different machines, {line}: only ratios mean something", soft_wrap=True)
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
        soft_wrap=True,
    )
    missing = (f"not measured now: {words}" for words in comparison.missing)
    for line in (*missing, *(f"FAILED: {words}" for words in comparison.broken)):
        console.print(line, soft_wrap=True)


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


INCHES, ROW_INCHES = 11.0, 3.2
_MARKERS = "osv^DPX*p<>hd"
COLOURS = ("#777777", "#0072b2", "#d55e00", "#009e73", "#cc79a7")


def draw(report: Report, kind: str) -> bytes:
    """Draw the picture, and return it as the bytes of a file.

    Args:
        report: has timings; without any the picture says so.
        kind: ``"png"``, ``"svg"`` or ``"pdf"``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    # The object interface: pyplot would pick a backend and keep figures in global state.
    from matplotlib.figure import Figure

    apart = (HOST_TABLE, MLX_TABLE)  # their sides are no backends
    timings = [timing for timing in report["timings"] if timing["table"] not in apart]
    names = list(dict.fromkeys(timing["table"] for timing in timings))
    rows = len(names) + 1
    figure = Figure(figsize=(INCHES, ROW_INCHES * rows), layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
    backends = [NATIVE, *report["settings"]["backends"]]
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(backends)}
    for axis, name in zip(axes, names, strict=False):
        chosen = [timing for timing in timings if timing["table"] == name]
        _draw_bars(axis, TABLES[name].title if name in TABLES else name, chosen, colours)
    _draw_ratios(axes[-1], timings, colours)
    machine = report["machine"]
    figure.suptitle(f"{machine['device_name']}, torch {machine['versions']['torch']}", fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=110)
    return file.getvalue()


def _draw_bars(axis: Axes, title: str, timings: Sequence[Timing], colours: dict[str, str]) -> None:
    """Draw medians as bars and quartiles as whiskers, on a logarithmic scale."""
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
    axis.set(yscale="log", ylabel="ms")
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_xticks(range(len(places)), list(places), fontsize=6)
    axis.legend(fontsize=7, frameon=False)


def _whiskers(summaries: Sequence[Summary], scale: float = 1.0) -> list[list[float]]:
    """Return how far the quartiles are below and above the medians."""
    return [
        [scale * (one["median"] - one["low"]) for one in summaries],
        [scale * (one["high"] - one["median"]) for one in summaries],
    ]


def _draw_ratios(axis: Axes, timings: Sequence[Timing], colours: dict[str, str]) -> None:
    """Draw native's time over ours against the samples in all frames."""
    series: dict[tuple[str, str], list[tuple[int, Any]]] = {}
    for timing in timings:
        if timing["ratio"] is not None:
            case = read_case(timing["case"])
            point = case.rows * case.frames * case.n_fft, timing["ratio"]
            series.setdefault((timing["backend"], timing["operation"]), []).append(point)
    markers = dict(zip(dict.fromkeys(operation for _, operation in series), _MARKERS, strict=False))
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
    axis.set(xscale="log", yscale="log", xlabel="samples in all frames")
    axis.legend(fontsize=6, frameon=False, ncols=2)
