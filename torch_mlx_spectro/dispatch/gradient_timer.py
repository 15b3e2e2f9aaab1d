"""How long a differentiated call and its backward pass take together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..calls.timer import Spent, Timer, Timing
from ..native.private_state import is_compiling


class GradientTimer:
    """Adds the time of a call's first backward pass, from its cotangent to its gradient.

    This assumes that autograd computes nothing else between the two. Where it does, the time is too
    long; that does no harm, since the shortest of several times counts.

    Args:
        forward: the timing of the call itself.
        back: the timer of the backward pass.
        note: called with this timing once the gradient is there.
    """

    def __init__(self, forward: Timing, back: Timer, note: Callable[[Timing], None]) -> None:
        self._forward, self._back, self._note = forward, back, note
        self._is_under_way = self._is_over = False

    @property
    def prepared(self) -> bool:
        """Whether the call or its backward pass prepared something."""
        return self._forward.prepared or self._back.prepared

    def watch(self, result: Any, tensor: Any) -> None:
        """Time the backward pass from a result to the tensor that it was computed from."""
        result.grad_fn.register_prehook(self._at_cotangent)
        tensor.register_hook(self._at_gradient)

    def _at_cotangent(self, cotangents: tuple[torch.Tensor | None, ...]) -> None:
        # A compiler that reads this computes later, and otherwise.
        if (
            not self._is_over and not is_compiling()
        ):  # begins anew where an earlier pass did not reach the tensor
            self._back.begin()
            self._is_under_way = True

    def _at_gradient(self, gradient: torch.Tensor) -> None:
        if not is_compiling() and self._is_under_way and not self._is_over:
            self._is_over = True
            self._back.end()
            self._note(self)

    def read(self) -> Spent | None:
        """Return the time of both, of host and device; None while the device has not finished."""
        there, back = self._forward.read(), self._back.read()
        return there and back and Spent(there.host + back.host, there.device + back.device)
