"""Harmonic/percussive separation by median filtering, in plain torch.

This is the program that ``demo`` runs: it knows nothing of torch_mlx_spectro.

Source: D. FitzGerald, "Harmonic/percussive separation using median filtering", DAFx 2010.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

#: Elements of which medians are taken at a time: 64 MiB in float32.
CHUNK = 1 << 24


def separate(
    audio: torch.Tensor,
    n_fft: int = 2048,
    hop_length: int = 512,
    taps: int = 17,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split audio into what lasts (chords) and what strikes (drums); the two add up to it.

    Args:
        audio: real signal, (channels, samples), of more than ``n_fft // 2`` samples.
        n_fft: length of a frame in samples.
        hop_length: distance of frames in samples.
        taps: length of the medians, in frames along time and in bins along frequency; odd.
        on_progress: called with the fraction done, from 0 to 1.

    Returns:
        The harmonic and the percussive part, each shaped like ``audio``.
    """
    window = torch.hann_window(n_fft, dtype=audio.dtype, device=audio.device)
    spectrum = torch.stft(audio, n_fft, hop_length, window=window, return_complex=True)
    magnitude = spectrum.abs()
    # A sustained tone is a line along time, a stroke one along frequency.
    lasting = _median_along_last(magnitude, taps, lambda done: on_progress(done / 2))
    striking = _median_along_last(
        magnitude.transpose(1, 2), taps, lambda done: on_progress(0.5 + done / 2)
    ).transpose(1, 2)
    power = lasting.square()
    # The smallest normal number keeps silence from becoming 0 / 0.
    mask = power / (power + striking.square() + torch.finfo(audio.dtype).tiny)
    harmonic, percussive = (
        torch.istft(spectrum * part, n_fft, hop_length, window=window, length=audio.shape[-1])
        for part in (mask, 1 - mask)
    )
    return harmonic, percussive


def _median_along_last(
    values: torch.Tensor, taps: int, on_progress: Callable[[float], None]
) -> torch.Tensor:
    """Compute the running median of (channels, rows, columns) along columns; edges are repeated."""
    reach = taps // 2
    padded = torch.nn.functional.pad(values, (reach, reach), mode="replicate")
    neighbours = padded.unfold(-1, taps, 1)  # a view: (channels, rows, columns, taps)
    result = torch.empty_like(values)
    channels, n_rows, n_columns = values.shape
    rows = max(1, CHUNK // (channels * n_columns * taps))
    for start in range(0, n_rows, rows):
        part = slice(start, start + rows)
        result[:, part] = neighbours[:, part].median(dim=-1).values
        on_progress(min(1.0, (start + rows) / n_rows))
    return result
