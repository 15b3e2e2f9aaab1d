"""The ``mlx`` backend: a resolved call on torch tensors, computed by MLX.

Host tensors run in blocks on MLX CPU streams; MPS tensors whole on MLX's GPU, by the project's own
Metal kernels (and host tensors too while those are emulated). Windows and envelopes are prepared
once in double precision. For host windows the key of that cache is the window's content: programs
make the same window anew for every call, and writes to a window that shares memory with numpy leave
no trace in ``_version``.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from .blocks import istft_blocks, stft_blocks
from .bridge import (
    Borrowed,
    copy_to_mlx,
    dense_order,
    empty_result,
    host_view,
    memory_of,
    to_mlx,
    to_torch,
    window_values,
)
from .envelope import Envelope, padded_window, resolve_envelope
from .fused import analysis_scale, istft_fused, kernel_of, refusal, stft_fused, synthesis_scale
from .kernels.metal import MetalKernels, metal_kernels
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
        array = copy_to_mlx(runtime().mx, full.astype(_narrow(full)))
        runtime().mx.eval(array)  # nothing lazy may cross to another thread
        return array

    return _prepared.get(("window", key, params.win_length, params.n_fft, scale), make)


def _kernel_window(
    kernels: MetalKernels, params: StftParams | IstftParams, key: Hashable, values: Any
) -> Any:
    """The window of n_fft values as a kernel reads it, every scale of the call folded in."""
    scale = analysis_scale(params) if isinstance(params, StftParams) else synthesis_scale(params)

    def make() -> Any:
        full = padded_window(values, params.win_length, params.n_fft) * scale
        return kernels.constant(full.astype(_narrow(full)))

    whole = ("kernel window", kernels, key, params.win_length, params.n_fft, scale)
    return _prepared.get(whole, make)


def _kernel_envelope(
    kernels: MetalKernels, params: IstftParams, key: Hashable, envelope: Envelope
) -> Any:
    """The rows of the inverse envelope as a kernel reads them."""
    whole = ("kernel envelope", kernels, key, params)
    return _prepared.get(whole, lambda: kernels.constant(envelope.rows))


def _narrow(values: Any) -> Any:
    return np.complex64 if np.iscomplexobj(values) else np.float32


def computation(params: StftParams | IstftParams, tensor: torch.Tensor) -> tuple[str, str | None]:
    """What computes a call on this input, for reports, and why it cannot, if so."""
    if metal_kernels(runtime().mx, tensor.device.type) is not None:
        return kernel_of(params), refusal(params)
    return ("mlx cpu blocks" if tensor.is_cpu else "mlx gpu operations"), None


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
    kernels = metal_kernels(runtime().mx, signal.device.type)
    if signal.device.type == "cpu" and kernels is None:
        spectrum = _stft_in_blocks(params, signal, window)
    else:
        spectrum = _stft_whole(kernels, params, signal, window)
        if signal.device.type == "cpu":
            spectrum = _as_natives(params, signal, window, spectrum)
    if not params.batched:
        spectrum = spectrum.squeeze(0)
    return spectrum if params.return_complex else torch.view_as_real(spectrum)


def _natives_strides(
    params: StftParams, signal: torch.Tensor, window: torch.Tensor | None
) -> tuple[int, ...]:
    """Strides of native's spectrum, shape (rows, bins, frames), on the CPU."""
    # Native pads a short window, given or not, and multiplies by it; without one it does not.
    multiplied = window.dtype if window is not None else None
    if multiplied is None and params.win_length < params.n_fft:
        multiplied = signal.dtype
    outer = frames_outermost(params, signal.stride(), signal.dtype, multiplied)
    return spectrum_strides(params, outer)


def _stft_in_blocks(
    params: StftParams, signal: torch.Tensor, window: torch.Tensor | None
) -> torch.Tensor:
    prepared = _prepared_window(params, *_window_content(window))
    shape = (params.rows, params.bins, params.frames)
    out = empty_result(shape, _natives_strides(params, signal, window), torch.complex64)
    view = host_view(signal if params.batched else signal.unsqueeze(0))
    stft_blocks(runtime(), params, view, prepared, memory_of(out).transpose(0, 2, 1))
    return out


def _stft_whole(
    kernels: MetalKernels | None,
    params: StftParams,
    signal: torch.Tensor,
    window: torch.Tensor | None,
) -> torch.Tensor:
    """A spectrum computed in one piece; shape (rows, bins, frames)."""
    mx = runtime().mx
    key, values = _window_content(window)
    batched = signal if params.batched else signal.unsqueeze(0)
    with _whole_arrays(signal) as stream:
        if kernels is None:
            borrowed = to_mlx(mx, batched)
            prepared = _prepared_window(params, key, values)
            result = stft_whole(mx, params, borrowed.array, prepared, stream)
        else:
            borrowed = to_mlx(mx, batched, stream)
            prepared = _kernel_window(kernels, params, key, values)
            result = stft_fused(kernels, mx, params, borrowed.array, prepared, stream)
        return _exported(mx, result, borrowed).transpose(1, 2)


def _as_natives(
    params: StftParams,
    signal: torch.Tensor,
    window: torch.Tensor | None,
    spectrum: torch.Tensor,
) -> torch.Tensor:
    """A host spectrum with native's strides: kernels that are emulated here have their own."""
    strides = _natives_strides(params, signal, window)
    if spectrum.stride() == strides:
        return spectrum
    return empty_result(tuple(spectrum.shape), strides, spectrum.dtype).copy_(spectrum)


@contextmanager
def _whole_arrays(tensor: torch.Tensor) -> Iterator[Any]:
    """The stream on which whole arrays of this tensor's device are computed."""
    used = runtime()
    if tensor.device.type != "cpu":
        yield used.mx.gpu
    else:
        with used.lock:
            yield used.streams[0]


def istft(params: IstftParams, spectrum: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
    """Compute a resolved ``torch.istft`` whose envelope does not vanish.

    Args:
        spectrum: complex64, shape (bins, frames) or (rows, bins, frames), on CPU or MPS.
        window: float32 or complex64, shape (win_length,), or None.

    Returns:
        Shape (rows, output length) or (output length,), float32, or complex64 for
        ``return_complex=True``; contiguous.
    """
    kernels = metal_kernels(runtime().mx, spectrum.device.type)
    batched = spectrum if params.batched else spectrum.unsqueeze(0)
    if spectrum.device.type == "cpu" and kernels is None:
        signal = _istft_in_blocks(params, batched, window)
    else:
        signal = _istft_whole(kernels, params, batched, window)
    return signal if params.batched else signal.squeeze(0)


def _istft_in_blocks(
    params: IstftParams, spectrum: torch.Tensor, window: torch.Tensor | None
) -> torch.Tensor:
    key, values = _window_content(window)
    prepared = _prepared_window(params, key, values)
    envelope = _envelope(params, key, values)
    dtype = torch.complex64 if params.return_complex else torch.float32
    shape = (params.rows, params.output_length)
    signal = empty_result(shape, (params.output_length, 1), dtype)
    view = host_view(spectrum.transpose(1, 2))
    istft_blocks(runtime(), params, view, prepared, envelope, memory_of(signal))
    return signal


def _istft_whole(
    kernels: MetalKernels | None,
    params: IstftParams,
    spectrum: torch.Tensor,
    window: torch.Tensor | None,
) -> torch.Tensor:
    """A signal computed in one piece; shape (rows, output length)."""
    mx = runtime().mx
    key, values = _window_content(window)
    envelope = _envelope(params, key, values)
    by_frames = spectrum.transpose(1, 2)
    with _whole_arrays(spectrum) as stream:
        if kernels is None:
            borrowed = to_mlx(mx, by_frames)
            prepared = _prepared_window(params, key, values)
            result = istft_whole(mx, params, borrowed.array, prepared, envelope, stream)
        else:
            borrowed = to_mlx(mx, by_frames, stream)
            result = istft_fused(
                kernels,
                mx,
                params,
                borrowed.array,
                _kernel_window(kernels, params, key, values),
                _kernel_envelope(kernels, params, key, envelope),
                stream,
                frames_fastest=(dense_order(by_frames) or [2])[-1] == 1,
            )
        return _exported(mx, result, borrowed)


def _exported(mx: Any, result: Any, borrowed: Borrowed) -> torch.Tensor:
    """Evaluate and export ``result`` while the tensor it was computed from is still held."""
    exported = to_torch(mx, result)
    del borrowed
    return exported
