"""A CUDA device that is none: host tensors computed by the ``cuda`` backend's code.

The kernels are those of the Metal emulator, which are the same headers; streams, capture and pinned
memory are the host's. What only a device can show is in test_cuda_device.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torch_mlx_spectro import (
    adjoints,
    cuda_backend,
    cuda_calls,
    cuda_prepared,
    emulator,
    torch_state,
)
from torch_mlx_spectro.bridge import host_view
from torch_mlx_spectro.host import copy_to_mlx
from torch_mlx_spectro.kernels.cuda import CudaKernels
from torch_mlx_spectro.kernels.metal import MetalKernels
from torch_mlx_spectro.runtime import runtime


class Emulated:
    """``CudaKernels`` on host tensors, by the Metal emulator."""

    def __init__(self, folder: Path) -> None:
        self._mx = runtime().mx
        self.machine = emulator.Machine(cache_dir=folder)
        self._kernels = MetalKernels(self._mx, self.machine.metal_kernel)

    def __getattr__(self, name: str) -> Callable[..., torch.Tensor | None]:
        method = getattr(self._kernels, name)

        def call(params: Any, first: torch.Tensor, *others: torch.Tensor, **more: Any) -> Any:
            array = copy_to_mlx(self._mx, _values(first))
            constants = [self._kernels.constant(_values(tensor)) for tensor in others]
            if more.get("envelope") is not None:
                more["envelope"] = self._kernels.constant(_values(more["envelope"]))
            more.pop("frames_fastest", None)  # a copy is dense
            given = [array, *constants]
            adjoint = more.pop("adjoint", None)
            if adjoint is not None:
                more["adjoint"] = adjoint
            result = method(params, *given, runtime().streams[0], **more)
            return None if result is None else torch.from_numpy(np.array(result))

        return call


def _values(tensor: torch.Tensor) -> Any:
    view = host_view(tensor)
    return view.block(view.array)


class Recorder:
    """A driver that notes what it is asked for."""

    def __init__(self) -> None:
        self.loaded: list[tuple[bytes, str]] = []
        self.launched: list[tuple[Any, ...]] = []

    def load(self, code: bytes, name: str) -> str:
        self.loaded.append((code, name))
        return name

    def launch(self, *arguments: Any) -> None:
        self.launched.append(arguments)


def recording(driver: Recorder) -> CudaKernels:
    """Kernels that are neither compiled nor run."""
    return CudaKernels(driver, lambda device: 90, None, lambda text, architecture, folder: b"code")


@contextmanager
def standing_in(kernels: Any) -> Iterator[None]:
    """Host tensors are on "the device", which computes with these kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_state, "cuda_device", lambda: None)
        patch.setattr(torch_state, "cuda_stream", lambda device: 7)
        patch.setattr(torch_state, "is_capturing", lambda: False)
        patch.setattr(cuda_prepared, "_uploaded", lambda values, device: values)
        patch.setattr(cuda_backend, "cuda_kernels", lambda: kernels)
        patch.setattr(cuda_backend, "device_reason", lambda device: None)
        patch.setattr(adjoints, "_BACKENDS", {"cpu": "cuda"})
        cuda_prepared.forget()
        cuda_calls.calls.clear()
        try:
            yield
        finally:
            cuda_prepared.forget()
            cuda_calls.calls.clear()
