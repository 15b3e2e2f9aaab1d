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


def side_by_side(calls: Sequence[Call], seconds: float, least: int = 5) -> list[list[float]]:
    """Time several calls in one run, in turn, in groups of four of which the first is dropped.

    In groups, because each implementation leaves the machine in a state of its own (threads that
    still spin, caches): a program uses one of them, call after call. Every other round goes
    through the calls backwards, so that none always follows the same other.

    Args:
        calls: what to time; each is warmed up first.
        seconds: time to spend on all of them, about.
        least: groups of each at least.

    Returns:
        For each call, the median seconds of each of its groups; entries of one index are of one
        round.
    """
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    begin = time.perf_counter()
    order = list(zip(calls, times, strict=True))
    while len(times[0]) < least or time.perf_counter() - begin < seconds:
        for call, taken in order:
            call()
            group = []
            for _ in range(3):
                start = time.perf_counter()
                call()
                group.append(time.perf_counter() - start)
            taken.append(statistics.median(group))
        order.reverse()
    return times


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Median of the ratios of times taken in one round: a machine that slows down slows both."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def difference(plain: Call, other: Call, repeats: int, rounds: int) -> tuple[float, float]:
    """Median seconds of ``plain``, and the median of what ``other`` takes more in the same round.

    For calls too short to time one by one: short loops in turn, the order changing every round.
    """
    taken: dict[bool, list[float]] = {False: [], True: []}
    for index in range(rounds):
        for which in (index % 2 == 0, index % 2 == 1):
            call = other if which else plain
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            taken[which].append((time.perf_counter() - start) / repeats)
    more = [b - a for a, b in zip(taken[False], taken[True], strict=True)]
    return statistics.median(taken[False]), statistics.median(more)


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
