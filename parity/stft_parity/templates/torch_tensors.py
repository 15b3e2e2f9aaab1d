"""My STFT of torch's tensors, compared with torch's own.

    COMMAND

Run it as it is: it works. Then put your own functions in the place of the lines between the marks.
"""

import torch

from stft_parity import Unsupported, with_arguments

# The parameters have torch's names and torch's defaults. Remove those that yours does not have:
# such calls are "unsupported" then, unless they pass torch's default. Others that torch has:
# normalized=False, onesided=None, return_complex (of stft; without it, True is meant).
# Does yours take all of torch's arguments? Then this file is "from yours import stft, istft".


def _stft(signal, n_fft, hop_length=None, win_length=None, window=None, center=True,
          pad_mode="reflect"):  # fmt: skip
    # signal: (samples,) or (rows, samples). A call that you cannot make raises Unsupported("why").
    if signal.is_complex() or (window is not None and window.is_complex()):
        raise Unsupported("complex signals and windows")
    hop_length = n_fft // 4 if hop_length is None else hop_length
    window = _window(signal, window, win_length, n_fft)
    # ---- yours, for example: return my_stft(signal, size=n_fft, step=hop_length, window=window)
    if center:
        sides = (n_fft // 2, n_fft // 2)
        batch = signal.reshape(-1, 1, signal.shape[-1])
        padded = torch.nn.functional.pad(batch, sides, mode=pad_mode)
        signal = padded.reshape(*signal.shape[:-1], -1)
    frames = signal.unfold(-1, n_fft, hop_length)
    return torch.fft.rfft((frames * window).transpose(-1, -2), dim=-2)  # (rows, bins, frames)
    # ---- to here


def _istft(spectrum, n_fft, hop_length=None, win_length=None, window=None, center=True,
           length=None):  # fmt: skip
    # spectrum: (bins, frames) or (rows, bins, frames). No way back? Remove this and istft below.
    if window is not None and window.is_complex():
        raise Unsupported("complex windows")
    hop_length = n_fft // 4 if hop_length is None else hop_length
    window = _window(spectrum.real, window, win_length, n_fft)
    # ---- yours
    frames = torch.fft.irfft(spectrum.transpose(-1, -2), n_fft) * window
    samples = n_fft + hop_length * (frames.shape[-2] - 1)
    added, envelope = frames.new_zeros(*frames.shape[:-2], samples), window.new_zeros(samples)
    for number in range(frames.shape[-2]):
        here = slice(number * hop_length, number * hop_length + n_fft)
        added[..., here] = added[..., here] + frames[..., number, :]
        envelope[here] = envelope[here] + window**2
    first = n_fft // 2 if center else 0
    last = samples - first if length is None else min(first + length, samples)
    signal = added[..., first:last] / envelope[first:last]
    # ---- to here
    missing = 0 if length is None else length - signal.shape[-1]
    return torch.nn.functional.pad(signal, (0, missing))


def _window(like, window, win_length, n_fft):
    """Torch's meaning: no window is one of ones, and a shorter one lies in the middle."""
    length = n_fft if win_length is None else win_length
    given = like.new_ones(length) if window is None else window
    if length == n_fft:
        return given
    left = (n_fft - length) // 2
    return torch.nn.functional.pad(given, (left, n_fft - length - left))


stft = with_arguments(_stft)
istft = with_arguments(_istft, op="istft")
