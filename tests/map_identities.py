"""The identities that define the maps of derivatives, for a backend's maps to be checked by."""

from __future__ import annotations

from typing import Any

import torch
from reference import istft_params, random_tensor, stft_params

from torch_mlx_spectro.autograd import maps as adjoints
from torch_mlx_spectro.backends.mlx.backend import MLX
from torch_mlx_spectro.core.linear import Form, Inversion

KINDS = ["real", "two-sided", "complex signal", "complex window", "complex"]


def inner(a: torch.Tensor, b: torch.Tensor) -> float:
    """``Re sum conj(a) b`` in double precision."""
    wide = [tensor.to(torch.complex128) for tensor in (a, b)]
    return float((wide[0].conj() * wide[1]).sum().real)


def check_identities(kind: str, n_fft: int, hop: int, win: int, samples: int, **call: Any) -> None:
    """<z, A(x, w)> = <adjoint(z, w), x> = <correlation(x, z), w>."""
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
    form = Form(params, complex_signal, complex_window)
    spectrum = random_tensor(2, 2, params.bins, params.frames, complex_values=True)
    analysed = adjoints.analysis(form, signal, window)
    back = adjoints.adjoint(form, spectrum, window)
    correlated = adjoints.correlation(form, signal, spectrum)
    assert (back.dtype, back.shape) == (signal.dtype, signal.shape)
    assert (correlated.dtype, correlated.shape) == (window.dtype, window.shape)
    assert back.is_contiguous()
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


def check_istft(arguments: dict[str, Any], is_complex: bool) -> None:
    """<y, istft(z)> = <adjoint(y), z>."""
    n_fft = arguments["n_fft"]
    spectrum = random_tensor(0, 2, n_fft if is_complex else n_fft // 2 + 1, 9, complex_values=True)
    window = random_tensor(1, arguments.get("win_length", n_fft), complex_values=is_complex) + 5
    params = istft_params(
        spectrum, window, **arguments, onesided=not is_complex, return_complex=is_complex
    )
    signal = MLX.istft(params, spectrum, window)
    cotangent = random_tensor(2, *signal.shape, complex_values=is_complex)
    back = adjoints.istft_adjoint(Inversion(params), cotangent, window)
    assert back.shape == spectrum.shape
    scale = float(cotangent.norm() * signal.norm())
    assert abs(inner(cotangent, signal) - inner(back, spectrum)) < 1e-5 * scale
