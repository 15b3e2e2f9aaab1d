"""The two functions that are replaced, and a call of one, as values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..native import functions as native
from .kind import AUTO_FRAMED_SAMPLES

if TYPE_CHECKING:
    from ..core.params import IstftParams, StftParams


def _bind_stft(
    input: Any,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    center: Any = True,
    pad_mode: Any = "reflect",
    normalized: Any = False,
    onesided: Any = None,
    return_complex: Any = None,
    align_to_window: Any = None,
) -> dict[str, Any]:
    return {
        "input": input,
        "n_fft": n_fft,
        "hop_length": hop_length,
        "win_length": win_length,
        "window": window,
        "center": center,
        "pad_mode": pad_mode,
        "normalized": normalized,
        "onesided": onesided,
        "return_complex": return_complex,
        "align_to_window": align_to_window,
    }


def _bind_istft(
    input: Any,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    center: Any = True,
    normalized: Any = False,
    onesided: Any = None,
    length: Any = None,
    return_complex: Any = False,
) -> dict[str, Any]:
    return {
        "input": input,
        "n_fft": n_fft,
        "hop_length": hop_length,
        "win_length": win_length,
        "window": window,
        "center": center,
        "normalized": normalized,
        "onesided": onesided,
        "length": length,
        "return_complex": return_complex,
    }


@dataclass(frozen=True)
class Operation:
    """What differs between the two functions; ``small`` is a number of input values."""

    name: str
    native: Callable[..., torch.Tensor]
    bind: Callable[..., dict[str, Any]]
    small: int

    def compute_natively(self, args: Any, kwargs: Any, caller: FrameType) -> torch.Tensor:
        """Native's result; its warnings name the line where ``caller`` stands, as without us."""
        if self.native is native.istft and native.may_warn_of_istft(args, kwargs):
            return native.call_from(caller, native.istft, args, kwargs)
        return self.native(*args, **kwargs)  # stft's name torch's own line


# A spectrum holds about half as many (complex) values as its frames have samples, at the usual
# hop of a quarter four times as many as the signal.
STFT = Operation("stft", native.stft, _bind_stft, AUTO_FRAMED_SAMPLES // 16)
ISTFT = Operation("istft", native.istft, _bind_istft, AUTO_FRAMED_SAMPLES // 4)


class Call(NamedTuple):
    """A call of valid arguments: its sizes, and its tensors as the program gave them."""

    params: StftParams | IstftParams
    tensor: torch.Tensor
    window: torch.Tensor | None
