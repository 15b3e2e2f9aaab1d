"""``run``: a program as it is, with torch.stft and torch.istft patched."""

from __future__ import annotations

import argparse
import atexit
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import torch_mlx_spectro as tms

from .. import interrupts
from ..backends import registry
from ..errors import Problem
from ..settings import BACKEND_VARIABLE, settings
from ..terminal import make_console, table
from . import launch

HELP = "run a program under patch()"
DESCRIPTION = (
    "Run a Python program with torch.stft and torch.istft computed by MLX, otherwise exactly as"
    " Python itself would run it. Child processes are not covered: a program that starts others"
    " has to call patch() in them."
)
USAGE = (
    "torch-mlx-spectro run [options] (script.py | -m module | -c code | console-script)"
    " [arguments ...]"
)
_WITH_VALUE = ("--backend", "--stats-file")
#: Modules of this package that have the counts to report.
_COUNTING = ("functional", "patching")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that come before the program."""
    parser.usage = USAGE
    parser.add_argument(
        "--backend",
        choices=("auto", *registry.names()),
        help="who computes (default: environment, or auto)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="raise NotAccelerated instead of falling back"
    )
    parser.add_argument(
        "--stats",
        action="store_true",
        help="at exit, print to stderr what was accelerated, what was not, and why",
    )
    parser.add_argument("--json", action="store_true", help="the same as one line of JSON")
    parser.add_argument(
        "--as-mlx-spectro",
        action="store_true",
        help="import mlx_spectro gives the program this package (docs/migrating.md)",
    )
    parser.add_argument(
        "--stats-file", type=Path, metavar="PATH", help="write the statistics there, as JSON"
    )


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the options of ``run`` from the program and its arguments.

    The program starts at the first argument that is not an option of ``run``: a name, ``-m``,
    ``-c``, ``-`` (standard input), or whatever follows ``--``.
    """
    index = 0
    while index < len(arguments) and arguments[index].startswith("-"):
        if arguments[index] in ("-", "-m", "-c", "--"):
            break
        index += 2 if arguments[index] in _WITH_VALUE else 1
    own, program = list(arguments[:index]), list(arguments[index:])
    return own, program[1:] if program[:1] == ["--"] else program


def command(options: argparse.Namespace) -> int:
    """Run ``options.program`` in this process; its exceptions go to the interpreter.

    Raises:
        Problem: there is no such program, or an option or variable has no valid value.
    """
    resolved = launch.resolve(options.program)
    try:
        backend = options.backend or registry.check_name(settings().backend, BACKEND_VARIABLE)
    except ValueError as error:
        raise Problem(str(error)) from None
    if options.stats or options.json or options.stats_file is not None:
        _report_at_exit(as_json=options.json, path=options.stats_file)
    if options.as_mlx_spectro:
        _stand_in_for_mlx_spectro()
    tms.patch(backend, strict=options.strict)
    interrupts.raise_again()
    return launch.launch(resolved)


def _stand_in_for_mlx_spectro() -> None:
    """Put this package in mlx-spectro's place.

    Raises:
        Problem: mlx-spectro is imported already (by a ``.pth`` file, say).
    """
    try:
        tms.as_mlx_spectro()
    except RuntimeError as error:
        raise Problem(f"--as-mlx-spectro: {error}") from None


def _report_at_exit(as_json: bool, path: Path | None) -> None:
    """Register the report before the program runs, so that atexit calls it last."""
    if path is not None:
        path = path.absolute()  # the program may change the working directory
        if path.is_dir() or not path.parent.is_dir():
            raise Problem(f"--stats-file {path}: not a file name in an existing folder")
    owner = os.getpid()

    def write() -> None:
        if os.getpid() != owner:  # a forked child that ends by sys.exit gets here, too
            return
        # Not by an import, which would import torch again if its first import failed.
        functional, patching = (sys.modules.get(f"{tms.__name__}.{name}") for name in _COUNTING)
        if functional is None or patching is None:
            return
        stats, left = functional.stats(), patching.names_left()
        line = json.dumps(stats.as_dict() | {"left": left})
        if path is not None:
            path.write_text(line + "\n", encoding="utf-8")
            return
        # The program may have replaced sys.stderr, or closed this stream, too.
        stream = sys.__stderr__
        if stream is None or stream.closed:
            return
        if as_json:
            print(line, file=stream, flush=True)
        else:
            print_stats(stats, stream, left)

    atexit.register(write)


def print_stats(stats: tms.Stats, stream: TextIO, left: Sequence[str] = ()) -> None:
    """Print what was accelerated, what was not and why, and where the calls came from.

    Args:
        left: names of modules that still have torch's own functions.
    """
    console = make_console(stream)
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
    calls = [(f"torch.{op}", by, str(count)) for (op, by), count in sorted(stats.calls.items())]
    console.print(table(("operation", "backend"), ("calls",), rows=calls))
    for title, counts in (
        ("why a call was not accelerated", stats.fallbacks),
        ("why a call was left to torch by choice", stats.choices),
    ):
        if counts:
            ordered = sorted(counts, key=lambda reason: (-counts[reason], reason))
            reasons = [(reason, str(counts[reason])) for reason in ordered]
            console.print(table((title,), ("calls",), rows=reasons))
    columns = ("accelerated", "native", *(("refused",) if stats.refused else ()))
    sites = [
        (site, *(str(numbers.get(column, 0)) for column in columns))
        for site, numbers in sorted(stats.sites.items())
    ]
    console.print(table(("called from",), columns, rows=sites))
