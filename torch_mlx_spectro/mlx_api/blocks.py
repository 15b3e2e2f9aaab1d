"""The maps of MLX host arrays that have values, computed at once in blocks on several streams.

Blocks write into memory that MLX has allocated (:func:`make_uninitialised`), so nothing large is
copied, neither before nor after.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..core.envelope import Envelope
from ..core.linear import Form
from ..core.params import IstftParams
from ..mlx.blocks import adjoint_blocks, istft_blocks, stft_blocks
from ..mlx.host import HostArray, HostView, advise_huge_pages, copy_to_mlx
from ..mlx.runtime import runtime
from . import ops as mlx_maps

#: Samples in all frames from which on blocks are faster. Of fewer samples MLX's own lazy operations
#: take less time than the threads of the streams take to wake.
WORTHWHILE = 1 << 18
#: Bytes up to which a copy takes less time than MLX's thread that reads a file takes to wake: 36 us
#: against 95 for a megabyte (2 cores of a virtual machine).
COPIED_BYTES = 2 << 20
#: Part of MLX's message where it refuses to evaluate ahead.
_TRANSFORMING = "inside a graph transformation"


def serves(work: int, *arrays: Any) -> bool:
    """Whether these arrays are computed in blocks: they are large, on the host, and have values.

    Args:
        work: samples in all frames of all rows.
        arrays: if the answer is yes, they are evaluated.
    """
    mx = runtime().mx
    return (
        work >= WORTHWHILE
        and mx.default_device() == mx.Device(mx.cpu)
        and mlx_maps.kernels() is None
        and not mlx_maps.is_traced(*arrays)
    )


class _Unread(io.BytesIO):
    """A file in numpy's format. Reading its values leaves the memory of the reader as it is."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        super().__init__()
        described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self, described)
        self.seek(0)

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        if count == 0:  # behind the header
            where = np.frombuffer(buffer, np.uint8)
            advise_huge_pages(where.ctypes.data, where.nbytes)
        return count or len(buffer)


def make_uninitialised(shape: tuple[int, ...], dtype: Any) -> tuple[Any, HostArray]:
    """A new MLX array, and its memory, to be written before anybody else sees the array.

    MLX has no such function. Filling 83 MB with zeros first would take it longer than a transform;
    but it reads files into memory that it allocates, and this file leaves that memory as it is.
    """
    mx = runtime().mx
    array = mx.load(_Unread(shape, dtype), format="npy")
    mx.eval(array)
    return array, np.array(array, copy=False)


def fill_array(shape: tuple[int, ...], dtype: Any, fill: Callable[[HostArray], None]) -> Any:
    """A new MLX array of the values that ``fill`` writes."""
    if np.dtype(dtype).itemsize * math.prod(shape) <= COPIED_BYTES:
        memory = np.empty(shape, dtype)
        fill(memory)
        return copy_to_mlx(runtime().mx, memory)
    array, memory = make_uninitialised(shape, dtype)
    fill(memory)
    return array


def _view(array: Any) -> HostView:
    return HostView(np.asarray(array), False, False)


def _scale_window(window: Any, factor: float) -> Any:
    """The scaled window, part of no graph, rounded as the lazy maps round it."""
    with np.errstate(all="ignore"):
        return copy_to_mlx(runtime().mx, np.asarray(window) * np.float32(factor))


def _compute(shape: tuple[int, ...], is_complex: bool, fill: Callable[[HostArray], None]) -> Any:
    """Compute at once, on a thread of its own where this one is at a graph transformation.

    Inside a gradient MLX refuses to evaluate ahead, and keeps the graphs of what it evaluates: a
    compiled function would then allocate anew and forget the values. That state is a thread's.
    """
    dtype = np.complex64 if is_complex else np.float32
    try:
        return fill_array(shape, dtype, fill)
    except ValueError as error:
        if _TRANSFORMING not in str(error):
            raise
        with ThreadPoolExecutor(1) as elsewhere:
            return elsewhere.submit(fill_array, shape, dtype, fill).result()


def analysis(form: Form, signal: Any, window: Any) -> Any:
    """:func:`.mlx_api.ops.analysis` of arrays that have values."""
    params = form.params

    def fill(memory: HostArray) -> None:
        scaled = _scale_window(window, params.scale)
        stft_blocks(runtime(), params, _view(signal), scaled, memory, None, form.edge)

    return _compute((params.rows, params.frames, params.bins), True, fill)


def adjoint(form: Form, spectrum: Any, window: Any) -> Any:
    """:func:`.mlx_api.ops.adjoint` of arrays that have values."""
    params = form.params

    def fill(memory: HostArray) -> None:
        scaled = _scale_window(window, form.inverse_scale)
        adjoint_blocks(runtime(), form, _view(spectrum), scaled, memory)

    return _compute((params.rows, params.samples), params.complex_fft, fill)


def inverse(params: IstftParams, spectrum: Any, window: Any, rows: Any) -> Any:
    """:func:`.mlx_api.ops.inverse` of arrays that have values."""

    def fill(memory: HostArray) -> None:
        scaled, envelope = _scale_window(window, 1.0), Envelope(np.asarray(rows), vanishes=False)
        istft_blocks(runtime(), params, _view(spectrum), scaled, envelope, memory)

    return _compute((params.rows, params.output_length), params.return_complex, fill)
