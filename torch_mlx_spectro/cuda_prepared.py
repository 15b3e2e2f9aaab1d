"""What a CUDA call prepares from its window, on the device, without waiting for it.

The window of an analysis is scaled and padded where it is: its values never come to the host. An
istft needs to know whether its envelope vanishes (torch then raises), so the values are read once
for each version of the window, as of MPS tensors (:func:`.prepared.window_of`).

What is kept belongs to one stream: what a stream's kernels wrote is there when its next ones read
it, and memory that is given back is used again by that stream alone. While a CUDA graph is captured
nothing is kept or taken from what was: the graph prepares windows and envelopes each time that it
runs, from the values that they then have.
"""

from __future__ import annotations

import torch

from . import torch_state
from .device_windows import Scaled, padded, scaled
from .params import IstftParams
from .prepared import Cache, Window, envelope_of

CACHE_ENTRIES = 256

Optional = torch.Tensor | None

_windows = Cache(CACHE_ENTRIES)
_envelopes = Cache(CACHE_ENTRIES)


def scaled_window(
    window: Optional,
    win_length: int,
    n_fft: int,
    factor: float,
    device: torch.device,
    conjugate: bool = False,
) -> torch.Tensor:
    """The window as a kernel reads it: n_fft values, padded as torch pads them, times ``factor``.

    Args:
        window: shape (win_length,), or None for ones.
    """
    stream = torch_state.cuda_stream(device.index)
    what = (win_length, n_fft, factor, conjugate, device.index, stream)
    if window is None:

        def ones() -> torch.Tensor:
            values = torch.full((win_length,), factor, dtype=torch.float32, device=device)
            return padded(values, n_fft)

        made: torch.Tensor = ones() if torch_state.is_capturing() else _windows.get(what, ones)
        return made
    if window.is_inference() or torch_state.is_capturing():  # inference tensors count no versions
        return scaled(window, n_fft, factor, conjugate)

    def make() -> Scaled:
        return Scaled(window, scaled(window, n_fft, factor, conjugate))

    key = (id(window), *what)
    found: Scaled = _windows.get(key, make)
    if not found.is_of(window):
        found = _windows.put(key, make())
    return found.values


def window_of_values(
    window: Optional, values: Window, factor: float, device: torch.device
) -> torch.Tensor:
    """:func:`scaled_window` of a window whose values are known: one for all windows of these."""
    win_length, n_fft = values.win_length, values.n_fft

    def make() -> torch.Tensor:
        return scaled_window(window, win_length, n_fft, factor, device)

    if window is None or torch_state.is_capturing():
        return make()
    stream = torch_state.cuda_stream(device.index)
    key = (values.key, win_length, n_fft, factor, device.index, stream)
    found: torch.Tensor = _windows.get(key, make)
    return found


def device_envelope(
    params: IstftParams,
    window: Optional,
    values: Window,
    device: torch.device,
    conjugate: bool = False,
) -> torch.Tensor:
    """The rows of the inverse envelope as a kernel reads them, flat.

    Args:
        window: of the call.
        values: its values.
        conjugate: for a complex window, the rows' conjugates.
    """
    if torch_state.is_capturing():
        rows = _rows_on_device(params, window, device)
        return rows.conj().resolve_conj() if conjugate else rows
    # Rows depend on the number of frames only where frames are few.
    key = (
        values.key,
        params.n_fft,
        params.hop_length,
        params.win_length,
        params.scale,
        min(params.frames, params.overlap),
        conjugate,
        device.index,
        torch_state.cuda_stream(device.index),
    )

    def make() -> torch.Tensor:
        rows = torch.from_numpy(envelope_of(params, values).rows).flatten()
        return _uploaded((rows.conj() if conjugate else rows).resolve_conj(), device)

    found: torch.Tensor = _envelopes.get(key, make)
    return found


def _uploaded(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Host values on a device, in the order of its stream.

    From pinned memory: of any other the copy would be waited for.
    """
    return values.pin_memory().to(device, non_blocking=True)


def _rows_on_device(params: IstftParams, window: Optional, device: torch.device) -> torch.Tensor:
    """:attr:`.envelope.Envelope.rows`, flat, by torch's operations."""
    if window is None:
        window = torch.ones(params.win_length, dtype=torch.float32, device=device)
    values = window.detach()
    wide = values.to(torch.complex128 if values.is_complex() else torch.float64)
    overlap, hop = params.overlap, params.hop_length
    squares = torch.nn.functional.pad(
        padded(wide * wide, params.n_fft), (0, overlap * hop - params.n_fft)
    )
    frames = min(params.frames, overlap)
    around = (0, 0, frames - 1, frames - 1)
    rows = torch.nn.functional.pad(squares.view(overlap, hop), around).unfold(0, frames, 1).sum(-1)
    inverse = torch.where(rows == 0, 0, params.scale / rows)
    return inverse.to(values.dtype).flatten()


def forget() -> None:
    """Drop what was prepared."""
    _windows.clear()
    _envelopes.clear()
