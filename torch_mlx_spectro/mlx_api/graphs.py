"""The graphs of small calls on a CPU, which a transform keeps by what it is called with.

Small signals take MLX less time than Python needs to build a graph. So where a call comes again,
its graph is of as few operations as possible, and ``mx.compile`` keeps it: one call of MLX checks
shapes and the stream, and lays the graph out again, lazily. MLX keeps it in each thread that calls.

Two things of MLX 0.32.4 shape the code. Its compiled functions call Python again where an argument
is differentiated or traced by somebody else; a differentiated one then has a graph of the same
operations, and what is traced is left to the maps of :mod:`.mlx_api.functions`. And it fuses
neighbouring arithmetic into code that a C++ compiler has to build, which takes a second and may not
be there. So no two such operations are neighbours here: windows are spread by strided views in
place of broadcasts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from ..core.linear import Analysis, describe_analysis
from ..core.params import IstftParams, StftParams
from ..mlx import ops as maps
from ..mlx.host import copy_to_mlx
from ..mlx.runtime import runtime
from ..store.caches import Cache
from . import ops as mlx_maps
from .functions import analyse, get_map, is_on_host, suits_graphs

#: How many calls a transform remembers.
GRAPHS = 64

Function = Callable[..., Any]
#: Computes a call, of its array and its window.
Build = Callable[[Any, Any], Any]


class _Traced(Exception):
    """An argument is differentiated or traced by the program."""


@dataclass(frozen=True)
class Calculation:
    """A linear function of an array by a window, and how to build the graphs of it.

    Attributes:
        build: builds its graph, of the array and the window.
        compute: the function itself by the maps of :mod:`.mlx_api.functions`, with all derivatives.
        build_back: builds the graph of its adjoint, of the cotangent and the window. None where the
            maps differentiate it.
    """

    build: Build
    compute: Function
    build_back: Build | None = None


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
        prepare: Callable[[], Calculation],
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
            self._calls.put(key, _keep_graphs(prepare(), window))


def _seen_once(array: Any) -> Any:
    """Stand for the graph of a call that came once: most calls of a new shape never come again."""
    raise _Traced


def _keep_graphs(calculation: Calculation, window: Any) -> Function:
    """Return a function that builds a graph once, and lays it out again where it is called."""
    mx = runtime().mx
    known = copy_to_mlx(mx, np.zeros(1, np.float32))

    def trace(array: Any, window: Any, known: Any) -> Any:
        # If this array has its values, they are those from outside: an array beside it is traced.
        if not mlx_maps.is_traced(known):
            raise _Traced
        return calculation.build(array, window)

    compiled = mx.compile(trace)
    if calculation.build_back is None:
        return lambda array: compiled(array, window, known)
    # Whether the last result was differentiated. Then the next one is taken for such a one, too:
    # MLX says by an exception that it is, which takes 20 us. Either function serves both.
    was_differentiated = False

    def note_gradient() -> None:
        nonlocal was_differentiated
        was_differentiated = True

    differentiated = _make_differentiable(
        calculation, calculation.build_back, window, note_gradient
    )

    def call(array: Any) -> Any:
        nonlocal was_differentiated
        if not was_differentiated:
            with suppress(_Traced):
                return compiled(array, window, known)
        was_differentiated = False
        return differentiated(array)

    return call


def _make_differentiable(
    calculation: Calculation, build_back: Build, window: Any, note_gradient: Callable[[], None]
) -> Function:
    """Return the function for arrays that the program differentiates, to any order.

    Such graphs cannot be kept, but these are built of half as many operations as by the maps, which
    compute placeholders: their graphs are not vectorised.
    """
    mx = runtime().mx
    ahead = mx.custom_function(lambda array: calculation.build(array, window))
    back = mx.custom_function(lambda cotangent: build_back(cotangent, window))

    def map_ahead(array: Any) -> Any:
        return (calculation.compute if mlx_maps.has_placeholder(array) else ahead)(array)

    def pull(_: Any, cotangent: Any, __: Any) -> Any:
        note_gradient()
        return back(cotangent)

    ahead.vjp(pull)
    ahead.jvp(lambda _, tangent: map_ahead(tangent))
    back.vjp(lambda _, cotangent, __: map_ahead(cotangent))
    return cast(Function, map_ahead)


def plan_stft(
    params: StftParams, layout: str, lead: tuple[int, ...], window: Any, like: Any, is_fixed: bool
) -> Calculation:
    """Plan the graphs of an stft.

    Args:
        params: of one row.
        layout: of the spectrum.
        lead: leading dimensions of the spectrum.
        window: of ``n_fft`` values.
        like: a signal of its shape and dtype.
        is_fixed: the window is a constant.
    """
    mx, shape = runtime().mx, like.shape
    analysis = Analysis(params, params.complex_fft, complex_window=False)

    def compute(signal: Any) -> Any:
        rows = mx.reshape(signal, (-1, params.samples))
        return analyse(params, rows, window, lead, layout, is_fixed)

    is_plain = is_fixed and params.onesided and like.dtype == mx.float32
    back = _build_adjoint(analysis, layout, shape) if is_plain else None
    return Calculation(_build_analysis(analysis, layout, lead), compute, back)


def plan_istft(
    params: IstftParams,
    layout: str,
    lead: tuple[int, ...],
    window: Any,
    like: Any,
    find_rows: Callable[[], Any],
) -> Calculation:
    """Plan the graphs of an istft by a window that is a constant.

    Args:
        params: of one row.
        layout: of the spectrum.
        lead: leading dimensions of the spectrum.
        window: of ``n_fft`` values.
        like: a spectrum of its shape.
        find_rows: returns the rows of the inverse envelope.
    """
    mx, analysis, rows = runtime().mx, describe_analysis(params), find_rows()
    inverse = mlx_maps.inverse_envelope(params, rows)
    factors = inverse * analysis.params.scale
    mx.eval(inverse, factors)

    def build(spectrum: Any, window: Any) -> Any:
        values = _take_rows(mx, spectrum, layout)
        shape = (values.shape[0], params.frames, params.n_fft)
        values = values[..., : params.bins]
        added = mlx_maps.add_frames(
            mx, analysis, values, _spread(mx, window, shape, params.return_complex)
        )
        signal = mx.multiply(added, _spread(mx, inverse, added.shape, params.return_complex))
        if params.zero_tail:
            signal = mx.pad(signal, [(0, 0), (0, params.zero_tail)])
        return mx.reshape(signal, (*lead, params.output_length))

    def compute(spectrum: Any) -> Any:
        signal = get_map("inverse", params)(_take_rows(mx, spectrum, layout), window, rows)
        return mx.reshape(signal, (*lead, params.output_length))

    is_plain = params.onesided and params.bins == like.shape[-2 if layout == "bfn" else -1]
    unscaled = replace(analysis, params=replace(analysis.params, scale=1.0))
    back = _build_analysis(unscaled, layout, lead, factors) if is_plain else None
    return Calculation(build, compute, back)


def _build_analysis(
    analysis: Analysis, layout: str, lead: tuple[int, ...], factors: Any | None = None
) -> Build:
    """Return a function that builds the graph of an analysis.

    Args:
        analysis: of one row.
        layout: of the spectrum.
        lead: leading dimensions of the spectrum.
        factors: of the samples that are analysed; what follows them is left out.
    """
    params = analysis.params

    def build(signal: Any, window: Any) -> Any:
        mx = runtime().mx
        kind = mx.complex64 if params.complex_fft else mx.float32
        rows = mx.reshape(signal, (-1, signal.shape[-1])).astype(kind)
        if factors is not None:
            rows = rows[:, : params.samples]
            rows = mx.multiply(rows, _spread(mx, factors, rows.shape, params.complex_fft))
        # A cotangent may be traced, and what traces it does not say so inside a backward pass.
        frames = mlx_maps.cut_frames(mx, params, rows, strided=factors is None)
        spectrum = maps.compute_spectra(
            mx,
            frames,
            _spread(mx, _scale(mx, window, params.scale), frames.shape, params.complex_fft),
            n_fft=params.n_fft,
            onesided=params.onesided,
            complex_fft=params.complex_fft,
            stream=None,
            edge=analysis.edge,
        )
        if layout == "bfn":
            spectrum = mx.swapaxes(spectrum, 1, 2)
        return mx.reshape(spectrum, (*lead, *spectrum.shape[1:]))

    return build


def _build_adjoint(analysis: Analysis, layout: str, shape: tuple[int, ...]) -> Build:
    """Return a function that builds the graph of the adjoint of a onesided analysis.

    Args:
        analysis: of one row.
        layout: of the spectrum.
        shape: of the signal.
    """

    def build(spectrum: Any, window: Any) -> Any:
        mx = runtime().mx
        scaled = mlx_maps.scale(mx, window, analysis.inverse_scale)
        signal = mlx_maps.add_frames(mx, analysis, _take_rows(mx, spectrum, layout), scaled)
        return mx.reshape(signal, shape)

    return build


def _take_rows(mx: Any, spectrum: Any, layout: str) -> Any:
    """Return a spectrum as (rows, frames, bins)."""
    rows = mx.reshape(spectrum, (-1, *spectrum.shape[-2:]))
    return mx.swapaxes(rows, 1, 2) if layout == "bfn" else rows


def _scale(mx: Any, window: Any, factor: float) -> Any:
    """Return a window times a factor."""
    if factor == 1.0:
        return window
    one = copy_to_mlx(mx, np.full(1, factor, np.float32))
    return mx.multiply(window, mx.as_strided(one, window.shape, (0,)))


def _spread(mx: Any, values: Any, shape: tuple[int, ...], is_complex: bool) -> Any:
    """Broadcast values of the last axis to a shape, by a strided view."""
    if is_complex:
        values = mx.contiguous(values).astype(mx.complex64)
    return mx.as_strided(values, shape, (0,) * (len(shape) - 1) + (1,))
