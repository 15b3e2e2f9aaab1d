"""The three maps on whole MLX arrays, computed lazily on MLX's default stream.

The project's kernels compute them where MLX has a GPU (or where the kernels are emulated), else
MLX's own operations. Spectra are (rows, frames, bins); windows have ``n_fft`` values and are scaled
here. The derivatives of the maps are in :mod:`.mlx_api.functions`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from ..core.envelope import overlap_added_square, row_of_hop
from ..core.linear import Analysis, describe_analysis
from ..core.padding import find_sources, fold_side, padded_sides
from ..core.params import NOLA_THRESHOLD, IstftParams, StftParams
from ..kernels.describe import describe_adjoint
from ..mlx import ops as maps
from ..mlx.host import copy_to_mlx
from ..mlx.launcher import TRACING, MetalKernels, metal_kernels, mlx_cuda_kernels
from ..mlx.runtime import runtime
from ..store.caches import cached

#: Part of MLX's message about an array that has no values and cannot be computed.
_WITHOUT_VALUES = "without a primitive"
#: The calls that kernels may compute: see :func:`kernels_where`.
_allowed: ContextVar[str] = ContextVar("torch_mlx_spectro_kernels_where", default="values")


def kernels() -> MetalKernels | None:
    """Return the kernels for MLX's default device; None where MLX's operations compute."""
    mx = runtime().mx
    if mx.default_device() != mx.Device(mx.gpu):
        return metal_kernels(mx, "cpu")
    return mlx_cuda_kernels(mx) or metal_kernels(mx, "mps")


def is_traced(*arrays: Any) -> bool:
    """Whether one of the arrays is a placeholder of ``mx.compile`` or ``mx.vmap``.

    If none is, the arrays are evaluated. Under ``mx.grad`` and ``mx.jvp`` arrays have values.
    """
    try:
        runtime().mx.eval(*arrays)
    except ValueError as error:
        if TRACING not in str(error):
            raise
        return True
    return False


@contextmanager
def kernels_where(allowed: str) -> Iterator[None]:
    """Set which calls kernels may compute within the context.

    Kernels must not be traced by ``mx.vmap``: MLX does not vectorise them, even if a function has
    its own rule for that. ``mx.compile`` could trace them, but its trace looks the same. MLX also
    pushes no tangents (``mx.jvp``) through graphs with kernels.

    Args:
        allowed: ``"values"``: calls that are not traced; ``"traces"``: all calls; ``"nowhere"``: no
            calls.
    """
    token = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(token)


def _find_kernels(params: StftParams | IstftParams, *arrays: Any) -> MetalKernels | None:
    """Find the kernels for this call; emulated ones never become part of a traced graph."""
    allowed, found = _allowed.get(), kernels()
    if found is None or allowed == "nowhere" or found.refusal(params) is not None:
        return None
    if allowed == "traces" and not found.emulated:
        return found
    return None if has_placeholder(*arrays) else found


def has_placeholder(*arrays: Any) -> bool:
    """Whether one of the arrays is a placeholder, without evaluating or waiting for anything.

    MLX goes through the whole graph, argument by argument, before it computes anything. Here the
    last argument is one that it has to refuse, so it computes nothing. If another argument has a
    placeholder, MLX complains of that first.
    """
    try:
        return is_traced(*arrays, _make_refused(runtime().mx))
    except RuntimeError as error:
        if _WITHOUT_VALUES not in str(error):
            raise
        return False


@cached(1)
def _make_refused(mx: Any) -> Any:
    """Make an array that MLX can never evaluate: a placeholder of a vmap that has ended."""
    seen: list[Any] = []

    def keep(example: Any) -> Any:
        seen.append(example)
        return example

    mx.vmap(keep)(mx.zeros((1, 1)))
    return seen[0]


def scale(mx: Any, array: Any, factor: float) -> Any:
    """Return ``array * factor``, or the array itself where that is the same."""
    return array if factor == 1.0 else mx.multiply(array, factor)


def _pad(mx: Any, array: Any, before: int, after: int) -> Any:
    """Pad an array with zeros before and after the values of its second axis."""
    rest = [(0, 0)] * (array.ndim - 2)
    return mx.pad(array, [(0, 0), (before, after), *rest]) if before or after else array


def compute_analysis(analysis: Analysis, signal: Any, window: Any) -> Any:
    """Compute ``A(x, w)``, shape (rows, frames, bins), complex64.

    Args:
        signal: shape (rows, samples).
        window: shape (n_fft,).
    """
    mx, params = runtime().mx, analysis.params
    found = _find_kernels(params, signal, window)
    if found is not None:
        given = mx.contiguous(window)
        return maps.launch_analysis(found, mx, params, signal, given, None, edge=analysis.edge)
    return maps.compute_spectra(
        mx,
        cut_frames(mx, params, signal),
        scale(mx, window, params.scale),
        n_fft=params.n_fft,
        onesided=params.onesided,
        complex_fft=params.complex_fft,
        stream=None,
        edge=analysis.edge,
    )


def cut_frames(mx: Any, params: StftParams, signal: Any, *, strided: bool | None = None) -> Any:
    """Cut the frames of the padded rows, shape (rows, frames, n_fft).

    They are a strided view. MLX does not vectorise strided views (``mx.vmap``), so where the signal
    is traced they are made of pieces of a hop each.

    Args:
        strided: whether a strided view will do; None to find out.
    """
    hop, n_fft, frames, left = params.hop_length, params.n_fft, params.frames, params.padding
    overlap = -(-n_fft // hop)
    hops = frames + overlap - 1
    if sides := padded_sides(params):
        before, after = (_pick_side(mx, params, signal, side) for side in sides)
        signal, left = mx.concatenate([before, signal, after], axis=1), 0
    samples = signal[:, : hops * hop - left]
    samples = _pad(mx, samples, left, hops * hop - left - samples.shape[1])
    if not has_placeholder(signal) if strided is None else strided:
        rows, length = samples.shape
        return mx.as_strided(samples, (rows, frames, n_fft), (length, hop, 1))
    by_hops = mx.reshape(samples, (samples.shape[0], hops, hop))
    pieces = [by_hops[:, piece : piece + frames] for piece in range(overlap)]
    pieces[-1] = pieces[-1][..., : n_fft - (overlap - 1) * hop]
    return mx.concatenate(pieces, axis=-1) if overlap > 1 else pieces[0]


def _pick_side(mx: Any, params: StftParams, signal: Any, side: int) -> Any:
    """Return the samples that the padding on one side consists of."""
    first, step = find_sources(params, side)
    if step == 0:  # one sample, again and again
        return mx.repeat(signal[:, first : first + 1], params.padding, axis=1)
    end = first + step * params.padding
    return signal[:, first : end if end >= 0 else None : step]


def compute_adjoint(analysis: Analysis, spectrum: Any, window: Any) -> Any:
    """Compute ``adjoint(z, w)``, shape (rows, samples); real if the signal is.

    Args:
        spectrum: shape (rows, frames, bins), complex64.
        window: shape (n_fft,).
    """
    mx, params = runtime().mx, analysis.params
    back, fold = describe_adjoint(analysis)
    found = _find_kernels(back, spectrum, window) if params.samples else None
    if found is None:
        return add_frames(mx, analysis, spectrum, scale(mx, window, analysis.inverse_scale))
    given = mx.contiguous(window)
    return maps.launch_synthesis(found, mx, back, spectrum, given, None, adjoint=fold)


def add_frames(mx: Any, analysis: Analysis, spectrum: Any, window: Any) -> Any:
    """Overlap-add frames and fold the padding back: the adjoint of cutting padded frames.

    Strided views are not used here either, see :func:`cut_frames`.
    """
    params = analysis.params
    frames = maps.compute_adjoint_frames(mx, analysis, spectrum, window, None)
    return fold_padding(mx, params, overlap_add(mx, frames, params.hop_length))


def overlap_add(mx: Any, frames: Any, hop: int) -> Any:
    """Overlap-add frames, shape (rows, (frames + overlap - 1) * hop).

    Of each frame the pieces of a hop become rows of their own, each a hop longer than its values.
    Read with rows that are a hop shorter, piece k is k hops later, and a sum adds what meets.

    Args:
        frames: shape (rows, frames, n_fft).
    """
    rows, count, n_fft = frames.shape
    overlap = -(-n_fft // hop)
    hops = count + overlap - 1
    if short := overlap * hop - n_fft:
        frames = mx.pad(frames, [(0, 0), (0, 0), (0, short)])
    pieces = mx.swapaxes(mx.unflatten(frames, 2, (overlap, hop)), 1, 2)
    pieces = mx.pad(pieces, [(0, 0), (0, 0), (0, overlap), (0, 0)])
    shifted = mx.flatten(pieces, 1)[:, : overlap * hops * hop]
    return mx.sum(mx.reshape(shifted, (rows, overlap, hops * hop)), axis=1)


def fold_padding(mx: Any, params: StftParams, covered: Any) -> Any:
    """Fold padding back: the adjoint of padding rows.

    Args:
        covered: the samples that frames cover, with what is on the padding.
    """
    padding, samples = params.padding, params.samples
    covered = _pad(mx, covered, 0, max(0, samples + 2 * padding - covered.shape[1]))
    signal = covered[:, padding : padding + samples]
    for side in padded_sides(params):
        fallen = covered[:, padding + side : 2 * padding + side]
        first, values = fold_side(params, side, fallen)
        # Not by MLX's scatter, which has no tangent.
        signal = signal + _pad(mx, values, first, samples - first - values.shape[1])
    return signal


def compute_correlation(analysis: Analysis, signal: Any, spectrum: Any) -> Any:
    """Compute ``correlation(x, z)``, shape (n_fft,), float32, since windows are real.

    Args:
        signal: shape (rows, samples).
        spectrum: shape (rows, frames, bins), complex64.
    """
    mx, params = runtime().mx, analysis.params
    frames = cut_frames(mx, params, signal)
    total = scale(mx, maps.correlate(mx, analysis, frames, spectrum, None), analysis.inverse_scale)
    return mx.real(total) if params.complex_fft else total


def compute_inverse(params: IstftParams, spectrum: Any, window: Any, rows: Any) -> Any:
    """Compute an istft, shape (rows, output length).

    Args:
        spectrum: shape (rows, frames, bins), complex64.
        window: shape (n_fft,).
        rows: rows of the inverse envelope, shape (distinct hops, hop_length), float32.
    """
    mx = runtime().mx
    found = _find_kernels(params, spectrum, window, rows)
    if found is None:
        return normalise(params, compute_adjoint(describe_analysis(params), spectrum, window), rows)
    return maps.launch_synthesis(found, mx, params, spectrum, mx.contiguous(window), None)


def normalise(params: IstftParams, added: Any, rows: Any) -> Any:
    """Multiply overlap-added frames by the inverse envelope, and append the zeros that follow.

    Args:
        added: the overlap-added samples that are kept, shape (rows, kept).
        rows: rows of the inverse envelope.
    """
    return _pad(runtime().mx, added * inverse_envelope(params, rows), 0, params.zero_tail)


def inverse_envelope(params: IstftParams, rows: Any) -> Any:
    """Return the inverse envelope of the kept samples, shape (kept,), from its distinct rows."""
    overlap, end = params.overlap, params.start + params.kept
    return read_envelope(rows, params.frames, overlap, params.start, end)


def read_envelope(rows: Any, frames: int, overlap: int, begin: int, end: int) -> Any:
    """Return samples ``begin ... end - 1`` of an envelope, from its distinct rows.

    Args:
        rows: shape (distinct hops, hop_length), see :mod:`.core.envelope`.
        frames: frames of the signal; if it goes on, as many as are sure to come.
        overlap: hops that a frame touches.
    """
    mx, hop = runtime().mx, rows.shape[1]
    first = begin // hop
    hops = row_of_hop(np.arange(first, -(-end // hop)), frames, overlap).astype(np.int32)
    flat = mx.reshape(mx.take(rows, copy_to_mlx(mx, hops), axis=0), (-1,))
    return flat[begin - first * hop : end - first * hop]


def compute_inverse_rows(window: Any, hop_length: int, frames: int, scale: float) -> Any:
    """Compute the distinct rows of the inverse envelope in double precision, as float32 in MLX.

    Args:
        window: values of ``n_fft`` samples; they are read now.
        scale: the scale of the istft.
    """
    rows = overlap_added_square(np.asarray(window).astype(np.float64), hop_length, frames)
    vanishing = rows < NOLA_THRESHOLD
    inverted = np.where(vanishing, 0.0, scale / np.where(vanishing, 1.0, rows))
    return copy_to_mlx(runtime().mx, inverted.astype(np.float32))


def trace_inverse_rows(params: IstftParams, window: Any) -> Any:
    """Compute the same rows by MLX's operations, for windows that are traced or differentiated.

    Here the formula of :mod:`.core.envelope` is a product with a matrix, which says which piece of
    the window falls on which hop.
    """
    mx, overlap, hop = runtime().mx, params.overlap, params.hop_length
    used = min(params.frames, overlap)
    hops, pieces = np.ogrid[: used + overlap - 1, :overlap]
    falls = ((hops - pieces >= 0) & (hops - pieces < used)).astype(np.float32)
    squares = mx.pad(mx.square(window), (0, overlap * hop - params.n_fft))
    rows = mx.matmul(copy_to_mlx(mx, falls), mx.reshape(squares, (overlap, hop)))
    vanishing = rows < NOLA_THRESHOLD
    return mx.where(vanishing, 0.0, params.scale / mx.where(vanishing, 1.0, rows))
