"""The demo's picture; needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .audio import Samples

FLOOR = -80.0  # dB below the loudest bin of the input
MAX_COLUMNS = 1600  # frames drawn; the picture has fewer pixels across


def draw(path: Path, parts: dict[str, Samples], rate: int) -> None:
    """Write a PNG: the waveform of the first part, then the spectrogram of each.

    Args:
        path: where to write.
        parts: name -> samples, (channels, samples); the first sets the scale of decibels.
        rate: samples per second.

    Raises:
        ImportError: matplotlib is not installed.
    """
    # The object interface: pyplot would pick a backend and keep figures in global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.4 * (len(parts) + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(parts) + 1, 1, sharex=True)
    name, samples = next(iter(parts.items()))
    _draw_waveform(axes[0], samples.mean(axis=0), rate)
    axes[0].set_title(f"{name}: waveform", loc="left")
    loudest = float(_magnitude(samples).max())
    image = None
    for axis, (name, samples) in zip(axes[1:], parts.items(), strict=True):
        decibels = 20 * np.log10(np.maximum(_magnitude(samples), 1e-12) / max(loudest, 1e-12))
        image = axis.imshow(
            decibels,
            origin="lower",
            aspect="auto",
            extent=(0, samples.shape[1] / rate, 0, rate / 2000),
            vmin=FLOOR,
            vmax=0,
            cmap="magma",
        )
        axis.set_title(f"{name}: spectrogram", loc="left")
        axis.set_ylabel("kHz")
    axes[-1].set_xlabel("seconds")
    if image is not None:
        figure.colorbar(image, ax=list(axes[1:]), label="dB")
    figure.savefig(path, dpi=110)


def _draw_waveform(axis: Axes, mono: Samples, rate: int) -> None:
    """Fill between the least and the greatest sample of each column of the picture."""
    width = max(1, len(mono) // MAX_COLUMNS)
    columns = mono[: len(mono) // width * width].reshape(-1, width)
    time = np.arange(len(columns)) * width / rate
    axis.fill_between(time, columns.min(axis=1), columns.max(axis=1), linewidth=0.5)
    axis.set_ylim(-1, 1)
    axis.set_ylabel("amplitude")


def _magnitude(samples: Samples) -> Samples:
    """Magnitudes (bins, frames) of the channels' mean, at most ``MAX_COLUMNS`` frames or so."""
    n_fft = 2048
    hop = max(n_fft // 4, samples.shape[1] // MAX_COLUMNS)
    mono = torch.from_numpy(np.ascontiguousarray(samples.mean(axis=0)))
    spectrum = torch.stft(mono, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True)
    return np.asarray(spectrum.abs().numpy(), np.float32)
