"""MLX arrays and envelopes that a call needs of its window, computed in double precision and kept.

The key of the cache is the window's content, which every call reads. Programs make the same window
anew for each call, and tensors do not show writes by NumPy, DLPack or another process.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...core.envelope import Envelope, envelope_key, pad_window, resolve_envelope
from ...core.params import IstftParams, StftParams
from ...errors import UnresolvedArguments
from ...mlx.host import copy_to_mlx
from ...mlx.launcher import MetalKernels
from ...mlx.runtime import runtime
from ...store.caches import Cache
from ..envelope import VANISHES
from .bridge import window_values

CACHE_ENTRIES = 128

_prepared: Cache[Hashable, Any] = Cache(CACHE_ENTRIES)


@dataclass(frozen=True)
class Window:
    """A call's window: values on the host, shape (win_length,), None for ones; and their key.

    Attributes:
        win_length, n_fft: the values are padded to ``n_fft``, as torch pads them.
    """

    key: Hashable
    values: Any
    win_length: int
    n_fft: int

    def scale_values(self, factor: float, conjugate: bool = False) -> Any:
        """Return the ``n_fft`` padded values times ``factor``, in single precision, on the host."""
        with np.errstate(all="ignore"):  # torch does not warn of windows that are not finite
            full = pad_window(self.values, self.win_length, self.n_fft) * factor
            full = full.conj() if conjugate else full
            return full.astype(np.complex64 if np.iscomplexobj(full) else np.float32)

    def for_maps(self, factor: float, conjugate: bool = False) -> Any:
        """Return the scaled window in MLX, shape (n_fft,); None where it is all ones."""
        if self.values is None and factor == 1.0 and self.win_length == self.n_fft:
            return None
        key = ("window", self.key, self.win_length, self.n_fft, factor, conjugate)
        return _prepared.get(
            key, lambda: copy_to_mlx(runtime().mx, self.scale_values(factor, conjugate))
        )

    def for_kernels(self, kernels: MetalKernels, conjugate: bool = False) -> Any:
        """Return the padded window as a kernel reads it."""
        whole = ("kernel window", kernels, self.key, self.win_length, self.n_fft, conjugate)
        return _prepared.get(whole, lambda: kernels.constant(self.scale_values(1.0, conjugate)))


def read_window(params: StftParams | IstftParams, window: torch.Tensor | None) -> Window:
    """Read the values of a call's window; waits for its device."""
    values = window_values(window)
    key = None if values is None else (values.dtype.str, values.tobytes())
    return Window(key, values, params.win_length, params.n_fft)


def get_envelope(params: IstftParams, window: Window) -> Envelope:
    """Return the envelope of a call. It may vanish, in which case torch raises."""
    key = "envelope", window.key, envelope_key(params)
    envelope: Envelope = _prepared.get(key, lambda: resolve_envelope(window.values, params))
    return envelope


def check_envelope(params: IstftParams, window: Window) -> None:
    """Raise UnresolvedArguments where the envelope vanishes; torch then raises its own error."""
    if get_envelope(params, window).vanishes(params):
        raise UnresolvedArguments(VANISHES)
