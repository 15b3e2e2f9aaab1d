"""How long the way from a call's result to its cotangent, and back to its gradient, takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..calls.timer import Spent, Timer, Timing


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

    def read(self) -> Spent | None:
        """How long both took, of host and device; None while the device has not finished."""
        there, back = self._forward.read(), self._back.read()
        return there and back and Spent(there.host + back.host, there.device + back.device)
