"""The ``mps`` backend: computes a resolved call on MPS tensors by the project's own kernels.

:mod:`.backends.device.backend` has what it shares with other devices. Kernels are encoded into
torch's own stream of MPS commands, so no tensor leaves torch. The host only waits for the verdict
on the envelope of a window that is new. Sizes without a fused kernel go through torch's transforms.

While Metal is emulated, host tensors stand for MPS tensors, and their results have the strides that
native gives on the host.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

import torch

from ...calls.operation import Call
from ...calls.timer import HostTimer, Timer
from ...core.linear import SUM_BRANCHES, own_conjugates
from ...core.params import StftParams
from ...native import private_state as torch_state
from ...native import strides
from ...settings import asks_for_fast_math
from ..device.backend import KernelBackend
from .launcher import MpsKernels, mps_kernels

#: The first macOS whose Metal lets a kernel ask for safe mathematics (``math_mode``).
SAFE_MATH = 15


def unavailable_reason() -> str | None:
    """Return why MPS tensors cannot be computed here without MLX; None where they can."""
    if torch_state.mps_is_emulated():
        return None
    if not torch.backends.mps.is_built():
        return "this torch is built without MPS"
    if not torch.backends.mps.is_available():
        return "torch finds no MPS device"
    if not hasattr(torch.mps, "compile_shader"):
        return f"torch {torch.__version__} compiles no Metal kernels (torch.mps.compile_shader)"
    if asks_for_fast_math() and int(platform.mac_ver()[0].partition(".")[0] or 0) < SAFE_MATH:
        return "PYTORCH_MPS_FAST_MATH is set, and macOS before 15 lets no kernel be exempt from it"
    return None


class MpsBackend(KernelBackend):
    """Our kernels on MPS tensors, by ``torch.mps.compile_shader``."""

    label, transform = "mps", "torch fft"

    def explain_absence(self, device_type: str | None = None) -> str | None:
        return unavailable_reason()

    def explain_refusal(self, call: Call) -> str | None:
        reason = super().explain_refusal(call)
        if reason is not None:
            return reason
        every = [self.list_launches(call)]
        if torch_state.is_differentiated(call.tensor, call.window):
            every += self.list_gradient_launches(call)
        reasons = (self.kernels().refusal(one, call.tensor.device) for one in every)
        return next(filter(None, reasons), None)

    def kernels(self) -> MpsKernels:
        return mps_kernels()

    def frames_outermost(
        self, params: StftParams, signal: torch.Tensor, multiplied: torch.dtype | None
    ) -> bool:
        if not signal.is_cpu:
            return False  # MPS's transforms write a new, contiguous tensor
        return strides.frames_outermost(params, signal.stride(), signal.dtype, multiplied)

    def inverse_real(self, half: torch.Tensor, n_fft: int) -> torch.Tensor:
        """Transform as complex values: the real transform was wrong on MPS (pytorch#126649).

        A real inverse transform is the real part of the sum over bins 0 ... n_fft // 2, where all
        but DC and Nyquist count twice.
        """
        bins = half.shape[-1]
        full = half.new_zeros((*half.shape[:-1], n_fft))
        full[..., :bins] = 2.0 * half
        for own in own_conjugates(n_fft):
            full[..., own] = half[..., own]
        frames: torch.Tensor = torch.fft.ifft(full).real
        return frames

    def sum_products(self, products: torch.Tensor) -> torch.Tensor:
        """Sum as a tree, as :func:`.mlx.ops.correlate` does, since MPS has no double precision."""
        total = products.flatten(0, -2)
        while len(total) >= SUM_BRANCHES:
            whole = len(total) // SUM_BRANCHES * SUM_BRANCHES
            branches = total[:whole].view(-1, SUM_BRANCHES, total.shape[-1])
            total = torch.cat([branches.sum(1), total[whole:]])
        return total.sum(0)

    def make_timer(self, clock: Callable[[], float] = time.perf_counter) -> Timer:
        emulated = torch_state.mps_is_emulated()  # which computes at once
        return HostTimer(clock, (lambda: None) if emulated else torch.mps.synchronize)


#: The backend of MPS tensors, and of host tensors while Metal is emulated.
MPS = MpsBackend()
