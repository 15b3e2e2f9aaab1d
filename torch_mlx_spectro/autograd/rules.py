"""The maps as torch's autograd and torch.func see them, built from the table of rules.

A map takes a :class:`.Task` and two tensors. Its gradients and tangents are maps again
(:data:`.core.linear.RULES`), and under vmap it is called for the examples. So derivatives of all
orders are covered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch.autograd import Function

from ..backends.base import Optional
from ..core.linear import RULES, Gradient, Rule
from ..native import private_state as torch_state
from . import linear_maps
from .linear_maps import Task
from .plain_maps import PLAIN_MAPS

Compute = Callable[[Task[Any], Any, Any], torch.Tensor]


class Map:
    """A function of a task and two tensors that torch can differentiate and vectorise.

    Two subclasses of ``torch.autograd.Function`` are built of its methods. One is for autograd
    alone, the usual case. The other also serves the transforms of torch.func and forward mode.
    There torch inspects the function's signature in each call, which takes longer than a small
    transform.
    """

    def __init__(self, name: str, rule: Rule, compute: Compute) -> None:
        self.name, self.rule = name, rule
        self._function = compute

        def pull_back(ctx: Any, cotangent: Optional) -> tuple[Optional, ...]:
            return self._pull_back(ctx, cotangent)  # compiled autograd takes functions, no methods

        self._recorded = build_function(name, forward=self._record, backward=pull_back)
        self._transformed = build_function(
            name,
            # A plain function, since reading a method's signature takes torch a third longer.
            forward=lambda task, first, second: self._compute(task, first, second),
            setup_context=self._set_up,
            backward=pull_back,
            jvp=self._push_forward,
            vmap=lambda info, dims, *inputs: (self._stack(*inputs, *dims[1:]), 0),
        )

    def apply(self, task: Task[Any], first: torch.Tensor, second: Optional) -> Any:
        """Compute the map so that autograd, forward mode and vmap see it, whichever are active.

        Whoever watches what is computed is shown torch's own operations.
        """
        if torch_state.is_watched(first):
            return PLAIN_MAPS[self.name](task, first, second)
        is_batched = torch_state.is_batched
        if is_batched(first) or (second is not None and is_batched(second)):
            return torch_state.apply_by_example(partial(self._stack, task), first, second)
        if torch_state.is_transformed():
            return self._transformed.apply(task, first, second)
        if torch.is_grad_enabled():
            return self._recorded.apply(task, first, second)
        return self._compute(task, first, second)  # as in most backward passes

    def _compute(self, task: Task[Any], first: torch.Tensor, second: Optional) -> torch.Tensor:
        return self._function(
            task, _fill_zeros(first), None if second is None else _fill_zeros(second)
        )

    def _record(self, ctx: Any, task: Task[Any], first: Any, second: Any) -> torch.Tensor:
        result = self._compute(task, first, second)
        if second is not None and not second.requires_grad:
            # Copied only now: the backend may know the original, and has been called with it. An
            # alias, since a program may have ``window.data`` be of other sizes before backward.
            second = second.clone() if task.copies_window else second.detach()
        self._save(ctx, task, first, second)
        return result

    def _set_up(self, ctx: Any, inputs: Any, output: Any) -> None:
        task, first, second = inputs
        self._save(ctx, task, first, second)
        # Needed only until the tangent is computed, which is right after this.
        ctx.save_for_forward(None if self.rule.second is None else first, second)

    def _save(self, ctx: Any, task: Task[Any], first: torch.Tensor, second: Optional) -> None:
        """Save only what native saves, so that a program may change the rest in place.

        That is what gradients need; a signal that they refer to; and a window that is trained, also
        where it is only checked for a spectrum that is not differentiated.
        """
        _, needs_first, needs_second = ctx.needs_input_grad
        ctx.task, ctx.refers = task.for_derivatives(), task.refers and needs_first
        ctx.set_materialize_grads(False)
        keeps_first = needs_second or ctx.refers
        keeps_second = needs_first or task.checked is not None
        ctx.save_for_backward(first if keeps_first else None, second if keeps_second else None)

    def _pull_back(self, ctx: Any, cotangent: Optional) -> tuple[Optional, ...]:
        """Compute the gradients in the two tensors, as far as they are asked for."""
        if cotangent is None:
            return None, None, None
        first, second = ctx.saved_tensors
        _, needs_first, needs_second = ctx.needs_input_grad
        rule, task = self.rule, ctx.task
        referring = refer(cotangent, first) if ctx.refers else cotangent
        return (
            None,
            compute_gradient(rule.first, task, referring, second) if needs_first else None,
            compute_gradient(rule.second, task, cotangent, first) if needs_second else None,
        )

    def _push_forward(self, ctx: Any, _: None, along_first: Any, along_second: Any) -> Any:
        """Compute the tangent: the sum of the map applied to each tensor's tangent."""
        first, second = ctx.saved_tensors
        parts = []
        if along_first is not None:
            parts.append(self.apply(ctx.task, along_first, second))
        if along_second is not None and self.rule.second is not None:
            parts.append(self.apply(ctx.task, first, along_second))
        return sum(parts[1:], parts[0]) if parts else None

    def _stack(
        self,
        task: Task[Any],
        first: Any,
        second: Any,
        first_dim: int | None,
        second_dim: int | None,
    ) -> Any:
        """Return the results of all examples of vmap, stacked along a new first dimension.

        Args:
            first_dim, second_dim: the dimension of a tensor's examples; None if all share it.
        """
        if self.rule.has_rows and second_dim is None:
            examples = first.movedim(first_dim, 0)
            count, rows = examples.shape[:2]
            result = self.apply(task.with_rows(count * rows), examples.flatten(0, 1), second)
            return result.unflatten(0, (count, rows))
        each = [
            repeat(tensor) if dim is None else tensor.unbind(dim)
            for tensor, dim in ((first, first_dim), (second, second_dim))
        ]
        results = [self.apply(task, *pair) for pair in zip(*each, strict=False)]
        if self.name == "analysis":  # in native's layout of a spectrum bins are innermost
            return torch.stack([spectrum.mT for spectrum in results]).mT
        return torch.stack(results)


def build_function(name: str, **methods: Callable[..., Any]) -> Any:
    """Build a subclass of Function; torch shows its name in ``grad_fn`` and in messages."""
    members = {key: staticmethod(method) for key, method in methods.items()}
    return type(name.title().replace("_", ""), (Function,), members)


class _Reference(Function):
    """A cotangent as it is, and a reference to a tensor in which its derivative is zero."""

    @staticmethod
    def forward(ctx: Any, cotangent: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(tensor)
        return cotangent.view_as(cotangent)

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (tensor,) = ctx.saved_tensors
        return cotangent, torch.zeros_like(tensor)


def refer(cotangent: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Have a gradient that is to be differentiated refer to a tensor, as native's does.

    The gradient of what reflects or replicates does not depend on the signal. But native's requires
    a gradient if the signal does, and its derivative in the signal is zeros.
    """
    if not torch.is_grad_enabled() or torch_state.is_transformed() or torch_state.is_compiling():
        return cotangent
    apply: Any = _Reference.apply
    referring: torch.Tensor = apply(cotangent, tensor)
    return referring


def _fill_zeros(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor, or zeros with memory in the place of torch's symbolic zeros."""
    if torch_state.is_zerotensor(tensor):
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    return tensor


def compute_gradient(
    gradient: Gradient | None, task: Task[Any], cotangent: torch.Tensor, other: Any
) -> Any:
    """Compute a gradient by its rule; None if there is no rule.

    Args:
        other: the map's other argument.
    """
    if gradient is None:
        return None
    pair = (other, cotangent) if gradient.swapped else (cotangent, other)
    return MAPS[gradient.name].apply(task, *pair)


def build_maps(rules: Mapping[str, Rule], computed: Mapping[str, Compute]) -> dict[str, Map]:
    """Build the maps of a table, by name.

    Raises:
        ValueError: a map has no rule, or a map with a rule has no function that computes it.
    """
    gradients = {found for rule in rules.values() for found in (rule.first, rule.second) if found}
    named = {found.name for found in gradients} | computed.keys()
    if missing := sorted((named - rules.keys()) | (rules.keys() - computed.keys())):
        raise ValueError(f"no rule, or nothing that computes it, for {', '.join(missing)}")
    return {name: Map(name, rule, computed[name]) for name, rule in rules.items()}


MAPS = build_maps(
    RULES,
    {
        "analysis": linear_maps.compute_analysis,
        "adjoint": linear_maps.compute_adjoint,
        "correlation": linear_maps.compute_correlation,
        "inverse": linear_maps.compute_inverse,
        "inverse_adjoint": linear_maps.compute_inverse_adjoint,
    },
)
