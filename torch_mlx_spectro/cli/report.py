"""What ``run`` tells at the end of a program: what was accelerated, what was not, and why."""

from __future__ import annotations

import atexit
import json
import multiprocessing.util
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import torch_mlx_spectro as tms

from ..errors import Problem
from ..terminal import make_console, print_tables, table

if TYPE_CHECKING:
    from ..dispatch.recording import Process
    from ..dispatch.snapshot import Stats

#: Processes that have a row of their own.
MAX_PROCESSES = 40


def at_exit(as_json: bool, path: Path | None, with_children: bool) -> Path | None:
    """Register the report before the program runs, so that atexit calls it last.

    Args:
        as_json: print one line of JSON rather than tables.
        path: a file for the JSON; None: it is printed, to stderr.
        with_children: the report is about child processes, too.

    Returns:
        The folder where child processes write their counts, if it is about them.

    Raises:
        Problem: there can be no such file.
    """
    if path is not None:
        path = path.absolute()  # the program may change the working directory
        if path.is_dir() or not path.parent.is_dir():
            raise Problem(f"--stats-file {path}: not a file name in an existing folder")
    # Here, since the command line shows its help without torch.
    from ..dispatch.run import counters

    owner = os.getpid()
    folder = Path(tempfile.mkdtemp(prefix="torch-mlx-spectro-")) if with_children else None

    def write() -> None:
        if os.getpid() != owner:  # a forked child that ends by sys.exit gets here, too
            return
        # Not by an import, which would import torch again if its first import failed.
        functional = sys.modules.get(f"{tms.__name__}.functional")
        if functional is None:
            return
        own, left = counters.get_counted(), functional.names_left()
        children = [] if folder is None else _gather(folder)
        _tell(own, children, left, as_json, path)

    atexit.register(write)
    if folder is not None:
        counters.record(folder, children_only=True)
    return folder


def _gather(folder: Path) -> list[Process]:
    """Read what the children have counted, when multiprocessing has waited for them."""
    from ..dispatch import recording

    # It would do that at exit, too, but only after the report.
    multiprocessing.util._exit_function()  # type: ignore[attr-defined]
    processes = recording.read(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return processes


def _tell(
    own: Process, children: Sequence[Process], left: Sequence[str], as_json: bool, path: Path | None
) -> None:
    from ..dispatch.statistics import add_up

    stats = replace(add_up([own, *children]), left=tuple(left))
    parts = [
        {"name": child.name, "pid": child.pid, **add_up([child]).as_dict()} for child in children
    ]
    line = json.dumps(stats.as_dict() | {"children": parts})
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
        print_stats(stats, stream)
        if children:
            print_processes([own, *children], stream)


def print_stats(stats: Stats, stream: TextIO) -> None:
    """Print what was accelerated, what was not and why, and where the calls came from."""
    print_tables(make_console(stream), stats.list_lines(), stats.list_tables())


def print_processes(processes: Sequence[Process], stream: TextIO) -> None:
    """Print which of several processes has called how often."""
    from ..dispatch.statistics import add_up

    counts = [(process, add_up([process])) for process in processes[:MAX_PROCESSES]]
    rows = [
        (f"{process.name} ({process.pid})", str(stats.accelerated), str(stats.native))
        for process, stats in counts
    ]
    console = make_console(stream)
    console.print(table(("process",), ("accelerated", "native"), rows=rows))
    if len(processes) > MAX_PROCESSES:
        console.print(f"and {len(processes) - MAX_PROCESSES} further processes")
