"""The ``cuda`` backend: computes a resolved call on CUDA tensors by the project's own kernels.

:mod:`.backends.device.backend` has what it shares with other devices. Sizes without a fused kernel
go through cuFFT. Everything runs on torch's current stream. The host only waits for the verdict on
the envelope of a window that is new.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from functools import cached_property, partial

import torch

from ...calls.operation import Call
from ...calls.timer import Timer
from ...core.params import IstftParams, StftParams
from ...errors import KernelRefused
from ...kernels.texts.cuda import MAX_BLOCKS, find_grid
from ...native import private_state as torch_state
from ...native.strides import frames_in_order
from ..base import Optional, Prepared
from ..device.backend import KernelBackend
from . import nvrtc as cubins
from .launcher import CudaKernels, cuda_kernels, find_architecture
from .nvrtc import CudaProblem
from .timer import CudaTimer

NOT_PREPARED = "a CUDA graph is being captured, and this call was not made before"


def _explain_machine(has_device: Callable[[], bool]) -> str | None:
    """Explain why CUDA kernels cannot run on this machine; None where they can."""
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if not has_device():
        return "torch finds no CUDA device"
    if not sys.platform.startswith("linux"):
        return "CUDA kernels are compiled on Linux only"
    return None


class CudaBackend(KernelBackend):
    """Our kernels on CUDA tensors, by NVRTC and CUDA's driver."""

    label, transform = "cuda", "cufft"

    def kernels(self) -> CudaKernels:
        return cuda_kernels()

    def explain_absence(self, device_type: str | None = None) -> str | None:
        return self._absence

    @cached_property
    def _absence(self) -> str | None:
        if (reason := _explain_machine(torch.cuda.is_available)) is not None:
            return reason
        try:
            self.kernels()
        except (CudaProblem, ImportError) as problem:
            return str(problem)
        return None

    def explain_sure_absence(self) -> str | None:
        # torch asks NVML how many devices there are. By is_available() it would begin to use CUDA,
        # which children that are forked later could not do any more.
        if (reason := _explain_machine(lambda: torch.cuda.device_count() > 0)) is not None:
            return reason
        found = importlib.util.find_spec("cuda") and importlib.util.find_spec("cuda.core")
        if found is None:
            return "cuda-core is not installed"
        return None

    def explain_device(self, device: int) -> str | None:
        """Why the kernels do not run on one device; None where they do."""
        architecture = find_architecture(device)
        if architecture in cubins.architectures():
            return None
        version = ".".join(map(str, cubins.nvrtc_version()))
        major, minor = divmod(architecture, 10)
        return f"NVRTC {version} does not compile for compute capability {major}.{minor}"

    def explain_refusal(self, call: Call) -> str | None:
        device: int = call.tensor.device.index
        launch = self.list_launches(call)[0]
        if (reason := self.explain_device(device)) is not None:
            return reason
        if (reason := super().explain_refusal(call)) is not None:
            return reason
        if find_grid(launch)[0] > MAX_BLOCKS:
            return "more thread blocks than CUDA counts"
        if self.is_capturing():
            loaded = self.kernels().is_loaded(launch, device)
            if not loaded or not self.is_envelope_checked(call.params, call.window):
                return NOT_PREPARED
        return None

    def is_envelope_checked(self, params: StftParams | IstftParams, window: Optional) -> bool:
        """Whether a call needs no kernel to find out if its envelope vanishes."""
        if isinstance(params, StftParams) or window is None:
            return True
        return self.checks.is_fine(params.geometry, window)

    def is_capturing(self) -> bool:
        """Whether the current stream records a graph instead of computing."""
        return torch_state.is_capturing()

    def is_current(self, device: int) -> bool:
        """Whether a device is the one that torch allocates and launches on."""
        return torch_state.has_one_cuda_device() or device == torch_state.cuda_device()

    def check_waiting(self) -> None:
        if self.is_capturing():
            raise KernelRefused(NOT_PREPARED)

    def make_flag(self, device: torch.device) -> torch.Tensor:
        """Allocate the flag in the host's memory, where reading it needs no call of CUDA's."""
        return torch.zeros(1, dtype=torch.int32, device="cpu", pin_memory=True)

    def wait_for_verdict(self, flag: torch.Tensor, device: torch.device) -> int:
        return self.kernels().wait_for_verdict(flag.data_ptr(), device)

    def make_allocator(self, like: torch.Tensor) -> Callable[[], torch.Tensor]:
        """As in the base class, on the current device."""
        layout = (tuple(like.shape), like.stride(), like.dtype)
        return partial(torch_state.cuda_empty_strided, *layout)

    def prepare(self, call: Call, result: torch.Tensor) -> Prepared | None:
        return self._on_its_device(super().prepare(call, result), result.device.index)

    def prepare_gradient(
        self,
        params: StftParams | IstftParams,
        cotangent: torch.Tensor,
        window: Optional,
        gradient: torch.Tensor,
    ) -> Prepared | None:
        prepared = super().prepare_gradient(params, cotangent, window, gradient)
        return self._on_its_device(prepared, gradient.device.index)

    def _on_its_device(self, compute: Prepared | None, index: int) -> Prepared | None:
        """What computes the same while another device may be the current one."""
        if compute is None or torch_state.has_one_cuda_device():
            return compute

        def compute_there(tensor: torch.Tensor, window: Optional) -> torch.Tensor:
            if self.is_current(index):
                return compute(tensor, window)
            with torch.cuda.device(index):
                return compute(tensor, window)

        return compute_there

    def frames_outermost(
        self, params: StftParams, signal: torch.Tensor, multiplied: torch.dtype | None
    ) -> bool:
        # cuFFT's results keep the order of its input's batch dimensions, as MKL's do.
        return frames_in_order(params, signal.stride(), signal.dtype, multiplied)

    def make_timer(self, clock: Callable[[], float] = time.perf_counter) -> Timer:
        return CudaTimer(clock)


#: The backend of all CUDA devices: a launch goes to its tensors' device, as torch's operations do.
CUDA = CudaBackend()
