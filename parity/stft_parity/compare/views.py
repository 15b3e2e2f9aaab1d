"""Whether a result is a fresh tensor or a view, and what follows from it for a program."""

from __future__ import annotations

from collections.abc import Callable

import torch

from stft_parity.compare.gradients import Wrong
from stft_parity.compare.observing import error_text

#: What programs do to a result itself, in an order in which none hides what the next one does.
_CHANGES: dict[str, Callable[[torch.Tensor], object]] = {
    "resize_": lambda tensor: tensor.resize_(2 * tensor.numel() + 1),
    "set_": lambda tensor: tensor.set_(),  # type: ignore[call-overload]
    "requires_grad_": lambda tensor: tensor.requires_grad_(not tensor.requires_grad),
    "detach_": lambda tensor: tensor.detach_(),
}


def compare_views(expected: torch.Tensor, actual: torch.Tensor) -> list[Wrong]:
    """What tells a result that is fresh from a view, or memory of torch's from another's.

    Both are used up: nothing of their values is left.
    """
    if expected._is_view() != actual._is_view():
        kinds = [_kind(tensor) for tensor in (expected, actual)]
        what = f"the result is {kinds[1]} where the reference's is {kinds[0]}"
        return [Wrong("view", what, kinds[0], kinds[1])]
    # These depend on it, and that it differs is told already.
    if expected.requires_grad != actual.requires_grad:
        return []
    for name, change in _CHANGES.items():
        wanted, got = _describe_change(expected, change), _describe_change(actual, change)
        if wanted != got:
            what = f"after {name} of the result: {got}; with the reference's: {wanted}"
            return [Wrong("view", what, wanted, got)]
    return []


def _kind(tensor: torch.Tensor) -> str:
    return "a view of another tensor" if tensor._is_view() else "a fresh tensor"


def _describe_change(tensor: torch.Tensor, change: Callable[[torch.Tensor], object]) -> str:
    """What a change does, in words."""
    try:
        change(tensor)
    except RuntimeError as error:
        return f"{type(error).__name__}: {error_text(error)}"
    flags = {
        "requires_grad": tensor.requires_grad,
        "a leaf": tensor.is_leaf,
        "a view": tensor._is_view(),
    }
    said = ", ".join(f"{'' if given else 'not '}{name}" for name, given in flags.items())
    return f"shape {tuple(tensor.shape)}, strides {tensor.stride()}, {said}"
