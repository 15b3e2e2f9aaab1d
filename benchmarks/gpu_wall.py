"""What a program waits for by the wall clock, there and back: tables for docs/gpu.md, in one run.

python benchmarks/gpu_wall.py [--device cuda] [--json FILE] [--markdown FILE] [--quick]

Runs ``bench`` on its tables of training and of the host's time, and writes them as Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch_mlx_spectro.bench.cases import HOST_TABLE, UNIT
from torch_mlx_spectro.bench.comparing import read_case
from torch_mlx_spectro.bench.running import NATIVE
from torch_mlx_spectro.bench.schema import Report, Timing, read_report
from torch_mlx_spectro.cli import main as cli

TABLES = ("backward", "auraloss", "training", HOST_TABLE)
#: Of a timing: table, operation and size.
Cell = tuple[str, str, str]


def cells(report: Report) -> dict[Cell, dict[str, Timing]]:
    """Cell to its timings, by backend."""
    found: dict[Cell, dict[str, Timing]] = {}
    for timing in report["timings"]:
        cell = timing["table"], timing["operation"], str(read_case(timing["case"]))
        found.setdefault(cell, {})[timing["backend"]] = timing
    return found


def list_lines(report: Report) -> Iterator[str]:
    """Both tables as lines of Markdown."""
    machine, backends = report["machine"], report["settings"]["backends"]
    yield f"{machine['device_name']}, torch {machine['versions']['torch']}"
    yield ""
    heads = (f"{name} µs | ratio" for name in backends)
    yield f"| size | what | native µs | {' | '.join(heads)} |"
    yield "|" + "---|" * (3 + 2 * len(backends))
    for (name, operation, size), sides in cells(report).items():
        if name != HOST_TABLE:
            parts = [size, operation, microseconds(sides[NATIVE])]
            for backend in backends:
                parts += describe_side(sides.get(backend))
            yield f"| {' | '.join(parts)} |"
    yield ""
    yield f"| the host's time, in units of one `{UNIT}` | native | {machine['device']} |"
    yield "|---|---|---|"
    for (name, operation, _), sides in cells(report).items():
        if name == HOST_TABLE:
            own = [timing for key, timing in sides.items() if key not in (UNIT, NATIVE)]
            both = units(sides.get(NATIVE)), units(own[0] if own else None)
            yield f"| {operation} | {both[0]} | {both[1]} |"


def microseconds(timing: Timing) -> str:
    return f"{1e6 * timing['seconds']['median']:.0f}"


def describe_side(timing: Timing | None) -> list[str]:
    """A backend's time and native's over it; who computed, if that was another."""
    if timing is None or timing["ratio"] is None:
        return ["", ""]
    others = [name for name in timing["computed_by"] if name != timing["backend"]]
    by = f" ({', '.join(others)})" if others else ""
    return [microseconds(timing), f"{timing['ratio']['median']:.2f}x{by}"]


def units(timing: Timing | None) -> str:
    if timing is None or timing["ratio"] is None:
        return ""
    return f"{1 / timing['ratio']['median']:.1f}"


def main() -> int:
    """Measure, print and write; return the exit code of ``bench``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.json or Path(folder) / "report.json"
        arguments = ["--device", options.device, "--table", ",".join(TABLES), "--json", str(path)]
        code = cli.main(["bench", *arguments, *(["--quick"] if options.quick else [])])
        if not path.exists():
            return code
        text = "\n".join(list_lines(read_report(path.read_text(encoding="utf-8")))) + "\n"
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
