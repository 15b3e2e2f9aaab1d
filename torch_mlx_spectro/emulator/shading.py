"""``torch.mps.compile_shader``: its library, its kernels' calls, and what torch refuses of them.

Host tensors stand for MPS tensors. Arguments are checked and bound as in torch's Module.cpp:
tensors at their first element, whole numbers with 64 bits, others as float, lists as many of them.

Whatever a kernel may write (``device`` memory that is not const) is an output: it is poisoned
before each run, and has to be written whole. Atomics hold the tensor's values before the run, and
on a machine with ``updates`` all outputs do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from . import shader
from .errors import EmulatorError, Rejected
from .execute import Names
from .library import KernelLibrary
from .memory import CONSTANT, INPUT, OUTPUT, Argument, HostArray, Memory, Output, span

#: What ``arg_casts`` may say. bf16 is not here: numpy has no such numbers.
_CASTS = {
    "fp16": np.float16,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
}
#: Element types that scalars and lists are bound as, by their names in the text.
_SCALARS = {
    "float": np.float32,
    "half": np.float16,
    "long": np.int64,
    "int64_t": np.int64,
    "ulong": np.uint64,
    "uint64_t": np.uint64,
    "int": np.int32,
    "int32_t": np.int32,
    "uint": np.uint32,
    "uint32_t": np.uint32,
    "short": np.int16,
    "ushort": np.uint16,
    "char": np.int8,
    "uchar": np.uint8,
    "bool": np.bool_,
}
#: What Metal copies into a command at most.
_BYTES_LIMIT = 4096


class ShaderSyntaxError(Rejected, SyntaxError):
    """As torch raises it for a text that does not compile."""


class Shading(Protocol):
    """What compiles shaders and runs their kernels: a machine."""

    def shader(self, text: str, name: str) -> KernelLibrary:
        """A kernel of a text, compiled."""

    def allowed_threads(self, name: str) -> int:
        """The most threads of a group that a kernel is launched with."""

    def run_shader(self, library: KernelLibrary, call: ShaderCall) -> list[TensorOutput]:
        """Run a call; returns its outputs."""


class ShaderLibrary:
    """What ``Machine.compile_shader`` returns; its attributes are the kernels of the text."""

    def __init__(self, machine: Shading, text: str) -> None:
        self._machine = machine
        self._text = text
        self._names = shader.kernels_of(text)
        for name in self._names:  # torch compiles right away
            try:
                machine.shader(text, name)
            except Rejected as error:
                raise ShaderSyntaxError(str(error)) from error

    def __getattr__(self, name: str) -> ShaderKernel:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self._names:
            raise RuntimeError(f"Failed to create function state object for: {name}")
        return ShaderKernel(self._machine, self._text, name)

    def __dir__(self) -> list[str]:
        return list(self._names)


class ShaderKernel:
    """A kernel; called as torch's."""

    #: Of every Apple GPU.
    thread_execution_width = 32

    def __init__(self, machine: Shading, text: str, name: str) -> None:
        self._machine = machine
        self._text = text
        self._name = name

    @property
    def max_threads_per_threadgroup(self) -> int:
        return self._machine.allowed_threads(self._name)

    def __call__(
        self,
        *args: Any,
        threads: int | Sequence[int] | None = None,
        group_size: int | Sequence[int] | None = None,
        arg_casts: str | dict[int, str] | None = None,
    ) -> None:
        """Launch the kernel; what it writes is there when this returns.

        Raises:
            RuntimeError, ValueError: as torch for wrong arguments.
            EmulatorError: what went wrong, or would on a Mac.
        """
        grid, group = _dimensions(threads), _dimensions(group_size)
        bound = bound_arguments(args, arg_casts)
        if grid is None:
            grid = next(((one.tensor.numel(),) for one in bound if one.tensor is not None), None)
        if grid is None:
            raise RuntimeError("Number of threads is undefined or has wrong dimension")
        sizes = self._sizes(grid, group)
        library = self._machine.shader(self._text, self._name)
        call = ShaderCall(self._name, library.buffers, tuple(bound), *sizes)
        call.check()
        outputs = self._machine.run_shader(library, call)
        for output in outputs:
            output.store()

    def _sizes(
        self, grid: tuple[int, ...], group: tuple[int, ...] | None
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Threads, and those of a group, in three dimensions."""
        limit = self.max_threads_per_threadgroup
        if group is None:
            group = (min(grid[0], limit) if len(grid) == 1 else limit,) + (1,) * (len(grid) - 1)
        if len(group) != len(grid):
            raise RuntimeError("Expected as many sizes of a group as of the threads")
        if int(np.prod(group, dtype=np.int64)) > limit:
            raise ValueError(f"Threadgroup size exceeds {limit} limit")
        if 0 in grid or 0 in group:
            raise EmulatorError(f"{self._name}: Metal launches no grid {grid} of groups {group}")
        more = (1,) * (3 - len(grid))
        return grid + more, group + more


def _dimensions(given: int | Sequence[int] | None) -> tuple[int, ...] | None:
    if given is None:
        return None
    values = (given,) if isinstance(given, int) else tuple(given)
    if not 0 < len(values) < 4 or not all(isinstance(one, int) and one >= 0 for one in values):
        raise RuntimeError(f"threads and group_size are one to three counts; got {given!r}")
    return values


@dataclass(frozen=True)
class Bound:
    """An argument: a tensor, or a copy of numbers."""

    tensor: Any
    values: HostArray | None


def bound_arguments(args: Sequence[Any], arg_casts: str | dict[int, str] | None) -> list[Bound]:
    """Arguments as torch binds them.

    Raises:
        RuntimeError: as torch for what it does not bind.
    """
    if not (arg_casts is None or isinstance(arg_casts, str | dict)):
        raise RuntimeError(f"Unexpected caster arg type {type(arg_casts).__name__}")
    casts = arg_casts if isinstance(arg_casts, dict) else dict.fromkeys(range(len(args)), arg_casts)
    return [_bound(argument, casts.get(index)) for index, argument in enumerate(args)]


def _bound(argument: Any, cast: str | None) -> Bound:
    import torch

    if isinstance(argument, torch.Tensor):
        return Bound(argument, None)
    if isinstance(argument, tuple | list):
        if not argument:
            raise RuntimeError("Empty list/tuple can not be an argument to metal kernel")
        if isinstance(argument[0], torch.Tensor):
            raise EmulatorError("lists of tensors, which are bound by address, are not emulated")
        values = _numbers(list(argument))
    elif isinstance(argument, int | float):
        values = _numbers([argument])
    else:
        raise RuntimeError("Unsupported argument type")
    if cast:
        if cast not in _CASTS:
            raise RuntimeError(f"Unsupported cast instruction {cast}")
        values = values.astype(_CASTS[cast])
    if values.nbytes > _BYTES_LIMIT:
        raise EmulatorError(
            f"Metal copies {_BYTES_LIMIT} bytes into a command, not {values.nbytes}"
        )
    return Bound(None, values)


def _numbers(values: list[Any]) -> HostArray:
    """Numbers of the first one's kind: 64-bit integers or floats."""
    kind: Any = int if isinstance(values[0], int) else float
    if not isinstance(values[0], int | float):
        raise RuntimeError("Unexpected argument types")
    if not all(isinstance(value, kind if kind is int else (int, float)) for value in values):
        raise RuntimeError("Unable to cast Python instance: numbers of a list are of one kind")
    try:
        return np.array(values, np.int64 if kind is int else np.float32)
    except OverflowError as error:
        raise RuntimeError(f"Unable to cast Python instance: {error}") from error


def _is_read_right(values: HostArray, expected: Any, buffer: shader.Buffer) -> bool:
    """Whether a kernel that reads numbers of another type reads the values that were meant.

    torch binds integers with 64 bits; a Mac reads the low bytes of one that is passed by reference.
    """
    if values.dtype == expected:
        return True
    if values.dtype != np.int64 or not buffer.is_reference:
        return False
    if expected is np.bool_:
        return int(values[0]) in (0, 1)
    if not np.issubdtype(expected, np.integer):
        return False
    limits = np.iinfo(expected)
    return int(limits.min) <= int(values[0]) <= int(limits.max)


class TensorOutput(Output):
    """A tensor that a kernel may write: memory of its own, stored into the tensor at the end."""

    def __init__(self, tensor: Any, updates: bool) -> None:
        self._target = _memory_of(tensor)
        self._bytes = _bytes_at(self._target)
        super().__init__((len(self._bytes),), np.uint8, self._bytes if updates else None)
        self.memory = replace(self.memory, granule=self._target.granule)
        self._element = _elements_of(tensor)

    def store(self) -> None:
        """Write the tensor's elements, and nothing between them."""
        self._bytes[self._element] = self.values[self._element]


def _memory_of(tensor: Any) -> Memory:
    itemsize = tensor.element_size()
    strides = tuple(itemsize * stride for stride in tensor.stride())
    low, size = span(tuple(tensor.shape), strides, itemsize)
    pointer = tensor.data_ptr()
    granule = min(itemsize // (2 if tensor.is_complex() else 1), 4)
    return Memory(tensor, pointer, pointer + low, size, granule)


def _bytes_at(memory: Memory) -> HostArray:
    if memory.bytes == 0:
        return np.empty(0, np.uint8)
    return np.ctypeslib.as_array((ctypes.c_uint8 * memory.bytes).from_address(memory.base))


def _elements_of(tensor: Any) -> HostArray:
    """For each byte of a tensor's memory, whether it is of an element."""
    itemsize = tensor.element_size()
    mask = np.zeros(_memory_of(tensor).bytes, bool)
    if mask.size:
        strides = tuple(itemsize * stride for stride in tensor.stride())
        view = np.lib.stride_tricks.as_strided(mask, (*tensor.shape, itemsize), (*strides, 1))
        view[...] = True
    return mask


@dataclass(frozen=True)
class ShaderCall:
    """A launch: what the kernel declares, and what it is passed."""

    name: str
    buffers: tuple[shader.Buffer, ...]
    bound: tuple[Bound, ...]
    grid: tuple[int, ...]
    threadgroup: tuple[int, ...]

    @property
    def names(self) -> Names:
        outputs = tuple(buffer.name for buffer in self._in_order() if not buffer.is_const)
        return Names(self.name, (), outputs, False)

    def _in_order(self) -> list[shader.Buffer]:
        return sorted(self.buffers, key=lambda buffer: buffer.index)

    def check(self) -> None:
        """Refuse a launch that a Mac would accept, but with another effect than was meant.

        Raises:
            EmulatorError: buffers that are not bound, or are of another type; outputs that are
                other arguments, too.
        """
        declared = [buffer.index for buffer in self._in_order()]
        if declared != list(range(len(self.bound))):
            raise EmulatorError(
                f"{self.name}: {len(self.bound)} arguments for buffers at {declared}"
            )
        for buffer, one in zip(self._in_order(), self.bound, strict=True):
            if one.values is None:
                continue
            if not buffer.is_const:
                raise EmulatorError(f"{self.name}: numbers for {buffer.name!r}, which is written")
            expected = _SCALARS.get(buffer.type)
            if expected is not None and not _is_read_right(one.values, expected, buffer):
                raise EmulatorError(
                    f"{self.name}: {buffer.type} {buffer.name!r} is bound to {one.values.dtype}"
                )
        self._check_overlaps()

    def _check_overlaps(self) -> None:
        pairs = [
            (buffer, _memory_of(one.tensor))
            for buffer, one in zip(self._in_order(), self.bound, strict=True)
            if one.tensor is not None
        ]
        for buffer, memory in pairs:
            for other, another in pairs:
                meets = (
                    memory.base < another.base + another.bytes
                    and another.base < memory.base + memory.bytes
                )
                if meets and other is not buffer and not buffer.is_const:
                    raise EmulatorError(
                        f"{self.name}: output {buffer.name!r} shares memory with {other.name!r}"
                    )

    def prepare(self, updates: bool) -> tuple[list[Argument], list[TensorOutput]]:
        """Arguments of one run, and its outputs."""
        outputs: list[TensorOutput] = []
        return list(self._arguments(updates, outputs)), outputs

    def _arguments(self, updates: bool, outputs: list[TensorOutput]) -> Iterator[Argument]:
        for buffer, one in zip(self._in_order(), self.bound, strict=True):
            if one.values is not None:
                pointer = one.values.ctypes.data
                memory = Memory(one.values, pointer, pointer, one.values.nbytes, 4)
                yield Argument(buffer.name, memory, CONSTANT)
            elif buffer.is_const:
                yield Argument(buffer.name, _memory_of(one.tensor), INPUT)
            else:
                held = updates or buffer.type.startswith("atomic")
                outputs.append(TensorOutput(one.tensor, held))
                output = outputs[-1]
                yield Argument(buffer.name, output.memory, OUTPUT, output.initialised)
