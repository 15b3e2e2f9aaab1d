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
from typing import Any

from .. import interrupts
from ..bench import command as bench
from ..doctor import command as doctor
from ..errors import Problem, suggest
from . import parity, run
from .demo import command as demo

PROGRAM = "torch-mlx-spectro"
_COMMANDS = MappingProxyType(
    {"run": run, "doctor": doctor, "demo": demo, "parity": parity, "bench": bench}
)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors suggest what was meant, and name the options of the right command."""

    def __init__(self, **options: Any) -> None:
        # An abbreviated option of ``run`` would take the program for its value.
        super().__init__(**options, allow_abbrev=False)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Suggest one of the choices."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += suggest(value, action.choices or ())
            raise

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; a subcommand's unknown options are its own error, not that of the whole."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            hints = "".join(suggest(word.partition("=")[0], known) for word in unknown[:1])
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hints}")
        return options, unknown


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of everything except the program (and its arguments) that ``run`` runs."""
    from ..version import __version__

    parser = _Parser(prog=PROGRAM, description="torch.stft and torch.istft computed by MLX.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
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
    parser = build_parser()
    if not arguments:  # as of wrong usage: a script that forgot the command has done nothing
        parser.print_help(sys.stderr)
        return 2
    options = parser.parse_args(arguments, argparse.Namespace(program=program))
    if options.command is None:
        parser.error(f"no command: give one of {', '.join(_COMMANDS)}")
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
