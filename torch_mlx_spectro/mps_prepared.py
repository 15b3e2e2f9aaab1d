"""Windows on MPS devices (:mod:`.device_windows`).

What earlier commands of a stream wrote is there when its later ones read. Torch up to 2.14 lets a
program use one stream.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch

from . import torch_state
from .device_windows import DeviceWindows, Verdict
from .errors import UnresolvedArguments
from .kernels.mps import mps_kernels
from .kernels.preparing import Preparation
from .prepared import VANISHES


class _OnDevice:
    """A verdict in the device's memory: reading it waits for the device, as native's check does."""

    def __init__(self, vanishes: torch.Tensor, judged: Callable[[], None]) -> None:
        self._vanishes, self._judged = vanishes, judged

    def settle(self) -> None:
        # Copied, which waits, and looked at by the host: on MPS each operation costs a command.
        if bool(self._vanishes.cpu().any()):
            raise UnresolvedArguments(VANISHES)
        self._judged()


class MpsWindows(DeviceWindows):
    """The windows of MPS devices, and of the host's tensors while Metal is emulated."""

    def _made(self, made: Preparation, window: torch.Tensor) -> torch.Tensor:
        return mps_kernels().prepare_window(made, window)[0]

    def _made_and_judged(
        self, made: Preparation, window: torch.Tensor, judged: Callable[[], None]
    ) -> tuple[torch.Tensor, Verdict]:
        prepared, vanishes = mps_kernels().prepare_window(made, window)
        return prepared, _OnDevice(vanishes, judged)

    def _stream(self, device: torch.device) -> Hashable:
        return device, torch_state.mps_stream() if device.type == "mps" else 0

    def _counts_versions(self, window: torch.Tensor) -> bool:
        # NumPy may write a host tensor, which no version tells.
        return not window.is_inference() and not window.is_cpu


WINDOWS = MpsWindows()
