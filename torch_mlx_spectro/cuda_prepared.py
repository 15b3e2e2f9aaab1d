"""Windows on CUDA devices (:mod:`.device_windows`).

Memory that is given back is used again by its stream alone, so what is kept belongs to one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch

from . import nola, torch_state
from .device_windows import DeviceWindows, Reading
from .kernels.cuda import cuda_kernels
from .kernels.preparing import Preparation, preparation
from .nola import Flagged
from .params import IstftParams


class CudaWindows(DeviceWindows):
    """The windows of all CUDA devices."""

    def _made(self, made: Preparation, window: torch.Tensor) -> torch.Tensor:
        return cuda_kernels().prepare_window(made, window)

    def _made_and_judged(
        self, made: Preparation, window: torch.Tensor, judged: Callable[[], None]
    ) -> tuple[torch.Tensor, Flagged]:
        verdict = Flagged(made.columns, window.device, judged)
        launch = cuda_kernels().prepare_window
        return verdict.launch(lambda flags: launch(made, window, flags)), verdict

    def _stream(self, device: torch.device) -> Hashable:
        return device.index, torch_state.cuda_stream(device.index)

    def _is_recording(self) -> bool:
        return torch_state.is_capturing()

    def _on_device(self, values: torch.Tensor, device: torch.device) -> torch.Tensor:
        # From pinned memory: of any other the copy would be waited for.
        return values.pin_memory().to(device, non_blocking=True)

    def forget(self) -> None:
        super().forget()
        nola.forget()


WINDOWS = CudaWindows()


class Preparer:
    """Prepares windows that nobody knows for calls of one kind: a launch, and little else.

    Args:
        window: one of those windows.
        params: of an istft.
    """

    __slots__ = ("_device", "_made", "_run", "_stride")

    def __init__(
        self,
        window: torch.Tensor,
        n_fft: int,
        factor: float,
        params: IstftParams | None = None,
    ) -> None:
        self._made = preparation(len(window), n_fft, factor, params)
        self._run = cuda_kernels().preparer(self._made, window)
        self._stride, self._device = window.stride(), window.device

    def read(self, window: torch.Tensor, stream: int) -> Reading | None:
        """What is read of a window; None of one that is not like the first, or is known."""
        if (
            window.stride() != self._stride
            or window.is_complex()
            or window.is_neg()
            or WINDOWS.known.find(window) is not None
        ):
            return None
        made = self._made
        (floats,) = made.launch.shape
        # The last one is for the verdict that nobody reads.
        prepared = torch.empty(floats + 1, dtype=torch.float32, device=self._device)
        of, to = window.data_ptr(), prepared.data_ptr()
        if not made.columns:
            self._run(stream, of, to, to + floats * prepared.element_size())
            return Reading(prepared, prepared)
        verdict = Flagged(made.columns, self._device)
        verdict.launch(lambda flags: self._run(stream, of, to, flags))
        return Reading(prepared, prepared, made.rows_at, verdict)
