"""The ``mlx`` backend: a resolved call on torch tensors, computed by MLX.

Where MLX has a GPU, tensors of the host and of MPS are computed there whole, by the project's own
Metal kernels: both lie in memory that it addresses. Elsewhere host tensors run in blocks on MLX CPU
streams (or by the kernels while those are emulated). What else derivatives need is in
:mod:`.backends.maps`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...core.params import IstftParams, StftParams
from ...kernels.describe import Adjoint, refusal
from ...mlx.blocks import istft_blocks, stft_blocks
from ...mlx.fused import analysis_fused, kernel_of, synthesis_fused
from ...mlx.kernels import MetalKernels, metal_kernels
from ...mlx.runtime import has_gpu, runtime
from ...native.strides import (
    frames_outermost,
    in_order,
    multiplied_dtype,
    shape_result,
    spectrum_strides,
    with_rows,
)
from .bridge import Borrowed, dense_order, empty_result, host_view, memory_of, to_mlx, to_torch
from .windows import Window, check_envelope, envelope_of, window_of


def computation(
    params: StftParams | IstftParams, tensor: torch.Tensor, window: torch.Tensor | None
) -> tuple[str, str | None]:
    """What computes a call on this input, for reports, and why it cannot, if so."""
    if kernels_for(tensor, params) is not None:
        return kernel_of(params), refusal(params)
    return "mlx cpu blocks", None


def kernels_for(tensor: torch.Tensor, params: StftParams | IstftParams) -> MetalKernels | None:
    """The kernels that compute a call on this tensor; None where it is computed in blocks."""
    if not has_gpu():
        return metal_kernels(runtime().mx, tensor.device.type)
    if tensor.device.type == "cpu" and refusal(params) is not None:
        return None
    return metal_kernels(runtime().mx, "mps")


def stft(params: StftParams, signal: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
    """Compute a resolved ``torch.stft``.

    Args:
        signal: float32 or complex64, shape (samples,) or (rows, samples), on CPU or MPS.
        window: float32 or complex64, shape (win_length,), or None.

    Returns:
        Shape (rows, bins, frames), complex64, with native torch's strides; without rows for a
        1-D signal; viewed as real with a last dimension of 2 for ``return_complex=False``.
    """
    return shape_result(params, analysis(params, with_rows(params, signal), window))


def analysis(
    params: StftParams,
    signal: torch.Tensor,
    window: torch.Tensor | None,
) -> torch.Tensor:
    """The spectrum of a batch with native's strides.

    Args:
        signal: shape (rows, samples).

    Returns:
        Shape (rows, bins, frames), complex64.
    """
    kernels, prepared = (
        kernels_for(signal, params),
        window_of(window, params.win_length, params.n_fft),
    )
    strides = _natives_strides(params, signal, window)
    if kernels is not None:
        return stft_whole(kernels, params, signal, prepared, strides)
    return stft_in_blocks(params, signal, prepared.for_maps(params.scale), strides)


def _natives_strides(
    params: StftParams, signal: torch.Tensor, window: torch.Tensor | None
) -> tuple[int, ...]:
    """Strides of native's spectrum, shape (rows, bins, frames)."""
    if not signal.is_cpu:
        return spectrum_strides(params, False)  # MPS's transforms write a new, contiguous tensor
    multiplied = multiplied_dtype(params, signal, window)
    outer = frames_outermost(params, signal.stride(), signal.dtype, multiplied)
    return spectrum_strides(params, outer)


def stft_in_blocks(
    params: StftParams,
    signal: torch.Tensor,
    window: Any,
    strides: tuple[int, ...],
    factors: Any = None,
) -> torch.Tensor:
    """A host spectrum, shape (rows, bins, frames), of these strides.

    Args:
        signal: shape (rows, samples).
        window: MLX array of n_fft values, every scale folded in, or None.
        factors: as of :func:`.mlx.blocks.stft_blocks`.
    """
    shape = (params.rows, params.bins, params.frames)
    out = empty_result(shape, strides, torch.complex64)
    frames_of = memory_of(out).transpose(0, 2, 1)
    stft_blocks(runtime(), params, host_view(signal), window, frames_of, factors)
    return out


def stft_whole(
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
    """A spectrum computed in one piece; shape (rows, bins, frames).

    Args:
        signal: shape (rows, samples).
        strides: of the result.
        conjugate, edge, divisor: of the adjoint of an istft; as of ``fused.analysis_fused``.
    """
    mx = runtime().mx
    with whole_arrays(signal) as stream:
        borrowed = to_mlx(mx, signal, stream)
        prepared = window.for_kernels(kernels, conjugate)
        result = analysis_fused(
            kernels, mx, params, borrowed.array, prepared, stream, edge=edge, divisor=divisor
        )
        return exported(mx, result, borrowed, strides)


@contextmanager
def whole_arrays(tensor: torch.Tensor) -> Iterator[Any]:
    """The stream on which whole arrays of this tensor's device are computed."""
    used = runtime()
    if tensor.device.type != "cpu" or has_gpu():
        yield used.mx.gpu
    else:
        with used.lock:
            yield used.streams[0]


def istft(params: IstftParams, spectrum: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
    """Compute a resolved ``torch.istft``.

    Args:
        spectrum: complex64, shape (bins, frames) or (rows, bins, frames), on CPU or MPS.
        window: float32 or complex64, shape (win_length,), or None.

    Returns:
        Shape (rows, output length) or (output length,), float32, or complex64 for
        ``return_complex=True``; contiguous.

    Raises:
        UnresolvedArguments: the envelope is below the NOLA threshold, for which torch raises.
    """
    kernels = kernels_for(spectrum, params)
    batched = with_rows(params, spectrum)
    prepared = window_of(window, params.win_length, params.n_fft)
    check_envelope(params, prepared)
    if kernels is None:
        signal = _istft_in_blocks(params, batched, prepared)
    else:
        signal = istft_whole(kernels, params, batched, prepared)
    return shape_result(params, signal)


def _istft_in_blocks(params: IstftParams, spectrum: torch.Tensor, window: Window) -> torch.Tensor:
    dtype = torch.complex64 if params.return_complex else torch.float32
    shape = (params.rows, params.output_length)
    signal = empty_result(shape, (params.output_length, 1), dtype)
    view = host_view(spectrum.transpose(1, 2))
    envelope = envelope_of(params, window)
    istft_blocks(runtime(), params, view, window.for_maps(1.0), envelope, memory_of(signal))
    return signal


def istft_whole(
    kernels: MetalKernels,
    params: IstftParams,
    spectrum: torch.Tensor,
    window: Window,
    *,
    conjugate: bool = False,
    adjoint: Adjoint | None = None,
) -> torch.Tensor:
    """A signal computed in one piece; shape (rows, output length).

    Args:
        spectrum: shape (rows, bins, frames).
        conjugate, adjoint: of the adjoint of an stft; as of ``fused.synthesis_fused``.
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
        return exported(mx, result, borrowed)


def frames_fastest(by_frames: torch.Tensor) -> bool:
    """Whether neighbouring frames of a spectrum (rows, frames, bins) are neighbours in memory."""
    return (dense_order(by_frames) or [2])[-1] == 1


def exported(
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
