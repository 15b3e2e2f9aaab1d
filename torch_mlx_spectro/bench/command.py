"""``bench``: speed and error against native torch, side by side in one run."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..backends import registry
from ..errors import Problem
from ..terminal import STDOUT, console_on, progress, write_file

if TYPE_CHECKING:
    from .cases import Table
    from .comparing import Comparison
    from .running import Settings
    from .schema import Report

HELP = "speed and error against native torch, on this machine"
DESCRIPTION = (
    "Time stft, istft and a round trip with its backward pass by every backend that is here and by"
    " native torch, in turn, and compare errors. Exit code 0 when all is well; 1 when a backend"
    " failed, differed from native torch, or became slower than in the report given to --compare;"
    " 2 for wrong usage."
)
#: Of --table, beside the tables of cases: what a call costs beside its transform.
COSTS = "costs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--device", choices=registry.device_types(), help="default: the fastest that torch has here"
    )
    what.add_argument(
        "--backends", metavar="NAME[,NAME]", help="default: all that compute on this device"
    )
    what.add_argument(
        "--table",
        metavar="NAME[,NAME]",
        help="stft, istft, roundtrip, accuracy (these by default), sizes, costs, or all",
    )
    what.add_argument("--threads", type=int, metavar="N", help="of torch (default: its own)")
    what.add_argument("--quick", action="store_true", help="fewer samples: a look, not a number")
    what.add_argument(
        "--pipeline",
        action="store_true",
        help="instead: models of audio-separator, and how much of them stft and istft are",
    )
    told = parser.add_argument_group("what is reported")
    told.add_argument(
        "--json",
        nargs="?",
        const=STDOUT,
        metavar="FILE",
        help="write the report as JSON, to standard output in place of tables without a FILE",
    )
    told.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw it (.png, .svg, .pdf); needs matplotlib"
    )
    told.add_argument(
        "--compare",
        nargs="+",
        type=Path,
        metavar=("OLD", "NEW"),
        help="compare a report with another; without NEW with what is measured now",
    )
    told.add_argument(
        "--force", action="store_true", help="compare reports of different machines, too"
    )
    told.add_argument(
        "--submit-file",
        type=Path,
        metavar="FILE",
        help="write what an issue about this machine needs: the tables, parity, and doctor's"
        " findings, without names of users, hosts or folders",
    )


def command(options: argparse.Namespace) -> int:
    """Measure and report; return 0 when nothing failed and nothing became slower, else 1.

    Raises:
        Problem: wrong usage, or what was asked for is not here.
    """
    _check(options)
    if options.compare and len(options.compare) == 2:
        old, new = (_read(path) for path in options.compare)
        return _told_comparison(options, _compared(options, old, new))
    from .running import threads

    old_report = _read(options.compare[0]) if options.compare else None
    with threads(options.threads):
        if options.pipeline:
            from .pipeline_command import pipeline

            chosen = _settings(options)
            return pipeline(options, chosen.device, chosen.backends)
        settings, tables = _settings(options), _tables(options)
        if old_report is not None:
            from .machine import differences, machine

            here = machine(settings.device)  # before it takes minutes
            _check_machines(options, differences(old_report["machine"], here))
        report = _measured(options, settings, tables)
        if options.submit_file:
            from .submission import submit

            return max(submit(options, report), _tell(options, report))
        code = _tell(options, report, quiet=old_report is not None)
        if old_report is not None:
            comparison = _compared(options, old_report, report)
            comparison = _measured_again(settings, tables, old_report, comparison)
            code = max(code, _told_comparison(options, comparison))
    return code


def _check(options: argparse.Namespace) -> None:
    """Say now what would go wrong at the end of a long run."""
    if options.compare and len(options.compare) > 2:
        raise Problem("--compare takes one report, or two")
    if options.force and not options.compare:
        raise Problem("--force is for --compare")
    if options.pipeline and (options.compare or options.submit_file or options.plot):
        raise Problem("--pipeline is a measurement of its own: with it go --json and --quick")
    if options.pipeline and options.table is not None:
        raise Problem("--pipeline has no tables to choose from")
    if options.submit_file and (options.compare or options.table is not None):
        raise Problem("--submit-file is of all four tables, and of nothing else")
    if options.threads is not None and options.threads < 1:
        raise Problem(f"--threads {options.threads}: at least 1")
    if options.plot and options.compare:
        raise Problem("--plot is of one report: without --compare")
    for name in ("json", "plot", "submit_file"):
        path = getattr(options, name)
        if path and path != STDOUT and not Path(path).resolve().parent.is_dir():
            raise Problem(f"--{name.replace('_', '-')} {path}: there is no such folder")
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        raise Problem("--plot needs matplotlib: pip install 'torch-mlx-spectro[plot]'")
    if options.plot and options.plot.suffix not in (".png", ".svg", ".pdf"):
        raise Problem(f"--plot {options.plot}: the name ends in .png, .svg or .pdf")


def _device(options: argparse.Namespace) -> str:
    """The device asked for, or the first of cuda, mps and cpu that is here."""
    import torch

    def is_here(name: str) -> bool:
        return name == "cpu" or bool(getattr(torch, name).is_available())

    if options.device is not None:
        if not is_here(options.device):
            raise Problem(f"--device {options.device}: torch has no such device here")
        return str(options.device)
    return next(name for name in reversed(registry.device_types()) if is_here(name))


def _settings(options: argparse.Namespace) -> Settings:
    from .running import Settings, backends_for, quick

    device = _device(options)
    found, reasons = backends_for(device)
    chosen = found
    if options.backends is not None:
        chosen = tuple(dict.fromkeys(options.backends.split(",")))
        for name in chosen:
            if name not in found:
                reason = reasons.get(name, f"for tensors on {device} there are {', '.join(found)}")
                raise Problem(f"--backends {name or repr(name)}: {reason}")
    settings = Settings(device, chosen)
    return quick(settings) if options.quick else settings


def _tables(options: argparse.Namespace) -> dict[str, Table]:
    """The tables of cases asked for; that of costs is not among them."""
    from .cases import PUBLISHED, TABLES

    names = list(PUBLISHED) if options.table is None else options.table.split(",")
    if "all" in names:
        return dict(TABLES)
    unknown = [name for name in names if name not in (*TABLES, COSTS)]
    if unknown:
        name = unknown[0] or repr(unknown[0])
        raise Problem(f"--table {name}: there are {', '.join((*TABLES, COSTS))} and all")
    return {name: TABLES[name] for name in TABLES if name in names}


def _measured(options: argparse.Namespace, settings: Settings, tables: dict[str, Table]) -> Report:
    from .costs import measure_costs
    from .running import backends_for, measure

    with progress("measuring") as show:
        report = measure(settings, tables, show)
    report["unavailable"] = backends_for(settings.device)[1]
    names = (options.table or "").split(",")
    if COSTS in names or "all" in names:
        report["costs"] = measure_costs()
    return report


def _tell(options: argparse.Namespace, report: Report, quiet: bool = False) -> int:
    """Write and print what was asked for; 1 when something failed.

    Args:
        quiet: print no tables, as a comparison follows.
    """
    from .schema import to_json
    from .tables import print_report

    if options.plot:
        from .plotting import draw

        write_file("plot", options.plot, draw(report, options.plot.suffix[1:]))
    if options.json and options.json != STDOUT:
        write_file("json", Path(options.json), to_json(report).encode())
    if options.json == STDOUT and not quiet:
        print(to_json(report), end="")
    elif not quiet:
        print_report(report, console_on(sys.stdout))
    return 1 if report["failures"] else 0


def _read(path: Path) -> Report:
    from .schema import Invalid, read_report

    try:
        return read_report(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Problem(f"--compare {path}: {error.strerror}") from None
    except (Invalid, UnicodeDecodeError) as error:
        raise Problem(f"--compare {path}: {error}") from None


def _compared(options: argparse.Namespace, old: Report, new: Report) -> Comparison:
    from .comparing import compare

    comparison = compare(old, new)
    _check_machines(options, comparison.machines)
    if not comparison.changes:
        raise Problem("the reports have no measurement in common")
    return comparison


def _check_machines(options: argparse.Namespace, apart: Sequence[str]) -> None:
    if apart and not options.force:
        raise Problem(
            "the reports are of different machines, whose ratios differ for that alone ("
            + "; ".join(apart)
            + "); --force compares them nevertheless"
        )


def _measured_again(
    settings: Settings, tables: dict[str, Table], old: Report, comparison: Comparison
) -> Comparison:
    """A regression of a run that was made now has to show twice."""
    from .comparing import compare, confirmed, tables_of
    from .running import measure

    timed = [change for change in comparison.regressions if change.table != "accuracy"]
    if not timed:
        return comparison
    with progress("measuring again") as show:
        again = measure(settings, tables_of(timed, tables), show)
    return confirmed(comparison, compare(old, again))


def _told_comparison(options: argparse.Namespace, comparison: Comparison) -> int:
    """Print a comparison; 1 when something became slower, less exact, or failed."""
    from .schema import to_json
    from .tables import comparison_as_dict, print_comparison

    if options.json == STDOUT or (options.json and len(options.compare) == 2):
        text = to_json(comparison_as_dict(comparison))
        if options.json == STDOUT:
            print(text, end="")
        else:
            write_file("json", Path(options.json), text.encode())
    if options.json != STDOUT:
        print_comparison(comparison, console_on(sys.stdout))
    return 0 if comparison.ok else 1
