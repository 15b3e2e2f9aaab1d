"""The kernels on torch tensors where they are; the launcher of a device is a subclass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch

from ...kernels import describe
from ...kernels.describe import Launch
from ...kernels.functions import Kernels
from ...native import private_state as torch_state
from ..base import Optional

#: complex64 values, and those of windows in pairs, are read at once.
_PAIR_BYTES = 8
#: Launches on an input, a window or None, and a result; then, where its kernel judges envelopes, a
#: flag or None (:data:`.kernels.arguments.CHECKING_KERNELS`).
Bound = Callable[..., None]


class TensorKernels(Kernels):
    """Windows have any stride, their bits resolved, and are read where they are; or are None."""

    def bind(
        self,
        launches: Sequence[Launch],
        device: torch.device,
        strides: tuple[int, ...],
        edge: float = 1.0,
    ) -> Bound | None:
        """What makes a launch again that has been made.

        None where another may be made next time, and of launchers that bind nothing.

        Args:
            launches: of which one has been made, best first.
            device: of all tensors.
            strides: of the input, as the kernel reads it.
            edge: factor of the bins that are their own conjugates.
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
        """As in the base class, on the current stream."""

    def _is_complex(self, array: torch.Tensor) -> bool:
        return array.is_complex()

    def _window_layout(self, window: Optional, n_fft: int) -> tuple[bool, int | None]:
        if window is None:
            return False, describe.NO_WINDOW
        is_whole = len(window) == n_fft and window.is_contiguous()
        if is_whole and not torch_state.is_wrapped(window):  # else it is asked again, unwrapped
            is_whole = window.data_ptr() % _PAIR_BYTES == 0
        step = None if is_whole else window.stride(0)
        return window.is_complex(), step


def make_result(launch: Launch, device: torch.device) -> torch.Tensor:
    """An uninitialised output of a launch."""
    dtype = torch.complex64 if launch.complex_output else torch.float32
    return torch.empty(launch.shape, dtype=dtype, device=device)
