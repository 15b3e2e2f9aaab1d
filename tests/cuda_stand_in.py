"""A CUDA device that is none: host tensors computed by the ``cuda`` backend's code.

The kernels are those of the Metal emulator, which are the same headers; streams, capture and pinned
memory are the host's. What only a device can show is in test_cuda_device.py.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from torch_mlx_spectro import emulator
from torch_mlx_spectro.autograd import linear_maps as adjoints
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.backends.cuda import backend as cuda_backend
from torch_mlx_spectro.backends.cuda.launcher import CudaKernels
from torch_mlx_spectro.backends.device.envelope_checks import read_flag
from torch_mlx_spectro.backends.mps.launcher import MpsKernels
from torch_mlx_spectro.dispatch.plans import plans
from torch_mlx_spectro.native import private_state as torch_state


class Emulated(MpsKernels):
    """The kernels on host tensors, by the Metal emulator."""

    def __init__(self, folder: Path) -> None:
        self.machine = emulator.Machine(cache_dir=folder)
        super().__init__(self.machine.compile_shader)


class Recorder:
    """A driver that notes what it is asked for."""

    def __init__(self) -> None:
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
    return CudaKernels(driver, lambda device: 90, None, lambda text, architecture, folder: b"code")


def _empty_strided(shape: Any, strides: Any, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty_strided(shape, strides, dtype=dtype)


def _flag(device: torch.device) -> torch.Tensor:
    return torch.zeros(1, dtype=torch.int32)


@contextmanager
def standing_in(kernels: Any) -> Iterator[None]:
    """Host tensors are on "the device", which computes with these kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_state, "cuda_device", lambda: None)
        patch.setattr(torch_state, "has_one_cuda_device", lambda: False)
        patch.setattr(torch_state, "cuda_stream", lambda device: 7)
        patch.setattr(torch_state, "is_capturing", lambda: False)
        patch.setattr(torch_state, "cuda_empty_strided", _empty_strided)
        patch.setattr(cuda_backend.CHECKS, "_make_flag", _flag)
        patch.setattr(cuda_backend.CHECKS, "_hear", read_flag)
        patch.setattr(cuda_backend, "cuda_kernels", lambda: kernels)
        patch.setattr(cuda_backend, "device_reason", lambda device: None)
        patch.setattr(adjoints, "_backend", lambda name, tensor: registry.load(name or "cuda"))
        cuda_backend.CHECKS.forget()
        plans.clear()
        try:
            yield
        finally:
            cuda_backend.CHECKS.forget()
            plans.clear()
