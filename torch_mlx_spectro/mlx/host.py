"""Host memory as numpy and MLX see it. This module imports neither torch nor MLX."""

from __future__ import annotations

import ctypes
import io
import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: Linux's advice. Writing a fresh 83 MB spectrum costs 20,000 page faults of 4 KiB without it
#: (about 2 us each in a virtual machine), 40 with it. None elsewhere.
_MADV_HUGEPAGE: int | None = getattr(mmap, "MADV_HUGEPAGE", None)
_HUGE_PAGE_BYTES = 2 << 20
_HUGE_PAGES_FROM_BYTES = 2 * _HUGE_PAGE_BYTES

#: Bytes up to which a copy takes less time than waking MLX's thread that reads files: for a
#: megabyte 36 us against 95 (2 cores of a virtual machine).
COPIED_BYTES = 2 << 20

HostArray = npt.NDArray[Any]


@dataclass(frozen=True)
class HostView:
    """A host tensor as numpy sees it, without a copy, and the bits that numpy cannot see.

    ``array`` shares the tensor's memory and strides.
    """

    array: HostArray
    conjugate: bool = False
    negate: bool = False

    @property
    def unresolved(self) -> bool:
        """Whether the memory holds other values than the tensor has: conjugate or negative ones."""
        return self.conjugate or self.negate

    def block(self, part: HostArray) -> HostArray:
        """Return the values of ``part``, a view of :attr:`array`, resolved and contiguous."""
        if not self.unresolved:
            return np.ascontiguousarray(part)
        values = np.empty(part.shape, part.dtype)
        self.copy_block(part, values)
        return values

    def copy_block(self, part: HostArray, target: HostArray) -> None:
        """Write the resolved values of ``part``, a view of :attr:`array`, into ``target``."""
        np.copyto(target, part)
        if self.conjugate:
            np.conjugate(target, out=target)
        if self.negate:
            np.negative(target, out=target)


def copy_to_mlx(mx: Any, values: HostArray) -> Any:
    """Return an MLX array with the values of a host array, copied at once.

    Nothing about it is lazy, so any thread may use it. The copy goes through a memoryview: given a
    numpy array, MLX 0.32.4 tries several protocols, and loses a KeyboardInterrupt that arrives
    meanwhile.
    """
    return mx.array(np.ascontiguousarray(values).data)


def advise_huge_pages(address: int, size: int) -> None:
    """Ask for huge pages where the memory is large. It is advice: a refusal changes nothing."""
    begin = -(-address // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
    length = (address + size) // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES - begin
    if _MADV_HUGEPAGE is not None and size >= _HUGE_PAGES_FROM_BYTES and length > 0:
        libc = ctypes.CDLL(None)  # a few microseconds
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(length), _MADV_HUGEPAGE)


class _Unread(io.BytesIO):
    """A file in numpy's format that, when it is read, leaves its reader's memory as it is."""

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


def make_uninitialised(mx: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Any, HostArray]:
    """Make an MLX array and return it with its memory, which must be written before any use.

    MLX has no function for that. Filling 83 MB with zeros would take longer than a transform. But
    MLX reads files into memory that it allocates, and this file leaves that memory as it is.
    """
    array = mx.load(_Unread(shape, dtype), format="npy")
    mx.eval(array)
    return array, np.array(array, copy=False)


def fill_array(
    mx: Any, shape: tuple[int, ...], dtype: Any, fill: Callable[[HostArray], None]
) -> Any:
    """Make an MLX array of the values that ``fill`` writes."""
    if np.dtype(dtype).itemsize * math.prod(shape) <= COPIED_BYTES:
        memory = np.empty(shape, dtype)
        fill(memory)
        return copy_to_mlx(mx, memory)
    array, memory = make_uninitialised(mx, shape, dtype)
    fill(memory)
    return array
