"""Windows on CUDA devices (:mod:`.device_windows`).

Memory that is given back is used again by its stream alone, so what is kept belongs to one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch

from . import torch_state
from .device_windows import DeviceWindows, Verdict
from .kernels.cuda import cuda_kernels
from .kernels.preparing import Preparation, preparation
from .known_windows import WindowVersion
from .nola import Flagged
from .params import IstftParams

_FLOAT_BYTES = 4


class CudaWindows(DeviceWindows):
    """The windows of all CUDA devices."""

    def _made(self, made: Preparation, window: torch.Tensor) -> torch.Tensor:
        return cuda_kernels().prepare_window(made, window)

    def _made_and_judged(
        self, made: Preparation, window: torch.Tensor, judged: Callable[[], None]
    ) -> tuple[torch.Tensor, Flagged]:
        verdict = Flagged(made.columns, window.device, judged)
        return cuda_kernels().prepare_window(made, window, verdict.ask()), verdict

    def _stream(self, device: torch.device) -> Hashable:
        return device.index, torch_state.cuda_stream(device.index)

    def _is_recording(self) -> bool:
        return torch_state.is_capturing()

    def _on_device(self, values: torch.Tensor, device: torch.device) -> torch.Tensor:
        # From pinned memory: of any other the copy would be waited for.
        return values.pin_memory().to(device, non_blocking=True)


WINDOWS = CudaWindows()


class Place:
    """What a launch reads besides its input.

    Attributes:
        stream: that makes it.
        window, envelope: addresses.
        memory: behind them.
        verdict: on an istft's envelope, to be settled when a window has been prepared.
        is_reused: may be written again once the window is gone.
        version: of the window that is prepared there, as nobody else knows it; None: of none.
    """

    __slots__ = ("envelope", "is_reused", "memory", "stream", "verdict", "version", "window")

    def __init__(
        self,
        stream: int,
        addresses: tuple[int, int],
        memory: object,
        verdict: Verdict | None,
        is_reused: bool,
    ) -> None:
        self.stream, self.memory, self.verdict = stream, memory, verdict
        self.window, self.envelope = addresses
        self.is_reused = is_reused
        self.version: WindowVersion | None = None

    def is_free(self) -> bool:
        """Whether its window is gone. Whoever reads it holds the window."""
        return self.version is None or self.version.of() is None


class Preparer:
    """Prepares windows that nobody knows for calls of one kind: a launch, and little else.

    Args:
        window: one of those windows, which is real.
        params: of an istft.
    """

    __slots__ = ("_columns", "_device", "_floats", "_rows_at", "_run", "_stride", "_unread")

    def __init__(
        self,
        window: torch.Tensor,
        n_fft: int,
        factor: float,
        params: IstftParams | None = None,
    ) -> None:
        made = preparation(len(window), n_fft, factor, params)
        self._run = cuda_kernels().preparer(made, window)
        self._stride, self._device, self._columns = window.stride(), window.device, made.columns
        (written,) = made.launch.shape
        self._unread = written * _FLOAT_BYTES
        self._floats = written + 1  # the last one is for the verdict that nobody reads
        self._rows_at = made.rows_at * _FLOAT_BYTES if made.columns else 0

    def fits(self, window: torch.Tensor) -> bool:
        """Whether a window of the same length and type can be prepared as the first was."""
        return (
            window.stride() == self._stride
            and not window.is_neg()
            and WINDOWS.known.find(window) is None
        )

    def place(self, stream: int) -> Place:
        """Memory for what is read of one window at a time."""
        memory = torch.empty(self._floats, dtype=torch.float32, device=self._device)
        at = memory.data_ptr()
        verdict = Flagged(self._columns, self._device) if self._columns else None
        return Place(stream, (at, at + self._rows_at), memory, verdict, is_reused=True)

    def launch(self, window: torch.Tensor, place: Place) -> None:
        """Launch the preparation of a window in a place that nobody else has."""
        to, verdict = place.window, place.verdict
        verdicts = verdict.ask() if isinstance(verdict, Flagged) else to + self._unread
        self._run(place.stream, window.data_ptr(), to, verdicts)
