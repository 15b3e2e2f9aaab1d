"""What commands print in terminals of 60, 80 and 120 columns: nothing wider, nothing lost."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from bench_reports import report as make_bench_report
from rich.console import Console

from torch_mlx_spectro.bench import comparing
from torch_mlx_spectro.bench import tables as bench_tables
from torch_mlx_spectro.bench.cases import HOST_TABLE, TABLES, UNIT
from torch_mlx_spectro.cli.demo import session as demo
from torch_mlx_spectro.doctor import command as doctor
from torch_mlx_spectro.doctor import show
from torch_mlx_spectro.terminal import fitting

WIDTHS = (60, 80, 120)


def print_in(
    width: int, monkeypatch: pytest.MonkeyPatch, module: Any, function: Callable[[], None]
) -> list[str]:
    """What a function prints by the console of its module, in a terminal of this width."""
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False)
    monkeypatch.setattr(module, "make_console", lambda stream: console)
    function()
    return file.getvalue().splitlines()


def find_words(lines: list[str]) -> set[str]:
    """Words that no column may fold: those of its longest length at most."""
    words = {word for line in lines for word in re.split(r"[ ─]+", line)}
    return {word for word in words if word and len(word) <= fitting.LONGEST_WORD}


def check_widths(
    monkeypatch: pytest.MonkeyPatch, module: Any, function: Callable[[], None]
) -> None:
    """Compare narrow terminals with what is printed where there is none."""
    whole = find_words(print_in(10_000, monkeypatch, module, function))
    for width in WIDTHS:
        lines = print_in(width, monkeypatch, module, function)
        assert max(map(len, lines)) <= width
        assert not (lost := whole - find_words(lines)), (width, sorted(lost))


@pytest.fixture(scope="module")
def examined() -> dict[str, Any]:
    return doctor.examine(self_check=False)


CHECK = {
    "backend": "mlx",
    "device": "cpu",
    "ok": True,
    "error": "",
    "max_error": {op: {"native": 1.7e-5, "mlx": 1.2e-5} for op in ("stft", "istft", "gradient")},
    "seconds": 1.234,
    "calls": {"stft/native": 2, "istft/native": 2, "stft/mlx": 1, "istft/mlx": 1},
}
FINDING = {
    "level": "error",
    "text": "mlx: importing MPS tensors with a copy can hang for ever: MLX waits for the GPU.",
    "fix": [],
    "threads": ["ml-explore/mlx#4497"],
}


@pytest.mark.parametrize("function", [show.print_summary, show.print_tables])
@pytest.mark.parametrize("ok", [True, False])
def test_doctor(
    function: Callable[..., None], ok: bool, examined: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = examined | {"ok": ok, "findings": [] if ok else [FINDING], "self_checks": [CHECK]}
    check_widths(monkeypatch, show, partial(function, found, sys.stdout))


def make_host_timings(timings: list[Any]) -> list[Any]:
    ratio = {"median": 0.33, "low": 0.31, "high": 0.37, "n": 20}
    return [
        timings[0]
        | {"table": HOST_TABLE, "operation": op, "backend": name, "ratio": ratio if name else None}
        | ({} if name else {"backend": UNIT})
        for op in ("stft", "istft")
        for name in ("", "native", "mps")
    ]


def print_bench() -> None:
    made: Any = make_bench_report(1, tables={n: t for n, t in TABLES.items() if n != HOST_TABLE})
    made["timings"] += make_host_timings(made["timings"])
    made["timings"][1]["computed_by"] = ["cpu", "native"]
    made["costs"] = [
        {"what": "a patched call of stft", "value": 12.3, "unit": "us", "native": 4.5},
        {"what": "import after torch", "value": 45.6, "unit": "ms", "native": None},
    ]
    made["machine"]["load"] = 9.0
    bench_tables.print_report(made, bench_tables.make_console(sys.stdout))  # type: ignore[attr-defined]


def print_comparison() -> None:
    old, new = make_bench_report(1), make_bench_report(2, slower=0.3, slow_cells=3)
    console = bench_tables.make_console(sys.stdout)  # type: ignore[attr-defined]
    bench_tables.print_comparison(comparing.compare(old, new), console)


def print_pipeline() -> None:
    part = {"seconds": {"median": 1.234}, "stft": 0.0123, "istft": 0.0456, "calls": 12}
    parts = [
        part
        | {"model": model, "backend": name, "share": 0.123, "computed_by": ["cpu", "native"]}
        | {"ratio": None if name == "native" else 2.3}
        for model in ("Mel-Band-RoFormer", "MDX-Net")
        for name in ("native", "cpu", "auto")
    ]
    made = {"sizes": "small", "parts": parts, "machine": make_bench_report(1)["machine"]}
    bench_tables.print_pipeline(made, bench_tables.make_console(sys.stdout))  # type: ignore[attr-defined]


@pytest.mark.parametrize("function", [print_bench, print_comparison, print_pipeline])
def test_bench(function: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_tables, "make_console", None, raising=False)
    check_widths(monkeypatch, bench_tables, function)


def test_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    call = {"backend": "cpu", "native_seconds": 0.183, "patched_seconds": 0.033, "gain": 5.6}
    left = call | {"backend": "native", "reasons": ["auto: too small to be faster on the CPU"]}
    side = {"separation_seconds": 2.0, "stem_error": 1e-7, "calls": {"stft/cpu": 1, "istft/cpu": 2}}
    made = {
        "ok": True,
        "source": "a clip synthesised by this program: chords and drums, no real recording",
        "channels": 2,
        "samples": 441000,
        "rate": 44100,
        "threads": 2,
        "calls": {"stft": left, "istft": call},
        "results": {"native": side, "patched": side},
        "max_difference": 1e-7,
        "files": ["demo-output/input.wav", "demo-output/separation.png"],
        "notes": [],
    }
    check_widths(monkeypatch, demo, partial(demo._print, made))
