"""Timing and memory, the same way for every benchmark."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Call = Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """Seconds a call: median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        low, median, high = statistics.quantiles(seconds, n=4)
        return cls(median, low, high)


def side_by_side(calls: Sequence[Call], seconds: float, least: int = 5) -> list[Timing]:
    """Time several calls in one run, in turn, in groups of four of which the first is dropped.

    In groups, because each implementation leaves the machine in a state of its own (threads that
    still spin, caches): a program uses one of them, call after call.

    Args:
        calls: what to time; each is warmed up first.
        seconds: time to spend on all of them, about.
        least: groups of each at least.
    """
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    begin = time.perf_counter()
    groups = 0
    while groups < least or time.perf_counter() - begin < seconds:
        for call, taken in zip(calls, times, strict=True):
            call()
            for _ in range(3):
                start = time.perf_counter()
                call()
                taken.append(time.perf_counter() - start)
        groups += 1
    return [Timing.of(taken) for taken in times]


def differences(calls: Sequence[Call], repeats: int, rounds: int) -> list[float]:
    """Median seconds of one call, for calls too short to time one by one: loops in turn."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, seconds in zip(calls, taken, strict=True):
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            seconds.append((time.perf_counter() - start) / repeats)
    return [statistics.median(seconds) for seconds in taken]


def resident_bytes() -> int:
    """Memory of this process now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def peak_bytes_of(call: Call) -> tuple[int, Any]:
    """Growth of the peak resident memory while ``call`` ran (Linux), and its result."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = resident_bytes()
    result = call()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 - before, result
    raise OSError("VmHWM is missing in /proc/self/status")


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import platform

    import torch

    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    mlx_version = "missing"
    try:
        import mlx.core

        mlx_version = mlx.core.__version__
    except ImportError:
        pass
    return {
        "processor": processor,
        "torch_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "mlx": mlx_version,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
