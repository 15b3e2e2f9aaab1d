"""The command line: ``run``, ``doctor``, ``demo``, ``parity`` and ``bench``.

Exit codes: 0 when all is well, 1 when a check failed, 2 for wrong usage or unreadable input, 130
when interrupted; ``run`` ends with the exit code of the program it runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from types import MappingProxyType

from .. import interrupts
from ..bench import command as bench
from ..doctor import command as doctor
from ..errors import Problem
from . import parity, run
from .demo import command as demo

PROGRAM = "torch-mlx-spectro"
_COMMANDS = MappingProxyType(
    {"run": run, "doctor": doctor, "demo": demo, "parity": parity, "bench": bench}
)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of everything except the program (and its arguments) that ``run`` runs."""
    from ..version import __version__

    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="torch.stft and torch.istft computed by MLX."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in _COMMANDS.items():
        module.add_arguments(
            commands.add_parser(name, help=module.HELP, description=module.DESCRIPTION)
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the arguments after the program's name; those of the process by default.

    Raises:
        SystemExit: wrong usage, or raised by the program under ``run``.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    program: list[str] = []
    if arguments[:1] == ["run"]:
        # argparse would look for options of ours among the program's own arguments.
        own, program = run.split_arguments(arguments[1:])
        arguments = ["run", *own]
    options = build_parser().parse_args(arguments, argparse.Namespace(program=program))
    try:
        if options.command != "doctor" and importlib.util.find_spec("torch") is None:
            raise Problem(
                f"PyTorch is not installed: {sys.executable} -m pip install torch, and see"
                f" `{PROGRAM} doctor`",
                1,
            )
        # These two import torch before they let interrupts raise.
        if options.command not in ("run", "parity"):
            interrupts.raise_again()
        return int(_COMMANDS[options.command].command(options))
    except Problem as problem:
        if options.json:
            print(json.dumps({"ok": False, "error": str(problem)}))
        print(f"{PROGRAM} {options.command}: error: {problem}", file=sys.stderr)
        return problem.exit_code
