"""The two functions that are replaced, and a call of one, as values."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..native import functions as native
from .kind import LEAST_FRAMED

if TYPE_CHECKING:
    from ..core.params import IstftParams, StftParams


#: Position of the window among either function's arguments.
WINDOW = 4
#: The input, the window, and the other arguments in torch's order.
Read = tuple[Any, Any, tuple[Any, ...]]


def _read_stft(
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
) -> Read:
    framing = (n_fft, hop_length, win_length, center, pad_mode)
    return input, window, (*framing, normalized, onesided, return_complex, align_to_window)


def _read_istft(
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
) -> Read:
    framing = (n_fft, hop_length, win_length, center)
    return input, window, (*framing, normalized, onesided, length, return_complex)


@dataclass(frozen=True)
class Operation:
    """What differs between the two functions.

    Attributes:
        name: ``"stft"`` or ``"istft"``.
        native: torch's own function.
        read: takes the arguments as torch's function does, and returns them in parts; raises
            TypeError for those that torch's function does not have.
        small: the number of input values below which a call on the CPU goes to native at once.
        names: the arguments' names in torch's order.
    """

    name: str
    native: Callable[..., torch.Tensor]
    read: Callable[..., Read]
    small: int
    names: tuple[str, ...]

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return all arguments by name, in torch's order, with torch's defaults."""
        tensor, window, others = self.read(*args, **kwargs)
        values = (tensor, *others[: WINDOW - 1], window, *others[WINDOW - 1 :])
        return dict(zip(self.names, values, strict=True))

    def compute_natively(self, args: Any, kwargs: Any, caller: FrameType) -> torch.Tensor:
        """Call native; its warnings name the line where ``caller`` stands, as without us."""
        if self.native is native.istft and native.may_warn_of_istft(args, kwargs):
            return native.call_at_line(caller, native.istft, args, kwargs)
        return self.native(*args, **kwargs)  # stft's warnings name a line of torch's own


def _operation(native_function: Any, read: Callable[..., Read], small: int) -> Operation:
    names = tuple(inspect.signature(read).parameters)
    return Operation(native_function.__name__, native_function, read, small, names)


# A spectrum holds about half as many (complex) values as its frames have samples, at the usual
# hop of a quarter four times as many as the signal.
STFT = _operation(native.stft, _read_stft, LEAST_FRAMED["stft"] // 16)
ISTFT = _operation(native.istft, _read_istft, LEAST_FRAMED["istft"] // 4)


class Call(NamedTuple):
    """A call of valid arguments: its sizes, and its tensors as the program gave them."""

    params: StftParams | IstftParams
    tensor: torch.Tensor
    window: torch.Tensor | None
