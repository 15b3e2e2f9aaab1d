"""The first derivatives of a verified call, compared with native's when autograd computes them.

The call is made with aliases of its tensors. A hook of the result sees the cotangent. Hooks of the
aliases see our gradients, and may replace them by native's. Derivatives of higher order are made of
the same maps (:mod:`.autograd.derivatives`), and are not compared by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ..native import private_state as torch_state
from . import criterion
from .comparison import Native, Outcome, read_versions, silence_repeats, stop_without_memory

if TYPE_CHECKING:
    from ..core.params import IstftParams, StftParams


class GradientCheck:
    """The gradients of one call, each compared the first time that it is computed.

    The input is only kept if the window's gradient needs its values, which autograd keeps, too:
    both functions are linear in the input.

    Args:
        native: torch's own function.
        params: of the call.
        bound: its arguments by name.
        note: called with the name of the argument and the outcome of its comparison; returns
            whether native's gradient is to be returned. Its exceptions come out of the backward
            pass.
    """

    def __init__(
        self,
        native: Native,
        params: StftParams | IstftParams,
        bound: Mapping[str, Any],
        note: Callable[[str, Outcome], bool],
    ) -> None:
        self._native, self._params, self._note = native, params, note
        self._given = {
            name: value
            for name, value in bound.items()
            if name not in ("input", "window") and value is not None
        }
        tensor, self._window = bound["input"], bound["window"]
        #: Names of what has yet to be compared; removing one cannot be divided by another thread.
        self._left = list(list_differentiated(bound))
        self._shape, self._dtype = tensor.shape, tensor.dtype
        self._input = tensor if "window" in self._left else None
        self._versions = read_versions(self._input, self._window)
        #: By the backward pass that they belong to.
        self._cotangents: dict[int, torch.Tensor] = {}

    def make_aliases(self, bound: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Make what the call gets in place of the arguments that are differentiated."""
        made: dict[str, Any] = {}
        for name in self._left:
            made[name] = bound[name].view_as(bound[name])
            made[name].register_hook(partial(self._compare_gradient, name))
        return made

    def watch(self, result: Any) -> None:
        """Have the result's hook note its cotangent; the result itself does not show that."""
        result.grad_fn.register_prehook(self._keep_cotangent)

    def _keep_cotangent(self, cotangents: tuple[torch.Tensor | None, ...]) -> None:
        if torch_state.is_compiling():  # a compiler that reads this can run no comparison
            return
        (cotangent,) = cotangents
        if not self._left or cotangent is None or not _is_plain(cotangent):
            return
        backward = torch_state.backward_pass()
        if backward < 0:
            return  # one pass cannot be told from another
        self._cotangents[backward] = cotangent
        torch_state.after_backward(partial(self._cotangents.pop, backward, None))

    def _compare_gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor | None:
        """Return the gradient that replaces ours, if any."""
        if torch_state.is_compiling():
            return None
        cotangent = self._cotangents.get(torch_state.backward_pass())
        if cotangent is None or not _is_plain(gradient):
            return None
        try:
            self._left.remove(name)
        except ValueError:
            return None
        if not self._note(name, self._find_outcome(name, cotangent, gradient)):
            return None
        with silence_repeats():
            recorded = torch.is_grad_enabled()
            return self._compute_gradient(name, cotangent, self._window, recorded=recorded)

    def _find_outcome(self, name: str, cotangent: torch.Tensor, gradient: torch.Tensor) -> Outcome:
        comparison = criterion.Comparison(
            recompute=partial(self._compute_gradient, name),
            tensor=cotangent,
            window=self._window,
            n_fft=self._params.n_fft,
            batched=self._params.batched and name == "input",
            pairs=False,
            recorded=False,
            device=criterion.choose_device(cotangent),
        )
        with torch.no_grad(), silence_repeats(), stop_without_memory():
            try:
                expected = self._compute_gradient(name, cotangent, self._window)
            except Exception:
                # Native has no such derivative here (none that is deterministic, say), or no memory
                # for it. The program has ours, and does not wait for native's.
                return Outcome()
            wrong = criterion.find_kind_difference(expected, gradient) or (
                criterion.find_value_difference(comparison, expected, gradient)
            )
            conclusive = criterion.is_conclusive(expected)
            # Else another thread has written to them meanwhile.
            if read_versions(self._input, self._window) == self._versions:
                return Outcome(
                    True, f"its gradient in {name}: {wrong}" if wrong else "", conclusive
                )
        return Outcome()

    def _compute_gradient(
        self,
        name: str,
        cotangent: torch.Tensor,
        window: torch.Tensor | None,
        recorded: bool = False,
    ) -> torch.Tensor:
        """Native's gradient, in the precision and on the device of the cotangent.

        Args:
            recorded: it is to be differentiated itself.
        """
        device, dtype = cotangent.device, self._dtype
        if cotangent.dtype in (torch.float64, torch.complex128):
            dtype = criterion.widen_dtype(dtype)
        with torch.enable_grad():
            if name == "input":
                tensor = leaf = torch.zeros(
                    self._shape, dtype=dtype, device=device
                ).requires_grad_()
            else:
                assert window is not None
                assert self._input is not None
                tensor = (self._input if recorded else self._input.detach()).to(device, dtype)
                leaf = window = (
                    window.view_as(window) if recorded else window.detach().requires_grad_()
                )
            more = {} if window is None else {"window": window}
            result = self._native(input=tensor, **more, **self._given)
            (gradient,) = torch.autograd.grad(result, leaf, cotangent, create_graph=recorded)
        return gradient


def list_differentiated(bound: Mapping[str, Any]) -> tuple[str, ...]:
    """List which of a call's tensors are differentiated."""
    tensors = {name: bound[name] for name in ("input", "window")}
    return tuple(
        name
        for name, tensor in tensors.items()
        if tensor is not None and torch_state.requires_gradient(tensor)
    )


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor has values, and nothing but autograd observes it."""
    return (
        type(tensor) is torch.Tensor
        and not torch_state.is_batched(tensor)
        and not torch_state.is_zerotensor(tensor)
        and not torch_state.is_intercepted()
        and not torch_state.is_compiling()
    )
