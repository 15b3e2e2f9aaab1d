"""Analysis windows that are known: what was made and found of one version of each."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any

import torch

#: Windows that are known, and what is kept of each.
MAX_WINDOWS = 256
MAX_OF_A_WINDOW = 64
#: What kernels read of a window at once.
_PAIR_BYTES = 8


class WindowVersion:
    """One version of one window, which counts them.

    Attributes:
        of: the window; None once it is gone.
    """

    __slots__ = ("_address", "_version", "of")

    def __init__(self, window: torch.Tensor, forget: Callable[[Any], object] | None = None) -> None:
        self.of = weakref.ref(window, forget)
        self._version = window._version
        self._address = window.data_ptr()

    def is_of(self, window: torch.Tensor) -> bool:
        """Whether this is that window, unchanged."""
        return (
            self.of() is window
            and self._version == window._version
            and self._address == window.data_ptr()
        )


class KnownWindow(WindowVersion):
    """One version of one window, and what was made and found of it.

    Attributes:
        made: what kernels read of it, by stream and purpose.
        judged: calls, by what decides it, whose envelope does not vanish.
    """

    __slots__ = ("judged", "made")

    def __init__(self, window: torch.Tensor, forget: Callable[[Any], object] | None = None) -> None:
        super().__init__(window, forget)
        self.made: dict[Hashable, torch.Tensor] = {}
        self.judged: set[Hashable] = set()


class KnownWindows:
    """Known windows by identity, each for as long as it lives."""

    def __init__(self) -> None:
        self._known: dict[int, KnownWindow] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, window: torch.Tensor) -> KnownWindow | None:
        """The window, if it is known and unchanged."""
        known = self._known.get(id(window))
        return known if known is not None and known.is_of(window) else None

    def know(self, window: torch.Tensor) -> KnownWindow | None:
        """The window, known from now on; None for one that counts no versions."""
        if window.is_inference():
            return None
        known = self.find(window)
        if known is None:
            if len(self._known) >= MAX_WINDOWS:
                self._known = {}
            name, windows = id(window), self._known
            # Dictionaries change in one step of the interpreter; a lock could be held by the very
            # thread whose garbage is being collected.
            known = KnownWindow(window, lambda _: windows.pop(name, None))
            windows[name] = known
        if max(len(known.made), len(known.judged)) >= MAX_OF_A_WINDOW:
            known.made, known.judged = {}, set()
        return known

    def clear(self) -> None:
        self._known = {}


def needs_no_preparation(win_length: int, n_fft: int, factor: float) -> bool:
    """Whether a window of these sizes, to be multiplied by this, is what a kernel reads."""
    return factor == 1.0 and win_length == n_fft


def read_where_it_is(window: torch.Tensor) -> int:
    """The address of a window's own values; 0 where no kernel can read them, in pairs."""
    if window.is_complex() or not window.is_contiguous() or window.is_neg():
        return 0
    address = window.data_ptr()
    return address if address % _PAIR_BYTES == 0 else 0
