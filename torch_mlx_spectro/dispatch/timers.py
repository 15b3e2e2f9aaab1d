"""How long a call took, and whether it is a measurement: what prepares something is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch

from ..store.caches import preparations


class Timing(Protocol):
    """What tells how long something took."""

    @property
    def prepared(self) -> bool:
        """Whether something was kept meanwhile that later calls find: then it is no measurement."""

    def seconds(self) -> float | None:
        """How long it took; None while the device has not finished."""


class Timer(Timing, Protocol):
    """Times what comes between its beginning and its end."""

    def begin(self) -> None: ...

    def end(self) -> None: ...


class _Watch:
    """Sees whether something is prepared between its beginning and its end."""

    def __init__(self) -> None:
        self.prepared = False
        self._before = 0

    def begin(self) -> None:
        self._before = preparations()

    def end(self) -> None:
        self.prepared = preparations() != self._before


class CudaTimer(_Watch):
    """Two events on the current stream, around a call: what its launches wait for counts."""

    def __init__(self) -> None:
        super().__init__()
        event: Any = torch.cuda.Event
        self._events = [event(enable_timing=True) for _ in range(2)]

    def begin(self) -> None:
        super().begin()
        self._events[0].record()

    def end(self) -> None:
        self._events[1].record()
        super().end()

    def seconds(self) -> float | None:
        """How long it took; None while the device has not finished."""
        if not self._events[1].query():
            return None
        milliseconds: float = self._events[0].elapsed_time(self._events[1])
        return milliseconds / 1000


class HostTimer(_Watch):
    """A clock of the host's, around work that is finished at both ends."""

    def __init__(self, clock: Callable[[], float], finish: Callable[[], None]) -> None:
        super().__init__()
        self._clock, self._finish = clock, finish
        self._begin = self._took = math.nan

    def begin(self) -> None:
        super().begin()
        self._finish()
        self._begin = self._clock()

    def end(self) -> None:
        self._finish()
        self._took = self._clock() - self._begin
        super().end()

    def seconds(self) -> float:
        return self._took


class WayBack:
    """Times a differentiated call with its first way back, from cotangent to gradient.

    Between the two autograd does nothing else but by chance, and of times the best counts.

    Args:
        forward: of the call.
        back: a timer.
        note: is given the timing of both, once autograd was there.
    """

    def __init__(self, forward: Timing, back: Timer, note: Callable[[Timing], None]) -> None:
        self._forward, self._back, self._note = forward, back, note
        self._is_under_way = self._is_over = False

    @property
    def prepared(self) -> bool:
        """Whether something was prepared on either way."""
        return self._forward.prepared or self._back.prepared

    def watch(self, result: Any, tensor: Any) -> None:
        """Wait for the way back from a result to the tensor that it was computed from."""
        result.grad_fn.register_prehook(self._at_cotangent)
        tensor.register_hook(self._at_gradient)

    def _at_cotangent(self, cotangents: tuple[torch.Tensor | None, ...]) -> None:
        if not self._is_over:  # again, where a pass before has not come to the tensor
            self._back.begin()
            self._is_under_way = True

    def _at_gradient(self, gradient: torch.Tensor) -> None:
        if self._is_under_way and not self._is_over:
            self._is_over = True
            self._back.end()
            self._note(self)

    def seconds(self) -> float | None:
        """How long both took; None while the device has not finished."""
        ways = self._forward.seconds(), self._back.seconds()
        return None if ways[0] is None or ways[1] is None else ways[0] + ways[1]
