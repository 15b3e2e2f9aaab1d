"""Run a program in this process as ``python program`` would in its own.

The program gets a new ``__main__`` module, which stays in place until the process ends: pickling,
threads, atexit functions and the re-import by spawned processes all look there. ``runpy`` restores
the old module as soon as the program's last line has run, which is too early for these.
"""

from __future__ import annotations

import builtins
import importlib.machinery
import importlib.metadata
import io
import linecache
import os
import pkgutil
import re
import runpy
import shutil
import sys
import sysconfig
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .. import interrupts
from ..errors import Problem

#: ``folder`` is a folder or a zip file with a ``__main__.py`` in it.
Kind = Literal["script", "folder", "module", "code", "stdin"]


@dataclass(frozen=True)
class Program:
    """What to run.

    Attributes:
        kind: how Python would be told to run it.
        target: a path, a module's name, or source code, according to ``kind``.
        name: what the program sees as ``sys.argv[0]``.
        arguments: the rest of ``sys.argv``.
    """

    kind: Kind
    target: str
    name: str
    arguments: tuple[str, ...]


def resolve(command: Sequence[str]) -> Program:
    """Find the program that a command line names.

    Args:
        command: a path, ``-m module``, ``-c code``, ``-`` or a console script, then its arguments.

    Raises:
        Problem: no program is named, or this Python has no such program.
    """
    if not command:
        raise Problem("no program named: give a script, -m module, -c code or a console script")
    first, rest = command[0], tuple(command[1:])
    if first in ("-m", "-c"):
        if not rest:
            raise Problem(f"{first} needs {'a module' if first == '-m' else 'code'} after it")
        return Program("module" if first == "-m" else "code", rest[0], first, rest[1:])
    if first == "-":
        return Program("stdin", "", first, rest)
    is_name = os.path.basename(first) == first
    if os.path.isfile(first) or (os.path.isdir(first) and not is_name):
        # Python imports from a folder or a zip file, and reads anything else as a script.
        kind: Kind = "script" if pkgutil.get_importer(first) is None else "folder"
        return Program(kind, first, first, rest)
    if is_name:
        if found := _console_script(first, rest):
            return found
        if os.path.isdir(first):
            return Program("folder", first, first, rest)
    raise Problem(
        f"{first!r} is neither a file nor a console script of this Python ({sys.executable})"
    )


def _console_script(name: str, arguments: tuple[str, ...]) -> Program | None:
    """Find the console script ``name`` of this environment, or a Python script on PATH.

    Raises:
        Problem: PATH has the name, but it is not a Python script, or belongs to another Python.
    """
    installed = os.path.join(sysconfig.get_path("scripts"), name)
    if _interpreter(installed) is not None:
        return Program("script", installed, installed, arguments)
    for entry in importlib.metadata.entry_points(group="console_scripts", name=name):
        # The text that pip writes into the script's file, which on Windows is not Python text.
        source = f"import sys\nfrom {entry.module} import {entry.attr.split('.')[0]}\n"
        return Program("code", f"{source}sys.exit({entry.attr}())\n", installed, arguments)
    if (path := shutil.which(name)) is None:
        return None
    interpreter = _interpreter(path)
    if interpreter is None:
        raise Problem(f"{path} is not a Python script; name the module with -m instead")
    # Only the folders' links are resolved: the link to the interpreter itself tells venvs apart.
    theirs, ours = (os.path.realpath(os.path.dirname(p)) for p in (interpreter, sys.executable))
    if os.path.isabs(interpreter) and theirs != ours:
        raise Problem(
            f"{path} belongs to another Python ({interpreter}); install torch_mlx_spectro there and"
            " use that environment's torch-mlx-spectro"
        )
    return Program("script", path, path, arguments)


def _interpreter(path: str) -> str | None:
    """Return the Python that a script's first lines name: a path, or ``env``'s; None if none."""
    try:
        with open(path, "rb") as file:
            head = file.read(1024).decode("utf-8", "replace")
    except OSError:
        return None
    first, _, rest = head.partition("\n")
    if not first.startswith("#!"):
        return None
    # Where the path is too long for the kernel, pip writes a shell line that Python reads as text.
    relayed = re.match(r"'''exec' (\"[^\"]+\"|\S+)", rest)
    if first.startswith("#!/bin/sh") and relayed:
        return relayed[1].strip('"')
    if "python" not in first and "pypy" not in first:
        return None
    words = first[2:].split()
    return words[-1] if os.path.basename(words[0]) == "env" else words[0]


def launch(program: Program) -> int:
    """Run ``program`` as ``__main__`` and return its exit code when its last line has run.

    Its exceptions are left to the interpreter, which treats them as it does any program's; only our
    own frames are left out of the traceback. KeyboardInterrupt is shown as the interpreter shows
    it, and becomes the exit code that shells use for it.
    """
    module = types.ModuleType("__main__")
    module.__dict__.update(__builtins__=builtins)
    if sys.version_info < (3, 14):
        module.__dict__.update(__annotations__={})
    sys.modules["__main__"] = module
    if "__mp_main__" in sys.modules:
        # multiprocessing, which torch has imported, keeps this second name for results to unpickle.
        sys.modules["__mp_main__"] = module
    sys.argv[:] = [program.name, *program.arguments]
    try:
        _RUNNERS[program.kind](program, module)
    except BaseException as error:
        _hide_own_frames()
        if not isinstance(error, KeyboardInterrupt):
            raise
        sys.excepthook(type(error), error, error.__traceback__)
        return interrupts.EXIT_CODE
    return 0


def _run_script(program: Program, module: types.ModuleType) -> None:
    path = os.path.join(os.getcwd(), program.target)  # not normalised, as in Python itself
    _set_first_path(os.path.dirname(os.path.realpath(path)))
    module.__loader__ = importlib.machinery.SourceFileLoader("__main__", path)
    module.__dict__.update(__file__=path, __cached__=None)
    with io.open_code(path) as file:
        code = pkgutil.read_code(file)  # None unless it is a .pyc
        if code is None:
            file.seek(0)
            code = _compile(file.read(), path)
    exec(code, module.__dict__)


def _run_module(program: Program, module: types.ModuleType) -> None:
    is_folder = program.kind == "folder"
    _set_first_path(os.path.join(os.getcwd(), program.target) if is_folder else os.getcwd())
    # The function that the interpreter itself calls for -m, folders and zip files. It fills the
    # current __main__ module.
    name = "__main__" if is_folder else program.target
    runpy._run_module_as_main(name, alter_argv=not is_folder)  # type: ignore[attr-defined]


def _run_text(program: Program, module: types.ModuleType) -> None:
    _set_first_path("")
    module.__loader__ = importlib.machinery.BuiltinImporter
    if program.kind == "stdin":
        module.__dict__.update(__file__="<stdin>", __cached__=None)
        code = _compile(sys.stdin.buffer.read(), "<stdin>")
    else:
        source = program.target
        code = _compile(source, "<string>")
        if sys.version_info >= (3, 13):  # there tracebacks show the lines of -c
            lines = [f"{line}\n" for line in source.splitlines()]
            linecache.cache["<string>"] = (len(source), None, lines, "<string>")
    exec(code, module.__dict__)


def _compile(source: str | bytes, name: str) -> types.CodeType:
    # dont_inherit: the __future__ imports of this file are not the program's.
    return compile(source, name, "exec", dont_inherit=True)


_RUNNERS: Mapping[Kind, Callable[[Program, types.ModuleType], None]] = types.MappingProxyType(
    {
        "script": _run_script,
        "folder": _run_module,
        "module": _run_module,
        "code": _run_text,
        "stdin": _run_text,
    }
)
_OWN_CODE = frozenset(
    function.__code__ for function in (_run_script, _run_module, _run_text, _compile)
)


def _set_first_path(entry: str) -> None:
    """Replace the first entry of sys.path, which is ours, by the one Python gives the program."""
    # Under -P and -I Python puts nothing there.
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = entry


def _hide_own_frames() -> None:
    """Make the interpreter show the current exception from the program's first frame on.

    Cutting the traceback here would not work: every frame that the exception still passes is added
    to it again.
    """
    show = sys.excepthook

    def show_program(
        kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
    ) -> None:
        trace = _program_part(trace)
        sys.last_traceback = trace
        show(kind, error.with_traceback(trace), trace)

    sys.excepthook = show_program


def _program_part(trace: types.TracebackType | None) -> types.TracebackType | None:
    """Return the part of a traceback below the functions that launch programs, or all of it."""
    part = position = trace
    while position is not None:
        if position.tb_frame.f_code in _OWN_CODE:
            part = position.tb_next
        position = position.tb_next
    return part
