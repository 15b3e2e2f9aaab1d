"""``run``: a program as it is, with torch.stft and torch.istft patched."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch_mlx_spectro as tms

from .. import interrupts
from ..backends import registry
from ..errors import Problem
from ..settings import BACKEND_VARIABLE, settings
from ..terminal import refuse
from . import launch, report
from .children import parent

HELP = "run a program under patch()"
DESCRIPTION = (
    "Run a Python program with torch.stft and torch.istft computed by MLX, otherwise exactly as"
    " Python itself would run it. With --children the Python processes that it starts are patched,"
    " too: spawned workers, pools, the ranks of torchrun."
)
USAGE = (
    "torch-mlx-spectro run [options] (script.py | -m module | -c code | console-script)"
    " [arguments ...]"
)
_WITH_VALUE = ("--backend", "--stats-file")


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
        "--children",
        action="store_true",
        help="patch the Python processes that the program starts, too, and count their calls",
    )
    parser.add_argument(
        "--environment",
        action="store_true",
        help="with --children, in the place of a program: print the variables that patch every"
        " Python process started under them, as commands of a shell",
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
    try:
        backend = options.backend or registry.check_name(settings().backend, BACKEND_VARIABLE)
    except ValueError as error:
        raise Problem(str(error)) from None
    asks_report = options.stats or options.json or options.stats_file is not None
    if options.environment:
        _check_environment(options, asks_report)
        parent.print_environment(parent.make_environment(backend, options.strict, None))
        return 0
    resolved = launch.resolve(options.program)
    folder = None
    if asks_report:
        folder = report.at_exit(options.json, options.stats_file, with_children=options.children)
    if options.children:
        os.environ.update(parent.make_environment(backend, options.strict, folder))
    if options.as_mlx_spectro:
        _stand_in_for_mlx_spectro()
    _patch(backend, options.strict)
    interrupts.raise_again()
    return launch.launch(resolved)


def _patch(backend: registry.BackendName, strict: bool) -> None:
    """Patch this process, and print what patch() warns of: it names no line of the program."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        tms.patch(backend, strict=strict)
    for warning in given:
        print(f"torch-mlx-spectro run: {warning.message}", file=sys.stderr)


def _check_environment(options: argparse.Namespace, asks_report: bool) -> None:
    refuse(
        (
            (not options.children, "--environment is for child processes: give --children, too"),
            (options.program, "--environment prints variables and runs nothing: name no program"),
            (asks_report, "--environment runs nothing, so it has no statistics to report"),
        )
    )


def _stand_in_for_mlx_spectro() -> None:
    """Put this package in mlx-spectro's place.

    Raises:
        Problem: mlx-spectro is imported already (by a ``.pth`` file, say).
    """
    try:
        tms.as_mlx_spectro()
    except RuntimeError as error:
        raise Problem(f"--as-mlx-spectro: {error}") from None
