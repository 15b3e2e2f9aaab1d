"""``demo``: separate a recording natively and by MLX, compare, and show the result."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import Problem

if TYPE_CHECKING:
    import torch

    from .audio import Recording

HELP = "separate a recording into harmonic and percussive parts, natively and by MLX"
DESCRIPTION = (
    "Separate a recording into its harmonic and percussive parts by a plain torch program, first"
    " natively, then with torch.stft and torch.istft computed by MLX; compare the results, and"
    " write both parts as WAV and a picture. Exit code 1 when they differ by more than rounding."
)
N_FFT, HOP = 2048, 512
#: How far the error against float64 may exceed native torch's own before it is no rounding error.
ERROR_RATIO = 4.0
REPEATS = 3


@dataclass(frozen=True)
class Measurement:
    """What one backend did.

    Attributes:
        stft_seconds, istft_seconds: the best of a few runs on the whole recording.
        separation_seconds: one run of the whole program.
        round_trip_error: largest absolute error of istft(stft(recording)).
        stem_error: largest absolute error of both stems against a float64 computation.
        calls: "operation/backend" -> calls in the separation.
    """

    stft_seconds: float
    istft_seconds: float
    separation_seconds: float
    round_trip_error: float
    stem_error: float
    calls: dict[str, int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--input", type=Path, metavar="FILE.wav", help="a recording (default: a synthesised clip)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        default=Path("demo-output"),
        help="where to write the stems and the picture (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no table")


def command(options: argparse.Namespace) -> int:
    """Run the demo; return 0 when MLX and native torch agree to rounding, else 1.

    Raises:
        Problem: the input cannot be read, the output not be written, or MLX is not usable.
    """
    import torch

    import torch_mlx_spectro as tms

    from .audio import Recording

    mlx = tms.available_backends()["mlx"]
    if not mlx.available:
        raise Problem(f"MLX is not available: {mlx.reason}; see `torch-mlx-spectro doctor`", 1)
    source, recording = _load(options.input)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(f"--output {options.output}: {error.strerror}") from None
    results, stems, difference = _compare(torch.from_numpy(recording.samples))
    native, ours = results["native"], results["mlx"]
    parts = {"input": recording}
    for name, stem in zip(("harmonic", "percussive"), stems, strict=True):
        parts[name] = Recording(stem.numpy(), recording.rate)
    files, notes = _write(options.output, parts)
    report = {
        "ok": ours.stem_error <= ERROR_RATIO * native.stem_error,
        "source": source,
        "channels": recording.samples.shape[0],
        "samples": recording.samples.shape[1],
        "rate": recording.rate,
        "routes": _routes(torch.from_numpy(recording.samples)),
        "results": {name: asdict(result) for name, result in results.items()},
        "max_difference": difference,
        "files": files,
        "notes": notes,
    }
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0 if report["ok"] else 1


def _load(path: Path | None) -> tuple[str, Recording]:
    """The recording and what it is, for people."""
    from . import audio

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


def _compare(
    audio: torch.Tensor,
) -> tuple[dict[str, Measurement], tuple[torch.Tensor, torch.Tensor], float]:
    """Measure both backends.

    Returns:
        The measurements by backend, the stems by MLX, and how far they are from native torch's.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from .separation import separate

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    # To stderr, where it does not get into the JSON.
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def follow(description: str) -> Callable[[float], None]:
            task = progress.add_task(description, total=1.0)
            return lambda fraction: progress.update(task, completed=fraction)

        exact = separate(audio.double(), N_FFT, HOP, on_progress=follow("reference in float64"))
        stems, results = {}, {}
        for name, description in (("native", "native torch"), ("mlx", "by MLX")):
            stems[name], results[name] = _measure(name, audio, exact, follow(description))
    return results, stems["mlx"], _largest(stems["mlx"], stems["native"])


def _measure(
    backend: str,
    audio: torch.Tensor,
    exact: tuple[torch.Tensor, torch.Tensor],
    on_progress: Callable[[float], None],
) -> tuple[tuple[torch.Tensor, torch.Tensor], Measurement]:
    """Run the transforms, then the whole separation, under the patch."""
    import torch

    import torch_mlx_spectro as tms

    from .separation import separate

    window = torch.hann_window(N_FFT)
    length = audio.shape[1]
    with tms.patch(backend, strict=backend == "mlx"):
        stft_seconds, spectrum = _best(
            lambda: torch.stft(audio, N_FFT, HOP, window=window, return_complex=True)
        )
        istft_seconds, back = _best(
            lambda: torch.istft(spectrum, N_FFT, HOP, window=window, length=length)
        )
        tms.reset_stats()
        start = time.perf_counter()
        stems = separate(audio, N_FFT, HOP, on_progress=on_progress)
        seconds = time.perf_counter() - start
        calls = tms.stats().as_dict()["calls"]
    return stems, Measurement(
        stft_seconds=stft_seconds,
        istft_seconds=istft_seconds,
        separation_seconds=seconds,
        round_trip_error=float((back - audio).abs().max()),
        stem_error=_largest(stems, exact),
        calls=calls,
    )


def _best(compute: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """The shortest of a few runs in seconds, after one that warms up, and the result."""
    result = compute()
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = compute()
        best = min(best, time.perf_counter() - start)
    return best, result


def _largest(got: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> float:
    """The largest absolute difference over both stems."""
    pairs = zip(got, expected, strict=True)
    return max(float((ours - theirs).abs().max()) for ours, theirs in pairs)


def _routes(audio: torch.Tensor) -> dict[str, dict[str, Any]]:
    """Who computes the demo's two operations under ``backend="mlx"``, by explain()."""
    import torch

    import torch_mlx_spectro as tms

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


def _write(folder: Path, parts: dict[str, Recording]) -> tuple[list[str], list[str]]:
    """Write WAV files and the picture; return their paths and what there is to say about them."""
    from . import audio, plot

    files, notes = [], []
    try:
        for name, recording in parts.items():
            audio.write_wav(folder / f"{name}.wav", recording)
            files.append(str(folder / f"{name}.wav"))
        picture = folder / "separation.png"
        rate = parts["input"].rate
        plot.draw(picture, {name: part.samples for name, part in parts.items()}, rate)
        files.append(str(picture))
    except OSError as error:
        raise Problem(f"--output {folder}: {error.strerror or error}") from None
    except ImportError:
        notes.append("no picture: it needs matplotlib, pip install 'torch-mlx-spectro[plot]'")
    return files, notes


def _print(report: dict[str, Any]) -> None:
    """Print the report for a person."""
    from ...terminal import make_console, table

    console = make_console(sys.stdout)
    native, ours = report["results"]["native"], report["results"]["mlx"]
    seconds = report["samples"] / report["rate"]
    console.print(f"Recording: {report['source']}")
    console.print(f"{report['channels']} channels, {seconds:.1f} s at {report['rate']} Hz")
    shown = table(("",), ("native torch", "by MLX"))
    rows = (
        ("torch.stft, ms", "stft_seconds", 1e3, ".1f"),
        ("torch.istft, ms", "istft_seconds", 1e3, ".1f"),
        ("whole separation, ms", "separation_seconds", 1e3, ".0f"),
        ("round-trip error, largest", "round_trip_error", 1, ".1e"),
        ("error of the stems against float64, largest", "stem_error", 1, ".1e"),
    )
    for label, key, scale, form in rows:
        shown.add_row(label, f"{native[key] * scale:{form}}", f"{ours[key] * scale:{form}}")
    for op, route in report["routes"].items():
        counts = [_calls(result["calls"], op) for result in (native, ours)]
        shown.add_row(f"calls of torch.{op} in the separation", *counts)
        console.print(f"torch.{op} under the patch: {route['backend']}, {route['kernel']}")
    console.print(shown)
    verdict = "which is rounding" if report["ok"] else "which is MORE THAN ROUNDING"
    console.print(f"Largest difference of the stems: {report['max_difference']:.1e}, {verdict}.")
    for file in report["files"]:
        console.print(f"wrote {file}")
    for note in report["notes"]:
        print(note, file=sys.stderr)


def _calls(calls: dict[str, int], op: str) -> str:
    """How often, and by which backend, e.g. ``2 mlx``."""
    found = [f"{n} {key.split('/')[1]}" for key, n in calls.items() if key.startswith(f"{op}/")]
    return ", ".join(found) or "none"
