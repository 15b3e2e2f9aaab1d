"""What is made of a backend's maps: results of the kinds that autograd is owed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from computing import ROUTES, Computing, computing_by
from map_identities import KINDS, inner
from reference import random_tensor, stft_params

from torch_mlx_spectro.autograd import linear_maps as maps
from torch_mlx_spectro.core.linear import Analysis


@pytest.fixture(params=ROUTES)
def computing(request: pytest.FixtureRequest, metal_cache: Path) -> Any:
    with computing_by(request.param, metal_cache) as found:
        yield found


def test_the_kinds_are_told_apart() -> None:
    assert [kind for kind in KINDS if kind in KINDS[2::2]] == ["complex signal", "complex"]
    assert [kind for kind in KINDS if kind in KINDS[3:]] == ["complex window", "complex"]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_of_the_kind_of_what_they_are_in(computing: Computing, kind: str) -> None:
    """<z, A(x, w)> = <adjoint(z, w), x> = <correlation(x, z), w>, by the backend of the task."""
    complex_signal, complex_window = kind in KINDS[2::2], kind in KINDS[3:]
    signal = random_tensor(0, 2, 90, complex_values=complex_signal)
    window = random_tensor(1, 13, complex_values=complex_window)
    sizes = {"n_fft": 16, "hop_length": 5, "win_length": 13, "onesided": kind == "real"}
    params = stft_params(signal, window, **sizes)
    task = maps.Task(computing.backend, Analysis(params, complex_signal, complex_window))
    spectrum = random_tensor(2, 2, params.bins, params.frames, complex_values=True)
    analysed = maps.compute_analysis(task, signal, window)
    back = maps.compute_adjoint(task, spectrum, window)
    correlated = maps.compute_correlation(task, signal, spectrum)
    assert (back.dtype, back.shape) == (signal.dtype, signal.shape)
    assert (correlated.dtype, correlated.shape) == (window.dtype, window.shape)
    assert back.is_contiguous()
    assert correlated.is_contiguous()
    expected = inner(spectrum, analysed)
    scale = float(spectrum.norm() * analysed.norm())
    assert abs(inner(back, signal) - expected) < 1e-5 * scale
    assert abs(inner(correlated, window) - expected) < 1e-5 * scale
    assert computing.launches is None or len(computing.launches) >= 3


def test_an_empty_signal_has_an_empty_gradient(computing: Computing) -> None:
    signal, window = torch.zeros(2, 0), torch.ones(4)
    params = stft_params(signal, window, n_fft=4, hop_length=1, pad_mode="constant")
    spectrum = torch.ones(2, params.bins, params.frames, dtype=torch.complex64)
    task = maps.Task(computing.backend, Analysis(params, False, False))
    assert maps.compute_adjoint(task, spectrum, window).shape == (2, 0)
    assert torch.equal(maps.compute_correlation(task, signal, spectrum), torch.zeros(4))
