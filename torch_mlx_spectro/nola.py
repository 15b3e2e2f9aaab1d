"""Whether an envelope vanishes, as the device that makes it tells the host.

torch.istft refuses a window whose overlap-added square is below the NOLA threshold at a sample
that it keeps. The kernel that makes the envelope writes its verdict on each column to memory of the
host's; nobody waits for it before the call itself is launched.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import torch

from .errors import UnresolvedArguments
from .prepared import VANISHES

Result = TypeVar("Result")

#: Pieces of memory that are kept for a device, and verdicts that each has room for at least.
MAX_FLAGS = 16
LEAST_FLAGS = 4096


class Flags:
    """Memory of the host that a device writes verdicts to, and what tells that it has."""

    def __init__(self, columns: int, device: torch.device) -> None:
        self._memory = host_memory(columns)
        self._event = event_on(device)
        self.values = self._memory.numpy()
        self.address = self._memory.data_ptr()

    def written(self) -> None:
        """Its writer has been launched."""
        self._event.record()

    def wait(self) -> None:
        self._event.synchronize()


def host_memory(columns: int) -> torch.Tensor:
    """Memory that a device can write to."""
    return torch.empty(columns, dtype=torch.float32, device="cpu", pin_memory=True)


def event_on(device: torch.device) -> Any:
    """An event that is recorded on a device's current stream."""
    with torch.cuda.device(device):
        make: Any = torch.cuda.Event  # has no types
        event = make()
    return event


class _FreeFlags:
    """Memory that no launch writes to any more, by device; new memory is costly."""

    def __init__(self) -> None:
        self._free: dict[int | None, list[Flags]] = {}

    def take(self, columns: int, device: torch.device) -> Flags:
        """Memory for at least so many verdicts, in nobody else's hands."""
        free = self._free.setdefault(device.index, [])
        with suppress(IndexError):
            flags = free.pop()
            if len(flags.values) >= columns:
                return flags
        return Flags(max(columns, LEAST_FLAGS), device)

    def give_back(self, flags: Flags, device: torch.device) -> None:
        free = self._free.setdefault(device.index, [])
        if len(free) < MAX_FLAGS:
            free.append(flags)

    def clear(self) -> None:
        self._free = {}


_free_flags = _FreeFlags()


class Flagged:
    """Whether torch refuses an envelope, in memory of the host that the device writes.

    Args:
        columns: of the envelope's rows.
        judged: is called if it does not vanish.
    """

    __slots__ = ("_columns", "_device", "_flags", "_judged")

    def __init__(
        self, columns: int, device: torch.device, judged: Callable[[], None] | None = None
    ) -> None:
        self._columns, self._device, self._judged = columns, device, judged
        self._flags = _free_flags.take(columns, device)

    def launch(self, launch: Callable[[int], Result]) -> Result:
        """Launch what writes verdicts to the address that it is given."""
        result = launch(self._flags.address)
        self._flags.written()
        return result

    def settle(self) -> None:
        """As :meth:`.device_windows.Verdict.settle`."""
        self._flags.wait()
        vanishes = bool(self._flags.values[: self._columns].any())
        _free_flags.give_back(self._flags, self._device)
        if vanishes:
            raise UnresolvedArguments(VANISHES)
        if self._judged is not None:
            self._judged()


def forget() -> None:
    """Give back what is kept."""
    _free_flags.clear()
