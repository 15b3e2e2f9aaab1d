"""What a call on MPS tensors prepares from its window, kept for the next call with it.

torch has one stream of MPS commands: what earlier commands wrote is there when later ones read. The
values of a window come to the host once for each version of it (an istft needs to know whether its
envelope vanishes: torch then raises), which waits for the device; nothing else does.
"""

from __future__ import annotations

import torch

from .device_windows import Scaled, padded, scaled
from .params import IstftParams
from .prepared import Cache, Window, envelope_of, window_of

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
    what = (win_length, n_fft, factor, conjugate, device)
    if window is None:

        def ones() -> torch.Tensor:
            values = torch.full((win_length,), factor, dtype=torch.float32, device=device)
            return padded(values, n_fft)

        made: torch.Tensor = _windows.get(what, ones)
        return made
    if window.is_inference():  # counts no versions
        return scaled(window, n_fft, factor, conjugate)
    if window.is_cpu:  # of an emulated device; numpy may write it, which no version tells
        return window_of_values(window_of(window, win_length, n_fft), factor, device, conjugate)

    def make() -> Scaled:
        return Scaled(window, scaled(window, n_fft, factor, conjugate))

    key = (id(window), *what)
    found: Scaled = _windows.get(key, make)
    if not found.is_of(window):
        found = _windows.put(key, make())
    return found.values


def window_of_values(
    values: Window, factor: float, device: torch.device, conjugate: bool = False
) -> torch.Tensor:
    """:func:`scaled_window` of a window whose values are known: one for all windows of these."""

    def make() -> torch.Tensor:
        return torch.from_numpy(values.scaled(factor, conjugate)).to(device)

    key = (values.key, values.win_length, values.n_fft, factor, conjugate, device)
    found: torch.Tensor = _windows.get(key, make)
    return found


def envelope_rows(
    params: IstftParams, values: Window, device: torch.device, conjugate: bool = False
) -> torch.Tensor:
    """The rows of the inverse envelope as a kernel reads them, flat.

    Args:
        values: of the call's window.
        conjugate: for a complex window, the rows' conjugates.
    """
    # Rows depend on the number of frames only where frames are few.
    key = (
        values.key,
        params.n_fft,
        params.hop_length,
        params.win_length,
        params.scale,
        min(params.frames, params.overlap),
        conjugate,
        device,
    )

    def make() -> torch.Tensor:
        rows = envelope_of(params, values).rows.reshape(-1)
        return torch.from_numpy(rows.conj() if conjugate else rows).to(device)

    found: torch.Tensor = _envelopes.get(key, make)
    return found


def forget() -> None:
    """Drop what was prepared."""
    _windows.clear()
    _envelopes.clear()
