"""The two linear maps in MLX operations: what CPUs compute, and the oracle of the kernels.

``compute_spectra`` takes frames to spectra, ``invert_spectra`` and ``overlap_add`` take spectra
back to samples. All of them are given their stream, since MLX's default device and stream are
shared with the user's own MLX program. Views are made by ``as_strided``, because indexing always
runs on the default stream.

``launch_analysis`` and ``launch_synthesis`` compute whole arrays by the project's own kernels.
Where a fused kernel covers the size there is one launch, and device memory holds nothing but input,
output, windows and tables. For other sizes MLX's own FFT runs between kernels that cut and add
frames.

MLX is passed in as a module (``mx``), so importing this package never imports MLX.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.linear import SUM_BRANCHES, Analysis, own_conjugates
from ..core.params import IstftParams, StftParams
from ..kernels.describe import Adjoint
from ..kernels.functions import Kernels
from ..kernels.radices import find_fused_points
from .host import copy_to_mlx


def compute_spectra(
    mx: Any,
    framed: Any,
    window: Any,
    *,
    n_fft: int,
    onesided: bool,
    complex_fft: bool,
    stream: Any,
    edge: float = 1.0,
) -> Any:
    """Window and transform frames: ``X[t, k] = sum_m w[m] y[t, m] exp(-2 pi i k m / n_fft)``.

    Args:
        mx: the module ``mlx.core``.
        framed: shape (..., frames, n_fft).
        window: shape (n_fft,), any scale folded in; None for no window.
        n_fft: size in samples.
        onesided: keep bins 0 ... n_fft // 2 only (real frames).
        complex_fft: samples or window are complex.
        stream: MLX stream of every operation.
        edge: factor of DC and Nyquist of a onesided spectrum.

    Returns:
        Shape (..., frames, bins), complex64.
    """
    if window is not None:
        framed = mx.multiply(framed, window, stream=stream)
    if complex_fft:
        return mx.fft.fft(framed, stream=stream)
    half = mx.fft.rfft(framed, stream=stream)
    if onesided:
        return weigh_edges(mx, half, n_fft, edge, stream)
    return mirror_bins(mx, half, n_fft, stream)


def mirror_bins(mx: Any, half: Any, n_fft: int, stream: Any) -> Any:
    """All bins of real frames from the first ``n_fft // 2 + 1``: ``X[n_fft - k] = conj X[k]``."""
    count = (n_fft - 1) // 2
    if count == 0:
        return half
    mirrored = mx.arange(count, 0, -1, stream=stream)
    upper = mx.conjugate(mx.take(half, mirrored, axis=-1, stream=stream), stream=stream)
    return mx.concatenate([half, upper], axis=-1, stream=stream)


def weigh_edges(mx: Any, half: Any, n_fft: int, edge: float, stream: Any) -> Any:
    """Multiply those of bins 0 ... n_fft // 2 that have no conjugate twin by edge."""
    if edge == 1.0:
        return half
    weights = np.ones(n_fft // 2 + 1, np.float32)
    weights[own_conjugates(n_fft)] = edge
    return mx.multiply(half, copy_to_mlx(mx, weights), stream=stream)


def invert_spectra(
    mx: Any,
    spectrum: Any,
    window: Any,
    n_fft: int,
    real: bool,
    stream: Any,
    *,
    edge: float = 1.0,
    both_halves: bool = False,
) -> Any:
    """Inverse transform and window: ``y[t, m] = w[m] / n * sum_k X[t, k] exp(2 pi i k m / n)``.

    Args:
        spectrum: shape (..., frames, bins); for real frames bins 0 ... n_fft // 2 (the imaginary
            parts of DC and Nyquist are ignored, as torch does).
        window: shape (n_fft,) or None.
        real: the frames are real.
        edge: factor of DC and Nyquist before the transform of bins 0 ... n_fft // 2.
        both_halves: real frames of all n_fft bins, which need not be conjugates of each other:
            the real part of the sum.

    Returns:
        Shape (..., frames, n_fft), float32 or complex64.
    """
    if real and both_halves:
        frames = mx.real(mx.fft.ifft(spectrum, stream=stream), stream=stream)
    elif real:
        half = weigh_edges(mx, spectrum, n_fft, edge, stream)
        frames = mx.fft.irfft(half, n_fft, stream=stream)
    else:
        frames = mx.fft.ifft(spectrum, stream=stream)
    return frames if window is None else mx.multiply(frames, window, stream=stream)


def compute_adjoint_frames(
    mx: Any, analysis: Analysis, spectrum: Any, window: Any, stream: Any
) -> Any:
    """Compute the frames whose overlap-add is the adjoint of the analysis, but for its scale."""
    params = analysis.params
    return invert_spectra(
        mx,
        spectrum,
        window,
        params.n_fft,
        not params.complex_fft,
        stream,
        edge=analysis.inverse_edge,
        both_halves=analysis.both_halves,
    )


def correlate(mx: Any, analysis: Analysis, frames: Any, spectrum: Any, stream: Any) -> Any:
    """Compute ``sum over all frames t of conj(frames[t, m]) y[t, m]``, shape (n_fft,).

    The frames are summed as a tree: one by one, tens of thousands of frames would lose half of
    their digits.

    Args:
        frames: shape (..., n_fft).
        spectrum: shape (..., bins); ``y`` are its :func:`compute_adjoint_frames`.
    """
    inverse = compute_adjoint_frames(mx, analysis, spectrum, None, stream)
    if frames.dtype == mx.complex64:
        frames = mx.conjugate(frames, stream=stream)
    product = mx.multiply(frames, inverse, stream=stream)
    n_fft = product.shape[-1]
    product = mx.reshape(product, (-1, n_fft), stream=stream)
    while (count := product.shape[0]) > 1:
        branches = min(count, SUM_BRANCHES)
        product = mx.pad(product, [(0, -count % branches), (0, 0)], stream=stream)
        product = mx.reshape(product, (-1, branches, n_fft), stream=stream)
        product = mx.sum(product, axis=1, stream=stream)
    return mx.reshape(product, (n_fft,), stream=stream)


def overlap_add(mx: Any, frames: Any, hop_length: int, stream: Any) -> Any:
    """Sum the frames that meet in each hop, for the hops which these frames cover completely.

    With ``K = ceil(n_fft / hop)`` hops a frame,
    ``out[j, r] = sum_k frames[j + K - 1 - k, k hop + r]``.

    Args:
        frames: shape (hops + K - 1, n_fft), contiguous.
        hop_length: samples a hop; what lies between frames is zero.

    Returns:
        Shape (hops, hop_length). The order of summation depends on nothing but K.
    """
    total, n_fft = frames.shape
    overlap = -(-n_fft // hop_length)
    hops = total - overlap + 1
    added = None
    for piece in range(overlap):
        # Piece ``piece`` of the window belongs to the frame that begins so many hops before a hop.
        width = min(hop_length, n_fft - piece * hop_length)
        offset = (overlap - 1 - piece) * n_fft + piece * hop_length
        view = mx.as_strided(frames, (hops, width), (n_fft, 1), offset, stream=stream)
        if width < hop_length:
            view = mx.pad(view, [(0, 0), (0, hop_length - width)], stream=stream)
        added = view if added is None else mx.add(added, view, stream=stream)
    return added


def launch_analysis(
    kernels: Kernels,
    mx: Any,
    params: StftParams,
    signal: Any,
    window: Any,
    stream: Any,
    *,
    edge: float = 1.0,
    divisor: float | None = None,
) -> Any:
    """Compute a spectrum of shape (rows, frames, bins), lazily.

    Args:
        signal: MLX array of shape (rows, samples), any strides.
        window: of n_fft values, made by ``kernels.constant``.
        edge: factor of bins 0 and n_fft / 2 of a onesided spectrum.
        divisor: as in :func:`.kernels.describe.list_analyses`.
    """
    spectrum = kernels.compute_analysis(params, signal, window, stream, edge=edge, divisor=divisor)
    if spectrum is not None:
        return spectrum
    return compute_spectra(
        mx,
        kernels.cut_frames(params, signal, window, stream, divisor=divisor),
        None,
        n_fft=params.n_fft,
        onesided=params.onesided,
        complex_fft=params.complex_fft,
        stream=stream,
        edge=edge,
    )


def launch_synthesis(
    kernels: Kernels,
    mx: Any,
    params: IstftParams,
    spectrum: Any,
    window: Any,
    stream: Any,
    *,
    frames_fastest: bool = False,
    adjoint: Adjoint | None = None,
) -> Any:
    """Compute a signal of shape (rows, output length), lazily.

    Args:
        params: of the istft; or, for an adjoint, a synthesis of the analysis' sizes that keeps the
            samples of its signal.
        spectrum: MLX array of shape (rows, frames, bins), any strides.
        window: of n_fft values, made by ``kernels.constant``.
        frames_fastest: neighbouring frames are neighbours in memory.
        adjoint: compute the adjoint of an analysis of this padding, scale and edges.
    """
    signal = kernels.compute_synthesis(
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
    frames = invert_spectra(
        mx, spectrum, None, params.n_fft, real, stream, edge=edge, both_halves=both_halves
    )
    frames = mx.contiguous(frames, stream=stream)
    return kernels.add_frames(params, frames, window, stream, adjoint=adjoint)


def name_kernel(params: StftParams | IstftParams) -> str:
    """Name what computes a call, for reports."""
    is_stft = isinstance(params, StftParams)
    if find_fused_points(params) is None:
        return "metal cut_frames + mlx fft" if is_stft else "mlx fft + metal add_frames"
    return "metal analysis" if is_stft else "metal synthesis"
