"""auvux-dsp's ``stft`` and ``istft`` (C++) as a candidate of the parity suite.

    torch-mlx-spectro parity --candidate parity_auvux --known parity_auvux.toml

from this folder. They take tensors, and gradients of the signal come from kernels of their own.
"""

from __future__ import annotations

from typing import Any

import auvux.dsp
import numpy as np

from stft_parity import Unsupported, adapter, with_arguments

PAD_MODES = ("constant", "reflect")
#: It asks for the sample rate of every signal, and does not use it in these two functions.
RATE = 1.0


def _stft(
    signal: Any,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    center: Any = True,
    pad_mode: Any = "reflect",
) -> Any:
    if signal.is_complex():
        raise Unsupported("a complex signal")
    if center and pad_mode not in PAD_MODES:
        raise Unsupported(f"pad_mode={pad_mode!r}")
    return auvux.dsp.stft(
        signal,
        sr=RATE,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        window=_window(window, win_length, n_fft),
        center=center,
        pad_mode=pad_mode,
    )


def _istft(
    spectrum: Any,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    center: Any = True,
    length: Any = None,
) -> Any:
    return auvux.dsp.istft(
        spectrum,
        sr=RATE,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        window=_window(window, win_length, n_fft),
        center=center,
        length=length,
    )


def _window(window: Any, win_length: Any, n_fft: Any) -> Any:
    """An array, of ones where there is no window, as in torch."""
    if window is None:
        return np.ones(n_fft if win_length is None else win_length)
    if window.requires_grad:
        raise Unsupported("a gradient of the window")
    if window.is_complex():
        raise Unsupported("a complex window")
    return window.numpy()


stft = with_arguments(adapter(_stft, auvux.dsp.stft))
istft = with_arguments(adapter(_istft, auvux.dsp.istft), op="istft")
