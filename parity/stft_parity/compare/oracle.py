"""The truth that errors are measured against: the reference in double precision on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stft_parity.adapting import Function
from stft_parity.cases import Case, Tensors, widen
from stft_parity.compare.tolerances import precision
from stft_parity.compare.values import wide


def truth(case: Case, tensors: Tensors, reference: Function) -> torch.Tensor:
    """The same call computed by the reference in double precision on the CPU."""
    args, kwargs = case.bind(bring_here(widen(tensors)))
    with silence_warnings():
        result = reference(*args, **kwargs)
    assert isinstance(result, torch.Tensor)
    return result.detach()


def true_gradients(
    case: Case, tensors: Tensors, cotangent: torch.Tensor, reference: Function
) -> dict[str, torch.Tensor | None]:
    """Gradients of that call by name of the tensor, with a cotangent of any precision."""
    here = bring_here(widen(tensors))
    leaves = [here[name].detach().requires_grad_() for name in case.differentiate]
    here |= dict(zip(case.differentiate, leaves, strict=True))
    args, kwargs = case.bind(here)
    with silence_warnings():
        result = reference(*args, **kwargs)
        weight = cotangent.detach().to(device="cpu", dtype=result.dtype)
        found = torch.autograd.grad(result, leaves, weight, allow_unused=True)
    return dict(zip(case.differentiate, found, strict=True))


def bring_here(tensors: Tensors) -> Tensors:
    """The tensors on the CPU, apart from any graph; autograd can keep each."""
    return {
        name: _make_recordable(value.detach().cpu()) if isinstance(value, torch.Tensor) else value
        for name, value in tensors.items()
    }


def _make_recordable(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or a copy of one made in inference mode, of which autograd keeps nothing."""
    return tensor.clone() if tensor.is_inference() else tensor


@contextmanager
def silence_warnings() -> Iterator[None]:
    """Let nothing warn: what a call warns of is compared elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def numbers(case: Case, result: torch.Tensor) -> torch.Tensor:
    """A result in double precision on the CPU; stft's pairs of reals are the numbers they are."""
    result = wide(result.detach().cpu())
    if case.op == "stft" and not result.is_complex() and result.shape[-1:] == (2,):
        result = torch.complex(*result.unbind(-1))
    return result


def round_randomly(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The values in double precision on the CPU, each moved by up to half a rounding of its dtype.

    Integers are as they are.
    """
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor.detach().cpu()
    share = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 0.5
    return wide(tensor.detach().cpu()) * (1 + precision(tensor.dtype) * share)
