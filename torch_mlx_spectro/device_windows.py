"""An analysis window as a device's kernels read it: scaled and padded where it is."""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch

from .nola import Verdict


class Reading(NamedTuple):
    """What a kernel reads besides its input.

    Attributes:
        window: ``n_fft`` values or more, padded and scaled.
        behind: holds the inverse envelope's rows, flat, from element ``rows_at`` on.
        verdict: to be settled once the call is launched; None where the envelope is known.
    """

    window: torch.Tensor
    behind: torch.Tensor
    rows_at: int = 0
    verdict: Verdict | None = None

    @property
    def envelope(self) -> torch.Tensor:
        return self.behind[self.rows_at :]

    @property
    def addresses(self) -> tuple[int, int]:
        """Of window and envelope."""
        behind = self.behind
        return self.window.data_ptr(), behind.data_ptr() + self.rows_at * behind.element_size()

    def settle(self) -> None:
        """Raise UnresolvedArguments where the envelope turns out to vanish."""
        if self.verdict is not None:
            self.verdict.settle()


class Scaled:
    """A scaled window, and the version of the window that it was made of."""

    __slots__ = ("address", "of", "values", "version")

    def __init__(self, window: torch.Tensor, values: torch.Tensor) -> None:
        self.of = weakref.ref(window)
        self.version = window._version
        self.address = window.data_ptr()
        self.values = values

    def is_of(self, window: torch.Tensor) -> bool:
        """Whether this is the window that it was made of, unchanged."""
        return (
            self.of() is window
            and self.version == window._version
            and self.address == window.data_ptr()
        )


def scaled(window: torch.Tensor, n_fft: int, factor: float, conjugate: bool) -> torch.Tensor:
    """``n_fft`` values: the window times a factor, padded."""
    values = window.detach()
    product = (values.conj() if conjugate else values) * factor
    return padded(product.resolve_conj(), n_fft).contiguous()


def padded(values: torch.Tensor, n_fft: int) -> torch.Tensor:
    """Values with zeros on both sides, as torch pads a window."""
    missing = n_fft - len(values)
    if missing == 0:
        return values
    full = values.new_zeros(n_fft)
    full[missing // 2 : missing // 2 + len(values)] = values
    return full
