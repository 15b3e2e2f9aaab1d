"""Both transforms of whole MLX arrays by the project's own Metal kernels.

One launch of a fused kernel where it covers the size: nothing but input and output (and windows,
tables, envelopes of a few n_fft values) is in device memory. For other sizes MLX's own FFT, between
kernels that cut and add frames.
"""

from __future__ import annotations

from typing import Any

from . import maps
from .kernels import describe
from .kernels.describe import Adjoint, refusal
from .kernels.metal import MetalKernels, analysis_scale, synthesis_scale
from .params import IstftParams, StftParams

__all__ = [
    "adjoint_fused",
    "analysis_scale",
    "istft_fused",
    "kernel_of",
    "refusal",
    "stft_fused",
    "synthesis_scale",
]


def stft_fused(
    kernels: MetalKernels,
    mx: Any,
    params: StftParams,
    signal: Any,
    window: Any,
    stream: Any,
    *,
    edge: float = 1.0,
    envelope: Any = None,
) -> Any:
    """Spectrum of shape (rows, frames, bins), lazily.

    Args:
        signal: MLX array of shape (rows, samples), any strides.
        window: made by ``kernels.constant`` of n_fft values times :func:`analysis_scale`.
        edge: factor of bins 0 and n_fft / 2 of a onesided spectrum.
        envelope: what a fused kernel multiplies the signal by, made by ``kernels.constant``; for
            sizes that have none the caller multiplies.
    """
    spectrum = kernels.analysis(params, signal, window, stream, edge=edge, envelope=envelope)
    if spectrum is not None:
        return spectrum
    frames = kernels.cut_frames(params, signal, window, stream)
    if params.complex_fft:
        return mx.fft.fft(frames, stream=stream)
    half = mx.fft.rfft(frames, stream=stream)
    if not params.onesided:
        return maps.two_sided(mx, half, params.n_fft, stream)
    return maps.weighted_edges(mx, half, params.n_fft, edge, stream)


def adjoint_fused(
    kernels: MetalKernels,
    mx: Any,
    params: IstftParams,
    spectrum: Any,
    window: Any,
    stream: Any,
    *,
    edge: float,
    fold: Adjoint,
    frames_fastest: bool = False,
) -> Any:
    """The adjoint of an analysis, shape (rows, output length), lazily.

    Args:
        params: a synthesis of the analysis' sizes that keeps the samples of its signal.
        spectrum: MLX array of shape (rows, frames, bins), any strides.
        window: of n_fft values, made by ``kernels.constant``, times every scale.
        edge: factor of bins 0 and n_fft / 2 before an inverse real transform.
        fold: the analysis' padding.
    """
    signal = kernels.synthesis(
        params,
        spectrum,
        window,
        window,  # in the envelope's place: an adjoint has none
        stream,
        frames_fastest=frames_fastest,
        edge=edge,
        adjoint=fold,
    )
    if signal is not None:
        return signal
    frames = maps.windowed_frames(
        mx,
        spectrum,
        None,
        params.n_fft,
        not params.return_complex,
        stream,
        edge=edge,
        both_halves=fold.both_halves,
    )
    frames = mx.contiguous(frames, stream=stream)
    return kernels.add_frames(params, frames, window, window, stream, adjoint=fold)


def istft_fused(
    kernels: MetalKernels,
    mx: Any,
    params: IstftParams,
    spectrum: Any,
    window: Any,
    envelope: Any,
    stream: Any,
    *,
    frames_fastest: bool = False,
) -> Any:
    """Signal of shape (rows, output length), lazily.

    Args:
        spectrum: MLX array of shape (rows, frames, bins), any strides.
        window: made by ``kernels.constant`` of n_fft values times :func:`synthesis_scale`.
        envelope: made by ``kernels.constant`` of the inverse envelope's rows.
        frames_fastest: neighbouring frames are neighbours in memory.
    """
    signal = kernels.synthesis(
        params, spectrum, window, envelope, stream, frames_fastest=frames_fastest
    )
    if signal is not None:
        return signal
    real = not params.return_complex
    if real and not params.onesided:
        positive = mx.arange(params.n_fft // 2 + 1, stream=stream)
        spectrum = mx.take(spectrum, positive, axis=2, stream=stream)
    frames = maps.windowed_frames(mx, spectrum, None, params.n_fft, real, stream)
    frames = mx.contiguous(frames, stream=stream)
    return kernels.add_frames(params, frames, window, envelope, stream)


def kernel_of(params: StftParams | IstftParams) -> str:
    """What computes a call, for reports."""
    is_stft = isinstance(params, StftParams)
    if describe.points_of(params) is None:
        return "metal cut_frames + mlx fft" if is_stft else "mlx fft + metal add_frames"
    return "metal analysis" if is_stft else "metal synthesis"
