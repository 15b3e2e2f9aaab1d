"""torch's own sample inputs of stft and istft: every derivative by MLX, and by Metal kernels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import metal
import pytest
import torch
from needs import needs_emulator
from opinfo_samples import SAMPLES, check_sample


def test_there_are_samples_of_both_dtypes() -> None:
    counted = Counter(param.id.rpartition("-")[0] for param in SAMPLES)
    assert set(counted) == {"stft-float32", "stft-complex64", "istft-complex64"}
    assert min(counted.values()) >= 5


@pytest.mark.parametrize(("op", "tensor", "kwargs"), SAMPLES)
@pytest.mark.usefixtures("strict_mlx")
def test_samples_in_blocks(op: str, tensor: torch.Tensor, kwargs: dict[str, Any]) -> None:
    check_sample(op, tensor, kwargs)


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
