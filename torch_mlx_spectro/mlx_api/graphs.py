"""The graphs of small calls on a CPU, which a transform keeps by what it is called with.

Small signals take MLX less time than Python needs to build a graph. So where a call comes again,
its graph is of as few operations as possible, and ``mx.compile`` keeps it: one call of MLX checks
shapes and the stream, and lays the graph out again, lazily.

Two things of MLX 0.32.4 shape the code. Its compiled functions call Python again where an argument
is differentiated or traced by somebody else, who needs the maps of :mod:`.mlx_api.functions` then.
And it fuses neighbouring arithmetic into code that a C++ compiler has to build, which takes a
second and may not be there. So no two such operations are neighbours here: windows are spread by
strided views in place of broadcasts, and sums are separated.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from ..core.envelope import row_of_hop
from ..core.params import IstftParams, StftParams
from ..mlx import ops as maps
from ..mlx.host import copy_to_mlx
from ..mlx.runtime import runtime
from ..store.caches import Cache
from . import ops as mlx_maps
from .functions import is_on_host, suits_graphs

#: How many calls a transform remembers.
GRAPHS = 64
#: Frames that meet in a sample, for each of which a graph has three operations.
MOST_OVERLAP = 64

Function = Callable[..., Any]
#: Computes a call, of its array and its window.
Build = Callable[[Any, Any], Any]


class _Traced(Exception):
    """An argument is differentiated or traced by the program."""


def _seen_once(array: Any) -> Any:
    """Stand for the graph of a call that came once: most calls of a new shape never come again."""
    raise _Traced


class Graphs:
    """The graphs of a transform's calls."""

    def __init__(self) -> None:
        self._calls: Cache[Hashable, Function] = Cache(GRAPHS)

    def compute(self, key: Hashable, array: Any) -> Any | None:
        """Return the result of a call by its graph; None where no graph serves."""
        call = self._calls.find(key)
        if call is None or not is_on_host():
            return None
        try:
            return call(array)
        except _Traced:
            return None

    def note(
        self,
        key: Hashable,
        params: StftParams | IstftParams,
        rows: int,
        prepare: Callable[[], Build],
        window: Any,
    ) -> None:
        """Note a call that no graph has computed, and keep its graph where it comes again.

        Args:
            key: everything that the graph depends on.
            params: of one row.
            rows: how many there are.
            prepare: returns what builds the graph.
            window: of ``n_fft`` values.
        """
        work = rows * params.frames * params.n_fft
        if not work or not suits_graphs(work):
            return
        found = self._calls.find(key)
        if found is None:
            self._calls.put(key, _seen_once)
        elif found is _seen_once:
            self._calls.put(key, _keep_graph(prepare(), window))


def _keep_graph(build: Build, window: Any) -> Function:
    """Return a function that builds a graph once, and lays it out again where it is called."""
    mx = runtime().mx
    known = copy_to_mlx(mx, np.zeros(1, np.float32))

    def trace(array: Any, window: Any, known: Any) -> Any:
        # If this array has its values, they are those from outside: an array beside it is traced.
        if not mlx_maps.is_traced(known):
            raise _Traced
        return build(array, window)

    compiled = mx.compile(trace)
    return lambda array: compiled(array, window, known)


def build_analysis(params: StftParams, layout: str, lead: tuple[int, ...]) -> Build:
    """Return a function that computes an stft.

    Args:
        params: of one row.
        layout: of the spectrum.
        lead: leading dimensions of the spectrum.
    """

    def build(signal: Any, window: Any) -> Any:
        mx = runtime().mx
        kind = mx.complex64 if params.complex_fft else mx.float32
        rows = mx.reshape(signal, (-1, params.samples)).astype(kind)
        if params.scale != 1.0:
            factor = copy_to_mlx(mx, np.full(1, params.scale, np.float32))
            window = mx.multiply(window, mx.as_strided(factor, window.shape, (0,)))
        frames = mlx_maps.cut_frames(mx, params, rows, strided=True)
        spectrum = maps.compute_spectra(
            mx,
            frames,
            _spread(mx, window, frames),
            n_fft=params.n_fft,
            onesided=params.onesided,
            complex_fft=params.complex_fft,
            stream=None,
        )
        if layout == "bfn":
            spectrum = mx.swapaxes(spectrum, 1, 2)
        return mx.reshape(spectrum, (*lead, *spectrum.shape[1:]))

    return build


def build_inverse(
    params: IstftParams, layout: str, lead: tuple[int, ...], find_rows: Callable[[], Any]
) -> Build:
    """Return a function that computes an istft, as :func:`.mlx_api.ops.compute_inverse` does.

    Args:
        params: of one row.
        layout: of the spectrum.
        lead: leading dimensions of the spectrum.
        find_rows: returns the rows of the inverse envelope.
    """
    hop, end = params.hop_length, params.start + params.kept
    skipped, hops = params.start // hop * hop, np.arange(params.start // hop, -(-end // hop))
    inverse = np.asarray(find_rows())[row_of_hop(hops, params.frames, params.overlap)]
    inverse = inverse.reshape(-1)[params.start - skipped : end - skipped]

    def build(spectrum: Any, window: Any) -> Any:
        mx = runtime().mx
        values = mx.reshape(spectrum, (-1, *spectrum.shape[-2:]))
        if layout == "bfn":
            values = mx.swapaxes(values, 1, 2)
        added = _add_frames(mx, params, values, window, int(hops[0]), len(hops))
        kept = mx.flatten(added, 1, 2)[:, params.start - skipped : end - skipped]
        signal = mx.multiply(kept, _spread(mx, copy_to_mlx(mx, inverse), kept))
        if params.zero_tail:
            signal = mx.pad(signal, [(0, 0), (0, params.zero_tail)])
        return mx.reshape(signal, (*lead, params.output_length))

    return build


def _add_frames(
    mx: Any, params: IstftParams, spectrum: Any, window: Any, first: int, hops: int
) -> Any:
    """Overlap-add frames in hops ``first ...``, shape (rows, hops, hop_length).

    Args:
        spectrum: shape (rows, frames, bins).
    """
    hop, overlap, n_fft = params.hop_length, params.overlap, params.n_fft
    begin, end = first - (overlap - 1), first + hops  # the frames that meet there
    low, high = max(begin, 0), min(end, params.frames)
    bins = n_fft if params.return_complex else n_fft // 2 + 1
    frames = maps.invert_spectra(
        mx, spectrum[:, low:high, :bins], None, n_fft, not params.return_complex, None
    )
    frames = mx.multiply(frames, _spread(mx, window, frames))
    width = overlap * hop
    sides = [(0, 0), (low - begin, end - high), (0, width - n_fft)]
    if sides != [(0, 0)] * 3:
        frames = mx.pad(frames, sides)
    shape, strides = (frames.shape[0], hops, hop), ((end - begin) * width, width, 1)
    added = None
    for piece in range(overlap):
        offset = (overlap - 1 - piece) * width + piece * hop
        view = mx.as_strided(frames, shape, strides, offset)
        # ``contiguous`` costs nothing here, and separates the sums.
        added = view if added is None else mx.add(view, mx.contiguous(added))
    return added


def _spread(mx: Any, values: Any, like: Any) -> Any:
    """Broadcast values of the last axis to the shape and dtype of an array, by a strided view."""
    if values.dtype != like.dtype:
        values = mx.contiguous(values).astype(like.dtype)
    return mx.as_strided(values, like.shape, (0,) * (like.ndim - 1) + (1,))
