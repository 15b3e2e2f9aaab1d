"""What a patched call costs besides the transform: microseconds, memory, the import."""

from __future__ import annotations

import ctypes
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

import torch_mlx_spectro as tms

from ..backends.registry import BackendName
from ..native import functions as native
from .cases import ISTFT, ISTFT_BACKWARD, LARGEST, ROUND_TRIP, STFT, STFT_BACKWARD, Workload
from .measuring import Side, make_clock, take_turns
from .running import NATIVE, make_side
from .schema import Cost

Plain = Callable[[], Any]

#: Calls of a loop, and loops, that tell a few microseconds apart.
REPEATS, ROUNDS = 20, 1500

#: What a fresh process measures, and prints as JSON.
_MEMORY = "import sys; from torch_mlx_spectro.bench import costs; costs.print_memory(*sys.argv[1:])"
_IMPORT = (
    "import torch, time; t = time.perf_counter(); import torch_mlx_spectro, sys; "
    "torch_mlx_spectro.stft; sys.stdout.write(str(time.perf_counter() - t))"
)


def measure_costs(rounds: int = ROUNDS) -> list[Cost]:
    """Measure all costs on the CPU; memory only on Linux where MLX can be used.

    Args:
        rounds: loops of each call whose overhead is measured.
    """
    has_memory = sys.platform.startswith("linux") and tms.available_backends()["mlx"].available
    return [
        *measure_overhead(rounds),
        *(measure_memory() if has_memory else ()),
        {
            "what": "import after torch",
            "value": measure_import_time(),
            "unit": "ms",
            "native": None,
        },
    ]


def measure_overhead(rounds: int = ROUNDS) -> Iterator[Cost]:
    """Measure how many microseconds a patched call adds where native computes it."""
    signal, window = torch.randn(1, 16), torch.hann_window(4)
    spectrum = native.stft(signal, 4, 2, window=window, return_complex=True)
    sides: tuple[tuple[BackendName, bool], ...] = (
        ("auto", False),
        ("native", False),
        ("auto", True),
    )
    for backend, train in sides:
        x = signal.clone().requires_grad_(train)
        z = spectrum.clone().requires_grad_(train)
        given = {"stft": (x, {"return_complex": True}), "istft": (z, {})}
        with tms.patch(backend):
            for operation, (tensor, more) in given.items():
                plain, patched = (
                    partial(getattr(namespace, operation), tensor, 4, 2, window=window, **more)
                    for namespace in (native, torch)
                )
                seconds, longer = measure_difference(plain, patched, REPEATS, rounds)
                grad = ", requires grad" if train else ""
                yield {
                    "what": f"a patched {operation} that native computes, {backend}{grad}: more",
                    "value": 1e6 * longer,
                    "unit": "us",
                    "native": 1e6 * seconds,
                }


def measure_difference(
    plain: Plain, other: Plain, repeats: int, rounds: int
) -> tuple[float, float]:
    """Measure the median seconds of ``plain``, and of what ``other`` takes more in the same round.

    This is for calls too short to time one by one. Short loops of both take turns, in an order that
    changes every round.
    """
    sides = [
        Side("other", nullcontext, lambda number: other()),
        Side("plain", nullcontext, lambda number: plain()),
    ]
    taken = take_turns(sides, make_clock("cpu"), rounds, repeats, settle=False)
    more = [b - a for a, b in zip(taken["plain"], taken["other"], strict=True)]
    return statistics.median(taken["plain"]), statistics.median(more)


def measure_memory() -> Iterator[Cost]:
    """Measure the peak memory of a call on the largest size, each in a fresh process.

    Input and output are not counted; with a backward pass, input and cotangent are not.
    """
    for operation in (STFT, ISTFT, STFT_BACKWARD, ISTFT_BACKWARD, ROUND_TRIP):
        grown, of_native = (
            _run_fresh(_MEMORY, operation, name, str(torch.get_num_threads()))
            for name in ("mlx", NATIVE)
        )
        beyond = "output" if operation in (STFT, ISTFT) else "cotangent"
        what = f"memory of {operation}, {LARGEST}, beyond input and {beyond}"
        yield {"what": what, "value": grown, "unit": "MiB", "native": of_native}


def print_memory(operation: str, backend: str, threads: str) -> None:
    """Print the MiB by which one call makes this process grow at its peak."""
    torch.set_num_threads(int(threads))
    # A small call first: it loads MLX and what derivatives need, and starts the threads of both.
    small = Workload(type(LARGEST)(1, 20_000, LARGEST.n_fft, LARGEST.hop_length), "cpu")
    workload = Workload(LARGEST, "cpu")
    side = make_side(backend, workload, operation)
    with side.context():
        make_side(backend, small, operation).call(0)
        grown, result = measure_peak(partial(side.call, 0))
    if operation in (STFT, ISTFT):
        grown -= result.nbytes
    print(json.dumps(grown / 2**20))


def measure_peak(call: Plain) -> tuple[int, Any]:
    """Measure by how much a call raises the peak of resident memory (Linux); return its result."""
    # What was freed before and is still here would hide what the call takes.
    trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    result = call()
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM:"))
    return int(peak) * 1024 - before, result


def measure_import_time(repeats: int = 7) -> float:
    """Measure the median milliseconds of importing the package and its functions after torch."""
    return 1e3 * statistics.median(_run_fresh(_IMPORT) for _ in range(repeats))


def _run_fresh(program: str, *arguments: str) -> float:
    """Run a program in a process of its own, and return the number that it prints."""
    command = [sys.executable, "-c", program, *arguments]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
