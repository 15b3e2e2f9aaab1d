"""My STFT of MLX arrays, compared with torch's.

    COMMAND

Run it as it is: it works. Then put your own functions in the place of the lines between the marks.
"""

import mlx.core as mx

from stft_parity import Unsupported, from_mlx, with_arguments

# The parameters have torch's names and torch's defaults. Remove those that yours does not have:
# such calls are "unsupported" then, unless they pass torch's default. Others that torch has:
# normalized=False, onesided=None, return_complex (of stft; without it, True is meant).
# Gradients are those of mx.vjp.


def _stft(signal, n_fft, hop_length=None, win_length=None, window=None, center=True,
          pad_mode="reflect"):  # fmt: skip
    # signal: (samples,) or (rows, samples). A call that you cannot make raises Unsupported("why").
    if mx.complex64 in (signal.dtype, window is not None and window.dtype):
        raise Unsupported("complex signals and windows")
    if pad_mode != "reflect":
        raise Unsupported(f"pad_mode={pad_mode!r}")
    hop_length = n_fft // 4 if hop_length is None else hop_length
    window = _window(window, win_length, n_fft)
    # ---- yours, for example: return my_stft(signal, size=n_fft, step=hop_length, window=window)
    if center:
        half = n_fft // 2
        before, after = signal[..., 1 : half + 1], signal[..., -half - 1 : -1]
        signal = mx.concatenate([before[..., ::-1], signal, after[..., ::-1]], axis=-1)
    starts = mx.arange(0, signal.shape[-1] - n_fft + 1, hop_length)
    frames = signal[..., starts[:, None] + mx.arange(n_fft)]
    spectrum = mx.fft.rfft(frames * window)  # (rows, frames, bins)
    # ---- to here
    return spectrum.swapaxes(-1, -2)  # torch's is (rows, bins, frames)


def _istft(spectrum, n_fft, hop_length=None, win_length=None, window=None, center=True,
           length=None):  # fmt: skip
    # spectrum: (bins, frames) or (rows, bins, frames). No way back? Remove this and istft below.
    if window is not None and window.dtype == mx.complex64:
        raise Unsupported("complex windows")
    hop_length = n_fft // 4 if hop_length is None else hop_length
    window = _window(window, win_length, n_fft)
    # ---- yours
    frames = mx.fft.irfft(spectrum.swapaxes(-1, -2), n_fft) * window
    count = frames.shape[-2]
    samples = n_fft + hop_length * (count - 1)
    places = (mx.arange(count)[:, None] * hop_length + mx.arange(n_fft)).reshape(-1)
    flat = frames.reshape(*frames.shape[:-2], -1)
    added = mx.zeros((*flat.shape[:-1], samples)).at[..., places].add(flat)
    envelope = mx.zeros(samples).at[places].add(mx.tile(window**2, count))
    first = n_fft // 2 if center else 0
    last = samples - first if length is None else min(first + length, samples)
    signal = added[..., first:last] / envelope[first:last]
    # ---- to here
    missing = 0 if length is None else length - signal.shape[-1]
    return mx.pad(signal, [(0, 0)] * (signal.ndim - 1) + [(0, missing)])


def _window(window, win_length, n_fft):
    """Torch's meaning: no window is one of ones, and a shorter one lies in the middle."""
    length = n_fft if win_length is None else win_length
    given = mx.ones(length) if window is None else window
    left = (n_fft - length) // 2
    return mx.pad(given, [(left, n_fft - length - left)])


stft = from_mlx(with_arguments(_stft))
istft = from_mlx(with_arguments(_istft, op="istft"))
