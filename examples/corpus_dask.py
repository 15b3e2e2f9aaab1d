"""Denoise a corpus of clips in several processes, by Dask on one machine.

torch-mlx-spectro run --children --stats examples/corpus_dask.py

The work is in `denoise`, which knows neither Dask nor this package: `--children` patches the
workers that Dask starts. One report at the end has the calls of all of them. Needs
`pip install distributed`.
"""

from __future__ import annotations

import argparse

import torch
from distributed import Client, LocalCluster

N_FFT, HOP = 1024, 256
RATE, SECONDS = 44_100, 5
#: Bins with less than this part of a clip's mean magnitude are taken for noise.
FLOOR = 1.5


def synthesise(index: int) -> torch.Tensor:
    """A chord in noise, (2, samples), in the place of a file that is read."""
    generator = torch.Generator().manual_seed(index)
    time = torch.arange(RATE * SECONDS) / RATE
    chord = sum(
        torch.sin(2 * torch.pi * 220 * (index % 7 + step) * time) for step in (1, 1.25, 1.5)
    )
    noise = torch.randn(2, len(time), generator=generator)
    return 0.2 * chord + 0.05 * noise


def denoise(index: int) -> float:
    """Silence a clip's weak bins, and return how much of its power is left."""
    clip, window = synthesise(index), torch.hann_window(N_FFT)
    spectrum = torch.stft(clip, N_FFT, HOP, window=window, return_complex=True)
    magnitude = spectrum.abs()
    spectrum = spectrum * (magnitude > FLOOR * magnitude.mean())
    clean = torch.istft(spectrum, N_FFT, HOP, window=window, length=clip.shape[-1])
    return float(clean.square().mean() / clip.square().mean())


def main() -> None:
    """Denoise the clips, and tell what is left."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    cluster = LocalCluster(
        n_workers=arguments.workers, threads_per_worker=1, dashboard_address=None
    )
    with cluster, Client(cluster) as client:
        left = client.gather(client.map(denoise, range(arguments.clips)))
    print(f"{len(left)} clips, {100 * sum(left) / len(left):.0f} % of their power left")


if __name__ == "__main__":
    main()
