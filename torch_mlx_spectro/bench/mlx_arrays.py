"""Calls on MLX arrays: ``SpectralTransform``, and MLX's own ``mx.fft.stft`` and ``mx.fft.istft``.

They compute on MLX's default device, and each call ends when its result has its values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import torch_mlx_spectro as tms

from ..mlx.host import copy_to_mlx
from ..mlx.runtime import runtime, unavailable_reason
from .cases import ISTFT, MEAN_SQUARE, OWN, STFT, THERE_AND_BACK, Case

if TYPE_CHECKING:
    from .measuring import Call

Compute = Callable[..., Any]


def explain_absence() -> str | None:
    """Return why MLX's own functions are not here; None if they are."""
    if reason := unavailable_reason():
        return reason
    return None if hasattr(runtime().mx.fft, "stft") else "this MLX has no mx.fft.stft"


def _make_functions(side: str, n_fft: int, hop_length: int, length: int | None) -> list[Compute]:
    """Make stft and istft of MLX arrays, by a periodic Hann window."""
    fft, transform = runtime().mx.fft, tms.SpectralTransform(n_fft, hop_length)
    if side != OWN:
        return [transform.stft, partial(transform.istft, length=length)]
    sizes = {"n_fft": n_fft, "hop_length": hop_length, "window": transform.window}
    return [partial(fft.stft, **sizes), partial(fft.istft, **sizes, length=length)]


def make_namespace(side: str) -> SimpleNamespace:
    """Make stft and istft of torch's tensors and arguments that a side computes.

    Its window is a periodic Hann window, whatever window is given.
    """

    def compute(which: int, given: torch.Tensor, length: int | None = None, **more: Any) -> Any:
        made = _make_functions(side, more["n_fft"], more["hop_length"], length)
        result = made[which](copy_to_mlx(runtime().mx, given.numpy(force=True)))
        return torch.from_numpy(np.array(result))

    return SimpleNamespace(stft=partial(compute, 0), istft=partial(compute, 1))


def make_call(side: str, operation: str, case: Case, signal: Any) -> Call:
    """Make a call of an operation.

    Args:
        side: :data:`.cases.OURS` or :data:`.cases.OWN`.
        operation: one of the table's.
        case: the sizes.
        signal: NumPy's array of the case's signals.
    """
    mx = runtime().mx
    stft, istft = _make_functions(side, case.n_fft, case.hop_length, case.samples)
    given = copy_to_mlx(mx, np.asarray(signal))
    if operation == ISTFT:
        given = _make_functions(OWN, case.n_fft, case.hop_length, case.samples)[0](given)
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
