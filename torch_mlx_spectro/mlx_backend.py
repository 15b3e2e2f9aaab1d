"""The ``mlx`` backend: a resolved call on torch tensors, computed by MLX.

Host tensors run in blocks on MLX CPU streams, MPS tensors whole on MLX's GPU. Windows and
envelopes are prepared once in double precision. For host windows the key of that cache is the
window's content: programs make the same window anew for every call, and writes to a window that
shares memory with numpy leave no trace in ``_version``.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from .blocks import istft_blocks, stft_blocks
from .bridge import (
    Borrowed,
    empty_result,
    host_view,
    memory_of,
    to_mlx,
    to_torch,
    window_values,
)
from .envelope import Envelope, padded_window, resolve_envelope
from .params import IstftParams, StftParams
from .runtime import runtime
from .strides import frames_outermost, spectrum_strides
from .whole import istft_whole, stft_whole

CACHE_ENTRIES = 128


class _Cache:
    """A bounded, locked, least-recently-used cache of small prepared arrays."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of ``key``, made when missing. Two threads may both make it: it is equal."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._entries:
                self._values.popitem(last=False)
        return value


_prepared = _Cache(CACHE_ENTRIES)
_device_windows: Any = WeakTensorKeyDictionary()
_device_windows_lock = threading.Lock()


def _window_content(window: torch.Tensor | None) -> tuple[Hashable, Any]:
    """Key and host values of a window.

    A device window is read once per version of it, so that no later call waits for the device.
    """
    if window is None:
        return None, None
    if window.device.type == "cpu" or window.is_inference():
        values = window_values(window)  # inference tensors count no versions
    else:
        with _device_windows_lock:
            version, values = _device_windows.get(window, (None, None))
            if version != window._version:
                version, values = window._version, window_values(window)
                _device_windows[window] = (version, values)
    assert values is not None
    return (values.dtype.str, values.tobytes()), values


def _prepared_window(params: StftParams | IstftParams, key: Hashable, values: Any) -> Any:
    """The MLX window of n_fft values, stft's scale folded in; None where it is all ones."""
    scale = params.scale if isinstance(params, StftParams) else 1.0
    if values is None and scale == 1.0 and params.win_length == params.n_fft:
        return None

    def make() -> Any:
        full = padded_window(values, params.win_length, params.n_fft) * scale
        narrow = np.complex64 if np.iscomplexobj(full) else np.float32
        array = runtime().mx.array(full.astype(narrow))
        runtime().mx.eval(array)  # nothing lazy may cross to another thread
        return array

    return _prepared.get(("window", key, params.win_length, params.n_fft, scale), make)


def envelope_of(params: IstftParams, window: torch.Tensor | None) -> Envelope:
    """The envelope of a call; ``vanishes`` tells that torch raises for it."""
    key, values = _window_content(window)
    return _envelope(params, key, values)


def _envelope(params: IstftParams, key: Hashable, values: Any) -> Envelope:
    envelope: Envelope = _prepared.get(
        ("envelope", key, params), lambda: resolve_envelope(values, params)
    )
    return envelope


def stft(params: StftParams, signal: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
    """Compute a resolved ``torch.stft``.

    Args:
        signal: float32 or complex64, shape (samples,) or (rows, samples), on CPU or MPS.
        window: float32 or complex64, shape (win_length,), or None.

    Returns:
        Shape (rows, bins, frames), complex64, with native torch's strides; without rows for a
        1-D signal; viewed as real with a last dimension of 2 for ``return_complex=False``.
    """
    key, values = _window_content(window)
    prepared = _prepared_window(params, key, values)
    if signal.device.type == "cpu":
        spectrum = _stft_on_host(params, signal, window, prepared)
    else:
        mx = runtime().mx
        borrowed = to_mlx(mx, signal)
        rows = mx.reshape(borrowed.array, (params.rows, params.samples), stream=mx.gpu)
        result = stft_whole(mx, params, rows, prepared, mx.gpu)
        spectrum = _exported(mx, result, borrowed).transpose(1, 2)
    if not params.batched:
        spectrum = spectrum.squeeze(0)
    return spectrum if params.return_complex else torch.view_as_real(spectrum)


def _stft_on_host(
    params: StftParams, signal: torch.Tensor, window: torch.Tensor | None, prepared: Any
) -> torch.Tensor:
    # Native pads a short window, given or not, and multiplies by it; without one it does not.
    multiplied = window.dtype if window is not None else None
    if multiplied is None and params.win_length < params.n_fft:
        multiplied = signal.dtype
    outer = frames_outermost(params, signal.stride(), signal.dtype, multiplied)
    shape = (params.rows, params.bins, params.frames)
    out = empty_result(shape, spectrum_strides(params, outer), torch.complex64)
    view = host_view(signal if params.batched else signal.unsqueeze(0))
    stft_blocks(runtime(), params, view, prepared, memory_of(out).transpose(0, 2, 1))
    return out


def istft(params: IstftParams, spectrum: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
    """Compute a resolved ``torch.istft`` whose envelope does not vanish.

    Args:
        spectrum: complex64, shape (bins, frames) or (rows, bins, frames), on CPU or MPS.
        window: float32 or complex64, shape (win_length,), or None.

    Returns:
        Shape (rows, output length) or (output length,), float32, or complex64 for
        ``return_complex=True``; contiguous.
    """
    key, values = _window_content(window)
    prepared = _prepared_window(params, key, values)
    envelope = _envelope(params, key, values)
    batched = spectrum if params.batched else spectrum.unsqueeze(0)
    if spectrum.device.type == "cpu":
        shape = (params.rows, params.output_length)
        dtype = torch.complex64 if params.return_complex else torch.float32
        signal = empty_result(shape, (params.output_length, 1), dtype)
        view = host_view(batched.transpose(1, 2))
        istft_blocks(runtime(), params, view, prepared, envelope, memory_of(signal))
    else:
        mx = runtime().mx
        borrowed = to_mlx(mx, batched.transpose(1, 2))
        result = istft_whole(mx, params, borrowed.array, prepared, envelope, mx.gpu)
        signal = _exported(mx, result, borrowed)
    return signal if params.batched else signal.squeeze(0)


def _exported(mx: Any, result: Any, borrowed: Borrowed) -> torch.Tensor:
    """Evaluate and export ``result`` while the tensor it was computed from is still held."""
    exported = to_torch(mx, result)
    del borrowed
    return exported
