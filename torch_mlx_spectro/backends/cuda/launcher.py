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
from functools import lru_cache, partial
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
#: launches: the stream, the address and number of the attributes, and behind it the addresses of
#: input, window, result and flag.
CONFIG = "=7I4x"
VARIABLE = "=Q16s4Q"
ADDRESSES = 4
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


#: What one launch at a time is packed in: the memory of all of it, what its configuration says of
#: attributes, and the addresses of its configuration and of its parameters.
Memory = tuple[Any, bytes, Any, Any]


class Prepared:
    """One launch on one device, packed but for its stream and the addresses of its tensors.

    Args:
        kernel: as loaded by the driver.
        strides: of the first input, in elements.
        early: its groups may start before the stream's earlier launch has ended.
    """

    __slots__ = ("_device", "_driver", "_kernel", "_packed", "_spare", "_takes_flag")

    def __init__(
        self,
        driver: CudaDriver,
        kernel: Any,
        launch: Launch,
        device: int,
        strides: tuple[int, ...],
        edge: float,
        early: bool = False,
    ) -> None:
        padded = (*strides, *(0,) * (STRIDES - len(strides)))
        # The layout that the compiler gives LaunchArguments: each member is aligned to its size.
        numbers = struct.pack(
            f"={STRIDES}q{len(launch.integers)}q3If", *padded, *launch.integers, *launch.grid, edge
        )
        sizes = struct.pack(CONFIG, *find_grid(launch), launch.threadgroup[0], 1, 1, 0)
        attributes = struct.pack(ATTRIBUTE, _EARLY, True) if early else b""
        # They follow each other with the variable part between them, aligned to words.
        self._packed = sizes, numbers + bytes(-len(numbers) % 8), attributes
        self._takes_flag = launch.kernel in CHECKING_KERNELS
        self._driver, self._kernel, self._device = driver, kernel, device
        #: Memory that no thread is using.
        self._spare: list[Memory] = []

    def _make_memory(self) -> Memory:
        sizes, numbers, attributes = self._packed
        whole = sizes + bytes(struct.calcsize(VARIABLE)) + numbers + attributes
        buffer = (ctypes.c_uint64 * (len(whole) // 8)).from_buffer_copy(whole)
        start = ctypes.addressof(buffer)
        end = start + len(whole) - len(numbers) - len(attributes)
        places = [end - 8 * index for index in range(ADDRESSES, 0 if self._takes_flag else 1, -1)]
        # A cast keeps alive what it points to, which an address as a number would not.
        pointers = (ctypes.c_void_p * (len(places) + 1))(*places, end)
        stated = struct.pack(ATTRIBUTES, end + len(numbers), int(bool(attributes)))
        parameters = ctypes.cast(pointers, ctypes.c_void_p)
        return buffer, stated, ctypes.c_void_p(start), parameters

    def _mend(self, error: int, config: Any, parameters: Any) -> None:
        """Make a launch that the driver has refused with this error."""
        self._driver.mend(error, self._device)
        error = self._driver.launch(config, self._kernel, parameters, None)
        if error:
            raise CudaProblem(f"CUDA refuses a launch with error {error}")

    def bind(self, stream_of: Callable[[int], int], allocate: Callable[[], torch.Tensor]) -> Bound:
        """Return a function that launches it on a device's current stream.

        Args:
            allocate: returns an uninitialised tensor for a result.
        """
        # Local names, since for small calls looking up attributes is most of a launch's time.
        spare, make_memory, mend, device = self._spare, self._make_memory, self._mend, self._device
        launch, kernel, pack = self._driver.launch, self._kernel, struct.Struct(VARIABLE).pack_into
        variable = len(self._packed[0])

        def launch_again(
            first: torch.Tensor, window: Optional, flag: Optional = None
        ) -> torch.Tensor:
            result = allocate()
            try:  # without a lock, which takes longer: a list changes in one step of Python's
                memory = spare.pop()
            except IndexError:
                memory = make_memory()
            buffer, stated, config, parameters = memory
            pack(
                buffer,
                variable,
                stream_of(device),
                stated,
                first.data_ptr(),
                0 if window is None else window.data_ptr(),
                result.data_ptr(),
                0 if flag is None else flag.data_ptr(),
            )
            error = launch(config, kernel, parameters, None)
            if error:
                mend(error, config, parameters)
            spare.append(memory)  # the driver has copied the arguments when it returns
            return result

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
        device = first.device
        allocate = partial(make_result, launches[0], device)
        launch = self.bind(launches, device, first.stride(), allocate, edge)
        if device.index == self._current_device():
            return launch(first, window, vanishing)
        # The default stream has no handle of its own: it is that of the current device.
        with torch.cuda.device(device):
            return launch(first, window, vanishing)

    def bind(
        self,
        launches: Sequence[Launch],
        device: torch.device,
        strides: tuple[int, ...],
        allocate: Callable[[], torch.Tensor],
        edge: float = 1.0,
    ) -> Bound:
        """As in the base class; the device has to be the current one when the launch is made."""
        prepared = self.prepare_launch(launches[0], device.index, strides, edge)
        return prepared.bind(self._stream_of, allocate)

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
