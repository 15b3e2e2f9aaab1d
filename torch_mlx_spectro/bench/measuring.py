"""Clocks, samples taken in turn, and their summaries."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from .schema import Summary

#: Takes the number of the call, by which it may choose among inputs.
Call = Callable[[int], Any]

#: Shorter samples than this say more of the clock and of synchronising than of the calls.
SAMPLE_SECONDS = {"cpu": 1e-3, "mps": 4e-3, "cuda": 4e-3}
MAX_BATCH = 64
#: Samples of a pass that are taken however long they last.
LEAST_SAMPLES = 2


@dataclass(frozen=True)
class Watch:
    """A clock in seconds, and what waits for a device to finish."""

    now: Callable[[], float]
    synchronize: Callable[[], object]
    sample_seconds: float = SAMPLE_SECONDS["cpu"]


def watch_for(device: str) -> Watch:
    """The watch for calls on ``"cpu"``, ``"mps"`` or ``"cuda"``."""
    waits: dict[str, Callable[[], object]] = {
        "cpu": lambda: None,
        "mps": torch.mps.synchronize,
        "cuda": torch.cuda.synchronize,
    }
    return Watch(time.perf_counter, waits[device], SAMPLE_SECONDS[device])


@dataclass(frozen=True)
class Side:
    """One of those that are timed against each other: its call, and the context it is made in."""

    name: str
    context: Callable[[], AbstractContextManager[object]]
    call: Call


def batch_of(side: Side, watch: Watch) -> int:
    """Calls that a sample has to have to last long enough; the side must be warm."""
    with side.context():
        took = _timed(side.call, watch, 0, 2, 1)
    return max(1, min(MAX_BATCH, math.ceil(watch.sample_seconds / max(took, 1e-9))))


def take_turns(
    sides: Sequence[Side], watch: Watch, samples: int, batch: int, seconds: float, kept: int = 1
) -> dict[str, list[float]]:
    """Time calls of several sides in turn.

    A turn begins with a call that is not timed, because each side leaves the machine in a state of
    its own (threads that still spin, caches), and a program uses one of them, call after call.
    Every other round goes through the sides backwards, so that none always follows the same other.

    Args:
        sides: what to time; warm.
        watch: the clock.
        samples: rounds.
        batch: calls of a sample.
        seconds: when these are over no other round begins, if there are ``LEAST_SAMPLES``.
        kept: results that are kept alive, so that outputs rotate through memory as inputs do.

    Returns:
        Side to seconds of a call in each round.
    """
    taken: dict[str, list[float]] = {side.name: [] for side in sides}
    begin = watch.now()
    order = list(sides)
    for index in range(samples):
        if index >= LEAST_SAMPLES and watch.now() - begin >= seconds:
            break
        for side in order:
            with side.context():
                side.call(index * batch)
                taken[side.name].append(_timed(side.call, watch, index * batch + 1, batch, kept))
        order.reverse()
    return taken


def _timed(call: Call, watch: Watch, first: int, batch: int, kept: int) -> float:
    """Seconds of one call, from ``batch`` of them with an idle device before and after."""
    results: deque[Any] = deque(maxlen=kept)
    watch.synchronize()
    begin = watch.now()
    for number in range(first, first + batch):
        results.append(call(number))
    watch.synchronize()
    return (watch.now() - begin) / batch


def summary(values: Sequence[float]) -> Summary:
    """Median and quartiles."""
    ordered = sorted(values)
    low, median, high = (_quantile(ordered, part) for part in (0.25, 0.5, 0.75))
    return {"median": median, "low": low, "high": high, "n": len(values)}


def _quantile(ordered: Sequence[float], part: float) -> float:
    """Between the two nearest, linearly: NumPy's default, which takes long for a few numbers."""
    place = part * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def ratios(native: Sequence[Sequence[float]], ours: Sequence[Sequence[float]]) -> list[list[float]]:
    """Native time over ours of the samples taken in one round: what slows both cancels out."""
    return [
        [theirs / own for theirs, own in zip(*pair, strict=True)]
        for pair in zip(native, ours, strict=True)
    ]
