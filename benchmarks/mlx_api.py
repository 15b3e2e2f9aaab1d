"""The MLX API beside ``backend="mlx"`` of the torch functions: the same work, by two doors.

Each side in turn, medians; the ratio is the median of pairs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import torch

import torch_mlx_spectro as tms

#: rows, samples, n_fft, hop_length
CASES = [
    (4, 1_300_000, 1024, 256),
    (8, 160_000, 1024, 256),
    (2, 441_000, 2048, 512),
    (1, 65_536, 1024, 256),
    (1, 16_000, 512, 128),
]
ROUNDS = 15


def milliseconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begin)


def row(rows: int, samples: int, n_fft: int, hop: int) -> list[str]:
    values = np.random.default_rng(0).standard_normal((rows, samples)).astype(np.float32)
    signal, tensor, window = mx.array(values), torch.from_numpy(values), torch.hann_window(n_fft)
    transform = tms.SpectralTransform(n_fft, hop)
    stft, istft = transform.compiled_pair(samples, layout="bnf", warmup_batch=rows)
    spectrum = stft(signal)
    mx.eval(spectrum)
    with tms.backend("mlx", strict=True):
        given = tms.stft(tensor, n_fft, hop, window=window, return_complex=True)
        sides = {
            "stft": (
                lambda: tms.stft(tensor, n_fft, hop, window=window, return_complex=True),
                lambda: mx.eval(transform.stft(signal, output_layout="bnf")),
                lambda: mx.eval(stft(signal)),
            ),
            "istft": (
                lambda: tms.istft(given, n_fft, hop, window=window, length=samples),
                lambda: mx.eval(transform.istft(spectrum, samples, input_layout="bnf")),
                lambda: mx.eval(istft(spectrum)),
            ),
        }
        cells = [f"{rows}, {samples}, {n_fft}, {hop}"]
        for calls in sides.values():
            times = [[milliseconds(call) for call in calls] for _ in range(ROUNDS + 2)][2:]
            torchs, *ours = map(statistics.median, zip(*times, strict=True))
            ratios = [
                statistics.median(times_of[index] / times_of[0] for times_of in times)
                for index in (1, 2)
            ]
            cells.append(
                f"{torchs:.3g} / {ours[0]:.3g} / {ours[1]:.3g} ({ratios[0]:.2f}, {ratios[1]:.2f})"
            )
    return cells


def main() -> None:
    print("| rows, samples, n_fft, hop | stft: torch / eager / compiled | istft: the same |")
    print("|---|---|---|")
    for case in CASES:
        print("| " + " | ".join(row(*case)) + " |", flush=True)


if __name__ == "__main__":
    main()
