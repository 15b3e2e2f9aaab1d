"""Arguments as memory: where it is, how far it reaches, and what MLX says of its arrays."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import EmulatorError

HostArray = npt.NDArray[Any]

#: A NaN in float32; in every type a value that no test expects.
POISON = 0x7FC0DEAD
#: Around each output: to see stray writes without checking every access.
CANARY_BYTES = 256

#: The largest alignment of a type that clang loads at once.
VECTOR_BYTES = 16

#: What a buffer is to a kernel.
INPUT, CONSTANT, OUTPUT = 0, 1, 2


@dataclass(frozen=True)
class Memory:
    """``pointer`` is where element 0 is; all elements lie in ``bytes`` bytes from ``base``."""

    owner: Any
    pointer: int
    base: int
    bytes: int
    granule: int


def _view(mx: Any, array: Any) -> Any:
    """Return the array as something that has a buffer, since numpy has no bfloat16."""
    return array.view(mx.uint16) if array.dtype == mx.bfloat16 else array


def strides_of(mx: Any, array: Any) -> tuple[int, ...]:
    """MLX's own strides, in elements."""
    view = memoryview(_view(mx, array))
    return tuple(stride // view.itemsize for stride in view.strides or ())


def row_contiguous(mx: Any, array: Any) -> bool:
    """MLX's flag: elements follow each other, whatever the strides of axes of one element."""
    expected = 1
    for extent, stride in zip(reversed(array.shape), reversed(strides_of(mx, array)), strict=True):
        if extent != 1 and stride != expected:
            return bool(array.size == 0)
        expected *= extent
    return True


def input_memory(mx: Any, array: Any) -> Memory:
    """Memory of an evaluated array, at a multiple of as many bytes as it would be on a Mac."""
    viewed = _view(mx, array)
    host: HostArray = np.asarray(viewed)
    if host.nbytes and not np.shares_memory(host, np.asarray(viewed)):
        raise EmulatorError("MLX copied an array instead of showing its memory")
    low, size = span(host.shape, host.strides, host.itemsize)
    base, granule = host.ctypes.data + low, min(host.itemsize, 4)
    skew = _allocation_skew(mx)
    if skew == 0:
        return Memory((viewed, host), base - low, base, size, granule)
    whole = np.empty(size + 2 * VECTOR_BYTES, np.uint8)
    start = whole.ctypes.data + -whole.ctypes.data % VECTOR_BYTES + (base - skew) % VECTOR_BYTES
    ctypes.memmove(start, base, size)
    return Memory(whole, start - low, start, size, granule)


def _allocation_skew(mx: Any) -> int:
    """Bytes by which MLX's arrays on a CPU miss alignment; Metal's buffers begin at pages."""
    probe = mx.zeros(4)
    mx.eval(probe)
    return int(np.asarray(probe).ctypes.data) % VECTOR_BYTES


def span(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """Find where the elements lie: the first byte, counted from element 0, and bytes from there on.

    Args:
        strides: in bytes.
    """
    low = high = 0
    for extent, stride in zip(shape, strides, strict=True):
        reach = (extent - 1) * stride
        low, high = low + min(reach, 0), high + max(reach, 0)
    return (0, 0) if 0 in shape else (low, high - low + itemsize)


def integers(values: tuple[int, ...], dtype: Any) -> Memory:
    """Shape, strides or rank as a kernel gets them."""
    host = np.array(values, dtype)
    pointer = host.ctypes.data
    return Memory(host, pointer, pointer, host.nbytes, 4)


class Output:
    """Memory that a launch writes: poisoned or filled, with canaries around it.

    Args:
        shape: of the values.
        dtype: of the values.
        initial: values before the launch; None for poison.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, initial: Any = None) -> None:
        self.shape = shape
        itemsize = np.dtype(dtype).itemsize
        size = int(np.prod(shape, dtype=np.int64)) * itemsize
        words = -(-size // 4) + 2 * CANARY_BYTES // 4
        self._whole = np.full(words, POISON, np.uint32)
        body = self._whole.view(np.uint8)[CANARY_BYTES : CANARY_BYTES + size]
        self.values: HostArray = body.view(dtype).reshape(shape)
        if initial is not None:
            self.values[...] = initial
        pointer = self._whole.ctypes.data + CANARY_BYTES
        self.memory = Memory(self._whole, pointer, pointer, size, min(itemsize, 4))
        self.initialised = initial is not None

    def stray(self) -> int | None:
        """Return the offset in bytes of a write just outside of the output, or None."""
        raw = self._whole.view(np.uint8)
        clean = np.full(len(self._whole), POISON, np.uint32).view(np.uint8)
        size = self.memory.bytes
        outside = raw != clean
        outside[CANARY_BYTES : CANARY_BYTES + size] = False
        found = np.flatnonzero(outside)
        return int(found[0]) - CANARY_BYTES if len(found) else None

    def first_difference(self, other: Output) -> tuple[int, ...] | None:
        """Index of the first element that differs in any bit, or None."""
        mine = self.values.reshape(-1).view(np.uint8).reshape(self.values.size, -1)
        theirs = other.values.reshape(-1).view(np.uint8).reshape(self.values.size, -1)
        if np.array_equal(mine, theirs):
            return None
        flat = int(np.flatnonzero((mine != theirs).any(axis=1))[0])
        return tuple(int(i) for i in np.unravel_index(flat, self.shape or (1,)))


class ArrayOutput(Output):
    """An output as an MLX array.

    Args:
        mx: the module ``mlx.core``.
        shape: of the output.
        dtype: MLX's.
        init_value: what MLX fills it with before the launch, or None.
    """

    def __init__(self, mx: Any, shape: tuple[int, ...], dtype: Any, init_value: Any) -> None:
        self._mx, self._mlx_dtype = mx, dtype
        sample = mx.array([0.0 if init_value is None else init_value]).astype(dtype)
        mx.eval(sample)
        element = np.array(_view(mx, sample))
        super().__init__(shape, element.dtype, None if init_value is None else element[0])

    def array(self) -> Any:
        """The output as an MLX array."""
        result = self._mx.array(self.values)
        if self._mlx_dtype == self._mx.bfloat16:
            result = result.view(self._mx.bfloat16)
        self._mx.eval(result)
        return result


@dataclass(frozen=True)
class Argument:
    """A buffer of the kernel."""

    name: str
    memory: Memory
    kind: int
    initialised: bool = True
