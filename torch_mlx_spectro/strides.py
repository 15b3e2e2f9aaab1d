"""The strides that native torch gives to a spectrum.

Callers reshape and ``view`` what ``torch.stft`` returns, so its memory order is part of the
contract. Native torch frames the padded signal, multiplies by the window and runs an FFT; the
order of the result follows from those steps:

* padding gives a contiguous signal, except padding by nothing, which clones it;
* the product with the window keeps the order of its strides (TensorIterator's rule, asked here
  of torch itself with meta tensors, which hold no data);
* the MKL and cuFFT transforms write batch dimensions in the order of their input's strides, bins
  innermost; the pocketfft transforms (builds without MKL) write contiguously.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch

from .errors import UnresolvedArguments
from .params import StftParams

#: torch counts strides of complex64 values in bytes, in 64 bits.
_MAX_STRIDE = (1 << 63) // 8 - 1


@lru_cache(maxsize=1)
def _torch_uses_mkl() -> bool:
    available: Callable[[], bool] = torch.backends.mkl.is_available
    return available()


def frames_outermost(
    params: StftParams,
    strides: tuple[int, ...],
    dtype: torch.dtype,
    window_dtype: torch.dtype | None,
) -> bool:
    """Whether native torch lays a host spectrum out as (frames, rows, bins) in memory.

    Args:
        params: the resolved call.
        strides: of the input signal, in elements.
        dtype: of the input signal.
        window_dtype: of the window; None where native multiplies by no window at all.

    Returns:
        True for (frames, rows, bins), False for the usual (rows, frames, bins).

    Raises:
        UnresolvedArguments: native's strides overflow; what it makes of that is its own affair.
    """
    return _torch_uses_mkl() and frames_in_order(params, strides, dtype, window_dtype)


@lru_cache(maxsize=512)
def frames_in_order(
    params: StftParams,
    strides: tuple[int, ...],
    dtype: torch.dtype,
    window_dtype: torch.dtype | None,
) -> bool:
    """:func:`frames_outermost` for a transform that keeps the order of its input's dimensions."""
    row_stride = strides[0] if params.batched else params.samples * strides[0]
    signal = torch.empty_strided(
        (params.rows, params.samples), (row_stride, strides[-1]), dtype=dtype, device="meta"
    )
    if params.padding or (params.padded and params.pad_mode != "constant"):
        # Made anew: ``contiguous()`` would keep a tensor with odd strides along sizes of one.
        padded = params.samples + 2 * params.padding
        signal = torch.empty((params.rows, padded), dtype=dtype, device="meta")
    elif params.padded:
        signal = signal.clone()
    if params.hop_length * signal.stride(1) > _MAX_STRIDE:
        raise UnresolvedArguments("strides of frames do not overflow")
    framed = signal.as_strided(
        (params.rows, params.frames, params.n_fft),
        (signal.stride(0), params.hop_length * signal.stride(1), signal.stride(1)),
    )
    if window_dtype is not None:
        framed = framed * torch.empty((params.n_fft,), dtype=window_dtype, device="meta")
    return framed.stride(1) > framed.stride(0)


def spectrum_strides(params: StftParams, frames_outer: bool) -> tuple[int, int, int]:
    """Strides, in elements, of the (rows, bins, frames) spectrum for the given memory order."""
    if frames_outer:
        return (params.bins, 1, params.rows * params.bins)
    return (params.frames * params.bins, 1, params.bins)
