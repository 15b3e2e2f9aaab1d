"""torch's own sample inputs of stft and istft, and a check of every derivative at one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hypothesis
import pytest
import torch
from gradients import compare_derivatives, torchs_own_warnings
from patched import NATIVE

import torch_mlx_spectro as tms

SINGLE = (torch.float32, torch.complex64)
DOUBLE = (torch.float64, torch.complex128)


@contextmanager
def our_hypothesis_profile() -> Iterator[None]:
    """Importing torch's testing internals loads a profile of torch's, of 50 draws or 10."""
    profile = hypothesis.settings.get_current_profile_name()
    try:
        yield
    finally:
        hypothesis.settings.load_profile(profile)


def samples(dtypes: tuple[torch.dtype, ...]) -> Iterator[Any]:
    """Each sample as (op, input, other arguments by name), with a readable id."""
    # torch's testing internals are large and warn: read once, here, and nothing else of them.
    with torchs_own_warnings(), our_hypothesis_profile():
        from torch.testing._internal.common_methods_invocations import op_db

        for op in op_db:
            for dtype in dtypes if op.name in NATIVE else ():
                if dtype not in op.supported_dtypes("cpu"):
                    continue
                for index, sample in enumerate(op.sample_inputs("cpu", dtype, requires_grad=True)):
                    assert not sample.args
                    name = f"{op.name}-{str(dtype).removeprefix('torch.')}-{index}"
                    yield pytest.param(op.name, sample.input, sample.kwargs, id=name)


SAMPLES = list(samples(SINGLE))
SAMPLES_IN_DOUBLE = list(samples(DOUBLE))


def bind_sample(function: Any, kwargs: dict[str, Any]) -> Any:
    """The function of the tensors of a sample alone."""
    others = {name: value for name, value in kwargs.items() if name != "window"}

    def call(signal: torch.Tensor, window: torch.Tensor | None = None) -> torch.Tensor:
        result: torch.Tensor = function(signal, window=window, **others)
        return result

    return call


def check_sample(
    op: str, tensor: torch.Tensor, kwargs: dict[str, Any], backend: str = "mlx"
) -> None:
    """All derivatives in the tensors of a sample; every call of ours was accelerated."""
    tensors = {"input": tensor}
    if "window" in kwargs:
        tensors["window"] = kwargs["window"]
    tms.reset_stats()
    names = compare_derivatives(
        bind_sample(getattr(torch, op), kwargs), bind_sample(NATIVE[op], kwargs), tensors
    )
    assert {"value", "tangent", *(f"gradient of {name}" for name in tensors)} <= names
    assert tms.stats().calls == {(op, backend): 2}
