"""``scipy.signal.ShortTimeFFT`` as a candidate of the parity suite.

    torch-mlx-spectro parity --candidate parity_scipy --known parity_scipy.toml

from this folder. Arguments of torch's are said in SciPy's words, and what SciPy does not offer is
unsupported. Nothing else is mended: what is left is in what SciPy differs, and the list beside this
file has all of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.signal import ShortTimeFFT

from stft_parity import Unsupported, from_numpy, with_arguments

#: torch's padding in SciPy's words; nothing there is circular.
PADDINGS = {"constant": "zeros", "reflect": "even", "replicate": "edge"}


def _transform(
    n_fft: Any, hop_length: Any, win_length: Any, window: Any, onesided: bool
) -> ShortTimeFFT:
    """The transform whose slices are torch's frames: a window of n_fft, and no shift of phase."""
    hop = n_fft // 4 if hop_length is None else hop_length
    length = n_fft if win_length is None else win_length
    given = np.ones(length) if window is None else window
    left = (n_fft - length) // 2
    padded = np.pad(given, (left, n_fft - length - left))
    # SciPy multiplies by the conjugate of the window, torch by the window itself.
    mode = "onesided" if onesided else "twosided"
    return ShortTimeFFT(np.conj(padded), hop, 1.0, fft_mode=mode, phase_shift=None)


def _stft(
    x: Any,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    center: Any = True,
    pad_mode: Any = "reflect",
    onesided: Any = None,
    return_complex: Any = None,
) -> Any:
    if return_complex is not True and not np.iscomplexobj(x) and not np.iscomplexobj(window):
        raise Unsupported("a spectrum of pairs of real numbers")
    if center and pad_mode == "circular":
        raise Unsupported("pad_mode='circular'")
    complex_values = np.iscomplexobj(x) or np.iscomplexobj(window)
    transform = _transform(
        n_fft, hop_length, win_length, window, not complex_values if onesided is None else onesided
    )
    samples = x.shape[-1]
    if center:
        last = 1 + (samples + n_fft // 2 * 2 - n_fft) // transform.hop
        return transform.stft(x, 0, last, padding=PADDINGS.get(pad_mode, pad_mode))
    last = 1 + (samples - n_fft) // transform.hop
    return transform.stft(x, 0, last, k_offset=n_fft // 2)


def _istft(
    spectrum: Any,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    center: Any = True,
    onesided: Any = None,
    length: Any = None,
    return_complex: Any = False,
) -> Any:
    if return_complex:
        raise Unsupported("a complex signal")
    if onesided is False or (onesided is None and spectrum.shape[-2] == n_fft != 1):
        raise Unsupported("a real signal of a two-sided spectrum")
    transform = _transform(n_fft, hop_length, win_length, window, True)
    frames = spectrum.shape[-1]
    # SciPy's first slices are those before sample 0, which torch does not have.
    before = [(0, 0)] * (spectrum.ndim - 1) + [(-transform.p_min, 0)]
    whole = np.pad(spectrum, before)
    start = 0 if center else -(n_fft // 2)
    if length is None:
        length = n_fft + (frames - 1) * transform.hop - (n_fft // 2 * 2 if center else 0)
    return transform.istft(whole, start, start + length)


stft = from_numpy(with_arguments(_stft))
istft = from_numpy(with_arguments(_istft, op="istft"))
