"""torch-stft (``torch_stft.STFT``) as a candidate of the parity suite.

    torch-mlx-spectro parity --candidate parity_torch_stft --known parity_torch_stft.toml

from this folder. It takes batches of real signals, and windows by their names. Its release of 2019
passes an argument to librosa by position that has to be named since librosa 0.10: with today's,
every call raises a TypeError. That is mended here, or there would be nothing to compare.
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import librosa
import torch
import torch_stft.stft
import torch_stft.util
from scipy.signal import get_window

from stft_parity import Unsupported, adapter, with_arguments


def _pad_center(data: Any, size: int) -> Any:
    return librosa.util.pad_center(data, size=size)


torch_stft.stft.pad_center = _pad_center
torch_stft.util.librosa_util = SimpleNamespace(
    pad_center=_pad_center, normalize=librosa.util.normalize
)


@lru_cache(maxsize=64)
def _transform(n_fft: int, hop: int, length: int, window: str) -> torch_stft.STFT:
    return torch_stft.STFT(n_fft, hop, length, window)


def _find(n_fft: Any, hop_length: Any, win_length: Any, window: Any) -> torch_stft.STFT:
    length = n_fft if win_length is None else win_length
    hop = n_fft // 4 if hop_length is None else hop_length
    return _transform(n_fft, hop, length, _name_window(window, length))


def _name_window(window: Any, length: Any) -> str:
    """SciPy's name of a window, by its values."""
    if window is None:
        return "boxcar"
    if window.requires_grad:
        raise Unsupported("a gradient of the window")
    for name in ("hann", "hamming", "boxcar"):
        known = torch.from_numpy(get_window(name, length))
        if not window.is_complex() and torch.allclose(window.double(), known, atol=1e-6):
            return name
    raise Unsupported("a window without a name")


def _stft(
    signal: Any, n_fft: Any, hop_length: Any = None, win_length: Any = None, window: Any = None
) -> Any:
    if signal.ndim == 1:
        raise Unsupported("a signal without a batch")
    magnitude, phase = _find(n_fft, hop_length, win_length, window).transform(signal)
    return torch.polar(magnitude, phase)


def _istft(
    spectrum: Any,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    length: Any = None,
) -> Any:
    if spectrum.ndim == 2:
        raise Unsupported("a spectrum without a batch")
    module = _find(n_fft, hop_length, win_length, window)
    # What it was told last by a signal: how long the result is.
    module.num_samples = (spectrum.shape[-1] - 1) * module.hop_length if length is None else length
    return module.inverse(spectrum.abs(), spectrum.angle())


stft = with_arguments(adapter(_stft, torch_stft.STFT.transform))
istft = with_arguments(adapter(_istft, torch_stft.STFT.inverse), op="istft")
