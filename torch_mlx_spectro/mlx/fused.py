"""Both transforms of whole MLX arrays by the project's own Metal kernels.

One launch of a fused kernel where it covers the size: nothing but input and output (and windows
and tables of a few n_fft values) is in device memory. For other sizes MLX's own FFT, between
kernels that cut and add frames.
"""

from __future__ import annotations

from typing import Any

from ..core.params import IstftParams, StftParams
from ..kernels.describe import Adjoint
from ..kernels.radices import fused_points
from . import ops as maps
from .launcher import MetalKernels


def analysis_fused(
    kernels: MetalKernels,
    mx: Any,
    params: StftParams,
    signal: Any,
    window: Any,
    stream: Any,
    *,
    edge: float = 1.0,
    divisor: float | None = None,
) -> Any:
    """Spectrum of shape (rows, frames, bins), lazily.

    Args:
        signal: MLX array of shape (rows, samples), any strides.
        window: of n_fft values, made by ``kernels.constant``.
        edge: factor of bins 0 and n_fft / 2 of a onesided spectrum.
        divisor: as of :func:`.kernels.describe.analysis`.
    """
    spectrum = kernels.analysis(params, signal, window, stream, edge=edge, divisor=divisor)
    if spectrum is not None:
        return spectrum
    return maps.spectra(
        mx,
        kernels.cut_frames(params, signal, window, stream, divisor=divisor),
        None,
        n_fft=params.n_fft,
        onesided=params.onesided,
        complex_fft=params.complex_fft,
        stream=stream,
        edge=edge,
    )


def synthesis_fused(
    kernels: MetalKernels,
    mx: Any,
    params: IstftParams,
    spectrum: Any,
    window: Any,
    stream: Any,
    *,
    frames_fastest: bool = False,
    adjoint: Adjoint | None = None,
) -> Any:
    """Signal of shape (rows, output length), lazily.

    Args:
        params: of the istft; or, for an adjoint, a synthesis of the analysis' sizes that keeps the
            samples of its signal.
        spectrum: MLX array of shape (rows, frames, bins), any strides.
        window: of n_fft values, made by ``kernels.constant``.
        frames_fastest: neighbouring frames are neighbours in memory.
        adjoint: compute the adjoint of an analysis of this padding, scale and edges.
    """
    signal = kernels.synthesis(
        params, spectrum, window, stream, frames_fastest=frames_fastest, adjoint=adjoint
    )
    if signal is not None:
        return signal
    real = not params.return_complex
    edge = 1.0 if adjoint is None else adjoint.edge
    both_halves = adjoint is not None and adjoint.both_halves
    if real and not (params.onesided or both_halves):
        positive = mx.arange(params.n_fft // 2 + 1, stream=stream)
        spectrum = mx.take(spectrum, positive, axis=2, stream=stream)
    frames = maps.windowed_frames(
        mx, spectrum, None, params.n_fft, real, stream, edge=edge, both_halves=both_halves
    )
    frames = mx.contiguous(frames, stream=stream)
    return kernels.add_frames(params, frames, window, stream, adjoint=adjoint)


def name_kernel(params: StftParams | IstftParams) -> str:
    """What computes a call, for reports."""
    is_stft = isinstance(params, StftParams)
    if fused_points(params) is None:
        return "metal cut_frames + mlx fft" if is_stft else "mlx fft + metal add_frames"
    return "metal analysis" if is_stft else "metal synthesis"
