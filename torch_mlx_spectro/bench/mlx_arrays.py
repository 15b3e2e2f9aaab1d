"""Calls on MLX arrays: ``SpectralTransform``, and MLX's own ``mx.fft.stft`` and ``mx.fft.istft``.

They compute on MLX's default device, and each call ends when its result has its values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import torch_mlx_spectro as tms

from ..mlx.host import copy_to_mlx
from ..mlx.runtime import runtime, unavailable_reason
from .cases import ISTFT, MEAN_SQUARE, OWN, STFT, THERE_AND_BACK, Case

if TYPE_CHECKING:
    from .measuring import Call


def explain_absence() -> str | None:
    """Return why MLX's own functions are not here; None if they are."""
    if reason := unavailable_reason():
        return reason
    return None if hasattr(runtime().mx.fft, "stft") else "this MLX has no mx.fft.stft"


def make_call(side: str, operation: str, case: Case, signal: Any) -> Call:
    """Make a call of an operation.

    Args:
        side: :data:`.cases.OURS` or :data:`.cases.OWN`.
        operation: one of the table's.
        case: the sizes.
        signal: NumPy's array of the case's signals.
    """
    mx = runtime().mx
    transform = tms.SpectralTransform(case.n_fft, case.hop_length)
    sizes = {"n_fft": case.n_fft, "hop_length": case.hop_length, "window": transform.window}
    own_stft = partial(mx.fft.stft, **sizes)
    stft: Callable[[Any], Any] = own_stft if side == OWN else transform.stft
    istft: Callable[[Any], Any] = (
        partial(mx.fft.istft, **sizes, length=case.samples)
        if side == OWN
        else partial(transform.istft, length=case.samples)
    )
    given = copy_to_mlx(mx, np.asarray(signal))
    if operation == ISTFT:
        given = own_stft(given)
        mx.eval(given)
    compute = {
        STFT: stft,
        ISTFT: istft,
        THERE_AND_BACK: lambda x: istft(stft(x)),
        MEAN_SQUARE: mx.grad(lambda x: mx.square(mx.abs(stft(x))).mean()),
    }[operation]

    def call(number: int) -> Any:
        result = compute(given)
        mx.eval(result)
        return result

    return call
