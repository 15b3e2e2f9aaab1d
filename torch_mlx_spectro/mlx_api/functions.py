"""The maps as functions that MLX differentiates, vectorises and compiles.

Each is an ``mx.custom_function``; the rules are those of the table in :mod:`.autograd.derivatives`,
of which this is the MLX side: gradients and tangents are the maps themselves, so all orders close.
Examples of ``mx.vmap`` become rows of one call. Host arrays that have values are computed in blocks
(:mod:`.mlx_api.blocks`); else, and on a GPU, lazily (:mod:`.mlx_api.ops`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.linear import Form, analysis_of
from ..core.params import IstftParams
from ..mlx.runtime import runtime
from ..store.caches import cached
from . import blocks as mlx_blocks
from . import ops as mlx_maps

#: Functions kept, one for each form; a program has a few.
FORMS = 256

Function = Callable[..., Any]


@cached(FORMS)
def analysis(form: Form) -> Function:
    """``(signal (rows, samples), window (n_fft,)) -> spectrum (rows, frames, bins)``."""

    def compute(signal: Any, window: Any) -> Any:
        whole = form.of_rows(signal.shape[0])
        work = signal.shape[0] * form.params.frames * form.params.n_fft
        if mlx_blocks.serves(work, signal, window):
            return mlx_blocks.analysis(whole, signal, window)
        return mlx_maps.analysis(whole, signal, window)

    return _bilinear(
        compute,
        analysis,
        form,
        lambda cotangent, window: adjoint(form)(cotangent, window),
        lambda cotangent, signal: correlation(form)(signal, cotangent),
        by_rows=True,
    )


@cached(FORMS)
def adjoint(form: Form) -> Function:
    """``(spectrum (rows, frames, bins), window (n_fft,)) -> signal (rows, samples)``."""

    def compute(spectrum: Any, window: Any) -> Any:
        whole = form.of_rows(spectrum.shape[0])
        work = spectrum.shape[0] * form.params.frames * form.params.n_fft
        if form.params.samples and mlx_blocks.serves(work, spectrum, window):
            return mlx_blocks.adjoint(whole, spectrum, window)
        return mlx_maps.adjoint(whole, spectrum, window)

    return _bilinear(
        compute,
        adjoint,
        form,
        lambda cotangent, window: analysis(form)(cotangent, window),
        lambda cotangent, spectrum: correlation(form)(cotangent, spectrum),
        by_rows=True,
    )


@cached(FORMS)
def correlation(form: Form) -> Function:
    """``(signal (rows, samples), spectrum (rows, frames, bins)) -> window (n_fft,)``."""

    def compute(signal: Any, spectrum: Any) -> Any:
        return mlx_maps.correlation(form.of_rows(signal.shape[0]), signal, spectrum)

    return _bilinear(
        compute,
        correlation,
        form,
        lambda cotangent, spectrum: adjoint(form)(spectrum, cotangent),
        lambda cotangent, signal: analysis(form)(signal, cotangent),
        by_rows=False,
    )


def _bilinear(
    compute: Function,
    family: Callable[[Form], Function],
    form: Form,
    of_first: Function,
    of_second: Function,
    *,
    by_rows: bool,
) -> Function:
    """A function linear in both of its arguments, with its rules.

    Args:
        of_first, of_second: gradients, of the cotangent and the other argument.
        by_rows: the first argument has rows, the second has none.
    """
    mx = runtime().mx
    function = mx.custom_function(compute)

    def pull(primals: Any, cotangent: Any, _: Any) -> Any:
        first, second = primals
        return of_first(cotangent, second), of_second(cotangent, first)

    def push(primals: Any, tangents: Any) -> Any:
        first, second = primals
        parts = []
        if tangents[0] is not None:
            parts.append(family(form)(tangents[0], second))
        if tangents[1] is not None:
            parts.append(family(form)(first, tangents[1]))
        return sum(parts[1:], parts[0])

    def vectorise(inputs: Any, axes: Any) -> Any:
        if by_rows and axes[1] is None:
            return _examples_as_rows(mx, family(form), inputs, axes)
        return _one_by_one(mx, family(form), inputs, axes)

    function.vjp(pull)
    function.jvp(push)
    function.vmap(vectorise)
    wrapped: Function = function
    return wrapped


def _examples_as_rows(mx: Any, function: Function, inputs: Any, axes: Any) -> Any:
    rows, *others = inputs
    examples = mx.moveaxis(rows, axes[0], 0)
    result = function(mx.flatten(examples, 0, 1), *others)
    return mx.unflatten(result, 0, examples.shape[:2]), 0


def _one_by_one(mx: Any, function: Function, inputs: Any, axes: Any) -> Any:
    """Examples whose windows differ make as many calls."""
    counts = {x.shape[axis] for x, axis in zip(inputs, axes, strict=True) if axis is not None}
    each = []
    for index in range(counts.pop()):
        example = [
            x if axis is None else mx.take(x, index, axis=axis)
            for x, axis in zip(inputs, axes, strict=True)
        ]
        each.append(function(*example))
    return mx.stack(each), 0


@cached(FORMS)
def inverse(params: IstftParams) -> Function:
    """``(spectrum, window (n_fft,), rows of the inverse envelope) -> signal``: an istft.

    Differentiable in the spectrum; the window and its envelope are constants here.
    """
    mx, form = runtime().mx, analysis_of(params)

    def compute(spectrum: Any, window: Any, rows: Any) -> Any:
        count = spectrum.shape[0]
        work = count * params.frames * params.n_fft
        if mlx_blocks.serves(work, spectrum, window, rows):
            return mlx_blocks.inverse(
                mlx_maps.of_rows(form, params, count)[1], spectrum, window, rows
            )
        return mlx_maps.inverse(*mlx_maps.of_rows(form, params, count), spectrum, window, rows)

    function = mx.custom_function(compute)

    def pull(primals: Any, cotangent: Any, _output: Any) -> Any:
        _, window, rows = primals
        kept = cotangent[:, : params.kept] * mlx_maps.inverse_envelope(params, rows)
        found = analysis(form)(kept, window)
        return found, mx.zeros_like(window), mx.zeros_like(rows)

    def push(primals: Any, tangents: Any) -> Any:
        return inverse(params)(tangents[0], *primals[1:])

    def vectorise(inputs: Any, axes: Any) -> Any:
        return _examples_as_rows(mx, inverse(params), inputs, axes)

    function.vjp(pull)
    function.jvp(push)
    function.vmap(vectorise)
    wrapped: Function = function
    return wrapped


def inverse_of_window(params: IstftParams, spectrum: Any, window: Any) -> Any:
    """An istft that depends on its window twice: overlap-add by our maps, envelope by MLX's."""
    mx = runtime().mx
    kept = adjoint(analysis_of(params))(spectrum, window)
    kept = kept * mlx_maps.inverse_envelope(params, mlx_maps.inverse_rows(params, window))
    return mx.pad(kept, [(0, 0), (0, params.zero_tail)]) if params.zero_tail else kept
