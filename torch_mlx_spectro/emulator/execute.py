"""Run one launch: memory for its arguments, a run in each order, and messages when it fails."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from . import reports
from .capture import Captured
from .errors import OrderDependent, OutOfBounds
from .library import RUNNING, Buffer, KernelLibrary, LaunchData, Order, Runtime
from .memory import (
    CONSTANT,
    INPUT,
    OUTPUT,
    Argument,
    ArrayOutput,
    Output,
    input_memory,
    integers,
    row_contiguous,
    strides_of,
)

Written = TypeVar("Written", bound=Output)

_ORDERS = {"ascending": 0, "descending": 1, "random": 2}
#: Metal's limit on every GPU of the families that MLX runs on.
THREADGROUP_BYTES = 32 << 10
_FEWEST_DEVICE_ELEMENTS = 8


@dataclass(frozen=True)
class Traffic:
    """Bytes of a buffer that a launch read and wrote; several times by one group count once."""

    read: int
    written: int


@dataclass
class Launch:
    """What a launch did.

    Attributes:
        kernel: the name given to ``metal_kernel``.
        threads: that ran, in one order.
        threadgroup_bytes: of memory that the kernel declared.
        barriers: how often the threads of a group waited for each other, all groups together.
        simd_barriers: the same of SIMD groups.
        seconds: for all orders.
        traffic: by buffer; empty unless the machine is checked.
        device_read, device_written: bytes of buffers in device memory, or None.
        constant_read: bytes of small inputs, shapes and strides, or None.
    """

    kernel: str
    grid: tuple[int, ...]
    threadgroup: tuple[int, ...]
    threads: int = 0
    threadgroup_bytes: int = 0
    barriers: int = 0
    simd_barriers: int = 0
    seconds: float = 0.0
    traffic: dict[str, Traffic] = field(default_factory=dict)
    device_read: int | None = None
    device_written: int | None = None
    constant_read: int | None = None


@dataclass(frozen=True)
class Names:
    """What a kernel was made with, as far as a launch needs it."""

    kernel: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ensure_row_contiguous: bool


class Sized(Protocol):
    """What a launch has besides its arguments."""

    @property
    def names(self) -> Names: ...

    @property
    def grid(self) -> tuple[int, ...]: ...

    @property
    def threadgroup(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Call:
    """A kernel's arguments; inputs are evaluated arrays."""

    names: Names
    captured: Captured
    arrays: list[Any]
    output_shapes: tuple[tuple[int, ...], ...]
    output_dtypes: tuple[Any, ...]
    grid: tuple[int, ...]
    threadgroup: tuple[int, ...]
    init_value: float | None

    def check(self, allowed: int) -> None:
        """Refuse what Metal refuses at launch.

        Raises:
            ValueError: a group of more than ``allowed`` threads, or sizes below one.
        """
        if min(self.threadgroup) < 1 or min(self.grid) < 0:
            raise ValueError(f"cannot launch a grid {self.grid} of groups {self.threadgroup}")
        threads = int(np.prod(self.threadgroup, dtype=np.int64))
        if threads > allowed:
            raise ValueError(  # MLX's words
                f"Thread group size ({threads}) is greater than  the maximum allowed threads per "
                f"threadgroup ({allowed})."
            )


def input_arguments(mx: Any, call: Call) -> list[Argument]:
    """List inputs as MLX binds them, with the shapes, strides and ranks that it passes."""
    arguments = []
    for name, array, infos in zip(
        call.names.inputs, call.arrays, call.captured.shape_infos, strict=True
    ):
        if call.names.ensure_row_contiguous and not row_contiguous(mx, array):
            array = mx.contiguous(array)
            mx.eval(array)
        kind = CONSTANT if array.size < _FEWEST_DEVICE_ELEMENTS else INPUT
        arguments.append(Argument(name, input_memory(mx, array), kind))
        if array.ndim == 0:
            continue
        facts = (
            ("shape", tuple(array.shape), np.int32),
            ("strides", strides_of(mx, array), np.int64),
            ("ndim", (array.ndim,), np.int32),
        )
        for asked, (what, values, dtype) in zip(infos, facts, strict=True):
            if asked:
                arguments.append(Argument(f"{name}_{what}", integers(values, dtype), CONSTANT))
    return arguments


def execute(
    mx: Any,
    runtime: Runtime,
    library: KernelLibrary,
    call: Call,
    orders: Sequence[Order],
    *,
    checked: bool,
    flush: bool,
) -> tuple[list[Any], Launch]:
    """Run a launch in every order.

    Returns:
        Its outputs, evaluated, and what it did.

    Raises:
        EmulatorError: what went wrong; see ``errors.py``.
    """
    inputs = input_arguments(mx, call)

    def prepare() -> tuple[list[Argument], list[ArrayOutput]]:
        outputs = [
            ArrayOutput(mx, shape, dtype, call.init_value)
            for shape, dtype in zip(call.output_shapes, call.output_dtypes, strict=True)
        ]
        written = [
            Argument(name, output.memory, OUTPUT, output.initialised)
            for name, output in zip(call.names.outputs, outputs, strict=True)
        ]
        return inputs + written, outputs

    outputs, launch = in_every_order(
        runtime, library, call, prepare, orders, checked=checked, flush=flush
    )
    return [output.array() for output in outputs], launch


def in_every_order(
    runtime: Runtime,
    library: KernelLibrary,
    call: Sized,
    prepare: Callable[[], tuple[list[Argument], list[Written]]],
    orders: Sequence[Order],
    *,
    checked: bool,
    flush: bool,
) -> tuple[list[Written], Launch]:
    """Run a launch in every order, each with outputs of its own; all must give the same bits.

    Args:
        prepare: makes a run's arguments, which include its outputs.
        flush: denormal numbers in single precision are zeros.

    Raises:
        EmulatorError: what went wrong; see ``errors.py``.
    """
    launch = Launch(call.names.kernel, call.grid, call.threadgroup)
    first: list[Written] | None = None
    for order in orders:
        arguments, outputs = prepare()
        _run_once(runtime, library, call, arguments, order, launch, checked, flush)
        _check_canaries(call, outputs)
        if first is None:
            first = outputs
        else:
            _compare(call, orders[0], first, order, outputs)
    assert first is not None
    return first, launch


def _bound(arguments: list[Argument]) -> tuple[Any, Any]:
    """Return arguments as C arrays: a description of each buffer, and the pointers to pass."""
    buffers = (Buffer * len(arguments))()
    pointers = (ctypes.c_void_p * len(arguments))()
    for index, argument in enumerate(arguments):
        memory = argument.memory
        pointers[index] = memory.pointer
        buffers[index].base = memory.base
        buffers[index].bytes = memory.bytes
        buffers[index].kind = argument.kind
        buffers[index].granule = memory.granule
        buffers[index].written = argument.initialised
        buffers[index].first_unwritten = -1
    return buffers, pointers


def _run_once(
    runtime: Runtime,
    library: KernelLibrary,
    call: Sized,
    arguments: list[Argument],
    order: Order,
    launch: Launch,
    checked: bool,
    flush: bool,
) -> None:
    buffers, pointers = _bound(arguments)
    data = LaunchData(
        entry=library.entry,
        arguments=ctypes.cast(pointers, ctypes.POINTER(ctypes.c_void_p)),
        buffers=ctypes.cast(buffers, ctypes.POINTER(Buffer)),
        n_buffers=len(arguments),
        order=_ORDERS[order if isinstance(order, str) else order[0]],
        seed=0 if isinstance(order, str) else order[1] & (2**64 - 1),
        checked=checked,
        flush=flush,
        threadgroup_limit=THREADGROUP_BYTES,
        image=library.image,
        image_end=library.image_end,
    )
    for axis in range(3):
        data.grid[axis] = call.grid[axis]
        data.group[axis] = max(1, min(call.grid[axis], call.threadgroup[axis]))
    with RUNNING:
        failure = runtime.run(data)
    if failure:
        raise reports.failure(data, call.names.kernel, order, arguments, library.arrays)
    launch.threads = int(data.threads_run)
    launch.threadgroup_bytes = int(data.threadgroup_bytes)
    launch.barriers = int(data.barriers)
    launch.simd_barriers = int(data.simd_barriers)
    if checked:
        reports.check_written(call.names.kernel, arguments, buffers)
        _count(launch, arguments, buffers)


def _count(launch: Launch, arguments: list[Argument], buffers: Any) -> None:
    launch.traffic = {
        argument.name: Traffic(int(buffer.bytes_read), int(buffer.bytes_written))
        for argument, buffer in zip(arguments, buffers, strict=True)
    }
    kinds = {argument.name: argument.kind for argument in arguments}
    counted = launch.traffic.items()
    launch.device_read = sum(t.read for name, t in counted if kinds[name] != CONSTANT)
    launch.device_written = sum(t.written for _, t in counted)
    launch.constant_read = sum(t.read for name, t in counted if kinds[name] == CONSTANT)


def _check_canaries(call: Sized, outputs: Sequence[Output]) -> None:
    for name, output in zip(call.names.outputs, outputs, strict=True):
        offset = output.stray()
        if offset is not None:
            raise OutOfBounds(
                f"{call.names.kernel}: a write outside of output {name!r}, at byte {offset} of "
                f"{output.memory.bytes}; a checked machine says by which thread"
            )


def _compare(
    call: Sized, order: Order, first: Sequence[Output], other_order: Order, other: Sequence[Output]
) -> None:
    for name, a, b in zip(call.names.outputs, first, other, strict=True):
        index = a.first_difference(b)
        if index is not None:
            position = index if a.shape else ()
            raise OrderDependent(
                f"{call.names.kernel}: output {name!r} depends on the threads' order, first at "
                f"index {position}: {a.values[position]} in order {order}, {b.values[position]} in "
                f"order {other_order}; a barrier is missing, or two threads write one element"
            )
