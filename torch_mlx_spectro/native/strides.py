"""What native torch's results are besides their values: their strides, and whether they are views.

Programs reshape and ``view`` what ``torch.stft`` returns, so its memory order is part of the
contract. Native torch frames the padded signal, multiplies by the window and runs an FFT. The order
of the result follows from these steps:

* padding gives a contiguous signal; padding by nothing gives a clone in the signal's own order;
* the product with the window keeps the order of its strides (TensorIterator's rule, asked here
  of torch itself with meta tensors, which hold no data);
* the MKL and cuFFT transforms write batch dimensions in the order of their input's strides, bins
  innermost; the pocketfft transforms (builds without MKL) write contiguously.

Autograd treats views and other tensors differently (``detach_``, in-place use after ``no_grad``),
so that is part of the contract, too: see :func:`natives_view`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

from ..core.params import IstftParams, StftParams
from ..errors import UnresolvedArguments
from ..store.caches import cached

View = Callable[[torch.Tensor], torch.Tensor]

#: torch counts strides of complex64 values in bytes, in 64 bits.
_MAX_STRIDE = (1 << 63) // 8 - 1


#: Whether torch's transforms of the host are MKL's.
_torch_uses_mkl: Callable[[], bool] = torch.backends.mkl.is_available


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


@cached(512)
def frames_in_order(
    params: StftParams,
    strides: tuple[int, ...],
    dtype: torch.dtype,
    window_dtype: torch.dtype | None,
) -> bool:
    """As :func:`frames_outermost`, for transforms that keep the order of input dimensions."""
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
    between = (signal.stride(0), params.hop_length * signal.stride(1), signal.stride(1))
    if window_dtype is not None:
        between = _find_product_strides((params.rows, params.frames, params.n_fft), between)
    return between[1] > between[0]


def _find_product_strides(
    shape: tuple[int, int, int], strides: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Find the strides of the product of a tensor and of one that has its last dimension only.

    As torch's TensorIterator orders dimensions. The product of two meta tensors has these strides,
    too, but torch imports its compiler for the first one, which takes a second.
    """
    order = [2, 1, 0]  # the innermost one first
    for index in (1, 2):
        at = index
        for before in range(index - 1, -1, -1):
            inner, outer = order[before], order[at]
            ahead, behind = strides[inner], strides[outer]
            if 0 in (ahead, behind):  # broadcast: their order is as it was
                continue
            if ahead < behind:
                break
            if ahead > behind or shape[inner] > shape[outer]:
                order[before], order[at] = outer, inner
                at = before
    found, step = [0, 0, 0], 1
    for dimension in order:
        found[dimension] = step
        step *= max(1, shape[dimension])
    return found[0], found[1], found[2]


def spectrum_strides(params: StftParams, frames_outer: bool) -> tuple[int, int, int]:
    """Return the strides, in elements, of a (rows, bins, frames) spectrum of this memory order."""
    if frames_outer:
        return (params.bins, 1, params.rows * params.bins)
    return (params.frames * params.bins, 1, params.bins)


def multiplied_dtype(
    params: StftParams, signal: torch.Tensor, window: torch.Tensor | None
) -> torch.dtype | None:
    """Return the dtype of the window that native multiplies by; None where there is no product.

    Native pads a short window, given or not, and multiplies by it.
    """
    if window is not None:
        return window.dtype
    return signal.dtype if params.win_length < params.n_fft else None


def host_spectrum_strides(
    params: StftParams, signal: torch.Tensor, window: torch.Tensor | None
) -> tuple[int, int, int]:
    """Return the strides of native's (rows, bins, frames) spectrum of a host tensor."""
    multiplied = multiplied_dtype(params, signal, window)
    outer = frames_outermost(params, signal.stride(), signal.dtype, multiplied)
    return spectrum_strides(params, outer)


def in_order(tensor: torch.Tensor, strides: tuple[int, ...]) -> torch.Tensor:
    """Return the tensor itself if it has these strides, else a copy that has them."""
    if tensor.stride() == strides:
        return tensor
    copy = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
    return copy.copy_(tensor)


def with_rows(params: StftParams | IstftParams, tensor: torch.Tensor) -> torch.Tensor:
    """Return a call's input as a batch."""
    return tensor if params.batched else tensor.unsqueeze(0)


def as_batch(params: StftParams | IstftParams, computed: torch.Tensor) -> torch.Tensor:
    """What a call computed, or a cotangent of it, as a batch: with rows, if it has none."""
    dims = 3 if isinstance(params, StftParams) else 2
    return computed if computed.dim() == dims else computed.unsqueeze(0)


def only_row(batch: torch.Tensor) -> torch.Tensor:
    """Return the only row of a batch, as a view of it."""
    return batch.squeeze(0)


def natives_view(params: StftParams | IstftParams) -> View | None:
    """Return how native views what it has computed; None where it returns the tensor itself.

    Real pairs are a view of the spectrum. A 1-D istft is a row of a batch of one, unless zeros are
    appended, which makes a new tensor. A 1-D stft is no view: native squeezes it in place.
    """
    if isinstance(params, StftParams):
        return None if params.return_complex else torch.view_as_real
    return None if params.batched or params.zero_tail else only_row


#: By native's view, what gives back the tensor that it is a view of.
UNDOING: Mapping[View, View] = MappingProxyType(
    {
        torch.view_as_real: torch.view_as_complex,
        only_row: lambda row: row.unsqueeze(0),
    }
)


def with_view(
    params: StftParams | IstftParams, compute: Callable[..., torch.Tensor]
) -> Callable[..., torch.Tensor]:
    """A function that computes what native's result is a view of, with that view."""
    view = natives_view(params)
    if view is None:
        return compute
    return lambda tensor, window: view(compute(tensor, window))


def drop_rows(params: StftParams | IstftParams, batch: torch.Tensor) -> torch.Tensor:
    """Turn a batch's result into what native's result is, or is a view of.

    Args:
        batch: see :func:`shape_result`.
    """
    if not params.batched and natives_view(params) is not only_row:
        return batch.squeeze_(0)
    return batch


def shape_result(params: StftParams | IstftParams, batch: torch.Tensor) -> torch.Tensor:
    """Turn a batch's result into the call's, which is a view where native's is one.

    Args:
        batch: shape (rows, bins, frames) or (rows, output length). It is shaped in place, so nobody
            else may hold it, and it may not be a view.
    """
    view, computed = natives_view(params), drop_rows(params, batch)
    return computed if view is None else view(computed)
