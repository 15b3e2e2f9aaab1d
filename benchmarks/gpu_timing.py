"""Timing on one GPU: by events, from graphs, by the host's clock, and what memory allows."""

from __future__ import annotations

import importlib
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

Call = Callable[[int], Any]


def between_events(work: Callable[[], Any]) -> float:
    """Microseconds of device time."""
    begin: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    begin.record()
    work()
    end.record()
    end.synchronize()
    return 1e3 * float(begin.elapsed_time(end))


def repeat_calls(call: Call, count: int, sets: int) -> Callable[[], None]:
    """``count`` calls whose last results are kept, so that outputs rotate as inputs do."""

    def work() -> None:
        kept: deque[Any] = deque(maxlen=sets)
        for i in range(count):
            kept.append(call(i))

    return work


def by_events(call: Call, count: int, sets: int, times: int = 7) -> float:
    """Median microseconds of a call, by events."""
    work = repeat_calls(call, count, sets)
    work()
    return statistics.median(between_events(work) for _ in range(times)) / count


def by_graph(call: Call, count: int, sets: int, times: int = 9) -> float:
    """Median microseconds of a call, replayed from a graph."""
    work = repeat_calls(call, count, sets)
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    graph.replay()
    return statistics.median(between_events(graph.replay) for _ in range(times)) / count


def by_wall(call: Call, count: int, sets: int, times: int = 5) -> float:
    """Median microseconds of a call, by the host's clock."""
    work = repeat_calls(call, count, sets)
    work()
    taken = []
    for _ in range(times):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begin)
    return 1e6 * statistics.median(taken) / count


def copy_bandwidth() -> float:
    """Bytes read and written per microsecond by a large copy."""
    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / by_events(lambda i: target.copy_(source), 5, 2)


def memcpy_time(nbytes: int, sets: int, count: int) -> float:
    """Microseconds of a copy that reads and writes as many bytes together, one after another."""
    driver = importlib.import_module("cuda.bindings.driver")
    sources = [torch.empty(nbytes // 8, device="cuda") for _ in range(sets)]
    targets = [torch.empty_like(source) for source in sources]
    stream = torch.cuda.current_stream().cuda_stream

    def copy(i: int) -> None:
        target, source = targets[i % sets], sources[i % sets]
        driver.cuMemcpyDtoDAsync(target.data_ptr(), source.data_ptr(), source.nbytes, stream)

    return by_events(copy, count, sets)


def error(result: torch.Tensor, exact: torch.Tensor) -> float:
    return float((result - exact).norm() / exact.norm())
