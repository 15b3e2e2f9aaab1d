"""The three maps of :mod:`.backends.maps` on whole MLX arrays, lazily, on MLX's default stream.

By the project's kernels where MLX computes on a GPU (or they are emulated), else by MLX
operations. Spectra are (rows, frames, bins), windows have ``n_fft`` values and are scaled here.
What is made of the maps, and their derivatives, is in :mod:`.mlx_api.functions`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.envelope import row_of_hop
from ..core.linear import Form, synthesis_of
from ..core.padding import outside_positions
from ..core.params import NOLA_THRESHOLD, IstftParams, StftParams
from ..kernels.describe import adjoint_of
from ..mlx import ops as maps
from ..mlx.cuda_launcher import mlx_cuda_kernels
from ..mlx.fused import analysis_fused, synthesis_fused
from ..mlx.host import copy_to_mlx
from ..mlx.launcher import DEVICE_ELEMENTS, TRACING
from ..mlx.metal_kernels import MetalKernels, metal_kernels
from ..mlx.runtime import runtime
from ..store.caches import cached

#: In what MLX raises of an array that was never computed and cannot be.
_WITHOUT_VALUES = "without a primitive"
#: As of :func:`kernels_where`.
_allowed: ContextVar[str] = ContextVar("torch_mlx_spectro_kernels_where", default="values")


def kernels() -> MetalKernels | None:
    """The kernels that compute on MLX's default device; None where MLX operations do."""
    mx = runtime().mx
    if mx.default_device() != mx.Device(mx.gpu):
        return metal_kernels(mx, "cpu")
    return mlx_cuda_kernels(mx) or metal_kernels(mx, "mps")


def is_traced(*arrays: Any) -> bool:
    """Whether ``mx.compile`` or ``mx.vmap`` runs with stand-ins; evaluates the arrays if not.

    ``mx.grad`` and ``mx.jvp`` run with values.
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
    """Which calls of this context may be computed by kernels.

    A trace by ``mx.vmap`` may not have them: MLX does not vectorise custom kernels, not even where
    a function brings its own rule. One by ``mx.compile`` may, and looks the same. Nor does MLX push
    tangents (``mx.jvp``) through graphs that have them.

    Args:
        allowed: ``"values"``: those that no trace has; ``"traces"``: traces, too; ``"nowhere"``.
    """
    token = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(token)


def _kernels_for(params: StftParams | IstftParams, *arrays: Any) -> MetalKernels | None:
    """The kernels for this call; the emulated ones are never part of a graph that is traced."""
    allowed, found = _allowed.get(), kernels()
    if found is None or allowed == "nowhere" or found.refusal(params) is not None:
        return None
    if allowed == "traces" and not found.emulated:
        return found
    return None if stand_in(*arrays) else found


def stand_in(*arrays: Any) -> bool:
    """As :func:`is_traced`, but nothing is evaluated, nor waited for.

    MLX goes through the whole graph, argument by argument, before it computes anything: asked for
    an array that it has to refuse behind these, it complains of a stand-in among these first.
    """
    mx = runtime().mx
    try:
        mx.eval(*arrays, _refused(mx))
    except ValueError as error:
        if TRACING not in str(error):
            raise
        return True
    except RuntimeError as error:
        if _WITHOUT_VALUES not in str(error):
            raise
    return False


@cached(1)
def _refused(mx: Any) -> Any:
    """An array that MLX can never evaluate: what stood in for an example of a vectorised map."""
    seen: list[Any] = []

    def keep(example: Any) -> Any:
        seen.append(example)
        return example

    mx.vmap(keep)(mx.zeros((1, 1)))
    return seen[0]


def times(mx: Any, array: Any, factor: float) -> Any:
    """``array * factor``, and the array itself where that is the same."""
    return array if factor == 1.0 else mx.multiply(array, factor)


def _for_kernels(mx: Any, window: Any) -> Any:
    """The window, long enough for a kernel's inputs, its values neighbours."""
    missing = max(0, DEVICE_ELEMENTS - window.size)
    return mx.contiguous(mx.pad(window, (0, missing)) if missing else window)


def analysis(form: Form, signal: Any, window: Any) -> Any:
    """``A(x, w)``, shape (rows, frames, bins), complex64.

    Args:
        signal: shape (rows, samples).
        window: shape (n_fft,).
    """
    mx, params = runtime().mx, form.params
    launcher = _kernels_for(params, signal, window)
    if launcher is not None:
        given = _for_kernels(mx, window)
        return analysis_fused(launcher, mx, params, signal, given, None, edge=form.edge)
    spectrum = maps.spectra(
        mx,
        _framed(mx, params, signal),
        times(mx, window, params.scale),
        n_fft=params.n_fft,
        onesided=params.onesided,
        complex_fft=params.complex_fft,
        stream=None,
    )
    if params.onesided:
        spectrum = maps.weighted_edges(mx, spectrum, params.n_fft, form.edge, None)
    return spectrum


def _covered(mx: Any, params: StftParams, signal: Any) -> Any:
    """The padded samples that the frames cover, shape (rows, (frames - 1) * hop + n_fft)."""
    length = (params.frames - 1) * params.hop_length + params.n_fft
    if params.padding and params.pad_mode != "constant":
        parts = [_outside(mx, params, signal, start) for start in (-params.padding, params.samples)]
        signal = mx.concatenate([parts[0], signal, parts[1]], axis=1)
        right = length - signal.shape[1]
        signal = mx.pad(signal, [(0, 0), (0, right)]) if right > 0 else signal[:, :length]
    else:
        right = length - params.padding - params.samples
        signal = mx.pad(
            signal[:, : length - params.padding], [(0, 0), (params.padding, max(0, right))]
        )
    return signal


def _framed(mx: Any, params: StftParams, signal: Any) -> Any:
    """The frames of every row, shape (rows, frames, n_fft), of pieces of a hop each.

    A strided view would do, but MLX vectorises none (``mx.vmap``).
    """
    hop, n_fft, frames = params.hop_length, params.n_fft, params.frames
    samples = _covered(mx, params, signal)
    overlap = -(-n_fft // hop)
    hops = frames + overlap - 1
    rows, length = samples.shape
    if length < hops * hop:
        samples = mx.pad(samples, [(0, 0), (0, hops * hop - length)])
    by_hops = mx.reshape(samples[:, : hops * hop], (rows, hops, hop))
    pieces = [by_hops[:, piece : piece + frames] for piece in range(overlap)]
    last = n_fft - (overlap - 1) * hop
    pieces[-1] = pieces[-1][..., :last]
    return mx.concatenate(pieces, axis=-1) if overlap > 1 else pieces[0]


def _outside(mx: Any, params: StftParams, signal: Any, start: int) -> Any:
    """The samples that padding puts at the positions from ``start`` on."""
    return mx.take(signal, copy_to_mlx(mx, _inside(params, start)), axis=1)


def _inside(params: StftParams, start: int) -> Any:
    positions = np.arange(start, start + params.padding, dtype=np.int64)
    return outside_positions(positions, params.samples, params.pad_mode).astype(np.int32)


def adjoint(form: Form, spectrum: Any, window: Any) -> Any:
    """``adjoint(z, w)``, shape (rows, samples), of the signal's kind.

    Args:
        spectrum: shape (rows, frames, bins), complex64.
        window: shape (n_fft,).
    """
    mx, params = runtime().mx, form.params
    back = synthesis_of(form, params.padding, params.samples)
    launcher = _kernels_for(back, spectrum, window)
    if launcher is None or params.samples == 0:
        signal = _adjoint_in_operations(mx, form, spectrum, window)
    else:
        fold = adjoint_of(form)
        signal = synthesis_fused(
            launcher, mx, back, spectrum, _for_kernels(mx, window), None, adjoint=fold
        )
    if params.complex_fft and not form.complex_signal:
        signal = mx.real(signal)
    return signal


def _adjoint_in_operations(mx: Any, form: Form, spectrum: Any, window: Any) -> Any:
    params = form.params
    covered = _overlap_added(mx, form, spectrum, times(mx, window, form.inverse_scale))
    padding, samples = params.padding, params.samples
    missing = samples + 2 * padding - covered.shape[1]
    if missing > 0:
        covered = mx.pad(covered, [(0, 0), (0, missing)])
    signal = covered[:, padding : padding + samples]
    if padding and params.pad_mode != "constant" and samples:
        for outside in (-padding, samples):
            fallen = covered[:, padding + outside : 2 * padding + outside]
            signal = signal + _onto(mx, fallen, _inside(params, outside), samples)
    return signal


def _onto(mx: Any, fallen: Any, inside: Any, samples: int) -> Any:
    """What fell on padding, at the signal positions ``inside`` that it was made of.

    These are one position, or neighbours in either order; MLX's scatter has no tangent.
    """
    first, last = int(inside[0]), int(inside[-1])
    if first == last:
        fallen = mx.sum(fallen, axis=1, keepdims=True)
    elif first > last:
        fallen, first = fallen[:, ::-1], last
    return mx.pad(fallen, [(0, 0), (first, samples - first - fallen.shape[1])])


def _overlap_added(mx: Any, form: Form, spectrum: Any, window: Any) -> Any:
    """The overlap-added frames of every row, (rows, whole hops): :func:`.mlx.ops.overlap_add`.

    Not of strided views, as of :func:`_framed`.
    """
    params = form.params
    hop, overlap = params.hop_length, -(-params.n_fft // params.hop_length)
    frames = maps.windowed_frames(
        mx,
        spectrum,
        window,
        params.n_fft,
        not params.complex_fft,
        None,
        edge=form.inverse_edge,
        both_halves=form.both_halves,
    )
    rest = overlap * hop - params.n_fft
    frames = mx.pad(frames, [(0, 0), (0, 0), (0, rest)]) if rest else frames
    added: Any = 0.0
    for piece in range(overlap):
        part = frames[..., piece * hop : (piece + 1) * hop]
        added = mx.pad(part, [(0, 0), (piece, overlap - 1 - piece), (0, 0)]) + added
    return mx.flatten(added, 1, 2)


def correlation(form: Form, signal: Any, spectrum: Any) -> Any:
    """``correlation(x, z)``, shape (n_fft,), float32: windows are real.

    Args:
        signal: shape (rows, samples).
        spectrum: shape (rows, frames, bins), complex64.
    """
    mx, params = runtime().mx, form.params
    frames = _framed(mx, params, signal)
    inverse = maps.windowed_frames(
        mx,
        spectrum,
        None,
        params.n_fft,
        not params.complex_fft,
        None,
        edge=form.inverse_edge,
        both_halves=form.both_halves,
    )
    total = times(mx, maps.correlated(mx, frames, inverse, None), form.inverse_scale)
    return mx.real(total) if params.complex_fft else total


def inverse(form: Form, params: IstftParams, spectrum: Any, window: Any, rows: Any) -> Any:
    """An istft, shape (rows, output length).

    Args:
        form: the analysis that it is the adjoint of, its envelope aside.
        spectrum: shape (rows, frames, bins), complex64.
        window: shape (n_fft,).
        rows: of its inverse envelope, shape (distinct hops, hop_length), float32.
    """
    mx = runtime().mx
    launcher = _kernels_for(params, spectrum, window, rows)
    if launcher is None:
        kept = adjoint(form, spectrum, window) * inverse_envelope(params, rows)
        return mx.pad(kept, [(0, 0), (0, params.zero_tail)]) if params.zero_tail else kept
    return synthesis_fused(launcher, mx, params, spectrum, _for_kernels(mx, window), None)


def inverse_envelope(params: IstftParams, rows: Any) -> Any:
    """The inverse envelope of the kept samples, shape (kept,), from its distinct rows."""
    mx, hop = runtime().mx, params.hop_length
    first, last = params.start // hop, (params.start + params.kept - 1) // hop
    hops = row_of_hop(np.arange(first, last + 1), params.frames, params.overlap)
    flat = mx.reshape(mx.take(rows, copy_to_mlx(mx, hops.astype(np.int32)), axis=0), (-1,))
    skipped = params.start - first * hop
    return flat[skipped : skipped + params.kept]


def inverse_rows(params: IstftParams, window: Any) -> Any:
    """The distinct rows of the inverse envelope by MLX operations, for windows that are traced.

    The module's formula of :mod:`.core.envelope`, as a product with the matrix of which piece of
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


def of_rows(form: Form, params: IstftParams, count: int) -> tuple[Form, IstftParams]:
    """The same call of as many rows."""
    return form.of_rows(count), replace(params, rows=count)
