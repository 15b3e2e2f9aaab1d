"""Candidates that are right: they add in another order than native torch does."""

from __future__ import annotations

from typing import Any

import torch
from faulty_candidates import ISTFT, STFT, Arguments
from torch.nn import functional

from stft_parity.candidates import DEFAULTS, bound


def _shortest(given: Arguments) -> tuple[int, int, torch.Tensor]:
    """n_fft, hop, and the window in a frame of n_fft samples."""
    n_fft = int(given["n_fft"])
    hop = n_fft // 4 if given["hop_length"] is None else int(given["hop_length"])
    win = n_fft if given["win_length"] is None else int(given["win_length"])
    real = given["input"].real.dtype
    window = torch.ones(win, dtype=real) if given["window"] is None else given["window"]
    before = (n_fft - win) // 2
    return n_fft, hop, functional.pad(window, (before, n_fft - win - before))


def stft_by_complex_fft(*args: Any, **kwargs: Any) -> torch.Tensor:
    """Right: by complex FFTs of all bins; what is no number is native's."""
    result = STFT(*args, **kwargs)
    given = DEFAULTS["stft"] | bound("stft", args, kwargs)
    signal, (n_fft, hop, window) = given["input"], _shortest(given)
    pairs = not result.is_complex()
    n_bins, n_frames = result.shape[-3:-1] if pairs else result.shape[-2:]
    if given["center"]:
        rows = signal if signal.dim() > 1 else signal[None]
        signal = functional.pad(rows, (n_fft // 2, n_fft // 2), given["pad_mode"])
        signal = signal.view(*given["input"].shape[:-1], -1)
    elif given["align_to_window"]:
        win = n_fft if given["win_length"] is None else int(given["win_length"])
        signal = functional.pad(signal, ((n_fft - win) // 2, (n_fft - win) // 2))
    frames = signal.unfold(-1, n_fft, hop)[..., :n_frames, :]
    spectrum = torch.fft.fft(frames * window, norm="ortho" if given["normalized"] else None)
    spectrum = spectrum[..., :n_bins].transpose(-1, -2)
    return _in_place_of(result, torch.view_as_real(spectrum) if pairs else spectrum)


def istft_by_complex_fft(*args: Any, **kwargs: Any) -> torch.Tensor:
    """Right: by complex FFTs of all bins, frame after frame; what is no number is native's."""
    result = ISTFT(*args, **kwargs)
    given = DEFAULTS["istft"] | bound("istft", args, kwargs)
    n_fft, hop, window = _shortest(given)
    spectrum = given["input"].transpose(-1, -2)
    if not given["return_complex"]:
        half = spectrum[..., : n_fft // 2 + 1]
        real = torch.zeros(n_fft // 2 + 1, dtype=torch.bool)
        real[0] = True
        real[n_fft // 2] |= n_fft % 2 == 0
        half = torch.where(real, half.real + 0j, half)
        mirrored = n_fft - torch.arange(n_fft // 2 + 1, n_fft)
        spectrum = torch.cat((half, half[..., mirrored].conj()), -1)
    frames = torch.fft.ifft(spectrum, norm="ortho" if given["normalized"] else None)
    frames = (frames if given["return_complex"] else frames.real) * window
    n_frames = frames.shape[-2]
    at = (torch.arange(n_frames)[:, None] * hop + torch.arange(n_fft)).flatten()
    total = frames.new_zeros((*frames.shape[:-2], n_fft + hop * (n_frames - 1)))
    signal = total.index_add(-1, at, frames.flatten(-2))
    envelope = torch.zeros(total.shape[-1], dtype=window.dtype)
    envelope = envelope.index_add(0, at, window.square().repeat(n_frames))
    start, samples = n_fft // 2 if given["center"] else 0, result.shape[-1]
    # First cut, then divided: zero by zero has no gradient, even where it is cut off.
    signal = signal[..., start : start + samples] / envelope[start : start + samples]
    return _in_place_of(result, functional.pad(signal, (0, samples - signal.shape[-1])))


def _in_place_of(result: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """``values`` with the memory order, and in the graph, that ``result`` has; bits are settled."""
    order = torch.empty_strided(result.shape, result.stride(), dtype=result.dtype)
    return order.copy_(values)
