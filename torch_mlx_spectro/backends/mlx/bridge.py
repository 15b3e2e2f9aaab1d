"""Crossing between torch and MLX memory: the only module that touches both.

Where MLX computes on the CPU, it copies the host tensors that it imports. So blocks are imported
when they are needed (the whole signal never exists twice). Results are written into memory that
torch allocated: they own it, have native's strides, and can be resized.

Where MLX has a GPU, host tensors cross whole, by DLPack. The GPU addresses the host's memory, so
MLX adopts it if Metal accepts its address (``newBufferWithBytesNoCopy``; ml-explore/mlx#3872), and
otherwise copies it. MLX hands out its memory as the host's without a copy. That is safe: what torch
computes on the host is computed when its functions return, and the tensor holds the array, whose
buffer goes back to MLX when the tensor is gone.

MPS tensors cross whole, by DLPack. DLPack does not order the two queues, so the producer is
finished before the consumer reads: ``torch.mps.synchronize`` on the way in, ``mx.eval`` on the way
out. An imported buffer is borrowed: its tensor stays referenced (:class:`Borrowed`) until
everything computed from it has been evaluated.

torch's commands on a GPU never compute on MLX's buffers: Metal does not track hazards of them, so
later commands may overtake earlier ones on the same memory, and MLX gives a buffer to its next
array as soon as the tensor is freed, though commands may still have to read it. So what MLX has
computed is copied into memory that torch allocated, and the array is held until the copy has run.

Neither numpy nor MLX knows torch's conjugate and negative bits, so these never cross unresolved.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack

from ...mlx.host import HostArray, HostView, advise_huge_pages
from ...native import private_state as torch_state

#: How numpy's array interface spells the dtypes that are viewed.
_TYPESTR = MappingProxyType(
    {torch.float32: np.dtype(np.float32).str, torch.complex64: np.dtype(np.complex64).str}
)


#: DLPack's number of the host, and which of it: MLX with a GPU offers its arrays as the GPU's.
_DLPACK_CPU = (1, 0)


class _Memory:
    """Offers a tensor's memory to numpy, and keeps it alive for as long as numpy holds it."""

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, owner: torch.Tensor) -> None:
        size = owner.element_size()
        self.owner = owner
        self.__array_interface__ = {
            "version": 3,
            "typestr": _TYPESTR[owner.dtype],
            "shape": tuple(owner.shape),
            # The stride of a dimension of one is never used, and torch's may be any number.
            "strides": tuple(
                size * stride if length > 1 else size
                for length, stride in zip(owner.shape, owner.stride(), strict=True)
            ),
            "data": (owner.data_ptr(), False),
        }


def view_memory(tensor: torch.Tensor) -> HostArray:
    """Return a writable numpy view of a CPU tensor's memory; its bits (conj, neg) are ignored.

    ``tensor.numpy()`` would forbid ``resize_`` for good, for the tensor and all others that share
    its memory. A caller's tensors and results must stay as native leaves them.
    """
    if tensor.numel() == 0:  # may have no memory at all
        return np.empty(tuple(tensor.shape), _TYPESTR[tensor.dtype])
    return np.asarray(_Memory(tensor))


def host_view(tensor: torch.Tensor) -> HostView:
    """View a strided CPU tensor from numpy; nothing is copied, gradients are not followed."""
    plain = tensor.detach()
    negate = plain.is_neg()
    if negate and torch_state.negative_view is not None:
        plain = torch_state.negative_view(plain)
    elif negate:
        negate, plain = False, plain.resolve_neg()
    conjugate = plain.is_conj()
    if conjugate:
        plain = plain.conj()
    return HostView(view_memory(plain), conjugate, negate)


def window_values(window: torch.Tensor | None) -> HostArray | None:
    """Return the window's values on the host, resolved and contiguous; waits for its device."""
    if window is None:
        return None
    plain = window.detach().resolve_conj().resolve_neg()
    return np.ascontiguousarray(view_memory(plain.cpu()))


def empty_result(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    """Return an uninitialised CPU tensor, of huge pages if it is large and the system has them."""
    result = torch.empty_strided(shape, strides, dtype=dtype, device="cpu")
    advise_huge_pages(result.data_ptr(), result.numel() * result.element_size())
    return result


@dataclass(frozen=True)
class Borrowed:
    """An MLX array that may share ``owner``'s memory; hold it until the results are evaluated."""

    array: Any
    owner: torch.Tensor


def to_mlx(mx: Any, tensor: torch.Tensor, stream: Any = None) -> Borrowed:
    """Import a whole tensor, without a copy where the platform shares its memory.

    Args:
        mx: the module ``mlx.core``.
        tensor: any strided tensor of float32 or complex64 on CPU or MPS.
        stream: where given, a dense tensor keeps its memory's order: the array is a transposed
            view, made on this stream. Else the array is contiguous.
    """
    owner = tensor.detach().resolve_conj().resolve_neg()
    order = None if stream is None else dense_order(owner)
    if order is not None:
        owner = owner.permute(order)
    elif not owner.is_contiguous():
        # Broadcast (stride 0) and overlapping views are not importable; gathering them also
        # gives the maps the contiguous rows that they need.
        owner = owner.contiguous()
    if owner.numel() == 0:
        kind = mx.complex64 if owner.is_complex() else mx.float32
        return Borrowed(mx.zeros(tuple(tensor.shape), kind), owner)
    if owner.device.type == "mps":
        torch.mps.synchronize()
    array = mx.from_dlpack(owner)
    if order is not None and order != sorted(order):
        back = [order.index(axis) for axis in range(len(order))]
        array = mx.transpose(array, back, stream=stream)
    return Borrowed(array, owner)


def dense_order(tensor: torch.Tensor) -> list[int] | None:
    """Return the order of dimensions in which a tensor is contiguous; None where there is none."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return order if tensor.permute(order).is_contiguous() else None


def to_torch(mx: Any, array: Any, device_type: str) -> torch.Tensor:
    """Export an MLX array; torch may read it at once.

    A host tensor is exported without a copy: it holds the array alive, and cannot be resized. A
    tensor on MPS is a copy in torch's own memory.

    Args:
        device_type: of the tensor: ``"cpu"`` or ``"mps"``, whose memory is one where MLX has a GPU.
    """
    mx.eval(array)
    is_host = device_type == "cpu"
    offered = array.__dlpack__(dl_device=_DLPACK_CPU) if is_host else array
    lent: torch.Tensor = torch.utils.dlpack.from_dlpack(offered)
    if is_host:
        return lent
    own = lent.clone()
    # ``lent`` holds the array until then. The import (to_mlx) has emptied the queue before, so this
    # waits for the copy alone.
    torch.mps.synchronize()
    return own
