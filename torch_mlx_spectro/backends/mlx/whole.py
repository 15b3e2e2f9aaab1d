"""Maps on whole tensors of the host or of MPS, by the project's Metal kernels through MLX.

:mod:`.backends.mlx.bridge` says how tensors cross to MLX.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from ...core.linear import Form
from ...core.params import IstftParams, StftParams
from ...kernels.describe import Adjoint
from ...mlx import ops
from ...mlx.fused import analysis_fused, synthesis_fused
from ...mlx.launcher import MetalKernels
from ...mlx.runtime import has_gpu, runtime
from ...native.strides import in_order
from .bridge import Borrowed, dense_order, empty_result, to_mlx, to_torch
from .windows import Window


def analyse(
    kernels: MetalKernels,
    params: StftParams,
    signal: torch.Tensor,
    window: Window,
    strides: tuple[int, ...],
    *,
    conjugate: bool = False,
    edge: float = 1.0,
    divisor: float | None = None,
) -> torch.Tensor:
    """A spectrum of shape (rows, bins, frames).

    Args:
        signal: shape (rows, samples).
        strides: of the result.
        conjugate: use the conjugate of the window.
        edge, divisor: see :func:`.mlx.fused.analysis_fused`.
    """
    mx = runtime().mx
    with whole_arrays(signal) as stream:
        borrowed = to_mlx(mx, signal, stream)
        prepared = window.for_kernels(kernels, conjugate)
        result = analysis_fused(
            kernels, mx, params, borrowed.array, prepared, stream, edge=edge, divisor=divisor
        )
        return export_result(mx, result, borrowed, strides)


def synthesise(
    kernels: MetalKernels,
    params: IstftParams,
    spectrum: torch.Tensor,
    window: Window,
    *,
    conjugate: bool = False,
    adjoint: Adjoint | None = None,
) -> torch.Tensor:
    """A signal of shape (rows, output length).

    Args:
        spectrum: shape (rows, bins, frames).
        conjugate: use the conjugate of the window.
        adjoint: see :func:`.mlx.fused.synthesis_fused`.
    """
    mx = runtime().mx
    by_frames = spectrum.transpose(1, 2)
    with whole_arrays(spectrum) as stream:
        borrowed = to_mlx(mx, by_frames, stream)
        result = synthesis_fused(
            kernels,
            mx,
            params,
            borrowed.array,
            window.for_kernels(kernels, conjugate),
            stream,
            frames_fastest=frames_fastest(by_frames),
            adjoint=adjoint,
        )
        return export_result(mx, result, borrowed)


def differentiate_window(
    kernels: MetalKernels, form: Form, signal: torch.Tensor, spectrum: torch.Tensor
) -> torch.Tensor:
    """Compute :meth:`.Backend.differentiate_window`."""
    mx, params = runtime().mx, replace(form.params, scale=1.0)
    ones = Window(None, None, params.n_fft, params.n_fft).for_kernels(kernels)
    with whole_arrays(signal) as stream:
        lent = to_mlx(mx, spectrum.transpose(1, 2), stream)
        borrowed = to_mlx(mx, signal, stream)
        frames = kernels.cut_frames(params, borrowed.array, ones, stream)
        result = ops.correlate(mx, form, frames, lent.array, stream)
        summed = export_result(mx, result, borrowed)
        del lent  # until here: the result is computed from it
        return summed


@contextmanager
def whole_arrays(tensor: torch.Tensor) -> Iterator[Any]:
    """The stream on which whole arrays of this tensor's device are computed."""
    used = runtime()
    if tensor.device.type != "cpu" or has_gpu():
        yield used.mx.gpu
    else:
        with used.lock:
            yield used.streams[0]


def frames_fastest(by_frames: torch.Tensor) -> bool:
    """Whether neighbouring frames of a spectrum (rows, frames, bins) are neighbours in memory."""
    return (dense_order(by_frames) or [2])[-1] == 1


def export_result(
    mx: Any, result: Any, borrowed: Borrowed, strides: tuple[int, ...] | None = None
) -> torch.Tensor:
    """Evaluate and export ``result`` while the tensor it was computed from is still held.

    Host tensors are copied into memory of torch's own, in the order that is asked for: results may
    be resized, which MLX's memory cannot be.

    Args:
        result: shape (rows, output length), or (rows, frames, bins) of a spectrum.
        strides: of a spectrum (rows, bins, frames), which is returned so.
    """
    tensor = to_torch(mx, result, borrowed.owner.device.type)
    del borrowed
    if strides is not None:
        # In place, as native does: a view that a custom function returns may not be changed.
        tensor.transpose_(1, 2)
    strides = strides or tensor.stride()
    if tensor.is_cpu:
        return empty_result(tuple(tensor.shape), strides, tensor.dtype).copy_(tensor)
    return in_order(tensor, strides)
