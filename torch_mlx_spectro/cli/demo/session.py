"""A run of ``demo``: both backends are measured; their results are written, drawn and printed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import torch_mlx_spectro as tms

from ...bench.measuring import make_clock
from ...errors import Problem
from ...terminal import make_console, table
from . import audio
from .separation import separate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

N_FFT, HOP = 2048, 512
#: How far the error against float64 may exceed native torch's own before it is no rounding error.
ERROR_RATIO = 4.0
REPEATS = 3

Stems = tuple[torch.Tensor, torch.Tensor]


def run(options: argparse.Namespace) -> int:
    """Run the demo; return 0 when MLX and native torch agree to rounding, else 1.

    Raises:
        Problem: the input cannot be read, the output cannot be written, or MLX is not usable.
    """
    mlx = tms.available_backends()["mlx"]
    if not mlx.available:
        raise Problem(f"MLX is not available: {mlx.reason}; see `torch-mlx-spectro doctor`", 1)
    source, recording = _load(options.input)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(f"--output {options.output}: {error.strerror}") from None
    samples = torch.from_numpy(recording.samples)
    results, stems, difference = _compare(samples)
    parts = {
        name: audio.Recording(stem.numpy(), recording.rate)
        for name, stem in zip(("harmonic", "percussive"), stems, strict=True)
    }
    files, notes = _write(options.output, {"input": recording} | parts)
    ours, native = (results[name]["stem_error"] for name in ("mlx", "native"))
    report = {
        "ok": ours <= ERROR_RATIO * native,
        "source": source,
        "channels": samples.shape[0],
        "samples": samples.shape[1],
        "rate": recording.rate,
        "routes": _routes(samples),
        "results": results,
        "max_difference": difference,
        "files": files,
        "notes": notes,
    }
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0 if report["ok"] else 1


def _load(path: Path | None) -> tuple[str, audio.Recording]:
    """Load the recording, and describe it in words."""
    if path is None:
        chords, drums = audio.synthesise()
        mix = audio.Recording(chords.samples + drums.samples, chords.rate)
        return "a clip synthesised by this program: chords and drums, no real recording", mix
    try:
        recording = audio.read_wav(path)
    except audio.UnreadableAudio as error:
        raise Problem(f"--input {path}: {error}") from None
    if recording.samples.shape[1] <= N_FFT:
        raise Problem(f"--input {path}: too short, more than {N_FFT} samples are needed")
    return str(path), recording


def _compare(audio: torch.Tensor) -> tuple[dict[str, dict[str, Any]], Stems, float]:
    """Measure both backends.

    Returns:
        The measurements by backend, the stems by MLX, and how far they are from native torch's.
    """
    # The bar goes to stderr, so that it does not get into the JSON.
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    ) as progress:

        def follow(description: str) -> Callable[[float], None]:
            task = progress.add_task(description, total=1.0)
            return lambda fraction: progress.update(task, completed=fraction)

        exact = separate(audio.double(), N_FFT, HOP, on_progress=follow("reference in float64"))
        stems, results = {}, {}
        for name, description in (("native", "native torch"), ("mlx", "by MLX")):
            stems[name], results[name] = _measure(name, audio, exact, follow(description))
    return results, stems["mlx"], _find_largest(stems["mlx"], stems["native"])


def _measure(
    backend: str, audio: torch.Tensor, exact: Stems, on_progress: Callable[[float], None]
) -> tuple[Stems, dict[str, Any]]:
    """Run the transforms, then the whole separation, under the patch.

    Returns:
        Both stems, and the measurements. ``stft_seconds`` and ``istft_seconds``: the best of a few
        runs on the whole recording. ``separation_seconds``: one run of the whole program.
        ``round_trip_error``: the largest error of istft(stft(recording)). ``stem_error``: the
        largest error of both stems against float64. ``calls``: those of the separation, by
        "operation/backend".
    """
    window, length = torch.hann_window(N_FFT), audio.shape[1]

    def analyse() -> torch.Tensor:
        return torch.stft(audio, N_FFT, HOP, window=window, return_complex=True)

    with tms.patch(backend, strict=backend == "mlx"):
        stft_seconds, spectrum = _time_best(analyse)
        istft_seconds, back = _time_best(
            lambda: torch.istft(spectrum, N_FFT, HOP, window=window, length=length)
        )
        tms.reset_stats()
        seconds, stems = make_clock("cpu").time(
            lambda: separate(audio, N_FFT, HOP, on_progress=on_progress)
        )
        calls = tms.stats().as_dict()["calls"]
    return stems, {
        "stft_seconds": stft_seconds,
        "istft_seconds": istft_seconds,
        "separation_seconds": seconds,
        "round_trip_error": float((back - audio).abs().max()),
        "stem_error": _find_largest(stems, exact),
        "calls": calls,
    }


def _time_best(compute: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """Time a few runs after one that warms up; return seconds and result of the shortest."""
    compute()
    clock = make_clock("cpu")
    return min((clock.time(compute) for _ in range(REPEATS)), key=itemgetter(0))


def _find_largest(got: Stems, expected: Stems) -> float:
    """Find the largest absolute difference over both stems."""
    return max(float((a - b).abs().max()) for a, b in zip(got, expected, strict=True))


def _routes(audio: torch.Tensor) -> dict[str, dict[str, Any]]:
    """Ask ``explain`` who computes the demo's two operations under ``backend="mlx"``."""
    window = torch.hann_window(N_FFT)
    with tms.backend("mlx"):
        there = tms.explain(torch.stft, audio, N_FFT, HOP, window=window, return_complex=True)
        frames = 1 + audio.shape[1] // HOP
        spectrum = torch.zeros(audio.shape[0], N_FFT // 2 + 1, frames, dtype=torch.complex64)
        back = tms.explain(torch.istft, spectrum, N_FFT, HOP, window=window)
    return {
        route.op: {"backend": route.backend, "kernel": route.kernel, "reasons": list(route.reasons)}
        for route in (there, back)
    }


def _write(folder: Path, parts: dict[str, audio.Recording]) -> tuple[list[str], list[str]]:
    """Write WAV files and the picture; return their paths, and remarks about them."""
    files, notes = [], []
    try:
        for name, recording in parts.items():
            audio.write_wav(folder / f"{name}.wav", recording)
            files.append(str(folder / f"{name}.wav"))
        picture = folder / "separation.png"
        samples = {name: part.samples for name, part in parts.items()}
        draw(picture, samples, parts["input"].rate)
        files.append(str(picture))
    except OSError as error:
        raise Problem(f"--output {folder}: {error.strerror or error}") from None
    except ImportError:
        notes.append("no picture: it needs matplotlib, pip install 'torch-mlx-spectro[plot]'")
    return files, notes


def _print(report: dict[str, Any]) -> None:
    """Print the report for a person."""
    console = make_console(sys.stdout)
    native, ours = report["results"]["native"], report["results"]["mlx"]
    seconds = report["samples"] / report["rate"]
    console.print(f"Recording: {report['source']}")
    console.print(f"{report['channels']} channels, {seconds:.1f} s at {report['rate']} Hz")
    labels = (
        ("torch.stft, ms", "stft_seconds", 1e3, ".1f"),
        ("torch.istft, ms", "istft_seconds", 1e3, ".1f"),
        ("whole separation, ms", "separation_seconds", 1e3, ".0f"),
        ("round-trip error, largest", "round_trip_error", 1, ".1e"),
        ("error of the stems against float64, largest", "stem_error", 1, ".1e"),
    )
    rows = [
        (label, *(f"{result[key] * scale:{form}}" for result in (native, ours)))
        for label, key, scale, form in labels
    ]
    for op, route in report["routes"].items():
        counts = [_count_calls(result["calls"], op) for result in (native, ours)]
        rows.append((f"calls of torch.{op} in the separation", *counts))
        console.print(f"torch.{op} under the patch: {route['backend']}, {route['kernel']}")
    console.print(table(("",), ("native torch", "by MLX"), rows=rows))
    verdict = "which is rounding" if report["ok"] else "which is MORE THAN ROUNDING"
    console.print(f"Largest difference of the stems: {report['max_difference']:.1e}, {verdict}.")
    for file in report["files"]:
        console.print(f"wrote {file}")
    for note in report["notes"]:
        print(note, file=sys.stderr)


def _count_calls(calls: dict[str, int], op: str) -> str:
    """Say how often an operation was called, by backend, e.g. ``2 mlx``."""
    found = [f"{n} {key.split('/')[1]}" for key, n in calls.items() if key.startswith(f"{op}/")]
    return ", ".join(found) or "none"


FLOOR = -80.0  # dB below the loudest bin of the input
MAX_COLUMNS = 1600  # frames drawn; the picture has fewer pixels across


def draw(path: Path, parts: dict[str, audio.Samples], rate: int) -> None:
    """Write a PNG: the waveform of the first part, then the spectrogram of each.

    Args:
        path: where to write.
        parts: samples (channels, samples) by name; the first sets the scale of decibels.
        rate: samples per second.

    Raises:
        ImportError: matplotlib is not installed.
    """
    # The object interface: pyplot would pick a backend and keep figures in global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.4 * (len(parts) + 1)), layout="constrained")
    axes = figure.subplots(len(parts) + 1, 1, sharex=True)
    name, samples = next(iter(parts.items()))
    _draw_waveform(axes[0], samples.mean(axis=0), rate)
    axes[0].set_title(f"{name}: waveform", loc="left")
    loudest = float(_magnitude(samples).max())
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
    figure.colorbar(image, ax=list(axes[1:]), label="dB")
    figure.savefig(path, dpi=110)


def _draw_waveform(axis: Axes, mono: audio.Samples, rate: int) -> None:
    """Fill between the least and the greatest sample of each column of the picture."""
    width = max(1, len(mono) // MAX_COLUMNS)
    columns = mono[: len(mono) // width * width].reshape(-1, width)
    time = np.arange(len(columns)) * width / rate
    axis.fill_between(time, columns.min(axis=1), columns.max(axis=1), linewidth=0.5)
    axis.set(ylim=(-1, 1), ylabel="amplitude")


def _magnitude(samples: audio.Samples) -> audio.Samples:
    """Compute magnitudes (bins, frames) of the channels' mean, in about ``MAX_COLUMNS`` frames."""
    n_fft = 2048
    hop = max(n_fft // 4, samples.shape[1] // MAX_COLUMNS)
    mono = torch.from_numpy(np.ascontiguousarray(samples.mean(axis=0)))
    spectrum = torch.stft(mono, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True)
    return np.asarray(spectrum.abs().numpy(), np.float32)
