"""The clock of a CUDA device."""

from __future__ import annotations

from typing import Any

import torch

from ...calls.timer import Watch


class CudaTimer(Watch):
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
