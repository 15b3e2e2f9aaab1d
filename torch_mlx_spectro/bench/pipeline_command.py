"""``bench --pipeline``: the models of audio-separator."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Problem
from ..terminal import STDOUT, console_on, progress, table, write_file

if TYPE_CHECKING:
    from rich.console import Console

    from .pipeline import PipelineReport

#: Timed runs of each model and backend.
ROUNDS, QUICK_ROUNDS = 5, 3


def pipeline(options: argparse.Namespace, device: str, backends: tuple[str, ...]) -> int:
    """Measure the models and report; return 0.

    Raises:
        Problem: audio-separator, or what it needs, is not installed.
    """
    import torch_mlx_spectro as tms

    from .machine import machine
    from .pipeline import INSTALL, SCHEMA, VERSION, components, measure_pipeline, missing
    from .schema import to_json

    absent = missing()
    if absent:
        raise Problem(
            f"--pipeline needs {', '.join(absent)}: in a checkout, {' and '.join(INSTALL)}"
        )
    where = machine(device)
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    with progress("measuring") as show:
        parts = measure_pipeline(components(options.quick), device, backends, rounds, show)
    report: PipelineReport = {
        "schema": SCHEMA,
        "version": VERSION,
        "package": tms.__version__,
        "machine": where,
        "sizes": "small" if options.quick else "as published",
        "parts": parts,
    }
    if options.json == STDOUT:
        print(to_json(report), end="")
        return 0
    if options.json:
        write_file("json", Path(options.json), to_json(report).encode())
    print_pipeline(report, console_on(sys.stdout))
    return 0


def print_pipeline(report: PipelineReport, console: Console) -> None:
    """Print a row for each model and backend."""
    from .running import NATIVE
    from .tables import print_machine

    numbers = ("ms", "stft ms", "istft ms", "calls", "of the whole", "native / it", "computed by")
    title = f"Models of audio-separator, {report['sizes']}, random weights, one stereo segment"
    shown = table(("model", "backend"), numbers, title=title)
    for part in report["parts"]:
        ratio = part["ratio"]
        shown.add_row(
            part["model"] if part["backend"] == NATIVE else "",
            part["backend"],
            f"{1e3 * part['seconds']['median']:.0f}",
            f"{1e3 * part['stft']:.1f}",
            f"{1e3 * part['istft']:.1f}",
            str(part["calls"]),
            f"{part['share']:.1%}",
            "" if ratio is None else f"{ratio:.2f}x",
            "" if ratio is None else ", ".join(part["computed_by"]),
        )
    console.print(shown)
    print_machine(report["machine"], console)
