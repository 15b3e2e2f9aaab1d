"""The ``cuda`` backend: a resolved call on CUDA tensors, by the project's own kernels.

How is in :mod:`.backends.device.backend`; sizes without a fused kernel go through cuFFT.
Everything runs on torch's current stream, and nothing waits for it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import lru_cache

import torch

from ...calls.operation import Call
from ...calls.timer import Timer
from ...core.params import IstftParams, StftParams
from ...kernels.texts.cuda import MAX_BLOCKS, grid_of
from ...native import private_state as torch_state
from ...native.strides import frames_in_order, spectrum_strides
from ...store.caches import cached
from ..device.backend import KernelBackend, launches_of
from ..device.envelope_checks import EnvelopeChecks
from . import nvrtc as cubins
from .launcher import CudaKernels, architecture_of, cuda_kernels
from .nvrtc import CudaProblem
from .timer import CudaTimer

Optional = torch.Tensor | None


def _flag(device: torch.device) -> torch.Tensor:
    """Memory of the host, where reading takes no call of CUDA's."""
    return torch.zeros(1, dtype=torch.int32, device="cpu", pin_memory=True)


def _hear(flag: torch.Tensor, device: torch.device) -> int:
    return cuda_kernels().hear(flag.data_ptr(), device)


#: Of all CUDA devices.
CHECKS = EnvelopeChecks(_flag, _hear)


@lru_cache(maxsize=1)
def unavailable_reason() -> str | None:
    """Why CUDA tensors cannot be computed here; None where they can."""
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if not sys.platform.startswith("linux"):
        return "CUDA kernels are compiled on Linux only"
    try:
        cuda_kernels()
    except (CudaProblem, ImportError) as problem:
        return str(problem)
    return None


NOT_PREPARED = "a CUDA graph is being captured, and this call was not made before"


@cached(64)
def device_reason(device: int) -> str | None:
    """Why the kernels do not run on one device; None where they do."""
    architecture = architecture_of(device)
    if architecture in cubins.architectures():
        return None
    version = ".".join(map(str, cubins.nvrtc_version()))
    major, minor = divmod(architecture, 10)
    return f"NVRTC {version} does not compile for compute capability {major}.{minor}"


def is_judged(params: StftParams | IstftParams, window: Optional) -> bool:
    """Whether no kernel has to be asked if the envelope of a call vanishes."""
    if isinstance(params, StftParams) or window is None:
        return True
    return CHECKS.is_fine(params.geometry, window)


class CudaBackend(KernelBackend):
    """Our kernels on CUDA tensors, by NVRTC and CUDA's driver."""

    label, transform, checks = "cuda", "cufft", CHECKS

    def explain_absence(self, device_type: str | None = None) -> str | None:
        return unavailable_reason()

    def explain_refusal(self, call: Call) -> str | None:
        device: int = call.tensor.device.index
        launch = launches_of(*call)[0]
        if (reason := device_reason(device)) is not None:
            return reason
        if (reason := super().explain_refusal(call)) is not None:
            return reason
        if grid_of(launch)[0] > MAX_BLOCKS:
            return "more thread blocks than CUDA counts"
        if torch_state.is_capturing():
            loaded = cuda_kernels().is_loaded(launch, device)
            if not loaded or not is_judged(call.params, call.window):
                return NOT_PREPARED
        return None

    def kernels(self) -> CudaKernels:
        return cuda_kernels()

    def frames_outermost(
        self, params: StftParams, signal: torch.Tensor, multiplied: torch.dtype | None
    ) -> bool:
        # cuFFT's results keep the order of its input's batch dimensions, as MKL's do.
        return frames_in_order(params, signal.stride(), signal.dtype, multiplied)

    def make_timer(self, clock: Callable[[], float] = time.perf_counter) -> Timer:
        return CudaTimer()


#: Of all CUDA devices: a launch goes to the device of its tensors, as torch's operations do.
CUDA = CudaBackend()


def warns(params: StftParams | IstftParams) -> bool:
    """Whether torch warns of a call like this, which has a window."""
    if isinstance(params, StftParams):
        return not params.return_complex
    return params.zero_tail > 0


def single_launch(
    params: StftParams | IstftParams, tensor: torch.Tensor, window: Optional, result: torch.Tensor
) -> Callable[..., None] | None:
    """What launches a call that has been computed; None where it takes more than a launch.

    It takes the stream and the addresses of input, window and result, and of an istft's flag.
    """
    launch = launches_of(params, tensor, window)[0]
    if launch.plan is None:
        return None
    read = tensor if params.batched else tensor.unsqueeze(0)
    if isinstance(params, StftParams):
        strides = spectrum_strides(params, False)[0 if params.batched else 1 :]
        if not params.return_complex:
            strides = (*(2 * stride for stride in strides), 1)
        if result.stride() != strides:
            return None  # it was copied into another order
    else:
        read = read.transpose(1, 2)
    return cuda_kernels().prepared(launch, tensor.device.index, read.stride()).run
