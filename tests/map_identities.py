"""The identities that define the maps of derivatives, for a backend's maps to be checked by."""

from __future__ import annotations

from typing import Any

import torch
from reference import istft_params, random_tensor, stft_params

from torch_mlx_spectro.backends.base import Backend
from torch_mlx_spectro.core.linear import Analysis

KINDS = ["real", "two-sided", "complex signal", "complex window", "complex"]


def inner(a: torch.Tensor, b: torch.Tensor) -> float:
    """``Re sum conj(a) b`` in double precision."""
    wide = [tensor.to(torch.complex128) for tensor in (a, b)]
    return float((wide[0].conj() * wide[1]).sum().real)


def check_identities(
    backend: Backend,
    kind: str,
    n_fft: int,
    hop: int,
    win: int,
    samples: int,
    *,
    edge: float = 1.0,
    **call: Any,
) -> None:
    """<z, A(x, w)> = <adjoint(z, w), x> = <correlation(x, z), w>.

    Args:
        edge: of the analysis, if its spectra are onesided.
    """
    complex_signal, complex_window = kind in KINDS[2::2], kind in KINDS[3:]
    signal = random_tensor(0, 2, samples, complex_values=complex_signal)
    window = random_tensor(1, win, complex_values=complex_window)
    params = stft_params(
        signal,
        window,
        n_fft=n_fft,
        hop_length=hop,
        win_length=win,
        onesided=kind == "real",
        **call,
    )
    analysis = Analysis(params, complex_signal, complex_window, edge if params.onesided else 1.0)
    spectrum = random_tensor(2, 2, params.bins, params.frames, complex_values=True)
    analysed = backend.analyse(params, signal, window, analysis.edge)
    back = backend.adjoint(analysis, spectrum, window)
    summed = backend.differentiate_window(analysis, signal, spectrum)
    assert (back.shape, back.is_complex()) == (signal.shape, params.complex_fft)
    assert back.is_contiguous()
    assert (summed.shape, summed.is_complex()) == ((n_fft,), params.complex_fft)
    left = (n_fft - win) // 2
    correlated = summed[left : left + win] * analysis.inverse_scale
    scale = float(spectrum.norm() * analysed.norm())
    expected = inner(spectrum, analysed)
    assert abs(inner(back, signal) - expected) < 1e-5 * scale
    assert abs(inner(correlated, window) - expected) < 1e-5 * scale


ISTFTS: list[dict[str, Any]] = [
    {"n_fft": 16, "hop_length": 5},
    {"n_fft": 15, "hop_length": 4, "length": 40, "normalized": True},
    {"n_fft": 22, "hop_length": 7, "length": 300},
    {"n_fft": 16, "hop_length": 1, "win_length": 11},
    {"n_fft": 64, "hop_length": 2, "length": 20},
    {"n_fft": 2, "hop_length": 1},
]


def check_istft(backend: Backend, arguments: dict[str, Any], is_complex: bool) -> None:
    """<y, istft(z)> = <adjoint(y), z>."""
    n_fft = arguments["n_fft"]
    spectrum = random_tensor(0, 2, n_fft if is_complex else n_fft // 2 + 1, 9, complex_values=True)
    window = random_tensor(1, arguments.get("win_length", n_fft), complex_values=is_complex) + 5
    params = istft_params(
        spectrum, window, **arguments, onesided=not is_complex, return_complex=is_complex
    )
    signal = backend.istft(params, spectrum, window)
    cotangent = random_tensor(2, *signal.shape, complex_values=is_complex)
    back = backend.adjoint_synthesis(params, cotangent, window)
    assert (back.shape, back.dtype) == (spectrum.shape, torch.complex64)
    assert back.is_contiguous()
    scale = float(cotangent.norm() * signal.norm())
    assert abs(inner(cotangent, signal) - inner(back, spectrum)) < 1e-5 * scale
