"""The demo's picture: torch's spectrogram and ours, their difference, speed, and who computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

Spectrum = npt.NDArray[np.complex64]
Image = npt.NDArray[np.float64]

#: Decibels below the loudest bin: what of the spectrograms is drawn, and of their difference.
FLOOR, DIFFERENCE = -80.0, (-180.0, -80.0)
#: Frames and rows that are drawn; the picture has about as many pixels.
MAX_COLUMNS, ROWS = 1600, 320
#: Where the axis of frequencies begins, and where it has marks.
LOWEST_HZ = 40.0
MARKS_HZ = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000)
COLOURS = {"native": "#777777", "patched": "#0072b2"}


def draw(
    path: Path, spectra: Mapping[str, Spectrum], report: Mapping[str, Any], n_fft: int
) -> None:
    """Write a PNG.

    Args:
        path: where to write.
        spectra: (bins, frames) of the same signal by torch alone (``"native"``) and ``"patched"``.
        report: of the demo.
        n_fft: of the spectra.

    Raises:
        ImportError: matplotlib is not installed.
    """
    # The object interface: pyplot would pick a backend and keep figures in global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 11), layout="constrained")
    *axes, speed = figure.subplots(4, 1, height_ratios=(3, 3, 3, 1.6))
    native, patched = spectra["native"], spectra["patched"]
    loudest = max(float(np.abs(native).max()), 1e-30)
    computed_by = _name(report["calls"]["stft"]["backend"])
    spectrograms = (FLOOR, 0.0), "magma"
    panels = (
        ("torch.stft by torch alone", native, *spectrograms),
        (f"torch.stft with patch(), computed by {computed_by}", patched, *spectrograms),
        (_describe_difference(native, patched, loudest), patched - native, DIFFERENCE, "viridis"),
    )
    for axis, (title, values, limits, colours) in zip(axes, panels, strict=True):
        image = _draw_spectrogram(axis, np.abs(values) / loudest, limits, colours, report, n_fft)
        axis.set_title(title, loc="left", fontsize=10)
        figure.colorbar(image, ax=axis, label="dB", pad=0.01)
    axes[-1].set_xlabel("seconds")
    _draw_speed(speed, report)
    figure.savefig(path, dpi=110)


def _name(backend: str) -> str:
    return "torch itself" if backend == "native" else backend


def _describe_difference(native: Spectrum, patched: Spectrum, loudest: float) -> str:
    largest = float(np.abs(patched - native).max()) / loudest
    if not largest:
        return "Difference of the two: none, bit for bit"
    return f"Difference of the two: at most {20 * np.log10(largest):.0f} dB of the loudest bin"


def _draw_spectrogram(
    axis: Axes,
    sizes: npt.NDArray[np.floating[Any]],
    limits: tuple[float, float],
    colours: str,
    report: Mapping[str, Any],
    n_fft: int,
) -> AxesImage:
    """Draw sizes (bins, frames) in decibels, on a logarithmic axis of frequencies."""
    rate, seconds = report["rate"], report["samples"] / report["rate"]
    drawn, edges = scale_logarithmically(sizes, rate, n_fft)
    image = axis.imshow(
        20 * np.log10(np.maximum(drawn, 1e-12)),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, seconds, 0, len(drawn)),
        vmin=limits[0],
        vmax=limits[1],
        cmap=colours,
    )
    marks = [mark for mark in MARKS_HZ if edges[0] <= mark <= edges[-1]]
    places = np.interp(np.log(marks), np.log(edges), np.arange(len(edges)))
    axis.set_yticks(places, [f"{mark / 1000:g}k" if mark >= 1000 else f"{mark}" for mark in marks])
    axis.set_ylabel("Hz")
    return image


def scale_logarithmically(
    sizes: npt.NDArray[np.floating[Any]], rate: int, n_fft: int
) -> tuple[Image, Image]:
    """Take the largest of the bins of each row and of the frames of each column.

    Args:
        sizes: (bins, frames) of a onesided spectrum.
        rate: samples per second.
        n_fft: of the spectrum.

    Returns:
        The rows, from low to high, and the frequencies between which they are.
    """
    frames = sizes.shape[1]
    starts = np.unique(np.linspace(0, frames, min(MAX_COLUMNS, frames), endpoint=False).astype(int))
    columns = np.maximum.reduceat(sizes, starts, axis=1)
    edges = np.geomspace(min(LOWEST_HZ, rate / 8), rate / 2, ROWS + 1)
    # A row without a bin of its own has the one that is nearest.
    bins = edges * n_fft / rate
    first = np.rint(bins[:-1]).astype(int).clip(0, len(sizes) - 1)
    last = np.maximum(first + 1, np.rint(bins[1:]).astype(int)).clip(1, len(sizes))
    last[-1] = len(sizes)
    rows = [columns[low:high].max(axis=0) for low, high in zip(first, last, strict=True)]
    return np.asarray(rows, np.float64), edges


def _draw_speed(axis: Axes, report: Mapping[str, Any]) -> None:
    """Draw what each function and the whole take as dots, and write how much faster that is."""
    rows = {
        f"torch.{op}, by {_name(call['backend'])}": (
            *(call[f"{side}_seconds"] for side in COLOURS),
            call["gain"],
        )
        for op, call in report["calls"].items()
    }
    native, patched = (report["results"][side]["separation_seconds"] for side in COLOURS)
    rows["whole separation"] = native, patched, native / patched
    for at, (*seconds, gain) in enumerate(rows.values()):
        taken = [1e3 * second for second in seconds]
        axis.plot(taken, [at, at], color="#bbbbbb", lw=2, zorder=1)
        axis.text(1.12 * max(taken), at, f"{gain:.2f}x", va="center", fontsize=9)
        for value, (side, colour) in zip(taken, COLOURS.items(), strict=True):
            label = "torch alone" if side == "native" else "with patch()"
            axis.plot(value, at, "o", color=colour, label=None if at else label)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xscale("log")
    axis.margins(x=0.12)
    # The labels that such an axis has by itself are powers, in fonts that not every machine has.
    low, high = axis.get_xlim()
    ticks = [digit * 10.0**power for power in range(-4, 7) for digit in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("ms, measured in this run")
    axis.set_title("Speed", loc="left", fontsize=10)
    axis.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
