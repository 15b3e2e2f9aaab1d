"""Host memory as numpy and MLX see it; imports neither torch nor MLX."""

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

#: Bytes up to which a copy takes less time than MLX's thread that reads a file takes to wake: 36 us
#: against 95 for a megabyte (2 cores of a virtual machine).
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
        """The memory does not hold the tensor's values as they are."""
        return self.conjugate or self.negate

    def block(self, part: HostArray) -> HostArray:
        """Resolved, contiguous values of ``part``, a view of :attr:`array`."""
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
    """An MLX array with the values of a host array, in its memory at once.

    So there is nothing lazy about it, and any thread may use it. The copy is made
    by way of a memoryview: MLX 0.32.4, given a numpy array, tries several protocols, and loses a
    KeyboardInterrupt that arrives while it does.
    """
    return mx.array(np.ascontiguousarray(values).data)


def advise_huge_pages(address: int, size: int) -> None:
    """Ask for huge pages where the memory is large; advice only, so a refusal changes nothing."""
    begin = -(-address // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
    length = (address + size) // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES - begin
    if _MADV_HUGEPAGE is not None and size >= _HUGE_PAGES_FROM_BYTES and length > 0:
        libc = ctypes.CDLL(None)  # a few microseconds
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(length), _MADV_HUGEPAGE)


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


def make_uninitialised(mx: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Any, HostArray]:
    """A new MLX array, and its memory, to be written before anybody else sees the array.

    MLX has no such function. Filling 83 MB with zeros first would take it longer than a transform;
    but it reads files into memory that it allocates, and this file leaves that memory as it is.
    """
    array = mx.load(_Unread(shape, dtype), format="npy")
    mx.eval(array)
    return array, np.array(array, copy=False)


def fill_array(
    mx: Any, shape: tuple[int, ...], dtype: Any, fill: Callable[[HostArray], None]
) -> Any:
    """A new MLX array of the values that ``fill`` writes."""
    if np.dtype(dtype).itemsize * math.prod(shape) <= COPIED_BYTES:
        memory = np.empty(shape, dtype)
        fill(memory)
        return copy_to_mlx(mx, memory)
    array, memory = make_uninitialised(mx, shape, dtype)
    fill(memory)
    return array
