"""torchlibrosa's ``STFT`` and ``ISTFT`` as a candidate of the parity suite.

    torch-mlx-spectro parity --candidate parity_torchlibrosa --known parity_torchlibrosa.toml

from this folder. They are modules that multiply by a matrix, made for one set of arguments and a
window by name or as an array. They take batches of real signals.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torchlibrosa import stft as torchlibrosa

from stft_parity import Unsupported, adapter, with_arguments


def _window(window: Any, win_length: Any, n_fft: Any) -> Any:
    """Ones where there is no window, as in torch; the modules would take a Hann window."""
    if window is None:
        return np.ones(n_fft if win_length is None else win_length)
    if window.requires_grad:
        raise Unsupported("a gradient of the window")
    if window.is_complex():
        raise Unsupported("a complex window")
    return window.numpy()


def _stft(
    signal: Any,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    center: Any = True,
    pad_mode: Any = "reflect",
) -> Any:
    if signal.ndim == 1:
        raise Unsupported("a signal without a batch")
    if center and pad_mode not in ("reflect", "constant"):
        raise Unsupported(f"pad_mode={pad_mode!r}")
    hop_length = n_fft // 4 if hop_length is None else hop_length  # theirs is of win_length
    given = _window(window, win_length, n_fft)
    module = torchlibrosa.STFT(n_fft, hop_length, win_length, given, center, pad_mode)
    real, imaginary = module(signal)
    return torch.complex(real, imaginary)[:, 0].transpose(1, 2)


def _istft(
    spectrum: Any,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    center: Any = True,
    length: Any = None,
) -> Any:
    if spectrum.ndim == 2:
        raise Unsupported("a spectrum without a batch")
    hop_length = n_fft // 4 if hop_length is None else hop_length
    module = torchlibrosa.ISTFT(
        n_fft, hop_length, win_length, _window(window, win_length, n_fft), center
    )
    frames = spectrum.transpose(1, 2)[:, None]
    return module(frames.real, frames.imag, length)


stft = with_arguments(adapter(_stft, torchlibrosa.STFT.forward))
istft = with_arguments(adapter(_istft, torchlibrosa.ISTFT.forward), op="istft")
