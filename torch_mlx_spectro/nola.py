"""Whether an envelope vanishes, as the device that makes it tells the host.

torch.istft refuses a window whose overlap-added square is below the NOLA threshold at a sample
that it keeps. The kernel that makes the envelope writes its verdict on each column to memory of the
host's, and the host looks there: that takes no call of CUDA's, and nobody waits before the call
itself is launched.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from .errors import UnresolvedArguments
from .prepared import VANISHES

#: Verdicts that a piece of memory has room for at least.
LEAST_FLAGS = 4096
#: A verdict is a float, 0.0 or 1.0; one that is not written yet is no number. A byte of each.
_BYTES, _ONE, _PENDING = 4, 0x3F, 0xFF
#: Looks at the memory before others get their turn, and turns before the device is asked whether
#: it still works.
_LOOKS, _TURNS = 16, 4096


class Flags:
    """Memory of the host that a device writes verdicts to."""

    def __init__(self, columns: int) -> None:
        memory = host_memory(columns)
        self.address = memory.data_ptr()
        self.columns = columns
        values: Any = memory.numpy()
        self._bytes = memoryview(values).cast("B")  # keeps the memory, too
        self._bytes[:] = bytes([_PENDING]) * self._bytes.nbytes

    def first(self, columns: int) -> memoryview:
        """The first so many verdicts; none is written yet."""
        return self._bytes[: columns * _BYTES]


def wait_for(written: Callable[[], bytes], is_idle: Callable[[], bool]) -> bytes:
    """Wait until all verdicts are written, and return them.

    Args:
        written: returns them as they are.
        is_idle: whether their writer must have ended; raises if it has failed.
    """
    ended, turns = False, 0
    while True:
        for _ in range(_LOOKS):
            verdicts = written()
            if _PENDING not in verdicts:
                return verdicts
        if ended:
            raise RuntimeError("a kernel has ended, and its verdict has not come")
        time.sleep(0)
        turns += 1
        if turns % _TURNS == 0:
            ended = is_idle()


def host_memory(columns: int) -> torch.Tensor:
    """Memory that all devices can write to."""
    return torch.empty(columns, dtype=torch.float32, device="cpu", pin_memory=True)


def is_idle(device: torch.device) -> bool:
    """Whether what was launched on a device's current stream has ended."""
    idle: bool = torch.cuda.current_stream(device).query()
    return idle


class _Pool:
    """Memory for verdicts, which is made once, as that is costly, and kept for good.

    What is not given back, because something broke off, may still be written to.
    """

    def __init__(self) -> None:
        self._made: list[Flags] = []
        self._free: dict[int, list[Flags]] = {}

    def take(self, columns: int) -> Flags:
        """Memory for at least so many verdicts, in nobody else's hands."""
        room = LEAST_FLAGS
        while room < columns:
            room *= 2
        free = self._free.get(room)
        if free:
            with suppress(IndexError):  # another thread was faster
                return free.pop()
        flags = Flags(room)
        self._made.append(flags)
        return flags

    def give_back(self, flags: Flags) -> None:
        self._free.setdefault(flags.columns, []).append(flags)


_pool = _Pool()


class Flagged:
    """Whether torch refuses an envelope, in memory of the host that the device writes.

    It may be asked for of one launch after another, each settled before the next.

    Args:
        columns: of the envelope's rows.
        device: that writes them.
        judged: is called if it does not vanish.
    """

    __slots__ = (
        *("_device", "_fine", "_flags", "_give_back", "_is_settled", "_judged", "_pending"),
        *("_verdicts", "_written"),
    )

    def __init__(
        self, columns: int, device: torch.device, judged: Callable[[], None] | None = None
    ) -> None:
        self._device, self._judged = device, judged
        self._is_settled = False
        self._flags = _pool.take(columns)
        # When a process ends, modules are emptied before the last of these go.
        self._give_back = _pool.give_back
        self._is_settled = True
        self._verdicts = self._flags.first(columns)
        self._written = self._verdicts.tobytes
        self._pending, self._fine = bytes([_PENDING]) * (columns * _BYTES), bytes(columns * _BYTES)

    def __del__(self) -> None:
        # Else something broke off, and the memory may still be written to.
        if self._is_settled:
            self._give_back(self._flags)

    def ask(self) -> int:
        """The address where verdicts are to be written by what is launched now."""
        self._is_settled = False
        return self._flags.address

    def settle(self) -> None:
        """As :meth:`.device_windows.Verdict.settle`."""
        # Most have come by now, and find nothing: no more is done than has to be.
        is_fine = self._written() == self._fine
        if not is_fine:
            is_fine = _ONE not in wait_for(self._written, self._is_idle)
        self._verdicts[:] = self._pending
        self._is_settled = True
        if not is_fine:
            raise UnresolvedArguments(VANISHES)
        if self._judged is not None:
            self._judged()

    def _is_idle(self) -> bool:
        return is_idle(self._device)
