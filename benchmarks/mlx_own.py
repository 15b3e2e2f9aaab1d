"""SpectralTransform beside MLX's own ``mx.fft.stft`` and ``istft``, on MLX's default device.

All sides in turn. Each cell has the medians in milliseconds: SpectralTransform called eagerly, its
``compiled_pair``, MLX's own; in brackets the median of MLX's time over the eager call's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from torch_mlx_spectro import SpectralTransform
from torch_mlx_spectro.bench.cases import TABLES, Case

ROUNDS = 7
#: Seconds that a sample takes at least.
SAMPLE = 4e-3


def seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    mx.eval(call())
    return time.perf_counter() - begin


def compare(sides: list[Callable[[], Any]]) -> str:
    fastest = min(seconds(side) for side in sides for _ in range(3))
    count = max(1, int(SAMPLE / fastest))
    taken = []
    for _ in range(ROUNDS):
        taken.append([])
        for side in sides:
            seconds(side)
            taken[-1].append(sum(seconds(side) for _ in range(count)) / count)
    medians = [f"{1e3 * statistics.median(each):.3g}" for each in zip(*taken, strict=True)]
    ratio = statistics.median(times[-1] / times[0] for times in taken)
    return f"{' / '.join(medians)} ({ratio:.2f})"


def row(case: Case) -> list[str]:
    shape = (case.rows, case.samples)
    signal = mx.array(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    transform = SpectralTransform(case.n_fft, case.hop_length)
    spectrum, length = transform.stft(signal), case.samples
    stft, istft = transform.compiled_pair(length)
    same = {"n_fft": case.n_fft, "hop_length": case.hop_length, "window": transform.window}

    def loss(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return mx.grad(lambda x: mx.square(mx.abs(function(x))).sum())

    ours, theirs = loss(transform.stft), loss(lambda x: mx.fft.stft(x, **same))
    return [
        f"{case.rows}, {case.samples}, {case.n_fft}, {case.hop_length}",
        compare(
            [
                lambda: transform.stft(signal),
                lambda: stft(signal),
                lambda: mx.fft.stft(signal, **same),
            ]
        ),
        compare(
            [
                lambda: transform.istft(spectrum, length),
                lambda: istft(spectrum),
                lambda: mx.fft.istft(spectrum, **same, length=length),
            ]
        ),
        compare([lambda: ours(signal), lambda: theirs(signal)]),
    ]


def main() -> None:
    cases = {case for name in ("stft", "sizes", "roundtrip") for case in TABLES[name].cases}
    print("| rows, samples, n_fft, hop | stft | istft | gradient of stft |")
    print("|---|---|---|---|")
    for case in sorted(cases, key=lambda case: case.rows * case.samples):
        print("| " + " | ".join(row(case)) + " |", flush=True)


if __name__ == "__main__":
    main()
