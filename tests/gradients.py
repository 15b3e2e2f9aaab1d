"""Derivatives of a call in every direction that torch offers, and their comparison with native's.

As with values, the reference is native in double precision, and what is admitted is twice native's
own single precision error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd import forward_ad

from stft_parity.compare.tolerances import OWN_ERROR, SHARE_OF_PEAK

Function = Callable[..., torch.Tensor]
Named = dict[str, torch.Tensor]


@contextmanager
def torchs_own_warnings() -> Iterator[None]:
    """TorchScript is deprecated, and says so; forward-mode derivatives and inductor use it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.* is (deprecated|not supported)")
        warnings.filterwarnings("ignore", "Torchinductor does not support code generation for")
        warnings.filterwarnings("ignore", ".*A window was not provided.*")
        warnings.filterwarnings("ignore", ".*stft with return_complex=False is deprecated.*")
        yield


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """A leaf of the same values in double precision."""
    dtype = torch.complex128 if tensor.is_complex() else torch.float64
    return tensor.detach().to(dtype)


def noise(like: torch.Tensor, seed: int) -> torch.Tensor:
    """Values that depend on shape and seed alone, in the tensor's dtype."""
    generator = torch.Generator().manual_seed(seed)
    single = torch.complex64 if like.is_complex() else torch.float32
    return torch.randn(like.shape, dtype=single, generator=generator).to(like)


def _gradients(result: torch.Tensor, leaves: Sequence[torch.Tensor], weight: Any) -> list[Any]:
    return list(torch.autograd.grad(result, leaves, weight, create_graph=True, allow_unused=True))


def _square_sum(tensors: Sequence[torch.Tensor]) -> Any:
    """Weighted, so that no symmetry hides a mistake."""
    return sum((noise(t, 7) * t).abs().square().sum() for t in tensors)


def derivatives(function: Function, tensors: Mapping[str, torch.Tensor]) -> Named:
    """Value, gradients, gradients of gradients, and tangents of ``function(*tensors)``."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors.values()]
    with torchs_own_warnings():
        result = function(*leaves)
        found = {"value": result.detach()}
        first = _gradients(result, leaves, noise(result, 1))
        found |= _named("gradient", tensors, first)
        of_leaves = [gradient for gradient in first if gradient.requires_grad]
        if of_leaves:
            found |= _named(
                "second derivative", tensors, _gradients(_square_sum(of_leaves), leaves, None)
            )
        tangents = [noise(leaf, 20 + index) for index, leaf in enumerate(leaves)]
        with forward_ad.dual_level():
            pairs = zip(leaves, tangents, strict=True)
            duals = [forward_ad.make_dual(leaf, tangent) for leaf, tangent in pairs]
            dual = function(*duals)
            found["tangent"] = forward_ad.unpack_dual(dual).tangent.detach()
            over_reverse = _gradients(dual, duals, noise(result, 1))
            moved = [forward_ad.unpack_dual(gradient).tangent for gradient in over_reverse]
            found |= _named("tangent of gradient", tensors, moved)
    return found


def _named(what: str, tensors: Mapping[str, torch.Tensor], values: Sequence[Any]) -> Named:
    pairs = zip(tensors, values, strict=True)
    return {f"{what} of {name}": value.detach() for name, value in pairs if value is not None}


def compare_derivatives(
    ours: Function, native: Function, tensors: Mapping[str, torch.Tensor]
) -> set[str]:
    """Assert that each derivative is native's; returns their names.

    Zeros are often no tensor at all: one side may have none where the other's are zeros.
    """
    exact = derivatives(native, {name: wide(tensor) for name, tensor in tensors.items()})
    expected, actual = derivatives(native, tensors), derivatives(ours, tensors)
    for name in expected.keys() ^ actual.keys():
        unmatched = (expected | actual)[name]
        assert not unmatched.any(), f"{name} is missing on one side"
    for name in expected.keys() & actual.keys():
        assert actual[name].shape == expected[name].shape, name
        assert actual[name].dtype == expected[name].dtype, name
        check_close(name, actual[name], expected[name], exact[name])
    assert actual["value"].stride() == expected["value"].stride()
    return set(expected)


def check_close(
    name: str, actual: torch.Tensor, expected: torch.Tensor, exact: torch.Tensor
) -> None:
    """Assert that ``actual`` is as near to ``exact`` as ``expected`` is, up to a factor of two."""
    if exact.numel() == 0:
        return
    own = (expected.to(exact.dtype) - exact).abs().max()
    admitted = OWN_ERROR * own + SHARE_OF_PEAK * exact.abs().max()
    error = (actual.to(exact.dtype) - exact).abs().max()
    assert error <= admitted, f"{name}: error {error:.3g}, native's own {own:.3g}"
