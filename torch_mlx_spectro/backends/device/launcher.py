"""The kernels on torch tensors, in place; the launcher of each device is a subclass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch

from ...kernels import describe
from ...kernels.describe import Launch
from ...kernels.functions import Kernels
from ...native import private_state as torch_state
from ..base import Optional

#: A complex64 value, or a pair of a window's values, is read at once.
_PAIR_BYTES = 8
#: Launches on an input and a window or None, and returns the result. If the kernel judges envelopes
#: (:data:`.kernels.arguments.CHECKING_KERNELS`), it takes a flag or None, too.
Bound = Callable[..., torch.Tensor]


class TensorKernels(Kernels):
    """The kernels on torch tensors; a window has any stride and its bits resolved, or is None."""

    def bind(
        self,
        launches: Sequence[Launch],
        device: torch.device,
        strides: tuple[int, ...],
        allocate: Callable[[], torch.Tensor],
        edge: float = 1.0,
    ) -> Bound | None:
        """Bind a launch that was made, so that it can be made again without choosing it.

        Returns None if another launch may be chosen next time, or if this launcher binds nothing.

        Args:
            launches: the alternatives, best first, of which one was made.
            device: the device of all tensors.
            strides: those of the input, as the kernel reads it.
            allocate: returns an uninitialised tensor for a result.
            edge: factor of DC and Nyquist in a onesided spectrum.
        """
        return None

    @abstractmethod
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
        """Run as in the base class, on the device's current stream."""

    def _is_complex(self, array: torch.Tensor) -> bool:
        return array.is_complex()

    def _window_layout(self, window: Optional, n_fft: int) -> tuple[bool, int | None]:
        if window is None:
            return False, describe.NO_WINDOW
        is_whole = len(window) == n_fft and window.is_contiguous()
        if is_whole and not torch_state.is_wrapped(window):  # else asked again, unwrapped
            is_whole = window.data_ptr() % _PAIR_BYTES == 0
        step = None if is_whole else window.stride(0)
        return window.is_complex(), step


def make_result(launch: Launch, device: torch.device) -> torch.Tensor:
    """Allocate the output of a launch, uninitialised."""
    dtype = torch.complex64 if launch.complex_output else torch.float32
    return torch.empty(launch.shape, dtype=dtype, device=device)
