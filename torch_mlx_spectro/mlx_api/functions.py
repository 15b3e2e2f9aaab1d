"""The maps as functions that MLX differentiates, vectorises and compiles.

Each is an ``mx.custom_function``. Gradients and tangents are maps again, so derivatives of all
orders are covered. Under ``mx.vmap`` examples become rows of one call.

Arrays on the host that have values are computed at once, in blocks on several streams. These write
into memory that MLX's result takes over, so nothing large is copied before or after. Everything
else, and everything on a GPU, is computed lazily (:mod:`.mlx_api.ops`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from ..core.linear import Analysis, describe_analysis
from ..core.params import IstftParams, StftParams
from ..mlx.blocks import adjoint_blocks, istft_blocks, stft_blocks
from ..mlx.host import HostArray, HostView, copy_to_mlx, fill_array
from ..mlx.runtime import runtime
from ..store.caches import cached
from . import ops as mlx_maps

#: How many functions are kept, one for each map and subject; a program has a few.
FUNCTIONS = 256

#: The rules of derivatives. ``Re sum conj(spectrum) A(signal, window)`` is linear in each of its
#: three arguments. A map takes two of them, and returns the gradient in the third, which is last
#: here. So the gradient of a map in one of its arguments is another map: the one that returns this
#: argument, called with the other argument and the cotangent. A tangent is the map itself.
ARGUMENTS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "analysis": ("signal", "window", "spectrum"),
        "adjoint": ("spectrum", "window", "signal"),
        "correlation": ("signal", "spectrum", "window"),
    }
)
#: Samples in all frames from which on blocks are faster. For fewer, MLX's own lazy operations take
#: less time than the threads of the streams take to wake.
WORTHWHILE = 1 << 18
#: Part of MLX's message where it refuses to evaluate inside a transformation.
_TRANSFORMING = "inside a graph transformation"

Function = Callable[..., Any]


def is_on_host() -> bool:
    """Whether MLX's own operations compute on the CPU: no GPU, and no emulated kernels."""
    mx = runtime().mx
    return mx.default_device() == mx.Device(mx.cpu) and mlx_maps.kernels() is None


def suits_graphs(work: int) -> bool:
    """Whether a call with so many samples in all frames is a small one on the CPU."""
    return work < WORTHWHILE and is_on_host()


def serves(work: int, *arrays: Any) -> bool:
    """Whether to compute in blocks: the arrays are large, on the host, and have values.

    Args:
        work: samples in all frames of all rows.
        arrays: the arrays; they are evaluated if the answer is yes.
    """
    return work >= WORTHWHILE and is_on_host() and not mlx_maps.is_traced(*arrays)


def _scale_window(window: Any, factor: float) -> Any:
    """Return the scaled window outside of any graph, rounded as in the lazy maps."""
    with np.errstate(all="ignore"):
        return copy_to_mlx(runtime().mx, np.asarray(window) * np.float32(factor))


def _compute_now(
    shape: tuple[int, ...], is_complex: bool, fill: Callable[[HostArray], None]
) -> Any:
    """Compute at once; within a graph transformation, on another thread.

    Within a gradient MLX refuses to evaluate, and keeps the graphs of what it does evaluate: a
    compiled function would then allocate anew and forget the values. This state of MLX's belongs
    to the thread, so another thread does not have it.
    """
    mx, dtype = runtime().mx, np.complex64 if is_complex else np.float32
    try:
        return fill_array(mx, shape, dtype, fill)
    except ValueError as error:
        if _TRANSFORMING not in str(error):
            raise
        with ThreadPoolExecutor(1) as elsewhere:
            return elsewhere.submit(fill_array, mx, shape, dtype, fill).result()


def _compute_analysis_in_blocks(analysis: Analysis, signal: Any, window: Any) -> Any:
    """Compute :func:`.mlx_api.ops.compute_analysis` in blocks, for arrays that have values."""
    params = analysis.params

    def fill(memory: HostArray) -> None:
        view, scaled = HostView(np.asarray(signal)), _scale_window(window, params.scale)
        stft_blocks(runtime(), params, view, scaled, memory, None, analysis.edge)

    return _compute_now((params.rows, params.frames, params.bins), True, fill)


def _compute_adjoint_in_blocks(analysis: Analysis, spectrum: Any, window: Any) -> Any:
    """Compute :func:`.mlx_api.ops.compute_adjoint` in blocks, for arrays that have values."""
    params = analysis.params

    def fill(memory: HostArray) -> None:
        scaled = _scale_window(window, analysis.inverse_scale)
        adjoint_blocks(runtime(), analysis, HostView(np.asarray(spectrum)), scaled, memory)

    return _compute_now((params.rows, params.samples), params.complex_fft, fill)


def _compute_inverse_in_blocks(params: IstftParams, spectrum: Any, window: Any, rows: Any) -> Any:
    """Compute :func:`.mlx_api.ops.compute_inverse` in blocks, for arrays that have values."""

    def fill(memory: HostArray) -> None:
        scaled, envelope = _scale_window(window, 1.0), np.asarray(rows)
        istft_blocks(runtime(), params, HostView(np.asarray(spectrum)), scaled, envelope, memory)

    return _compute_now((params.rows, params.output_length), params.return_complex, fill)


#: By map: the functions that compute it of whole arrays, and in blocks (None if there is none).
COMPUTATIONS: Mapping[str, tuple[Callable[..., Any], Callable[..., Any] | None]] = MappingProxyType(
    {
        "analysis": (mlx_maps.compute_analysis, _compute_analysis_in_blocks),
        "adjoint": (mlx_maps.compute_adjoint, _compute_adjoint_in_blocks),
        "correlation": (mlx_maps.compute_correlation, None),
        "inverse": (mlx_maps.compute_inverse, _compute_inverse_in_blocks),
    }
)


@cached(FUNCTIONS)
def get_map(name: str, subject: Analysis | IstftParams, is_fixed: bool = False) -> Function:
    """Return a map of one analysis or istft, for any number of rows, with its derivatives.

    Args:
        name: the map's name.
        subject: the analysis; for ``"inverse"`` the parameters of the istft.
        is_fixed: the window is a constant. Otherwise MLX asks for its gradient, too, in each
            backward pass, and the graph of that takes longer to build than all else.
    """
    mx = runtime().mx
    gradients = _list_gradients(name, subject, is_fixed)
    function = mx.custom_function(partial(_compute, name, subject))

    def pull(primals: Any, cotangent: Any, _: Any) -> Any:
        return tuple(
            mx.zeros_like(primal) if gradient is None else gradient(cotangent, primals)
            for gradient, primal in zip(gradients, primals, strict=True)
        )

    def push(primals: Any, tangents: Any) -> Any:
        parts = [
            get_map(name, subject, is_fixed)(
                *primals[:index], tangents[index], *primals[index + 1 :]
            )
            for index, gradient in enumerate(gradients)
            if gradient is not None and tangents[index] is not None
        ]
        return sum(parts[1:], parts[0])

    def vectorise(inputs: Any, axes: Any) -> Any:
        each = get_map(name, subject, is_fixed)
        if name != "correlation" and all(axis is None for axis in axes[1:]):
            return _take_examples_as_rows(mx, each, inputs, axes)
        return _take_one_by_one(mx, each, inputs, axes)

    function.vjp(pull)
    function.jvp(push)
    function.vmap(vectorise)
    return cast(Function, function)


def analyse(
    params: StftParams,
    rows: Any,
    window: Any,
    lead: tuple[int, ...],
    layout: str,
    is_fixed: bool = False,
) -> Any:
    """Compute the spectrum of a signal's rows, with its leading dimensions restored.

    Args:
        is_fixed: the window is a constant.
    """
    mx = runtime().mx
    if 0 in (rows.shape[0], params.frames):
        spectrum = mx.zeros((rows.shape[0], params.frames, params.bins), mx.complex64)
    else:
        analysis = Analysis(params, params.complex_fft, complex_window=False)
        spectrum = get_map("analysis", analysis, is_fixed)(rows, window)
    if layout == "bfn":
        spectrum = mx.swapaxes(spectrum, 1, 2)
    return mx.reshape(spectrum, (*lead, *spectrum.shape[1:]))


def _compute(name: str, subject: Analysis | IstftParams, first: Any, *others: Any) -> Any:
    """Compute a map, in blocks where that is faster."""
    whole, blocks = COMPUTATIONS[name]
    rows = first.shape[0]
    params: Any = subject.params if isinstance(subject, Analysis) else subject
    if rows != params.rows:
        subject = (
            subject.with_rows(rows)
            if isinstance(subject, Analysis)
            else replace(subject, rows=rows)
        )
    work = rows * params.frames * params.n_fft
    if blocks is not None and serves(work, first, *others):
        return blocks(subject, first, *others)
    return whole(subject, first, *others)


def _list_gradients(
    name: str, subject: Analysis | IstftParams, is_fixed: bool
) -> list[Function | None]:
    """List the gradients in each argument, as functions of cotangent and arguments, or None.

    None stands for an argument that is a constant.
    """
    if not isinstance(subject, Analysis):
        return [partial(_differentiate_inverse, subject), None, None]
    *arguments, result = ARGUMENTS[name]

    def differentiate(wanted: str, cotangent: Any, primals: Any) -> Any:
        values = {**dict(zip(arguments, primals, strict=True)), result: cotangent}
        (found,) = (each for each, (*_, returned) in ARGUMENTS.items() if returned == wanted)
        given = (values[argument] for argument in ARGUMENTS[found][:2])
        return get_map(found, subject, is_fixed)(*given)

    return [
        None if is_fixed and argument == "window" else partial(differentiate, argument)
        for argument in arguments
    ]


def _differentiate_inverse(params: IstftParams, cotangent: Any, primals: Any) -> Any:
    """Compute the adjoint of an istft: the analysis of the cotangent times the inverse envelope."""
    _, window, rows = primals
    kept = cotangent[:, : params.kept] * mlx_maps.inverse_envelope(params, rows)
    return get_map("analysis", describe_analysis(params), is_fixed=True)(kept, window)


def _take_examples_as_rows(mx: Any, function: Function, inputs: Any, axes: Any) -> Any:
    """Compute all examples of a signal or spectrum in one call, as rows of it."""
    rows, *others = inputs
    examples = mx.moveaxis(rows, axes[0], 0)
    result = function(mx.flatten(examples, 0, 1), *others)
    return mx.unflatten(result, 0, examples.shape[:2]), 0


def _take_one_by_one(mx: Any, function: Function, inputs: Any, axes: Any) -> Any:
    """Make one call for each example, since their windows differ."""
    given = list(zip(inputs, axes, strict=True))
    (count,) = {x.shape[axis] for x, axis in given if axis is not None}
    each = [
        function(*(x if axis is None else mx.take(x, index, axis=axis) for x, axis in given))
        for index in range(count)
    ]
    return mx.stack(each), 0
