"""The clocks of a CUDA device and its host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...calls.timer import HostTimer, Spent


class CudaTimer(HostTimer):
    """Times the device by two events on its current stream, and the host between them.

    Nothing waits for the device.

    Args:
        clock: the host's, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock, lambda: None)
        event: Any = torch.cuda.Event
        self._events = [event(enable_timing=True) for _ in range(2)]

    def begin(self) -> None:
        # Both: the first record creates an event, which would be timed if the device were idle.
        for event in reversed(self._events):
            event.record()
        super().begin()

    def end(self) -> None:
        super().end()
        self._events[1].record()

    def read(self) -> Spent | None:
        if not self._events[1].query():
            return None
        milliseconds: float = self._events[0].elapsed_time(self._events[1])
        return Spent(self.read_host(), milliseconds / 1000)
