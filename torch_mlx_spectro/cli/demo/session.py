"""A run of ``demo``: torch alone and ``patch()`` are measured, their results compared and shown."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import torch_mlx_spectro as tms

from ...backends.registry import BackendName
from ...bench.measuring import make_clock
from ...dispatch.decide import MEASURED_NOW
from ...errors import Problem
from ...terminal import make_console, table
from . import audio, picture
from .separation import separate

N_FFT, HOP = 2048, 512
#: How far the error against float64 may exceed native torch's own before it is no rounding error.
ERROR_RATIO = 4.0
#: Calls of torch alone and under the patch, which take turns: a busy moment meets both.
TURNS = 9
#: Calls after which the patch has chosen who computes, at most.
SETTLING = 48

#: Backends that take tensors on the CPU, and what they are.
EXPLAINED = (
    ("cpu", "torch's own FFT, in blocks that fit the processor's cache"),
    ("mlx", "Apple's array library MLX"),
)

Stems = tuple[torch.Tensor, torch.Tensor]


def run(options: argparse.Namespace) -> int:
    """Run the demo; return 0 when both results agree to rounding, else 1.

    Raises:
        Problem: the input cannot be read, or the output cannot be written.
    """
    source, recording = _load(options.input)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(f"--output {options.output}: {error.strerror}") from None
    samples = torch.from_numpy(recording.samples)
    calls, spectra = _measure_calls(samples)
    results, stems, difference = _compare(samples)
    parts = {
        name: audio.Recording(stem.numpy(), recording.rate)
        for name, stem in zip(("harmonic", "percussive"), stems, strict=True)
    }
    files = _write_parts(options.output, {"input": recording} | parts)
    ours, native = (results[name]["stem_error"] for name in ("patched", "native"))
    report = {
        "ok": ours <= ERROR_RATIO * native,
        "source": source,
        "channels": samples.shape[0],
        "samples": samples.shape[1],
        "rate": recording.rate,
        "threads": torch.get_num_threads(),
        "calls": calls,
        "results": results,
        "max_difference": difference,
        "files": files,
        "notes": [],
    }
    _add_picture(options.output, spectra, report)
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
        recording = audio.read(path)
    except audio.UnreadableAudio as error:
        raise Problem(f"--input {path}: {error}") from None
    if recording.samples.shape[1] <= N_FFT:
        raise Problem(f"--input {path}: too short, more than {N_FFT} samples are needed")
    return str(path), recording


def _measure_calls(
    audio: torch.Tensor,
) -> tuple[dict[str, dict[str, Any]], dict[str, picture.Spectrum]]:
    """Time the demo's two functions on the whole recording, torch alone and under ``patch()``.

    Returns:
        By function: who computes it under the patch (``backend``, ``kernel``, ``reasons``), the
        median seconds of both sides, and ``gain``, the median ratio of torch's time to the other;
        and the first channel's spectrum by torch alone and under the patch.
    """
    window = torch.hann_window(N_FFT)
    given: dict[str, Any] = {"n_fft": N_FFT, "hop_length": HOP, "window": window}
    spectrum = torch.stft(audio, return_complex=True, **given)
    asked: dict[str, tuple[torch.Tensor, dict[str, Any]]] = {
        "stft": (audio, given | {"return_complex": True}),
        "istft": (spectrum, given | {"length": audio.shape[1]}),
    }
    found: dict[str, dict[str, Any]] = {}
    spectra = {"native": _take_channel(spectrum)}
    for op, (tensor, arguments) in asked.items():

        def call(
            op: str = op, tensor: torch.Tensor = tensor, arguments: dict[str, Any] = arguments
        ) -> torch.Tensor:
            result: torch.Tensor = getattr(torch, op)(tensor, **arguments)
            return result

        with tms.patch("auto"):
            for _ in range(SETTLING):
                call()
                route = tms.explain(op, tensor, **arguments)
                if MEASURED_NOW not in route.reasons:
                    break
            seconds = _take_turns(call)
            if op == "stft":
                spectra["patched"] = _take_channel(call())
        pairs = zip(seconds["native"], seconds["patched"], strict=True)
        found[op] = {
            "backend": route.backend,
            "kernel": route.kernel,
            "reasons": list(route.reasons),
            **{f"{side}_seconds": statistics.median(taken) for side, taken in seconds.items()},
            "gain": statistics.median(native / ours for native, ours in pairs),
        }
    return found, spectra


def _take_channel(spectrum: torch.Tensor) -> picture.Spectrum:
    """Copy the first channel of a spectrum."""
    return np.array(spectrum[0].numpy())


def _take_turns(call: Callable[[], torch.Tensor]) -> dict[str, list[float]]:
    """Time a call by torch alone and by the patch, in turns."""
    clock = make_clock("cpu")
    seconds: dict[str, list[float]] = {"native": [], "patched": []}
    for _ in range(TURNS):
        with tms.backend("native"):
            seconds["native"].append(clock.time(call)[0])
        seconds["patched"].append(clock.time(call)[0])
    return seconds


def _compare(audio: torch.Tensor) -> tuple[dict[str, dict[str, Any]], Stems, float]:
    """Run the whole separation by torch alone and under the patch.

    Returns:
        The measurements of both, the stems under the patch, and how far they are from torch's own.
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
        for name, description in (("native", "torch alone"), ("patched", "with patch()")):
            backend: BackendName = "native" if name == "native" else "auto"
            stems[name], results[name] = _measure(backend, audio, exact, follow(description))
    return results, stems["patched"], _find_largest(stems["patched"], stems["native"])


def _measure(
    backend: BackendName, audio: torch.Tensor, exact: Stems, on_progress: Callable[[float], None]
) -> tuple[Stems, dict[str, Any]]:
    """Run the whole separation under the patch.

    Returns:
        Both stems, and the measurements: ``separation_seconds``; ``stem_error``, the largest error
        of both stems against float64; ``calls``, by "function/backend".
    """
    with tms.patch(backend):
        tms.reset_stats()
        seconds, stems = make_clock("cpu").time(
            lambda: separate(audio, N_FFT, HOP, on_progress=on_progress)
        )
        calls = tms.stats().as_dict()["calls"]
    return stems, {
        "separation_seconds": seconds,
        "stem_error": _find_largest(stems, exact),
        "calls": calls,
    }


def _find_largest(got: Stems, expected: Stems) -> float:
    """Find the largest absolute difference over both stems."""
    return max(float((a - b).abs().max()) for a, b in zip(got, expected, strict=True))


def _write_parts(folder: Path, parts: dict[str, audio.Recording]) -> list[str]:
    """Write WAV files and return their paths.

    Raises:
        Problem: one cannot be written.
    """
    files = []
    try:
        for name, recording in parts.items():
            audio.write_wav(folder / f"{name}.wav", recording)
            files.append(str(folder / f"{name}.wav"))
    except OSError as error:
        raise Problem(f"--output {folder}: {error.strerror or error}") from None
    return files


def _add_picture(
    folder: Path, spectra: dict[str, picture.Spectrum], report: dict[str, Any]
) -> None:
    """Write the picture; add its path to the report, or why there is none.

    Raises:
        Problem: it cannot be written.
    """
    path = folder / "separation.png"
    try:
        picture.draw(path, spectra, report, N_FFT)
        report["files"].append(str(path))
    except OSError as error:
        raise Problem(f"--output {folder}: {error.strerror or error}") from None
    except ImportError:
        report["notes"].append("no picture: it needs matplotlib, pip install matplotlib")


def _print(report: dict[str, Any]) -> None:
    """Print the report for a person."""
    console = make_console(sys.stdout)
    native, ours = report["results"]["native"], report["results"]["patched"]
    seconds = report["samples"] / report["rate"]
    console.print(f"Recording: {report['source']}")
    console.print(f"{report['channels']} channels, {seconds:.1f} s at {report['rate']} Hz")
    console.print(f"Measured in this run, on this machine, {report['threads']} threads of torch:")
    rows: list[tuple[str, ...]] = [
        (
            f"torch.{op}",
            _name(call["backend"]),
            f"{call['native_seconds'] * 1e3:.1f} ms",
            f"{call['patched_seconds'] * 1e3:.1f} ms",
            f"{call['gain']:.2f}x",
        )
        for op, call in report["calls"].items()
    ]
    both = [f"{side['separation_seconds'] * 1e3:.0f} ms" for side in (native, ours)]
    gain = native["separation_seconds"] / ours["separation_seconds"]
    rows.append(("whole separation", _count_calls(ours["calls"]), *both, f"{gain:.2f}x"))
    both = [f"{side['stem_error']:.1e}" for side in (native, ours)]
    rows.append(("largest error", "", *both, ""))
    console.print(
        table(("", "computed by (calls)"), ("torch alone", "with patch()", "speed-up"), rows=rows)
    )
    computing = {call["backend"] for call in report["calls"].values()}
    for name, explained in EXPLAINED:
        if name in computing:
            console.print(f"{name}: {explained}.")
    for op, call in report["calls"].items():
        if call["backend"] == "native":
            console.print(f"torch.{op} was left to torch: {'; '.join(call['reasons'])}.")
    verdict = "which is rounding" if report["ok"] else "which is MORE THAN ROUNDING"
    console.print(f"Largest difference of the stems: {report['max_difference']:.1e}, {verdict}.")
    for file in report["files"]:
        console.print(f"wrote {file}")
    for note in report["notes"]:
        print(note, file=sys.stderr)


def _name(backend: str) -> str:
    return "torch itself" if backend == "native" else backend


def _count_calls(calls: dict[str, int]) -> str:
    """Say who computed how many calls, e.g. ``cpu (3)``."""
    counted: Counter[str] = Counter()
    for key, count in calls.items():
        counted[key.split("/")[1]] += count
    return ", ".join(f"{_name(name)} ({count})" for name, count in counted.items())
