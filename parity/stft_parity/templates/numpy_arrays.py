"""My STFT of NumPy arrays, compared with torch's.

    COMMAND

Run it as it is: it works. Then put your own functions in the place of the lines between the marks.
"""

import numpy as np

from stft_parity import Unsupported, from_numpy, with_arguments

# The parameters have torch's names and torch's defaults. Remove those that yours does not have:
# such calls are "unsupported" then, unless they pass torch's default. Others that torch has:
# normalized=False, onesided=None, return_complex (of stft; without it, True is meant).


def _stft(signal, n_fft, hop_length=None, win_length=None, window=None, center=True,
          pad_mode="reflect"):  # fmt: skip
    # signal: (samples,) or (rows, samples). A call that you cannot make raises Unsupported("why").
    if np.iscomplexobj(signal) or np.iscomplexobj(window):
        raise Unsupported("complex signals and windows")
    if pad_mode != "reflect":
        raise Unsupported(f"pad_mode={pad_mode!r}")
    hop_length = n_fft // 4 if hop_length is None else hop_length
    window = _window(window, win_length, n_fft)
    # ---- yours, for example: return my_stft(signal, size=n_fft, step=hop_length, window=window)
    if center:
        sides = [(0, 0)] * (signal.ndim - 1) + [(n_fft // 2, n_fft // 2)]
        signal = np.pad(signal, sides, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(signal, n_fft, axis=-1)[..., ::hop_length, :]
    spectrum = np.fft.rfft(frames * window)  # (rows, frames, bins)
    # ---- to here
    return spectrum.swapaxes(-1, -2)  # torch's is (rows, bins, frames)


def _istft(spectrum, n_fft, hop_length=None, win_length=None, window=None, center=True,
           length=None):  # fmt: skip
    # spectrum: (bins, frames) or (rows, bins, frames). No way back? Remove this and istft below.
    if np.iscomplexobj(window):
        raise Unsupported("complex windows")
    hop_length = n_fft // 4 if hop_length is None else hop_length
    window = _window(window, win_length, n_fft)
    # ---- yours
    frames = np.fft.irfft(spectrum.swapaxes(-1, -2), n_fft) * window
    samples = n_fft + hop_length * (frames.shape[-2] - 1)
    added, envelope = np.zeros((*frames.shape[:-2], samples)), np.zeros(samples)
    for number in range(frames.shape[-2]):
        here = slice(number * hop_length, number * hop_length + n_fft)
        added[..., here] += frames[..., number, :]
        envelope[here] += window**2
    first = n_fft // 2 if center else 0
    last = samples - first if length is None else min(first + length, samples)
    signal = added[..., first:last] / envelope[first:last]
    # ---- to here
    missing = 0 if length is None else length - signal.shape[-1]
    signal = np.pad(signal, [(0, 0)] * (signal.ndim - 1) + [(0, missing)])
    return signal.astype(np.empty(0, spectrum.dtype).real.dtype)


def _window(window, win_length, n_fft):
    """Torch's meaning: no window is one of ones, and a shorter one lies in the middle."""
    length = n_fft if win_length is None else win_length
    given = np.ones(length, np.float32) if window is None else window
    left = (n_fft - length) // 2
    return np.pad(given, (left, n_fft - length - left))


stft = from_numpy(with_arguments(_stft))
istft = from_numpy(with_arguments(_istft, op="istft"))
