"""The two maps that the derivatives of a spectrum need besides analysis, on torch tensors.

Analysis is linear in the signal ``x`` and in the window ``w``. With ``F`` framing (padding
included), ``D`` the transform of each frame, ``s`` a scale, ``E`` the factor of DC and Nyquist,

    A(x, w) = s E D (w . F x)

and ``<a, b> = Re sum conj(a) b`` (torch's convention for gradients of complex values), the two
maps that make ``<z, A(x, w)>`` linear in the third argument are

    adjoint(z, w):    <adjoint(z, w), x>   = <z, A(x, w)>    overlap-add, padding folded back
    correlation(x, z): <correlation(x, z), w> = <z, A(x, w)>   a sum over all frames

(the chain rule in Griffin and Lim's linear framing; see any text on adjoints of filter banks). All
derivatives of all orders are compositions of these three: :mod:`.derivatives`. An istft is an
adjoint times an inverse envelope, so it needs no map of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from . import maps, mlx_backend
from .adjoint_blocks import adjoint_blocks
from .blocks import correlate_blocks
from .bridge import empty_result, host_view, memory_of, to_mlx
from .envelope import inverse_of_frames
from .forms import Form, analysis_of, synthesis_of
from .fused import adjoint_fused
from .kernels.describe import Adjoint, points_of
from .kernels.metal import MetalKernels
from .params import IstftParams
from .prepared import Window, envelope_of, kernel_envelope, window_of
from .runtime import runtime


def analysis(form: Form, signal: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
    """``A(x, w)``, shape (rows, bins, frames), complex64.

    Args:
        signal: shape (rows, samples).
        window: shape (win_length,), or None.
    """
    spectrum = mlx_backend.analysis(form.params, signal, window)
    return weigh_edges(form, spectrum)


def weigh_edges(form: Form, spectrum: torch.Tensor) -> torch.Tensor:
    """Multiply, in place, the bins that are their own conjugates by the form's factor."""
    if form.params.onesided and form.edge != 1.0:
        for edge in maps.own_conjugates(form.params.n_fft):
            spectrum[:, edge] *= form.edge
    return spectrum


def adjoint(form: Form, spectrum: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
    """``adjoint(z, w)``, shape (rows, samples), contiguous, of the signal's kind.

    Args:
        spectrum: shape (rows, bins, frames), complex64.
        window: shape (win_length,), or None.
    """
    params = form.params
    prepared = window_of(window, params.win_length, params.n_fft)
    kernels = mlx_backend.kernels_for(spectrum)
    if params.samples == 0:
        signal = spectrum.new_zeros((params.rows, 0))
    elif kernels is None:
        signal = _adjoint_in_blocks(form, spectrum, prepared)
    else:
        signal = _adjoint_whole(kernels, form, spectrum, prepared)
    if signal.is_complex() and not form.complex_signal:
        signal = signal.real.contiguous()
    return signal


def _adjoint_in_blocks(form: Form, spectrum: torch.Tensor, window: Window) -> torch.Tensor:
    params = form.params
    prepared = window.for_maps(form.inverse_scale, conjugate=True)
    dtype = torch.complex64 if params.complex_fft else torch.float32
    signal = empty_result((params.rows, params.samples), (params.samples, 1), dtype)
    view = host_view(spectrum.transpose(1, 2))
    adjoint_blocks(runtime(), form, view, prepared, memory_of(signal))
    return signal


def _adjoint_whole(
    kernels: MetalKernels, form: Form, spectrum: torch.Tensor, window: Window
) -> torch.Tensor:
    mx, params = runtime().mx, form.params
    by_frames = spectrum.transpose(1, 2)
    scale = form.inverse_scale
    if points_of(params) is not None:
        # The fused kernel divides not, and takes both halves as one when it packs them.
        scale = params.scale * (1.0 if params.complex_fft else 0.5)
    with mlx_backend.whole_arrays(spectrum) as stream:
        borrowed = to_mlx(mx, by_frames, stream)
        result = adjoint_fused(
            kernels,
            mx,
            synthesis_of(form, params.padding, params.samples),
            borrowed.array,
            window.for_kernels(kernels, scale, conjugate=True),
            stream,
            edge=1.0 if params.complex_fft else 2.0 * form.edge,
            fold=Adjoint(params.padding, params.pad_mode, form.both_halves),
            frames_fastest=mlx_backend.frames_fastest(by_frames),
        )
        return mlx_backend.exported(mx, result, borrowed)


def correlation(form: Form, signal: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
    """``correlation(x, z)``, shape (win_length,), of the window's kind.

    Args:
        signal: shape (rows, samples).
        spectrum: shape (rows, bins, frames), complex64.
    """
    params = form.params
    kernels = mlx_backend.kernels_for(signal)
    if kernels is None:
        total = np.zeros(params.n_fft, np.complex128 if params.complex_fft else np.float64)
        correlate_blocks(
            runtime(),
            params,
            host_view(signal),
            host_view(spectrum.transpose(1, 2)),
            total,
            edge=form.inverse_edge,
            both_halves=form.both_halves,
        )
        summed = torch.from_numpy(total)
    else:
        summed = _correlation_whole(kernels, form, signal, spectrum)
    left = (params.n_fft - params.win_length) // 2
    window = summed[left : left + params.win_length] * form.inverse_scale
    if window.is_complex() and not form.complex_window:
        window = window.real
    return window.to(torch.complex64 if window.is_complex() else torch.float32).contiguous()


def _correlation_whole(
    kernels: MetalKernels, form: Form, signal: torch.Tensor, spectrum: torch.Tensor
) -> torch.Tensor:
    mx, params = runtime().mx, form.params
    ones = Window(None, None, params.n_fft, params.n_fft).for_kernels(kernels, 1.0)
    with mlx_backend.whole_arrays(signal) as stream:
        lent = to_mlx(mx, spectrum.transpose(1, 2), stream)
        borrowed = to_mlx(mx, signal, stream)
        frames = kernels.cut_frames(params, borrowed.array, ones, stream)
        inverse = maps.windowed_frames(
            mx,
            lent.array,
            None,
            params.n_fft,
            not params.complex_fft,
            stream,
            edge=form.inverse_edge,
            both_halves=form.both_halves,
        )
        result = maps.correlated(mx, frames, inverse, stream)
        exported = mlx_backend.exported(mx, result, borrowed)
        del lent  # until here: the result is computed from it
        return exported


def istft_adjoint(
    params: IstftParams, cotangent: torch.Tensor, window: torch.Tensor | None
) -> torch.Tensor:
    """The adjoint of a onesided or complex istft: shape (rows, bins, frames), complex64.

    Args:
        cotangent: shape (rows, output length).
        window: shape (win_length,), or None.
    """
    form = analysis_of(params)
    prepared = window_of(window, params.win_length, params.n_fft)
    kernels = mlx_backend.kernels_for(cotangent)
    kept = cotangent[:, : params.kept]
    if kernels is not None:
        return _istft_adjoint_whole(kernels, form, params, kept, prepared)
    rows = envelope_of(params, prepared).rows.conj()

    def inverse(first: int, count: int) -> Any:
        return inverse_of_frames(rows, params.frames, params.overlap, params.n_fft, first, count)

    analysed = form.params
    strides = (analysed.frames * analysed.bins, 1, analysed.bins)
    scaled = prepared.for_maps(analysed.scale, conjugate=True)
    return weigh_edges(form, mlx_backend.stft_in_blocks(analysed, kept, scaled, strides, inverse))


def _istft_adjoint_whole(
    kernels: MetalKernels, form: Form, params: IstftParams, kept: torch.Tensor, window: Window
) -> torch.Tensor:
    envelope = None
    if points_of(form.params) is not None:
        envelope = kernel_envelope(kernels, params, window, conjugate=True)
    else:  # only the fused kernel multiplies as it reads
        rows = envelope_of(params, window).rows.conj()
        covered = inverse_of_frames(
            rows, params.frames, params.overlap, params.n_fft, 0, params.frames
        )
        inverse = torch.from_numpy(covered[params.start : params.start + params.kept])
        kept = kept * inverse.to(kept.device)
    return mlx_backend.stft_whole(
        kernels, form.params, kept, window, conjugate=True, edge=form.edge, envelope=envelope
    )
