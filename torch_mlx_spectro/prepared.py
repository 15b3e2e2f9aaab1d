"""What a call prepares from its window: MLX arrays and envelopes, computed once, in double.

For host windows the key of the cache is the window's content: programs make the same window anew
for every call, and writes to a window that shares memory with numpy leave no trace in ``_version``.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .envelope import Envelope, padded_window, resolve_envelope
from .errors import UnresolvedArguments
from .host import copy_to_mlx
from .kernels.metal import MetalKernels
from .params import IstftParams
from .recent import Cache
from .runtime import runtime

if TYPE_CHECKING:
    import torch

CACHE_ENTRIES = 128

VANISHES = "the overlap-added square of the window vanishes"


_prepared: Cache[Hashable, Any] = Cache(CACHE_ENTRIES)


class _PerTensor:
    """Values by tensor, for as long as the tensor lives; programs without torch have none."""

    def __init__(self) -> None:
        self._values: Any = None

    def __len__(self) -> int:
        return 0 if self._values is None else len(self._values)

    def get(self, tensor: torch.Tensor, default: Any) -> Any:
        return default if self._values is None else self._values.get(tensor, default)

    def __setitem__(self, tensor: torch.Tensor, value: Any) -> None:
        if self._values is None:
            from torch.utils.weak import WeakTensorKeyDictionary

            self._values = WeakTensorKeyDictionary()
        self._values[tensor] = value


_device_windows = _PerTensor()
_device_windows_lock = threading.Lock()


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

    def scaled(self, factor: float, conjugate: bool = False) -> Any:
        """The ``n_fft`` padded values times ``factor``, single precision, in host memory."""
        with np.errstate(all="ignore"):  # as of the envelope
            full = padded_window(self.values, self.win_length, self.n_fft) * factor
            full = full.conj() if conjugate else full
            return full.astype(np.complex64 if np.iscomplexobj(full) else np.float32)

    def for_maps(self, factor: float, conjugate: bool = False) -> Any:
        """The scaled window in MLX, shape (n_fft,); None where that is all ones."""
        if self.values is None and factor == 1.0 and self.win_length == self.n_fft:
            return None

        def make() -> Any:
            array = copy_to_mlx(runtime().mx, self.scaled(factor, conjugate))
            runtime().mx.eval(array)  # nothing lazy may cross to another thread
            return array

        key = ("window", self.key, self.win_length, self.n_fft, factor, conjugate)
        return _prepared.get(key, make)

    def for_kernels(self, kernels: MetalKernels, factor: float, conjugate: bool = False) -> Any:
        """The scaled window as a kernel reads it."""
        whole = ("kernel window", kernels, self.key, self.win_length, self.n_fft, factor, conjugate)
        return _prepared.get(whole, lambda: kernels.constant(self.scaled(factor, conjugate)))


def window_of(window: torch.Tensor | None, win_length: int, n_fft: int) -> Window:
    """Read a window's values.

    A device window is read once per version of it, so that no later call waits for the device.
    """
    if window is None:
        return Window(None, None, win_length, n_fft)
    if window.device.type == "cpu" or window.is_inference():
        return _read(window, win_length, n_fft)  # inference tensors count no versions
    with _device_windows_lock:
        version, read = _device_windows.get(window, (None, None))
        if version != window._version:
            version, read = window._version, _read(window, win_length, n_fft)
            _device_windows[window] = (version, read)
    known: Window = read
    if (known.win_length, known.n_fft) == (win_length, n_fft):
        return known
    return replace(known, win_length=win_length, n_fft=n_fft)


def _read(window: torch.Tensor, win_length: int, n_fft: int) -> Window:
    from .bridge import window_values  # who has a tensor has torch

    values = window_values(window)
    assert values is not None
    return Window((values.dtype.str, values.tobytes()), values, win_length, n_fft)


def is_known(window: torch.Tensor | None) -> bool:
    """Whether :func:`window_of` has read this version of a device's window already."""
    if window is None:
        return True
    if window.is_inference():
        return False
    with _device_windows_lock:
        version, _ = _device_windows.get(window, (None, None))
    return bool(version == window._version)


def envelope_of(params: IstftParams, window: Window) -> Envelope:
    """The envelope of a call; ``vanishes`` tells that torch raises for it."""
    envelope: Envelope = _prepared.get(
        ("envelope", window.key, params), lambda: resolve_envelope(window.values, params)
    )
    return envelope


def check_envelope(params: IstftParams, window: Window) -> None:
    """Raise UnresolvedArguments where the envelope vanishes: torch then raises its own error."""
    if envelope_of(params, window).vanishes:
        raise UnresolvedArguments(VANISHES)


def kernel_envelope(
    kernels: MetalKernels, params: IstftParams, window: Window, conjugate: bool = False
) -> Any:
    """The rows of the inverse envelope as a kernel reads them."""

    def make() -> Any:
        rows = envelope_of(params, window).rows
        return kernels.constant(rows.conj() if conjugate else rows)

    return _prepared.get(("kernel envelope", kernels, window.key, params, conjugate), make)
