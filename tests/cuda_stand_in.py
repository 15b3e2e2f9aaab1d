"""A CUDA device that is none: host tensors computed by the ``cuda`` backend's code.

A stand-in is the backend with other kernels and the host's memory, in the backend's place in the
registry. The kernels are those of the Metal emulator, which are the same headers, or they are only
noted. What only a device can show is in test_cuda_device.py.
"""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from torch_mlx_spectro import emulator
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.backends.cuda.backend import CudaBackend
from torch_mlx_spectro.backends.cuda.launcher import CudaKernels
from torch_mlx_spectro.backends.device.envelope_checks import read_flag
from torch_mlx_spectro.backends.mps.launcher import MpsKernels
from torch_mlx_spectro.calls.timer import HostTimer, Timer
from torch_mlx_spectro.dispatch.plans import plans


class Emulated(MpsKernels):
    """The kernels on host tensors, by the Metal emulator."""

    def __init__(self, folder: Path) -> None:
        self.machine = emulator.Machine(cache_dir=folder)
        super().__init__(self.machine.compile_shader)


class Recorder:
    """A driver that notes what it is asked for.

    Attributes:
        stream: the raw handle of the current one.
    """

    def __init__(self) -> None:
        self.stream = 7
        self.loaded: list[tuple[bytes, str]] = []
        self.launched: list[tuple[Any, ...]] = []
        #: Of each launch its attributes: which, and its value.
        self.attributes: list[list[tuple[int, int]]] = []
        #: Of a launch: the kernel, blocks, threads, stream and the address of its parameters.
        self.seen: Callable[..., Any] = lambda *arguments: self.launched.append(arguments)

    def load(self, code: bytes, name: str) -> str:
        self.loaded.append((code, name))
        return name

    def launch(self, config: Any, kernel: Any, parameters: Any, extra: None) -> int:
        *sizes, stream, at, count = struct.unpack("7I4xQQI4x", ctypes.string_at(config.value, 56))
        assert sizes[4:] == [1, 1, 0]
        attributes = ctypes.string_at(at, 72 * count)
        self.attributes.append(list(struct.iter_unpack("I4xi60x", attributes)))
        self.seen(kernel, tuple(sizes[:3]), sizes[3], stream, parameters.value)
        return 0

    def mend(self, error: int, device: int) -> None:
        raise AssertionError("nothing is refused")


def recording(driver: Recorder) -> CudaKernels:
    """Kernels that are neither compiled nor run."""

    def compile_nothing(text: str, architecture: int, folder: Path | None) -> bytes:
        return b"code"

    return CudaKernels(
        driver,
        lambda device: 90,
        load_code=compile_nothing,
        current_device=lambda: None,  # as the index of the host's device
        stream_of=lambda device: driver.stream,
    )


class StandIn(CudaBackend):
    """The ``cuda`` backend of host tensors.

    Args:
        kernels: that compute them.

    Attributes:
        capturing: a graph is being recorded.
        current: the device of all tensors is the current one.
        listen: waits for a launch's verdict, in the place of a device.
    """

    def __init__(self, kernels: Any) -> None:
        super().__init__()
        self._kernels = kernels
        self.capturing, self.current = False, True
        self.listen: Callable[[torch.Tensor, torch.device], int] = read_flag

    def kernels(self) -> Any:
        return self._kernels

    def explain_absence(self, device_type: str | None = None) -> str | None:
        return None

    def explain_sure_absence(self) -> str | None:
        return None

    def explain_device(self, device: int) -> str | None:
        return None

    def is_capturing(self) -> bool:
        return self.capturing

    def is_current(self, device: int) -> bool:
        return self.current

    def make_flag(self, device: torch.device) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.int32)

    def wait_for_verdict(self, flag: torch.Tensor, device: torch.device) -> int:
        return self.listen(flag, device)

    def make_allocator(self, like: torch.Tensor) -> Callable[[], torch.Tensor]:
        layout = (tuple(like.shape), like.stride())
        return partial(torch.empty_strided, *layout, dtype=like.dtype)

    def make_timer(self, clock: Callable[[], float] = time.perf_counter) -> Timer:
        return HostTimer(clock, lambda: None)


@contextmanager
def standing_in(kernels: Any) -> Iterator[StandIn]:
    """Host tensors are on "the device", which computes with these kernels."""
    backend = StandIn(kernels)
    spec = replace(registry.find("cuda"), device_types=("cuda", "cpu"))
    plans.clear()
    with registry.register_backend(spec, backend, replace=True):
        try:
            yield backend
        finally:
            plans.clear()
