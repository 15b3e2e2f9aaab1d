"""Differentiated calls that come again: forward and backward are prepared launches.

This function is for ordinary autograd alone, which is the usual case. Its backward pass looks up a
launch by the cotangent's layout in memory. Everything else (second derivatives, transforms of
torch.func, forward mode, cotangents of ``is_grads_batched``) is computed by the rules of
:mod:`.autograd.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch.autograd import Function

from ..backends.base import Backend, Optional, Prepared
from ..calls.key import ALIGNMENT
from ..calls.operation import Call
from ..core.linear import RULES, Gradient
from ..core.params import IstftParams, StftParams
from ..native import private_state as torch_state
from ..native.strides import as_batch
from ..store.caches import note_preparation
from .derivatives import frames_itself, make_task, refers_to_signal
from .linear_maps import Task
from .rules import build_function, compute_gradient, refer

#: Layouts of cotangents that are prepared for one plan. Most programs have one.
MAX_LAYOUTS = 8
is_grad_enabled = torch.is_grad_enabled
is_compiling, is_intercepted = torch_state.is_compiling, torch_state.is_intercepted
saved_tensors_hooks = torch_state.saved_tensors_hooks


class PreparedCall:
    """What all differentiated calls of one plan share; it holds none of their tensors.

    Args:
        params: parameters of these calls.
        task: the task of their map.
        rule: the rule of the map's gradient in the input.
        compute: the forward pass, without native's view.
        refers: whether native's backward pass refers to the input.

    Attributes:
        gradients: functions of a cotangent and the window that return the gradient in the input; by
            the cotangent's layout in memory.
    """

    __slots__ = ("_params", "_rule", "_task", "compute", "copies_window", "gradients", "refers")

    def __init__(
        self,
        params: StftParams | IstftParams,
        task: Task[Any],
        rule: Gradient | None,
        compute: Prepared,
        refers: bool,
    ) -> None:
        self.compute, self.refers, self.copies_window = compute, refers, task.copies_window
        self._params, self._task, self._rule = params, task.for_derivatives(), rule
        self.gradients: dict[Hashable, Prepared] = {}

    def compute_gradient(
        self, layout: Hashable, cotangent: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        """Compute the gradient in the input by the map's rule, which torch can differentiate.

        Args:
            layout: the cotangent's layout, for which a launch is to be prepared; None to prepare
                nothing.
        """
        gradient = self._pull_back(cotangent, window)
        if layout is not None and len(self.gradients) < MAX_LAYOUTS:
            backend, params = self._task.backend, self._params
            prepared = backend.prepare_gradient(params, cotangent, window, gradient)
            self.gradients[layout] = prepared or self._pull_back
            note_preparation()
        return gradient

    def _pull_back(self, cotangent: torch.Tensor, window: Optional) -> torch.Tensor:
        batch = as_batch(self._params, cotangent)
        gradient: torch.Tensor = compute_gradient(self._rule, self._task, batch, window)
        return gradient if self._params.batched else gradient.squeeze(0)


def _forward(ctx: Any, call: PreparedCall, tensor: torch.Tensor, window: Optional) -> torch.Tensor:
    result = call.compute(tensor, window)
    ctx.set_materialize_grads(False)
    if window is not None:
        # An alias: a program may have ``window.data`` be of other sizes before the backward pass.
        window = window.clone() if call.copies_window else window.detach()
    # The input not for its values: torch then refuses what it refuses natively. In the order of the
    # rules, since checkpoints compare what the two computations of a call have saved.
    ctx.save_for_backward(tensor if call.refers else None, window)
    # Hooks for saved tensors may return a window with another layout in memory.
    ctx.state = call, saved_tensors_hooks(False) is None
    return result


def _backward(ctx: Any, cotangent: Optional) -> tuple[None, Optional, None]:
    # Autograd calls this in a thread of the device's own, whose core has none of Python's code in
    # its caches. On an H200's host each operation here takes two to three times as long as forward.
    if cotangent is None:
        return None, None, None
    (signal, window), (call, is_window_itself) = ctx.saved_tensors, ctx.state
    layout: Hashable = None
    if is_compiling() or is_grad_enabled():
        if signal is not None:
            cotangent = refer(cotangent, signal)
    elif (
        is_window_itself
        and type(cotangent) is torch.Tensor
        and not is_intercepted()  # a launch is seen by nobody, and transforms would wrap its result
    ):
        try:
            address = cotangent.data_ptr()
        except RuntimeError:  # a tensor that transforms or vmap wrap has no memory of its own
            address = 0
        if address:
            layout = (
                cotangent.stride(),
                address % ALIGNMENT,
                cotangent.is_conj(),
                cotangent.is_neg(),
            )
            prepared = call.gradients.get(layout)
            if prepared is not None:
                return None, prepared(cotangent, window), None
    return None, call.compute_gradient(layout, cotangent, window), None


#: The functions' ``apply``, by map, without what ``Function.apply`` adds in Python: it looks for
#: transforms of torch.func, for which there is no plan, and inspects the signature of ``forward``
#: unless ``ctx`` is its argument.
_APPLY = {
    name: super(Function, build_function(name, forward=_forward, backward=_backward)).apply
    for name in ("analysis", "inverse")
}


def bind_prepared(
    call: Call, backend: Backend, compute: Prepared
) -> Callable[[torch.Tensor, Optional], torch.Tensor] | None:
    """Bind a differentiated call to prepared launches; None if it is not one of the usual calls.

    Usual are gradients in the input alone, with a real window. The signal is one that native does
    not frame in place, or the spectrum one whose bins are all read.

    Args:
        compute: the forward pass, from :meth:`.Backend.prepare`.
    """
    params, tensor, window = call
    if not tensor.requires_grad or (
        window is not None and (window.requires_grad or window.is_complex())
    ):
        return None
    task = make_task(params, backend, tensor, window)
    if isinstance(params, StftParams):
        if frames_itself(params, tensor):
            return None
        name, refers = "analysis", refers_to_signal(params)
    else:
        name, refers = "inverse", False
        if task.subject.bins != tensor.shape[-2]:
            return None
    prepared = PreparedCall(params, task, RULES[name].first, compute, refers)
    return partial(_APPLY[name], prepared)
