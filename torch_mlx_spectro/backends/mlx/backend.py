"""The ``mlx`` backend: computes a resolved call on torch tensors by MLX.

Where MLX has a GPU, it computes whole tensors of the host and of MPS there, by the project's own
Metal kernels: the GPU addresses both memories. Elsewhere host tensors are computed on MLX's CPU
streams, in blocks that fit the processor's cache (:mod:`.mlx.blocks`), or by the kernels while
those are emulated. :mod:`.backends.mlx.bridge` is how tensors cross to MLX.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...calls.operation import Call
from ...core.envelope import inverse_of_frames
from ...core.linear import Analysis
from ...core.params import IstftParams, StftParams
from ...kernels.describe import Adjoint, describe_adjoint, describe_inverse_adjoint
from ...mlx import ops, runtime
from ...mlx.blocks import Factors, adjoint_blocks, correlate_blocks, istft_blocks, stft_blocks
from ...mlx.launcher import MetalKernels, metal_kernels
from ...native.strides import host_spectrum_strides, in_order, spectrum_strides
from ..base import Backend
from .bridge import (
    Borrowed,
    dense_order,
    empty_result,
    host_view,
    to_mlx,
    to_torch,
    view_memory,
)
from .windows import Window, check_envelope, get_envelope, read_window

Optional = torch.Tensor | None


def find_kernels(tensor: torch.Tensor, params: StftParams | IstftParams) -> MetalKernels | None:
    """Return the kernels that compute a call on this tensor; None if it is computed in blocks."""
    mx = runtime.runtime().mx
    if not runtime.has_gpu():
        return metal_kernels(mx, tensor.device.type)
    if tensor.device.type == "cpu" and MetalKernels.refusal(params) is not None:
        return None
    return metal_kernels(mx, "mps")


class MlxBackend(Backend):
    """Tensors of the host and of MPS, by MLX."""

    def explain_absence(self, device_type: str | None = None) -> str | None:
        reason = runtime.unavailable_reason()
        if reason is None and device_type == "mps" and not runtime.has_gpu():
            return "this MLX has no GPU to take MPS tensors to"
        return reason

    def explain_sure_absence(self) -> str | None:
        # Not loaded: a child that is forked later could not use MLX any more.
        return runtime.find_absence()

    def name_kernel(self, call: Call) -> str:
        by_kernels = find_kernels(call.tensor, call.params) is not None
        return ops.name_kernel(call.params) if by_kernels else "mlx cpu blocks"

    def explain_refusal(self, call: Call) -> str | None:
        by_kernels = find_kernels(call.tensor, call.params) is not None
        return MetalKernels.refusal(call.params) if by_kernels else None

    def analyse(
        self, params: StftParams, signal: torch.Tensor, window: Optional, edge: float = 1.0
    ) -> torch.Tensor:
        kernels, prepared = find_kernels(signal, params), read_window(params, window)
        if signal.is_cpu:
            strides = host_spectrum_strides(params, signal, window)
        else:
            strides = spectrum_strides(params, False)  # MPS's transforms write contiguous tensors
        if kernels is not None:
            return _analyse_whole(kernels, params, signal, prepared, strides, edge=edge)
        scaled = prepared.for_maps(params.scale)
        return _analyse_blocks(params, signal, scaled, strides, None, edge)

    def synthesise(
        self, params: IstftParams, spectrum: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        kernels, prepared = find_kernels(spectrum, params), read_window(params, window)
        check_envelope(params, prepared)
        if kernels is not None:
            return _synthesise_whole(kernels, params, spectrum, prepared)
        scaled, inverse = prepared.for_maps(1.0), get_envelope(params, prepared).rows
        signal = _make_signal(params.rows, params.output_length, params.return_complex)
        view = host_view(spectrum.mT)
        istft_blocks(runtime.runtime(), params, view, scaled, inverse, view_memory(signal))
        return signal

    def adjoint(self, analysis: Analysis, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
        params = analysis.params
        kernels, prepared = find_kernels(spectrum, params), read_window(params, window)
        if kernels is not None:
            folded, fold = describe_adjoint(analysis)
            return _synthesise_whole(kernels, folded, spectrum, prepared, adjoint=fold)
        scaled = prepared.for_maps(analysis.inverse_scale, conjugate=True)
        signal = _make_signal(params.rows, params.samples, params.complex_fft)
        view = host_view(spectrum.mT)
        adjoint_blocks(runtime.runtime(), analysis, view, scaled, view_memory(signal))
        return signal

    def differentiate_window(
        self, analysis: Analysis, signal: torch.Tensor, spectrum: torch.Tensor
    ) -> torch.Tensor:
        params, used = analysis.params, runtime.runtime()
        kernels = find_kernels(signal, params)
        if kernels is None:
            total = np.zeros(params.n_fft, np.complex128 if params.complex_fft else np.float64)
            correlate_blocks(used, analysis, host_view(signal), host_view(spectrum.mT), total)
            return torch.from_numpy(total)
        ones = Window(None, None, params.n_fft, params.n_fft).for_kernels(kernels)
        with _whole_arrays(signal) as stream:
            lent = to_mlx(used.mx, spectrum.mT, stream)
            borrowed = to_mlx(used.mx, signal, stream)
            plain = replace(params, scale=1.0)
            frames = kernels.cut_frames(plain, borrowed.array, ones, stream)
            result = ops.correlate(used.mx, analysis, frames, lent.array, stream)
            summed = _export_result(used.mx, result, borrowed)
            del lent  # until here: the result is computed from it
            return summed

    def adjoint_synthesis(
        self, params: IstftParams, cotangent: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        analysis, divisor = describe_inverse_adjoint(params)
        sizes, kept = analysis.params, cotangent[:, : params.kept]
        kernels, prepared = find_kernels(cotangent, sizes), read_window(params, window)
        strides = (sizes.bins * sizes.frames, sizes.frames, 1)
        if kernels is not None:
            return _analyse_whole(
                kernels,
                sizes,
                kept,
                prepared,
                strides,
                conjugate=True,
                edge=analysis.edge,
                divisor=divisor,
            )
        rows = get_envelope(params, prepared).rows.conj()

        def inverse(first: int, count: int) -> Any:
            counts = (params.frames, params.overlap, params.n_fft)
            return inverse_of_frames(rows, *counts, first, count)

        scaled = prepared.for_maps(sizes.scale, conjugate=True)
        return _analyse_blocks(sizes, kept, scaled, strides, inverse, analysis.edge)

    def check_envelope(self, params: IstftParams, window: Optional) -> None:
        check_envelope(params, read_window(params, window))


def _analyse_blocks(
    params: StftParams,
    signal: torch.Tensor,
    window: Any,
    strides: tuple[int, ...],
    factors: Factors | None,
    edge: float,
) -> torch.Tensor:
    """Compute a spectrum of shape (rows, bins, frames) in blocks.

    Args:
        signal: shape (rows, samples).
        window: MLX array of n_fft values, every scale folded in, or None.
        strides: of the result.
        factors, edge: as in :func:`.mlx.blocks.stft_blocks`.
    """
    out = empty_result((params.rows, params.bins, params.frames), strides, torch.complex64)
    by_frames = view_memory(out).transpose(0, 2, 1)
    used = runtime.runtime()
    stft_blocks(used, params, host_view(signal), window, by_frames, factors, edge)
    return out


def _make_signal(rows: int, samples: int, is_complex: bool) -> torch.Tensor:
    """An uninitialised signal on the host."""
    dtype = torch.complex64 if is_complex else torch.float32
    return empty_result((rows, samples), (samples, 1), dtype)


def _analyse_whole(
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
    """Compute a spectrum of shape (rows, bins, frames) by kernels.

    Args:
        signal: shape (rows, samples).
        strides: of the result.
        conjugate: use the conjugate of the window.
        edge, divisor: as in :func:`.mlx.ops.launch_analysis`.
    """
    mx = runtime.runtime().mx
    with _whole_arrays(signal) as stream:
        borrowed = to_mlx(mx, signal, stream)
        prepared = window.for_kernels(kernels, conjugate)
        result = ops.launch_analysis(
            kernels, mx, params, borrowed.array, prepared, stream, edge=edge, divisor=divisor
        )
        return _export_result(mx, result, borrowed, strides)


def _synthesise_whole(
    kernels: MetalKernels,
    params: IstftParams,
    spectrum: torch.Tensor,
    window: Window,
    *,
    adjoint: Adjoint | None = None,
) -> torch.Tensor:
    """Compute a signal of shape (rows, output length) by kernels.

    Args:
        spectrum: shape (rows, bins, frames).
        adjoint: as in :func:`.mlx.ops.launch_synthesis`; it takes the window's conjugate.
    """
    mx, by_frames = runtime.runtime().mx, spectrum.mT
    with _whole_arrays(spectrum) as stream:
        borrowed = to_mlx(mx, by_frames, stream)
        result = ops.launch_synthesis(
            kernels,
            mx,
            params,
            borrowed.array,
            window.for_kernels(kernels, conjugate=adjoint is not None),
            stream,
            frames_fastest=(dense_order(by_frames) or [2])[-1] == 1,
            adjoint=adjoint,
        )
        return _export_result(mx, result, borrowed)


@contextmanager
def _whole_arrays(tensor: torch.Tensor) -> Iterator[Any]:
    """Yield the stream on which whole arrays of this tensor's device are computed."""
    used = runtime.runtime()
    if tensor.device.type != "cpu" or runtime.has_gpu():
        yield used.mx.gpu
    else:
        with used.lock:
            yield used.streams[0]


def _export_result(
    mx: Any, result: Any, borrowed: Borrowed, strides: tuple[int, ...] | None = None
) -> torch.Tensor:
    """Evaluate and export ``result`` while the tensor that it was computed from is still held.

    Results of host tensors are copied into memory of torch's own, in the given order: programs may
    resize results, which MLX's memory does not allow.

    Args:
        result: shape (rows, output length), or (rows, frames, bins) of a spectrum.
        strides: of the spectrum (rows, bins, frames) that is returned.
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


MLX = MlxBackend()
