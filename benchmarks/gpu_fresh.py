"""Calls by a window that is made for each of them, against calls by one that is known.

python benchmarks/gpu_fresh.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from gpu_timing import by_events, by_graph, by_wall

import torch_mlx_spectro as tms

#: Rows, samples, n_fft, hop length, window's values.
CASES = (
    (1, 16_000, 512, 128, 512),
    (4, 160_000, 1024, 256, 1024),
    (4, 1_300_000, 1024, 256, 1024),
    (4, 1_300_000, 1024, 256, 800),
    (2, 352_800, 2048, 441, 2048),
    (2, 441_000, 6144, 1024, 6144),
)


def show(rows: int, samples: int, n_fft: int, hop: int, win: int) -> None:
    signal = torch.randn(rows, samples, device="cuda")
    known = torch.hann_window(win, device="cuda")
    spectrum = tms.stft(signal, n_fft, hop, win, known, return_complex=True)
    source = known.clone()
    sizes = (n_fft, hop, win)
    calls: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "stft": lambda w: tms.stft(signal, *sizes, w, return_complex=True),
        "stft normalized": lambda w: tms.stft(
            signal, *sizes, w, normalized=True, return_complex=True
        ),
        "istft": lambda w: tms.istft(spectrum, *sizes, w),
    }
    making = by_graph(lambda i: source.clone(), 100, 1)
    for name, call in calls.items():
        print(f"{rows} x {samples}, {n_fft}/{hop}, window {win}: {name}, making it {making:.1f} us")
        for clock, time in (("events", by_events), ("wall", by_wall)):
            of_known = time(lambda i, call=call: call(known), 100, 1)
            of_fresh = time(lambda i, call=call: call(source.clone()), 100, 1)
            print(f"    {clock}: known {of_known:.1f}, fresh {of_fresh:.1f} us")


if __name__ == "__main__":
    with tms.backend("cuda", strict=True), torch.no_grad():
        for case in CASES:
            show(*case)
