"""The machine: what stands in for ``mx.fast.metal_kernel``."""

from __future__ import annotations

import ctypes
import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import errors
from .capture import Captured, capture
from .compiler import Compiler, constants_of, default_cache_dir

Order = str | tuple[str, int]

#: Metal's limit of threads of a group; a pipeline may allow less.
MAX_THREADS = 1024
MAX_LAUNCHES = 10_000
MAX_CAPTURED = 4096
#: A quiet NaN that nothing computes.
POISON = 0x7FC0DEAD

_FAILURES = {
    1: (errors.BarrierDivergence, "waits at a barrier that others of its group never reach"),
    2: (errors.OutOfBounds, "is out of bounds"),
    3: (errors.OutOfBounds, "writes to an input"),
    4: (errors.UninitialisedRead, "reads what was never written"),
    5: (errors.Race, "races"),
    6: (errors.Rejected, "needs more than 32 KiB of threadgroup memory"),
    7: (errors.EmulatorError, "cannot run: no memory for its threads"),
}


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("address", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("is_output", ctypes.c_int),
        ("is_initialised", ctypes.c_int),
        ("bytes_read", ctypes.c_uint64),
        ("bytes_written", ctypes.c_uint64),
    ]


class _Report(ctypes.Structure):
    _fields_ = [
        ("failure", ctypes.c_int),
        ("buffer", ctypes.c_int),
        ("offset", ctypes.c_long),
        ("bytes", ctypes.c_int),
        ("is_write", ctypes.c_int),
        ("thread", ctypes.c_uint32),
        ("other", ctypes.c_uint32),
        ("group", ctypes.c_uint32 * 3),
    ]


@dataclass(frozen=True)
class Launch:
    """One launch.

    Attributes:
        kernel: the name it was made with.
        grid: threads.
        threadgroup: threads of a group.
        seconds: spent in the threads, all orders together.
        bytes_read, bytes_written: of device memory, in a checked machine, else 0; what one group
            reads or writes several times counts once for that group.
    """

    kernel: str
    grid: tuple[int, int, int]
    threadgroup: tuple[int, int, int]
    seconds: float
    bytes_read: int = 0
    bytes_written: int = 0


@dataclass
class _Prepared:
    """A call, ready to run: its arguments in memory."""

    buffers: list[tuple[str, int, int]]
    keep: list[Any] = field(default_factory=list)


class Machine:
    """Runs Metal kernels on the CPU.

    Args:
        orders: in which the threads of a group run between barriers; results must be the same.
        checked: check every access to memory and count bytes. About ten times slower.
        cache_dir: where compiled kernels are kept; the user's cache folder by default.
        transform: applied to MLX's text before it is compiled, for tests of the tests.
        max_threads: of a group, by kernel name: what a pipeline is made to allow.
    """

    def __init__(
        self,
        orders: Sequence[Order] = ("ascending", "descending", ("random", 0)),
        *,
        checked: bool = False,
        cache_dir: Path | None = None,
        transform: Callable[[str], str] | None = None,
        max_threads: Callable[[str], int] | None = None,
    ) -> None:
        import mlx.core as mx

        self.orders = tuple(orders)
        self.checked = checked
        self.transform = transform
        self.max_threads = max_threads
        self.launches: deque[Launch] = deque(maxlen=MAX_LAUNCHES)
        self._mx: Any = mx
        self._real = _real_factory(mx)
        self._compiler = Compiler(cache_dir or default_cache_dir())

    def metal_kernel(
        self,
        name: str,
        input_names: Sequence[str],
        output_names: Sequence[str],
        source: str,
        header: str = "",
        ensure_row_contiguous: bool = True,
        atomic_outputs: bool = False,
    ) -> Callable[..., list[Any]]:
        """As ``mx.fast.metal_kernel``; what it returns computes at once."""
        made = self._real(
            name=name,
            input_names=list(input_names),
            output_names=list(output_names),
            source=source,
            header=header,
            ensure_row_contiguous=ensure_row_contiguous,
            atomic_outputs=atomic_outputs,
        )
        return _Kernel(
            self, name, made, tuple(input_names), tuple(output_names), ensure_row_contiguous
        )

    @contextmanager
    def installed(self) -> Iterator[Machine]:
        """Be ``mx.fast.metal_kernel`` meanwhile."""
        before = self._mx.fast.metal_kernel

        def metal_kernel(*args: Any, **kwargs: Any) -> Callable[..., list[Any]]:
            return self.metal_kernel(*args, **kwargs)

        metal_kernel.emulated = True  # type: ignore[attr-defined]
        metal_kernel.real = self._real  # type: ignore[attr-defined]
        self._mx.fast.metal_kernel = metal_kernel
        try:
            yield self
        finally:
            self._mx.fast.metal_kernel = before


def _real_factory(mx: Any) -> Callable[..., Any]:
    factory: Callable[..., Any] = mx.fast.metal_kernel
    return getattr(factory, "real", factory)


class _Kernel:
    """What ``metal_kernel`` returns."""

    def __init__(
        self,
        machine: Machine,
        name: str,
        made: Any,
        input_names: tuple[str, ...],
        output_names: tuple[str, ...],
        ensure_row_contiguous: bool,
    ) -> None:
        self._machine = machine
        self._name = name
        self._made = made
        self._input_names = input_names
        self._output_names = output_names
        self._contiguous = ensure_row_contiguous
        self._captured: OrderedDict[Any, Captured] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(
        self,
        *,
        inputs: Sequence[Any],
        output_shapes: Sequence[Sequence[int]],
        output_dtypes: Sequence[Any],
        grid: tuple[int, int, int],
        threadgroup: tuple[int, int, int],
        template: Sequence[tuple[str, Any]] = (),
        init_value: float | None = None,
        verbose: bool = False,
        stream: Any = None,
    ) -> list[Any]:
        mx = self._machine._mx
        arrays = [x if isinstance(x, mx.array) else mx.array(x) for x in inputs]
        mx.eval(arrays)
        self._check_group(threadgroup)
        call = {
            "template": list(template),
            "grid": grid,
            "threadgroup": threadgroup,
            "output_shapes": list(output_shapes),
            "output_dtypes": list(output_dtypes),
            "init_value": init_value,
        }
        captured = self._capture(arrays, call)
        transform = self._machine.transform
        text = captured.text if transform is None else transform(captured.text)
        if verbose:
            print(text)
        library = self._machine._compiler.kernel(text, self._machine.checked)
        outputs = self._run(library, captured, arrays, call)
        return [mx.array(output) for output in outputs]

    def _check_group(self, threadgroup: tuple[int, int, int]) -> None:
        threads = int(np.prod(threadgroup))
        chosen = self._machine.max_threads
        most = MAX_THREADS if chosen is None else min(MAX_THREADS, chosen(self._name))
        if threads > most:
            raise ValueError(
                f"Thread group size ({threads}) is greater than  the maximum allowed threads per "
                f"threadgroup ({most})."
            )

    def _capture(self, arrays: list[Any], call: dict[str, Any]) -> Captured:
        # What MLX's generator looks at: dtypes, whether an input is a scalar or small, the
        # template, the outputs' dtypes.
        kinds = tuple((str(x.dtype), x.ndim == 0, x.size < 8) for x in arrays)
        template = tuple((name, str(value)) for name, value in call["template"])
        key = (kinds, template, tuple(map(str, call["output_dtypes"])))
        with self._lock:
            captured = self._captured.get(key)
            if captured is None:
                captured = capture(self._machine._mx, self._made, arrays, call)
                self._captured[key] = captured
                while len(self._captured) > MAX_CAPTURED:
                    self._captured.popitem(last=False)
        return captured

    def _run(
        self, library: Any, captured: Captured, arrays: list[Any], call: dict[str, Any]
    ) -> list[npt.NDArray[Any]]:
        prepared = self._arguments(captured, arrays)
        first: list[npt.NDArray[Any]] | None = None
        seconds, read, written = 0.0, 0, 0
        for order in self._machine.orders:
            outputs = [
                _new_output(shape, self._machine._mx, dtype, call["init_value"])
                for shape, dtype in zip(call["output_shapes"], call["output_dtypes"], strict=True)
            ]
            begin = time.perf_counter()
            read, written = self._launch(library, prepared, outputs, call, order)
            seconds += time.perf_counter() - begin
            if first is None:
                first = outputs
            else:
                self._compare(first, outputs, order)
        grid, group = call["grid"], call["threadgroup"]
        self._machine.launches.append(Launch(self._name, grid, group, seconds, read, written))
        assert first is not None
        return first

    def _arguments(self, captured: Captured, arrays: list[Any]) -> _Prepared:
        prepared = _Prepared([])

        def add(name: str, values: npt.NDArray[Any], extent: int) -> None:
            prepared.keep.append(values)
            prepared.buffers.append((name, values.ctypes.data, extent))

        for name, array, (shape, strides, ndim) in zip(
            self._input_names, arrays, captured.shape_infos, strict=True
        ):
            values = np.array(array, copy=None)
            if self._contiguous:
                values = np.ascontiguousarray(values)
            add(name, values, _extent_bytes(values))
            if array.ndim == 0:
                continue
            if shape:
                add(f"{name}_shape", np.array(array.shape, np.int32), 4 * array.ndim)
            if strides:
                steps = [step // values.itemsize for step in values.strides]
                add(f"{name}_strides", np.array(steps, np.int64), 8 * array.ndim)
            if ndim:
                add(f"{name}_ndim", np.array([array.ndim], np.int32), 4)
        return prepared

    def _launch(
        self,
        library: Any,
        prepared: _Prepared,
        outputs: list[npt.NDArray[Any]],
        call: dict[str, Any],
        order: Order,
    ) -> tuple[int, int]:
        """Run once; bytes of device memory read and written."""
        grid = [max(1, extent) for extent in call["grid"]]
        size = [min(a, b) for a, b in zip(call["threadgroup"], grid, strict=True)]
        named = [*prepared.buffers]
        named += [
            (name, x.ctypes.data, x.nbytes)
            for name, x in zip(self._output_names, outputs, strict=True)
        ]
        inputs = len(prepared.buffers)
        buffers = (_Buffer * len(named))()
        for index, (_, address, extent) in enumerate(named):
            initialised = index < inputs or call["init_value"] is not None
            buffers[index] = _Buffer(address, extent, index >= inputs, initialised, 0, 0)
        pointers = (ctypes.c_void_p * len(named))(*[address for _, address, _ in named])
        report, unwritten = _Report(), ctypes.c_uint64()
        with _machine_lock:
            machine = self._machine._compiler.machine()
            machine.spectro_machine_hooks.restype = ctypes.c_void_p
            library.spectro_set_hooks(ctypes.c_void_p(machine.spectro_machine_hooks()))
            _set_size(library, size)
            constants, extent = constants_of(library) if self._machine.checked else (0, 0)
            machine.spectro_launch(
                library.spectro_thread,
                pointers,
                buffers,
                ctypes.c_int(len(named)),
                (ctypes.c_uint32 * 3)(*grid),
                (ctypes.c_uint32 * 3)(*size),
                _thread_order(order, int(np.prod(size))),
                ctypes.c_int(self._machine.checked),
                ctypes.c_void_p(constants),
                ctypes.c_uint64(extent),
                ctypes.byref(report),
                ctypes.byref(unwritten),
            )
        if report.failure:
            self._fail(report, [name for name, _, _ in named])
        if unwritten.value:
            raise errors.Unwritten(
                f"{self._name}: {unwritten.value} words of the output are written by no thread"
            )
        return sum(x.bytes_read for x in buffers), sum(x.bytes_written for x in buffers)

    def _fail(self, report: Any, names: list[str]) -> None:
        kind, what = _FAILURES[report.failure]
        where = "no buffer"
        if report.buffer == -1:
            where = "threadgroup memory"
        elif report.buffer >= 0:
            where = names[report.buffer]
        access = "write" if report.is_write else "read"
        text = f"{self._name}: thread {report.thread} of group {tuple(report.group)} {what}"
        if report.bytes:
            text += f": {access} of {report.bytes} bytes at byte {report.offset} of {where}"
        if kind is errors.Race:
            text += f", with thread {report.other} of the group, or with another group"
        raise kind(text)

    def _compare(
        self, first: list[npt.NDArray[Any]], other: list[npt.NDArray[Any]], order: Order
    ) -> None:
        for name, a, b in zip(self._output_names, first, other, strict=True):
            different = np.flatnonzero(a.reshape(-1).view(np.uint8) != b.reshape(-1).view(np.uint8))
            if len(different):
                raise errors.OrderDependent(
                    f"{self._name}: {name} depends on the order of threads ({order}), first at "
                    f"element {different[0] // a.itemsize}"
                )


#: The machine's fibers and shadow memory are one.
_machine_lock = threading.Lock()


def _set_size(library: Any, size: list[int]) -> None:
    """Threads of a whole group: the last ones of a grid may be smaller."""
    sizes = (ctypes.c_uint32 * 3).in_dll(library, "spectro_size")
    for axis in range(3):
        sizes[axis] = size[axis]


def _thread_order(order: Order, threads: int) -> Any:
    indices = list(range(threads))
    if order == "descending":
        indices.reverse()
    elif isinstance(order, tuple) and order[0] == "random":
        random.Random(order[1]).shuffle(indices)
    elif order != "ascending":
        raise ValueError(f"order must be ascending, descending or (random, seed); got {order!r}")
    return (ctypes.c_int * threads)(*indices)


def _extent_bytes(values: npt.NDArray[Any]) -> int:
    """Bytes from the first to behind the last element, of positive strides."""
    if values.size == 0:
        return 0
    steps = ((n - 1) * step for n, step in zip(values.shape, values.strides, strict=True))
    return int(sum(steps)) + values.itemsize


def _new_output(
    shape: Sequence[int], mx: Any, dtype: Any, init_value: float | None
) -> npt.NDArray[Any]:
    """An output of poison, or of ``init_value``."""
    kind = np.asarray(mx.zeros((), dtype)).dtype
    if init_value is not None:
        return np.full(tuple(shape), init_value, kind)
    output = np.empty(tuple(shape), kind)
    raw = output.reshape(-1).view(np.uint8)
    raw[:] = np.resize(np.array([POISON], np.uint32).view(np.uint8), raw.size)
    return output
