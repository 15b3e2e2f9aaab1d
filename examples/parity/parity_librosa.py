"""librosa's stft and istft as a candidate of the parity suite.

    torch-mlx-spectro parity --candidate parity_librosa --known parity_librosa.toml

from this folder. Arguments of torch's are said in librosa's words, and what librosa does not offer
is unsupported. Nothing else is mended: what is left is in what librosa differs, and the list beside
this file has all of it.
"""

from __future__ import annotations

from typing import Any

import librosa
import numpy as np

from stft_parity import Unsupported, from_numpy, with_arguments

#: torch's padding in NumPy's words. librosa refuses "wrap", which would be circular.
PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def _stft(
    y: Any,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    center: Any = True,
    pad_mode: Any = "reflect",
    onesided: Any = None,
    return_complex: Any = None,
) -> Any:
    if return_complex is not True:
        raise Unsupported("a spectrum of pairs of real numbers")
    if onesided is False or np.iscomplexobj(y) or np.iscomplexobj(window):
        raise Unsupported("a two-sided spectrum")
    if pad_mode == "circular":
        raise Unsupported("pad_mode='circular'")
    return librosa.stft(
        y,
        n_fft=n_fft,
        # torch's default is of n_fft, librosa's of win_length.
        hop_length=n_fft // 4 if hop_length is None else hop_length,
        win_length=win_length,
        window=_window(window, win_length, n_fft),
        center=center,
        pad_mode=PAD_MODES.get(pad_mode, pad_mode),
    )


def _istft(
    spectrum: Any,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    center: Any = True,
    onesided: Any = None,
    length: Any = None,
) -> Any:
    if onesided is False or (onesided is None and spectrum.shape[-2] == n_fft != 1):
        raise Unsupported("a two-sided spectrum")
    if np.iscomplexobj(window):
        raise Unsupported("a complex window")
    return librosa.istft(
        spectrum,
        n_fft=n_fft,
        hop_length=n_fft // 4 if hop_length is None else hop_length,
        win_length=win_length,
        window=_window(window, win_length, n_fft),
        center=center,
        length=length,
    )


def _window(window: Any, win_length: Any, n_fft: Any) -> Any:
    """Ones where there is no window, as in torch; librosa would take a Hann window."""
    return np.ones(n_fft if win_length is None else win_length) if window is None else window


stft = from_numpy(with_arguments(_stft))
istft = from_numpy(with_arguments(_istft, op="istft"))
