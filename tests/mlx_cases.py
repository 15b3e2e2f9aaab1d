"""Calls of the MLX API and torch's answers to them in double precision, shared by its tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from torch_mlx_spectro import SpectralTransform
from torch_mlx_spectro.mlx_api import functions

#: What makes every call be computed in blocks, and none.
BLOCKS, LAZILY = 1, 1 << 60
PATHS = pytest.mark.parametrize("work", [BLOCKS, LAZILY], ids=["blocks", "lazily"])

#: n_fft, hop_length, win_length
SIZES = [(64, 16, 64), (60, 17, 50), (37, 5, 20), (16, 3, 16), (2, 1, 2)]


def _noted(seen: list[str], name: str, run: Callable[..., None]) -> Callable[..., None]:
    def noted(*args: Any) -> None:
        seen.append(name)
        run(*args)

    return noted


@contextmanager
def computed(work: int) -> Iterator[list[str]]:
    """Everything of that much work in blocks; yields what was."""
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functions, "WORTHWHILE", work)
        for name in ("stft_blocks", "adjoint_blocks", "istft_blocks"):
            patch.setattr(functions, name, _noted(seen, name, getattr(functions, name)))
        yield seen


def noise(seed: int, *shape: int, kind: type = np.float32) -> Any:
    generator = np.random.default_rng(seed)
    values = generator.standard_normal(shape)
    if kind is np.complex64:
        values = values + 1j * generator.standard_normal(shape)
    return values.astype(kind)


def doubled(values: Any, **more: Any) -> torch.Tensor:
    """As a torch tensor of double precision."""
    wide = np.complex128 if np.iscomplexobj(values) else np.float64
    return torch.tensor(np.asarray(values).astype(wide), **more)


def arguments(transform: SpectralTransform) -> dict[str, Any]:
    """What torch is given for the same transform: the window of n_fft values."""
    return {
        "n_fft": transform.n_fft,
        "hop_length": transform.hop_length,
        "window": doubled(transform.window),
        "center": transform.center,
        "normalized": transform.normalized,
    }


def torchs_stft(transform: SpectralTransform, x: Any, **more: Any) -> torch.Tensor:
    signal = x if isinstance(x, torch.Tensor) else doubled(x)
    call = {**arguments(transform), **more}
    onesided = transform.onesided and not signal.is_complex()
    return torch.stft(
        signal,
        pad_mode=transform.center_pad_mode,
        onesided=onesided,
        return_complex=True,
        **call,
    )


def close(found: Any, expected: Any, tolerance: float = 2e-6) -> None:
    """Equal in shape, and in values to this part of the largest one."""
    found = np.array(found)
    if isinstance(expected, torch.Tensor):
        expected = expected.detach().numpy()
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    scale = max(float(np.abs(expected).max(initial=0)), 1e-6)
    assert float(np.abs(found - expected).max(initial=0)) <= tolerance * scale


def dot(cotangent: Any, values: Any) -> Any:
    """``Re sum conj(cotangent) values``: the loss whose gradient in ``values`` is the cotangent."""
    return mx.real(mx.conj(mx.array(cotangent)) * values).sum()
