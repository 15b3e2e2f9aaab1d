"""The launcher for CUDA: kernels on torch tensors, on torch's current stream.

A variant is compiled once for an architecture (:mod:`.backends.cuda.nvrtc`) and loaded once for all
devices. A launch with its arguments packed, all but the addresses, is a :class:`Prepared`, which a
caller may keep: running it again is one call of the driver. Only
:meth:`CudaKernels.wait_for_verdict` waits for the device.
"""

from __future__ import annotations

import ctypes
import importlib
import struct
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ...kernels.arguments import CHECKING_KERNELS, Verdict
from ...kernels.describe import Launch
from ...kernels.texts.cuda import Variant, find_grid, make_variant, write_text
from ...native import private_state as torch_state
from ...store.caches import Cache
from ..base import Optional
from ..device.launcher import Bound, TensorKernels, make_result
from . import nvrtc as cubins
from .nvrtc import CudaProblem

CACHE_ENTRIES = 1024
#: Strides in LaunchArguments of cuda.h.
STRIDES = 3
LIBRARY = "libcuda.so.1"
#: cuLaunchKernelEx's answer to a thread that has not used CUDA yet; cuStreamQuery's while it runs.
_INVALID_CONTEXT, _NOT_READY = 201, 600
#: The verdict as a plain number, since comparing with an enumeration's member takes longer.
_FINE = int(Verdict.FINE)
#: Reads in a row, some 50 ns each: an idle device writes its verdict within 10 µs.
_LOOKS = 64
#: Seconds for which verdicts are polled. Where longer work stands before a launch (a network), the
#: driver waits for both.
PATIENCE = 1e-3
#: CUlaunchConfig: blocks, threads and bytes of shared memory; then what may differ between
#: launches: the stream, and the address and number of the attributes.
CONFIG = "=7I4x"
VARIABLE = "=Q16s"
ATTRIBUTES = "=QI4x"
#: CUlaunchAttribute: which, and its value.
ATTRIBUTE = "=I4xi60x"
#: CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION: groups are placed on cores while the last
#: ones of the stream's earlier launch run, and wait there (after_earlier_launches of cuda.h).
_EARLY = 6
#: Devices that the attribute was tested on, by 10 * major + minor of their compute capability.
EARLY_ARCHITECTURES = (90,)


class CudaDriver:
    """CUDA's own driver, by cuda.bindings, with cuda.core's objects.

    The functions of every launch are called by ctypes, which takes the least time.
    """

    def __init__(self) -> None:
        self._core = importlib.import_module("cuda.core")
        self._driver = importlib.import_module("cuda.bindings.driver")
        self._loaded: list[Any] = []  # kernels live as long as what they were loaded from
        #: Takes the address of a configuration, a kernel, the addresses of its parameters, and
        #: None; returns 0 or an error.
        self.launch: Callable[[Any, Any, Any, None], int] = _entry("cuLaunchKernelEx", 4)
        #: Takes a stream's raw handle, and waits for the stream; returns 0 or an error.
        self.synchronize: Callable[[int], int] = _entry("cuStreamSynchronize", 1)
        #: The same without waiting; returns another number while the stream still runs.
        self.query: Callable[[int], int] = _entry("cuStreamQuery", 1)

    def load(self, code: bytes, name: str) -> Any:
        """Load a kernel, for all devices of the code's architecture."""
        kernel = self._core.ObjectCode.from_cubin(code).get_kernel(name)
        self._loaded.append(kernel)
        return ctypes.c_void_p(int(kernel.handle))

    def mend(self, error: int, device: int) -> None:
        """Repair what kept a launch from the device, so that it may be tried again.

        Raises:
            CudaProblem: it cannot be repaired.
        """
        driver = self._driver
        if error != _INVALID_CONTEXT:
            self._check(driver.CUresult(error))
        # The thread has not used CUDA yet: torch's context of the device becomes its own.
        answer, context = driver.cuDevicePrimaryCtxRetain(driver.CUdevice(device))
        self._check(answer)
        (answer,) = driver.cuCtxSetCurrent(context)
        self._check(answer)

    def _check(self, error: Any) -> None:
        if error:
            raise CudaProblem(f"CUDA answers with {error}")


def _entry(name: str, pointers: int) -> Any:
    """Return a function of the driver that takes so many addresses."""
    try:
        function = ctypes.CDLL(LIBRARY)[name]
    except (OSError, AttributeError) as error:
        raise CudaProblem(f"{LIBRARY} has no {name}: {error}") from error
    function.argtypes, function.restype = (ctypes.c_void_p,) * pointers, ctypes.c_int
    return function


class Prepared:
    """One launch on one device, packed but for its stream and the addresses of its tensors.

    Args:
        kernel: as loaded by the driver.
        strides: of the first input, in elements.
        addresses: number of tensors that it takes.
        early: its groups may start before the stream's earlier launch has ended.
    """

    __slots__ = (
        *("_attributes", "_buffer", "_config", "_device", "_driver", "_kernel", "_lock"),
        *("_pack", "_parameters", "_variable"),
    )

    def __init__(
        self,
        driver: CudaDriver,
        kernel: Any,
        launch: Launch,
        device: int,
        strides: tuple[int, ...],
        edge: float,
        addresses: int,
        early: bool = False,
    ) -> None:
        padded = (*strides, *(0,) * (STRIDES - len(strides)))
        # The layout that the compiler gives LaunchArguments: each member is aligned to its size.
        numbers = struct.pack(
            f"={STRIDES}q{len(launch.integers)}q3If", *padded, *launch.integers, *launch.grid, edge
        )
        sizes = struct.pack(CONFIG, *find_grid(launch), launch.threadgroup[0], 1, 1, 0)
        variable = struct.Struct(VARIABLE + f"{addresses}Q")
        attributes = struct.pack(ATTRIBUTE, _EARLY, True) if early else b""
        numbers += bytes(-len(numbers) % 8)
        # Configuration, addresses, numbers and attributes follow each other, aligned to words.
        whole = sizes + bytes(variable.size) + numbers + attributes
        self._buffer = (ctypes.c_uint64 * (len(whole) // 8)).from_buffer_copy(whole)
        start, self._variable = ctypes.addressof(self._buffer), len(sizes)
        end = self._variable + variable.size
        self._attributes = struct.pack(ATTRIBUTES, start + end + len(numbers), int(early))
        first = end - 8 * addresses
        parts = [start + first + 8 * index for index in range(addresses + 1)]
        # A cast keeps alive what it points to, which an address as a number would not.
        pointers = (ctypes.c_void_p * (addresses + 1))(*parts)
        self._config = ctypes.c_void_p(start)
        self._parameters = ctypes.cast(pointers, ctypes.c_void_p)
        self._kernel, self._pack = kernel, variable.pack_into
        self._driver, self._device = driver, device
        self._lock = threading.Lock()

    def run(self, stream: int, *addresses: int) -> None:
        """Launch on a stream (its raw handle), with the addresses of the kernel's tensors."""
        launch = self._driver.launch
        with self._lock:  # the driver has copied the arguments when it returns
            self._pack(self._buffer, self._variable, stream, self._attributes, *addresses)
            error = launch(self._config, self._kernel, self._parameters, None)
            if error:
                self._driver.mend(error, self._device)
                error = launch(self._config, self._kernel, self._parameters, None)
        if error:
            raise CudaProblem(f"CUDA refuses a launch with error {error}")

    def bind(self, stream_of: Callable[[int], int], checks_envelope: bool) -> Bound:
        """Return a function that launches it on a device's current stream.

        Args:
            checks_envelope: the kernel takes the address of a verdict, too.
        """
        # Local names, since for small calls looking up attributes is most of a launch's time.
        lock, pack, buffer, variable = self._lock, self._pack, self._buffer, self._variable
        attributes, launch, device = self._attributes, self._driver.launch, self._device
        config, kernel, parameters, run = self._config, self._kernel, self._parameters, self.run

        def launch_again(
            first: torch.Tensor, window: Optional, result: torch.Tensor, flag: Optional = None
        ) -> None:
            stream, read = stream_of(device), 0 if window is None else window.data_ptr()
            addresses = [first.data_ptr(), read, result.data_ptr()]
            if checks_envelope:
                addresses.append(0 if flag is None else flag.data_ptr())
            with lock:
                pack(buffer, variable, stream, attributes, *addresses)
                error = launch(config, kernel, parameters, None)
            if error:
                run(stream, *addresses)  # which puts it right, or raises

        return launch_again


class CudaKernels(TensorKernels):
    """The kernels on CUDA tensors.

    Args:
        driver: loads and launches.
        find_architecture: returns 10 * major + minor of a device's compute capability, by its
            index.
        folder: where machine code is kept; None to keep none.
        load_code: returns machine code, as :func:`.backends.cuda.nvrtc.load_code`.
        current_device: returns the index of the current device.
        stream_of: returns the raw handle of a device's current stream, by the device's index.
    """

    def __init__(
        self,
        driver: CudaDriver,
        find_architecture: Callable[[int], int],
        folder: Path | None = None,
        load_code: Callable[[str, int, Path | None], bytes] = cubins.load_code,
        current_device: Callable[[], int | None] = torch_state.cuda_device,
        stream_of: Callable[[int], int] = torch_state.cuda_stream,
    ) -> None:
        self._driver = driver
        self._find_architecture = find_architecture
        self._folder = folder
        self._load_code = load_code
        self._current_device, self._stream_of = current_device, stream_of
        #: All kernels that were ever loaded. They stay, since they may be running or in a graph.
        self._kernels: dict[Any, Any] = {}
        #: The compiler's messages about kernels that do not compile.
        self._refused: Cache[Any, str] = Cache(CACHE_ENTRIES)
        self._prepared: Cache[Any, Prepared] = Cache(CACHE_ENTRIES)
        self._lock = threading.Lock()

    def run(
        self,
        launches: Sequence[Launch],
        first: torch.Tensor,
        window: Optional,
        stream: None = None,
        *,
        edge: float = 1.0,
        vanishing: Optional = None,
    ) -> torch.Tensor:
        # No trials: the plans were measured on CUDA, and NVRTC takes a second for each shape.
        launch = launches[0]
        result = make_result(launch, first.device)
        verdict = [vanishing] if launch.kernel in CHECKING_KERNELS else []
        tensors = [first, window, result, *verdict]
        addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        device: int = first.device.index
        prepared = self.prepare_launch(launch, device, first.stride(), edge)
        if device == self._current_device():
            prepared.run(self._stream_of(device), *addresses)
        else:  # the default stream has no handle of its own: it is that of the current device
            with torch.cuda.device(device):
                prepared.run(self._stream_of(device), *addresses)
        return result

    def bind(
        self,
        launches: Sequence[Launch],
        device: torch.device,
        strides: tuple[int, ...],
        edge: float = 1.0,
    ) -> Bound:
        """As in the base class; the device has to be the current one when the launch is made."""
        checks_envelope = launches[0].kernel in CHECKING_KERNELS
        prepared = self.prepare_launch(launches[0], device.index, strides, edge)
        return prepared.bind(self._stream_of, checks_envelope)

    def wait_for_verdict(self, address: int, device: torch.device) -> int:
        """Wait for the verdict of the last launch on a device's current stream, and reset it.

        The launch writes to an int32 of the host's. ``FINE`` is read while the launch still runs.
        Any other verdict is read when the launch has ended, since more of its groups may write.

        Args:
            address: of the int32, which is 0 again afterwards.
        """
        verdict_cell, index = ctypes.c_int32.from_address(address), device.index
        is_current = index == self._current_device()
        if not is_current or self._wait_until_fine(verdict_cell, self._stream_of(index)) != 0:
            torch.cuda.current_stream(device).synchronize()  # raises torch's own error
        verdict, verdict_cell.value = verdict_cell.value, 0
        return verdict

    def _wait_until_fine(self, verdict_cell: ctypes.c_int32, stream: int) -> int:
        """Wait until a launch has written ``FINE`` or has ended; return 0 or the driver's error.

        It does not wait for an event before the launch first: to record one and to wait for it are
        two more calls for every launch, and keep its groups from coming early.
        """
        deadline = time.perf_counter() + PATIENCE
        while True:
            for _ in range(_LOOKS):
                if verdict_cell.value == _FINE:
                    return 0
            answer = self._driver.query(stream)  # other threads of Python run meanwhile
            if answer != _NOT_READY:
                return answer
            if time.perf_counter() > deadline:
                return self._driver.synchronize(stream)

    def prepare_launch(
        self, launch: Launch, device: int, strides: tuple[int, ...], edge: float = 1.0
    ) -> Prepared:
        """Make a launch ready to run: compiled, loaded and packed.

        Args:
            device: index of the tensors' device.
            strides: of the first input, in elements.
        """
        key = (launch, device, strides, edge)
        found = self._prepared.find(key)
        if found is None:
            kernel = self._kernel(make_variant(launch), device)
            found = Prepared(
                self._driver,
                kernel,
                launch,
                device,
                strides,
                edge,
                addresses=4 if launch.kernel in CHECKING_KERNELS else 3,
                early=self._find_architecture(device) in EARLY_ARCHITECTURES,
            )
            self._prepared.put(key, found)
        return found

    def is_loaded(self, launch: Launch, device: int) -> bool:
        """Whether the kernel of a launch is compiled and loaded."""
        key = (make_variant(launch), self._find_architecture(device))
        return key in self._kernels

    def _kernel(self, variant: Variant, device: int) -> Any:
        key = (variant, self._find_architecture(device))
        kernel = self._kernels.get(key)
        if kernel is None:
            problem = self._refused.find(key)
            if problem is not None:  # compiling would fail again, after a second
                raise CudaProblem(problem)
            try:
                code = self._load_code(write_text(variant), key[1], self._folder)
            except CudaProblem as refused:
                self._refused.put(key, str(refused))
                raise
            with self._lock:
                kernel = self._kernels.get(key)
                if kernel is None:
                    kernel = self._kernels[key] = self._driver.load(code, variant.name)
        return kernel


def find_architecture(device: int) -> int:
    """Return 10 * major + minor of a device's compute capability."""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@lru_cache(maxsize=1)
def cuda_kernels() -> CudaKernels:
    """Return the kernels of this process.

    Raises:
        CudaProblem: they cannot be compiled here.
    """
    cubins.nvrtc_version()
    return CudaKernels(CudaDriver(), find_architecture, cubins.default_folder())
