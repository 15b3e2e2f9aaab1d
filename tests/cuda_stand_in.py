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

import numpy as np
import numpy.typing as npt
import pytest
import torch

from torch_mlx_spectro import (
    adjoints,
    cuda_backend,
    cuda_calls,
    cuda_prepared,
    emulator,
    nola,
    torch_state,
)
from torch_mlx_spectro.bridge import host_view
from torch_mlx_spectro.envelope import overlap_added_square, padded_window
from torch_mlx_spectro.host import copy_to_mlx
from torch_mlx_spectro.kernels.cuda import CudaKernels
from torch_mlx_spectro.kernels.metal import MetalKernels
from torch_mlx_spectro.kernels.preparing import Preparation
from torch_mlx_spectro.kernels.sources import integers
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
            # In torch's own memory, as on a device.
            return None if result is None else torch.from_numpy(np.array(result)).clone()

        return call

    def prepare_window(
        self, made: Preparation, window: torch.Tensor, vanishes: int = 0
    ) -> torch.Tensor:
        launch = made.launch
        prepared, verdicts = self._kernels._kernel(launch)(
            inputs=[
                copy_to_mlx(self._mx, np.pad(_values(window), (0, 8))),
                self._kernels.constant(np.array(launch.integers, np.int64)),
            ],
            template=[],
            grid=launch.grid,
            threadgroup=launch.threadgroup,
            output_shapes=[launch.shape, (made.verdicts,)],
            output_dtypes=[self._mx.float32] * 2,
            stream=runtime().streams[0],
        )
        _write(vanishes, np.array(verdicts)[: made.columns])
        return torch.from_numpy(np.array(prepared))

    def preparer(self, made: Preparation, window: torch.Tensor) -> Callable[..., None]:
        raise AssertionError("what is emulated has no launches to be kept")


def _write(address: int, verdicts: npt.NDArray[Any]) -> None:
    if address:
        ctypes.memmove(address, verdicts.astype(np.float32).tobytes(), 4 * verdicts.size)


def _values(tensor: torch.Tensor) -> Any:
    view = host_view(tensor)
    return view.block(view.array)


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


class Recorded(CudaKernels):
    """Kernels that are neither compiled nor run, but for what makes windows: NumPy does that."""

    def preparer(self, made: Preparation, window: torch.Tensor) -> Callable[..., None]:
        def run(stream: int, of: int, to: int, vanishes: int) -> None:
            span = 1 + (len(window) - 1) * window.stride(0)
            values = torch.frombuffer(
                bytearray(ctypes.string_at(of, 4 * span)), dtype=torch.float32
            ).as_strided(window.shape, window.stride())
            _write(to, self.prepare_window(made, values, vanishes).numpy())

        return run

    def prepare_window(
        self, made: Preparation, window: torch.Tensor, vanishes: int = 0
    ) -> torch.Tensor:
        names = integers("window.h", "WindowParameter")
        given = dict(zip(names, made.launch.integers, strict=True))
        prepared = torch.zeros(made.launch.shape, dtype=torch.float32)
        left, length = given["left"], given["length"]
        scale = np.array([given["factor"]], np.int32).view(np.float32)[0]
        prepared[left : left + length] = window * float(scale)
        if made.columns:
            rows = overlap_added_square(
                padded_window(window.numpy(), length, given["n_fft"]), made.columns, given["frames"]
            )
            prepared[made.rows_at :] = torch.from_numpy(1 / np.where(rows, rows, np.inf)).flatten()
            # As if everything but the ends were kept.
            _write(vanishes, (rows[given["overlap"] - 1 :][:1] < 1e-11)[0])
        return prepared


def recording(driver: Recorder) -> CudaKernels:
    """Kernels that are neither compiled nor run."""
    return Recorded(driver, lambda device: 90, None, lambda text, architecture, folder: b"code")


def _empty_strided(shape: Any, strides: Any, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty_strided(shape, strides, dtype=dtype)


@contextmanager
def standing_in(kernels: Any) -> Iterator[None]:
    """Host tensors are on "the device", which computes with these kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_state, "cuda_device", lambda: None)
        patch.setattr(torch_state, "has_one_cuda_device", lambda: False)
        patch.setattr(torch_state, "cuda_stream", lambda device: 7)
        patch.setattr(torch_state, "is_capturing", lambda: False)
        patch.setattr(torch_state, "cuda_empty_strided", _empty_strided)
        patch.setattr(cuda_prepared.CudaWindows, "_on_device", lambda self, values, device: values)
        patch.setattr(cuda_prepared, "cuda_kernels", lambda: kernels)
        patch.setattr(nola, "host_memory", torch.empty)
        patch.setattr(nola, "is_idle", lambda device: True)
        patch.setattr(cuda_backend, "cuda_kernels", lambda: kernels)
        patch.setattr(cuda_backend, "device_reason", lambda device: None)
        patch.setattr(adjoints, "_BACKENDS", {"cpu": "cuda"})
        cuda_prepared.WINDOWS.forget()
        cuda_calls.forget()
        try:
            yield
        finally:
            cuda_prepared.WINDOWS.forget()
            cuda_calls.forget()
