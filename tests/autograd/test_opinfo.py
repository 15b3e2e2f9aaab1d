"""torch's own sample inputs of stft and istft: every derivative by each way to compute them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import metal
import pytest
import torch
from gradients import torchs_own_warnings
from needs import needs_emulator, needs_mlx
from opinfo_samples import SAMPLES, SAMPLES_IN_DOUBLE, bind_sample, check_sample
from patched import NATIVE

import torch_mlx_spectro as tms


def test_there_are_samples_of_both_dtypes() -> None:
    counted = Counter(param.id.rpartition("-")[0] for param in SAMPLES)
    assert set(counted) == {"stft-float32", "stft-complex64", "istft-complex64"}
    assert min(counted.values()) >= 5


@pytest.mark.parametrize(("op", "tensor", "kwargs"), SAMPLES)
@pytest.mark.parametrize("backend", [pytest.param("mlx", marks=needs_mlx), "cpu"])
def test_samples_in_blocks(
    backend: str, op: str, tensor: torch.Tensor, kwargs: dict[str, Any]
) -> None:
    with tms.patch(backend, strict=True):
        check_sample(op, tensor, kwargs, backend)


def test_there_are_samples_in_double_precision() -> None:
    counted = Counter(param.id.rpartition("-")[0] for param in SAMPLES_IN_DOUBLE)
    assert set(counted) == {"stft-float64", "stft-complex128", "istft-complex128"}


@pytest.mark.parametrize(("op", "tensor", "kwargs"), SAMPLES_IN_DOUBLE)
def test_samples_in_double_precision(op: str, tensor: torch.Tensor, kwargs: dict[str, Any]) -> None:
    """As torch's own tests of its operators check them: by finite differences."""
    leaves = [tensor]
    if "window" in kwargs:
        leaves.append(kwargs["window"].detach().requires_grad_())
    with tms.patch("cpu", strict=True), torchs_own_warnings():
        ours = bind_sample(getattr(torch, op), kwargs)
        expected = bind_sample(NATIVE[op], kwargs)(*leaves)
        torch.testing.assert_close(ours(*leaves), expected, rtol=1e-12, atol=1e-12)
        more = {"fast_mode": True, "check_batched_grad": True}
        # Not batched forward mode, which torch's own functions have not, by OpInfo.
        torch.autograd.gradcheck(ours, leaves, check_forward_ad=True, **more)
        torch.autograd.gradgradcheck(ours, leaves, check_fwd_over_rev=True, **more)
    assert {backend for _, backend in tms.stats().calls} == {"cpu"}
    assert not tms.stats().fallbacks


@needs_emulator
@pytest.mark.parametrize(("op", "tensor", "kwargs"), SAMPLES)
def test_samples_by_metal_kernels(
    op: str, tensor: torch.Tensor, kwargs: dict[str, Any], metal_cache: Path
) -> None:
    with metal.emulated(metal_cache) as machine:
        check_sample(op, tensor, kwargs)
    launched = Counter(launch.kernel for launch in machine.launches)
    # The value twice, its tangent, and the gradient twice.
    assert sum(launched.values()) >= 5
