"""Clocks, samples taken in turn, and their summaries."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from ..calls.timer import HostTimer
from .schema import Summary

#: Takes the number of the call, by which it may choose among inputs.
Call = Callable[[int], Any]
Result = TypeVar("Result")

#: Shorter samples than these say more about the clock and the waiting than about the calls.
SAMPLE_SECONDS, GPU_SAMPLE_SECONDS = 1e-3, 4e-3
MAX_BATCH = 64
#: Samples of a pass that are taken however long they last.
LEAST_SAMPLES = 2


@dataclass(frozen=True)
class Clock:
    """A clock in seconds, and a function that waits for a device to finish."""

    now: Callable[[], float]
    finish: Callable[[], None]
    sample_seconds: float = SAMPLE_SECONDS

    def time(self, work: Callable[[], Result]) -> tuple[float, Result]:
        """Time some work, with the device idle before and after; return seconds and its result."""
        timer = HostTimer(self.now, self.finish)
        timer.begin()
        result = work()
        timer.end()
        return timer.read_host(), result


def make_clock(device: str) -> Clock:
    """Make the clock for calls on a device of this type."""
    least = SAMPLE_SECONDS if device == "cpu" else GPU_SAMPLE_SECONDS
    return Clock(time.perf_counter, getattr(torch, device).synchronize, least)


@dataclass(frozen=True)
class Side:
    """One side of a comparison: its call, and the context in which the call is made."""

    name: str
    context: Callable[[], AbstractContextManager[object]]
    call: Call


def choose_batch(side: Side, clock: Clock) -> int:
    """Choose the number of calls that makes a sample long enough; the side must be warm."""
    with side.context():
        took = _time_calls(side.call, clock, 0, 2, 1)
    return max(1, min(MAX_BATCH, math.ceil(clock.sample_seconds / max(took, 1e-9))))


def take_turns(
    sides: Sequence[Side],
    clock: Clock,
    samples: int,
    batch: int,
    seconds: float = math.inf,
    kept: int = 1,
    settle: bool = True,
) -> dict[str, list[float]]:
    """Time calls of several sides in turn.

    A turn begins with a call that is not timed. For each side leaves the machine in a state of its
    own (threads that still spin, caches), while a program uses one side, call after call. Every
    other round goes through the sides backwards, so that no side always follows the same one.

    Args:
        sides: what to time; warm.
        clock: the clock.
        samples: the number of rounds.
        batch: calls of a sample.
        seconds: after these no round begins, unless there are fewer than ``LEAST_SAMPLES``.
        kept: results that are kept alive, so that outputs rotate through memory as inputs do.
        settle: whether to make the call that is not timed; long samples do not need it.

    Returns:
        The seconds of a call in each round, by side.
    """
    taken: dict[str, list[float]] = {side.name: [] for side in sides}
    begin = clock.now()
    order = list(sides)
    for index in range(samples):
        if index >= LEAST_SAMPLES and clock.now() - begin >= seconds:
            break
        for side in order:
            first = index * batch
            with side.context():
                if settle:
                    side.call(first)
                taken[side.name].append(_time_calls(side.call, clock, first + 1, batch, kept))
        order.reverse()
    return taken


def _time_calls(call: Call, clock: Clock, first: int, batch: int, kept: int) -> float:
    """Time ``batch`` calls, whose last ``kept`` results stay alive; return seconds of one call."""
    numbers = range(first, first + batch)
    return clock.time(lambda: deque(map(call, numbers), maxlen=kept))[0] / batch


def summarise(values: Sequence[float]) -> Summary:
    """Return median and quartiles, equal to NumPy's, which takes long for a few numbers."""
    several = values if len(values) > 1 else [*values, *values]
    low, median, high = statistics.quantiles(several, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high, "n": len(values)}


def compute_ratios(
    native: Sequence[Sequence[float]], ours: Sequence[Sequence[float]]
) -> list[list[float]]:
    """Divide native's time by ours, round by round, so that what slows both cancels out."""
    return [
        [theirs / own for theirs, own in zip(*pair, strict=True)]
        for pair in zip(native, ours, strict=True)
    ]
