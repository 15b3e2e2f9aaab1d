"""``bench``: speed and error against native torch, side by side in one run."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from ..backends import registry
from ..terminal import STDOUT, lacks_folder, refuse
from .schema import METAL_TABLE

HELP = "speed and error against native torch, on this machine"
DESCRIPTION = (
    "Time stft, istft and a round trip with its backward pass by every backend that is here and by"
    " native torch, in turn, and compare errors. Exit code 0 when all is well; 1 when a backend"
    " failed, differed from native torch, or became slower than in the report given to --compare;"
    " 2 for wrong usage."
)


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
        help="stft, istft, roundtrip, accuracy (these by default), sizes, backward, auraloss,"
        " training, host, costs, or all of these; or metal alone: what Metal kernels move, counted"
        " in the emulator",
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
    from . import session  # imports torch

    return session.run(options)


def _check(options: argparse.Namespace) -> None:
    """Say now what would go wrong at the end of a long run."""
    compare, plot, submitted = options.compare, options.plot, options.submit_file
    other, several = options.pipeline, options.table is not None
    chosen = (options.device, options.backends, options.threads, compare, plot, options.quick)
    refuse(
        (
            (compare and len(compare) > 2, "--compare takes one report, or two"),
            (options.force and not compare, "--force is for --compare"),
            (
                other and (compare or submitted or plot),
                "--pipeline is a measurement of its own: with it go --json and --quick",
            ),
            (other and several, "--pipeline has no tables to choose from"),
            (
                submitted and (compare or several),
                "--submit-file is of all four tables, and of nothing else",
            ),
            (
                options.table == METAL_TABLE and any(one not in (None, False) for one in chosen),
                "--table metal is no measurement: with it goes --json alone",
            ),
            (
                options.threads is not None and options.threads < 1,
                f"--threads {options.threads}: at least 1",
            ),
            (plot and compare, "--plot is of one report: without --compare"),
            *(
                (lacks_folder(path), f"--{name} {path}: there is no such folder")
                for name, path in (
                    ("json", options.json),
                    ("plot", plot),
                    ("submit-file", submitted),
                )
            ),
            (
                plot and importlib.util.find_spec("matplotlib") is None,
                "--plot needs matplotlib: pip install matplotlib",
            ),
            (
                plot and plot.suffix not in (".png", ".svg", ".pdf"),
                f"--plot {plot}: the name ends in .png, .svg or .pdf",
            ),
        )
    )
