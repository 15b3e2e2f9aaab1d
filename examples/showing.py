"""What the examples of the gallery share: their options, who computed and how fast, pictures."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sounds import RATE

import torch_mlx_spectro as tms

#: Runs in which `auto` finds out who is fastest, at most, and the seconds that it may take.
SETTLING, PATIENCE = 40, 5.0
#: Runs of each side that are timed.
TURNS = 7
#: Decibels below the loudest that a picture shows, and the cells that it has.
RANGE, COLUMNS, ROWS = 60.0, 200, 60
#: Legible on white and on black: pictures have no background of their own.
INK = "#808080"


def parse(text: str | None, seconds: float, patching: bool = True) -> argparse.ArgumentParser:
    """The options that all examples have, and ``--backend`` of those that patch."""
    parser = argparse.ArgumentParser(description=(text or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=seconds, help="default: %(default)s")
    if patching:
        parser.add_argument("--backend", choices=("auto", "cpu", "mlx", "native"), default="auto")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), metavar="FOLDER")
    return parser


def compare(program: Callable[..., torch.Tensor], *given: Any, backend: Any) -> torch.Tensor:
    """Run a program by torch alone and with ``patch()``; print who computed and how fast.

    Returns:
        What the program returns with ``patch()``.
    """
    seconds: dict[str, list[float]] = {"alone": [], "patched": []}
    with tms.patch(backend):
        until = time.perf_counter() + PATIENCE
        for _ in range(SETTLING if backend == "auto" else 1):  # auto tries who is fastest
            program(*given)
            if time.perf_counter() > until:
                break
        tms.reset_stats()
        result = program(*given)
        calls = describe_calls()
        for _ in range(TURNS):  # in turns: the speed of a machine changes from moment to moment
            with tms.backend("native"):
                expected = clocked(seconds["alone"], program, *given)
            clocked(seconds["patched"], program, *given)
    alone, patched = (statistics.median(taken) for taken in seconds.values())
    print(f"torch alone:  {1e3 * alone:.1f} ms")
    print(f"with patch(): {1e3 * patched:.1f} ms, {alone / patched:.2f} times as fast")
    print(f"computed by:  {calls}")
    print(f"difference:   {float((result - expected).abs().max()):.0e} at most")
    return result


def clocked(taken: list[float], program: Callable[..., torch.Tensor], *given: Any) -> torch.Tensor:
    """Run a program and note its seconds."""
    begin = time.perf_counter()
    result = program(*given)
    taken.append(time.perf_counter() - begin)
    return result


def describe_calls() -> str:
    """Say who computed how many calls since the statistics were reset."""
    calls = sorted(tms.stats().calls.items())
    return ", ".join(f"{op} {backend} ({count})" for (op, backend), count in calls)


def draw(path: Path, sounds: Mapping[str, torch.Tensor], n_fft: int = 512, top: int = 6000) -> None:
    """Draw a spectrogram of each sound, one above the other, into a PNG.

    Args:
        path: where to.
        sounds: by title, each (samples,) or (channels, samples), of which the mean is drawn.
        n_fft: of the spectrograms.
        top: the highest frequency that is drawn, in Hz.
    """
    figure = make_figure(5.4, 1.7 * len(sounds))
    axes = figure.subplots(len(sounds), 1, sharex=True, squeeze=False)[:, 0]
    cells = [cut_cells(sound, n_fft, top) for sound in sounds.values()]
    loudest = max(float(values.max()) for values in cells)
    for axis, title, sound, values in zip(axes, sounds, sounds.values(), cells, strict=True):
        # In steps of 3 dB: the file is a third as large.
        shown = 3 * (20 / 3 * (values / loudest).clamp(min=1e-9).log10()).round()
        axis.imshow(
            shown.numpy(),
            origin="lower", aspect="auto", interpolation="nearest", cmap="magma",
            extent=(0, sound.shape[-1] / RATE, 0, top / 1000), vmin=-RANGE, vmax=0,
        )  # fmt: skip
        finish_axis(axis, title, "kHz")
    axes[-1].set_xlabel("seconds", color=INK, fontsize=11)
    save(figure, path)


def draw_features(path: Path, features: Sequence[torch.Tensor]) -> None:
    """Draw the features of clips, each (bands, frames), side by side into a PNG."""
    wide = 3
    high = -(-len(features) // wide)
    figure = make_figure(5.4, 1.0 * high + 0.2)
    for index, axis in enumerate(figure.subplots(high, wide, squeeze=False).flat):
        axis.set_axis_off()
        if index < len(features):
            cells = torch.nn.functional.adaptive_max_pool2d(features[index][None], (24, 60))[0]
            axis.imshow(
                cells.numpy(), origin="lower", aspect="auto", interpolation="nearest", cmap="magma",
                vmin=-3, vmax=4,
            )  # fmt: skip
            axis.set_title(f"clip {index}", loc="left", fontsize=11, color=INK)
    save(figure, path)


def cut_cells(sound: torch.Tensor, n_fft: int, top: int) -> torch.Tensor:
    """The loudest magnitude within each cell of a picture: (rows, columns)."""
    mono = sound.detach().reshape(-1, sound.shape[-1]).mean(0)
    hop = max(1, min(n_fft // 4, len(mono) // COLUMNS))
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(mono, n_fft, hop, window=window, return_complex=True).abs()
    shown = spectrum[: n_fft * top // RATE]
    return torch.nn.functional.adaptive_max_pool2d(
        shown[None], (min(ROWS, shown.shape[0]), min(COLUMNS, shown.shape[1]))
    )[0]


def make_figure(width: float, height: float) -> Any:
    """Make an empty figure; without matplotlib say what to install, and end."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("The picture needs pip install 'torch-mlx-spectro[plot]'.") from None
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    FigureCanvasAgg(figure)
    return figure


def finish_axis(axis: Any, title: str, label: str) -> None:
    """Write what an axis shows, in a colour that is legible on white and on black."""
    axis.set_title(title, loc="left", fontsize=12, color=INK, fontweight="bold")
    axis.set_ylabel(label, color=INK, fontsize=11)
    axis.tick_params(colors=INK, labelsize=11)
    axis.set_facecolor("none")
    for spine in axis.spines.values():
        spine.set_color(INK)


def save(figure: Any, path: Path) -> None:
    """Write a PNG and say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    print(f"wrote {path}")
