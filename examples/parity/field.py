"""The STFTs of the field against torch in one table, from runs of the candidates beside this file.

    python field.py           runs what is installed and writes field.json and the page's tables
    python field.py --check   runs what is installed and compares with field.json and the page

Both run the suite's quick cases with each candidate's list of known differences: minutes, most of
them for mlx-spectro in the Metal emulator. What is not installed keeps its column.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import stft_parity as parity
from stft_parity import known
from stft_parity.cases.choices import plain
from stft_parity.results import VALUES, Report, Result

HERE = Path(__file__).parent
TABLE = HERE / "field.json"
PAGE = HERE.parents[1] / "docs" / "field.md"


NOT_OFFERED, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Column:
    """A candidate.

    Attributes:
        title: of its column.
        takes: what its functions take.
        requires: distributions whose releases are told.
        candidate: import path; by default that of the example of its name.
        emulated: whether its Metal kernels run in the emulator.
    """

    title: str
    takes: str
    requires: tuple[str, ...]
    candidate: str = ""
    emulated: bool = False


COLUMNS = {
    "librosa": Column("librosa", "NumPy", ("librosa",)),
    "scipy": Column("SciPy", "NumPy", ("scipy",)),
    "mlx_fft": Column("mx.fft (MLX)", "MLX", ("mlx",)),
    "mlx_spectro": Column("mlx-spectro", "MLX", ("mlx-spectro", "mlx"), emulated=True),
    "onnxruntime": Column("onnxruntime", "NumPy", ("onnxruntime", "onnx")),
    "torch_stft": Column("torch-stft", "tensors", ("torch-stft", "librosa")),
    "torchlibrosa": Column("torchlibrosa", "tensors", ("torchlibrosa", "librosa")),
    "auvux": Column("auvux-dsp", "tensors", ("auvux-dsp",)),
    "cpu": Column("this package, cpu", "tensors", (), "torch_mlx_spectro.doctor.candidates:cpu"),
    "mlx": Column("this package, mlx", "tensors", ("mlx",),
                  "torch_mlx_spectro.doctor.candidates:mlx"),
}  # fmt: skip

#: Values of one argument, each as it is with all others plain; in several arguments, together.
Row = tuple[str, Mapping[str, Sequence[str]]]
_SIZES: tuple[Row, ...] = (
    ("`n_fft`: powers of two, 4 to 1024",
     {"n_fft": ("4", "8", "16", "64", "128", "256", "512", "1024")}),
    ("`n_fft`: 100, 210, 400, 1000", {"n_fft": ("100", "210", "400", "1000")}),
    ("`n_fft`: odd, 3 to 509", {"n_fft": ("3", "5", "15", "31", "509")}),
    ("`n_fft`: 1, 2", {"n_fft": ("1", "2")}),
)  # fmt: skip
_HOPS: Row = ("`hop_length`: none, 1, n_fft/2", {"hop": ("default", "1", "n_fft/2")})
ROWS: dict[str, tuple[Row, ...]] = {
    "stft": (
        *_SIZES,
        _HOPS,
        ("`hop_length` above n_fft", {"hop": ("n_fft+3",)}),
        ("`win_length` below n_fft", {"win_length": ("n_fft/2", "n_fft-1", "1")}),
        ("`window`: none", {"window": ("none",)}),
        ("`window`: any values", {"window": ("positive", "signed", "holes")}),
        ("`window`: complex", {"window": ("complex",)}),
        ("`center=False`", {"center": ("False",)}),
        ("`pad_mode`: constant", {"pad_mode": ("constant",)}),
        ("`pad_mode`: replicate", {"pad_mode": ("replicate",)}),
        ("`pad_mode`: circular", {"pad_mode": ("circular",)}),
        ("`normalized=True`", {"normalized": ("True",)}),
        ("`onesided=False`", {"onesided": ("False",)}),
        ("`return_complex=False`", {"return_complex": ("False",)}),
        ("`align_to_window=True`", {"align_to_window": ("True",)}),
        ("a signal without a batch", {"rows": ("no batch",)}),
        ("a complex signal", {"dtype": ("complex64",)}),
        ("double precision", {"dtype": ("float64",)}),
        ("tiny and giant values", {"signal": ("tiny", "giant")}),
        ("gradient of the signal", {"gradient": ("input",)}),
        ("gradient of the window", {"gradient": ("window",)}),
        ("`torch.func.vmap`", {"use": ("vmap over rows", "vmap over a stack")}),
    ),
    "istft": (
        *_SIZES,
        _HOPS,
        ("`win_length` below n_fft", {"win_length": ("n_fft/2", "n_fft-1")}),
        ("`window`: none", {"window": ("none",)}),
        ("`window`: any values", {"window": ("positive", "signed", "holes")}),
        ("`window`: complex", {"window": ("complex",)}),
        ("`center=False`", {"center": ("False",)}),
        ("`normalized=True`", {"normalized": ("True",)}),
        ("`onesided=False`", {"onesided": ("False",)}),
        ("`length`: shorter, exact, longer", {"length": ("shorter", "exact", "longer")}),
        ("`length` beyond the last frame", {"length": ("too long",)}),
        ("`return_complex=True`", {"return_complex": ("True",)}),
        ("two frames", {"frames": ("2",)}),
        ("a spectrum without a batch", {"rows": ("no batch",)}),
        ("double precision", {"dtype": ("complex128",)}),
        ("gradient of the spectrum", {"gradient": ("input",)}),
        ("gradient of the window", {"gradient": ("window",)}),
        ("`torch.func.vmap`", {"use": ("vmap over rows", "vmap over a stack")}),
    ),
}
#: Conventions of ordinary calls; of rejected ones the exception.
CONVENTIONS = {
    "dtype": "the result's dtype",
    "strides": "its strides",
    "view": "it is a view, or is none",
    "warnings": "warnings",
    "state": "random numbers left alone",
}
ERRORS = "errors of wrong calls"


def judge(results: Sequence[Result]) -> str:
    """Judge what became of some calls, in a word or two: a cell of the table."""
    compared = [result for result in results if result.verdict != "unsupported"]
    if not results:
        return ""
    if not compared:
        return NOT_OFFERED
    wrong = [r for r in compared if any(found.aspect in VALUES for found in r.differences)]
    raised = [r for r in compared if r.accepted and any(
        found.aspect == "exception" for found in r.differences)]  # fmt: skip
    share = f" {{}} of {len(compared)}" if len(compared) > 1 else ""
    if raised:
        return "✗ raises" + share.format(len(raised))
    if not wrong:
        return "✓" if len(compared) == len(results) else f"✓ {len(compared)} of {len(results)}"
    told = [d for r in wrong for d in r.differences if d.aspect in VALUES]
    for words in ("a second backward", "backward raises"):
        if all(words in found.diagnosis for found in told):
            return f"✗ {words.removesuffix(' raises')} raises" + share.format(len(wrong))
    finite = all(d.aspect == "values" and "NaN" not in d.diagnosis for d in told)
    errors = [result.error for result in wrong if result.error]
    if finite and len(errors) == len(wrong) and max(errors) < 1e5:
        return f"✗ inexact, {TIMES}{float(f'{max(errors):.1g}'):.0f}" + share.format(len(wrong))
    return "✗ wrong" + share.format(len(wrong))


def find_plainest(report: Report, op: str, row: Mapping[str, Sequence[str]]) -> list[Result]:
    """Find the calls of a row: for each value those in which the fewest others are not plain."""
    usual = plain(op)
    found: dict[str, tuple[int, list[Result]]] = {}
    for result in report.results:
        labels = dict(result.case.labels)
        given = next(
            (f"{a}={labels[a]}" for a, values in row.items() if labels.get(a) in values), ""
        )
        if result.case.op != op or result.case.fault or not given or not result.accepted:
            continue
        others = sum(value != usual.get(argument, value) for argument, value in labels.items())
        least, calls = found.get(given, (others, []))
        if others <= least:
            found[given] = (others, [*(calls if others == least else []), result])
    return [result for _, calls in found.values() for result in calls]


def tabulate(report: Report) -> dict[str, str]:
    """Make a column: the name of a row to its cell."""
    cells = {
        f"{op}: {name}": judge(find_plainest(report, op, row))
        for op, rows in ROWS.items()
        for name, row in rows
    }
    compared = [result for result in report.results if result.verdict != "unsupported"]
    ordinary = [result for result in compared if result.error is not None]
    for aspect, name in CONVENTIONS.items():
        differ = sum(any(d.aspect == aspect for d in result.differences) for result in ordinary)
        cells[name] = f"✗ {differ} of {len(ordinary)}" if differ else "✓"
    rejected = [result for result in compared if not result.accepted]
    kinds = Counter(d.kind for r in rejected for d in r.differences if d.aspect == "exception")
    told = ", ".join(f"{kinds[kind]} {word}" for kind, word in
                     (("missing errors", "missing"), ("error types", "of another type"),
                      ("error texts", "with another text")) if kinds[kind])  # fmt: skip
    cells[ERRORS] = f"✗ {told}, of {len(rejected)}" if told else "✓"
    wrong = sum(any(d.aspect in VALUES for d in result.differences) for result in ordinary)
    cells["calls compared, with wrong values or gradients"] = f"{len(ordinary)}, {wrong}"
    errors = sorted(result.error for result in ordinary if result.error and result.error < 1e5)
    cells["error, torch's own is 1: median, largest"] = (
        f"{errors[len(errors) // 2]:.1f}, {errors[-1]:.0f}" if errors else ""
    )
    return cells


def run(name: str) -> tuple[Report, dict[str, Any]]:
    """Run a candidate; returns its report and its column."""
    column = COLUMNS[name]
    if column.candidate:
        from torch_mlx_spectro.doctor.candidates import list_known_differences

        entries = list_known_differences(name)
    else:
        entries = known.read(HERE / f"parity_{name}.toml")
    machine: AbstractContextManager[object] = nullcontext()
    if column.emulated:
        from torch_mlx_spectro import emulator

        machine = emulator.Machine().installed()
    with machine:
        report = parity.run(candidate=column.candidate or f"parity_{name}", known=entries)
    return report, describe(name, report)


def describe(name: str, report: Report) -> dict[str, Any]:
    """Make what the table says of a candidate, from its report."""
    column = COLUMNS[name]
    releases = [f"{one} {importlib.metadata.version(one)}" for one in column.requires]
    adapter = HERE / f"parity_{name}.py"
    lines = count_lines(adapter.read_text()) if adapter.exists() else 0
    return {"releases": releases, "lines": lines, "cells": tabulate(report)}


def count_lines(text: str) -> int:
    """Count the lines of code that a person wrote: no docstring, comment or empty line."""
    body = re.sub(r'"""(.|\n)*?"""', "", text)
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") for line in body.splitlines()
    )


def is_installed(name: str) -> bool:
    """Whether all that a candidate needs is installed."""
    try:
        for one in COLUMNS[name].requires:
            importlib.metadata.version(one)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def render(table: Mapping[str, Any]) -> str:
    """Render the part of the page between its marks."""
    columns = {name: table["columns"][name] for name in COLUMNS if name in table["columns"]}
    titles = [COLUMNS[name].title for name in columns]
    lines = [
        f"Made on {table['date']} with torch {table['torch']} on {table['machine']}.",
        "",
        f"| | {' | '.join(titles)} |",
        f"|---|{'---|' * len(titles)}",
        _line("takes", [COLUMNS[name].takes for name in columns]),
        _line("release", [", ".join(one["releases"]) for one in columns.values()]),
    ]
    sections: dict[str, list[str]] = {op: [f"{op}: {name}" for name, _ in rows]
                                      for op, rows in ROWS.items()}  # fmt: skip
    others = [row for row in next(iter(columns.values()))["cells"] if ": `" not in row]
    sections["all calls"] = [row for row in others if not row.startswith(("stft: ", "istft: "))]
    for section, rows in sections.items():
        lines.append(_line(f"**{section}**", [""] * len(titles)))
        lines += [
            _line(row.removeprefix(f"{section}: "), [one["cells"][row] for one in columns.values()])
            for row in rows
        ]
    lines.append(
        _line("lines of the adapter", [str(one["lines"] or "") for one in columns.values()])
    )
    for name in columns:
        if not COLUMNS[name].candidate:
            lines += ["", f"### {COLUMNS[name].title}", "", *_list_differences(name)]
    return "\n".join(lines)


def _line(first: str, cells: Sequence[str]) -> str:
    return f"| {first} | {' | '.join(cells)} |"


def _list_differences(name: str) -> list[str]:
    """List the known differences of a candidate as a table."""
    lines = ["| aspects | where | what |", "|---|---|---|"]
    for entry in known.read(HERE / f"parity_{name}.toml"):
        where = "; ".join(
            f"{argument} {', '.join(values)}" if len(values) <= 5 else f"{len(values)} {argument}s"
            for argument, values in entry.where
        )
        lines.append(_line(", ".join(entry.aspects), [where, entry.reason]))
    return lines


def put(page: str, made: str) -> str:
    """Put what was made between the marks of the page."""
    begin, end = "<!-- made by examples/parity/field.py -->", "<!-- end of what was made -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def list_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the cells that changed, but for errors, which depend on the processor."""

    def settle(cell: str) -> str:
        return re.sub(rf"{TIMES}\d+", TIMES, cell)

    return [
        f"{row}: {before['cells'].get(row)!r} was {cell!r} now"
        for row, cell in now["cells"].items()
        if not row.startswith("error") and settle(cell) != settle(before["cells"].get(row, ""))
    ]


def main() -> int:
    """Run, then write or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--only", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(HERE))
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {"columns": {}}
    problems = []
    for name in options.only:
        if not is_installed(name):
            print(f"{name}: not installed", flush=True)
            continue
        report, made = run(name)
        print(f"{name}: {report.counts()}, {report.seconds:.0f} s", flush=True)
        if not report.ok:
            problems.append(f"{name}: its list does not say all: {report.problems}")
            problems += [
                f"  {d.aspect}: {d.diagnosis}" for r in report.failures for d in r.differences
            ]
        if options.check:
            problems += [f"{name}, {one}" for one in list_changes(table["columns"][name], made)]
        table["columns"][name] = made
        table |= {"torch": report.versions["torch"], "machine": report.machine.partition(",")[0]}
    if not options.check:
        table["date"] = datetime.date.today().isoformat()
        TABLE.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
        PAGE.write_text(put(PAGE.read_text(), render(table)))
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
