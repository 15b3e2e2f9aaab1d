"""Denoise a corpus and cut features of it in the workers of a DataLoader.

    python examples/corpus.py
    torch-mlx-spectro run --children --stats examples/corpus.py

The first line uses torch alone, the second accelerates the workers, too: `--children` patches each
process that the program starts, and one report at the end has the calls of all. The code knows
nothing of it.
"""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import sounds
import torch
from denoising import denoise, record
from showing import draw_features, parse
from torch.utils.data import DataLoader, Dataset

N_FFT, HOP, BANDS = 1024, 256, 48


class Corpus(Dataset[torch.Tensor]):
    """The features of the recordings in a folder, without their noise: each (bands, frames)."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.wav"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return cut_features(denoise(sounds.read(self.files[index])))


def cut_features(sound: torch.Tensor) -> torch.Tensor:
    """The logarithmic power in bands that widen with frequency: (bands, frames)."""
    window = torch.hann_window(N_FFT)
    power = torch.stft(sound, N_FFT, HOP, window=window, return_complex=True).abs().square().mean(0)
    edges = torch.logspace(0.5, 2.7, BANDS + 1).round().int().tolist()
    bands = [power[low : max(low + 1, high)].mean(0) for low, high in pairwise(edges)]
    return torch.stack(bands).clamp(min=1e-6).log10()


def make_corpus(folder: Path, clips: int, seconds: float) -> None:
    """Write so many noisy recordings, each of another tune."""
    for clip in range(clips):
        noisy, _ = record(seconds, seed=clip)
        sounds.write(folder / f"{clip:03}.wav", noisy)


def main() -> None:
    """Work through the corpus, and tell how long it took."""
    parser = parse(__doc__, seconds=20.0, patching=False)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    make_corpus(options.output / "corpus", options.clips, options.seconds)
    # Workers that are forked after torch has computed may hang, and MLX does not work in them.
    loader = DataLoader(
        Corpus(options.output / "corpus"),
        batch_size=None, num_workers=options.workers, multiprocessing_context="spawn",
    )  # fmt: skip
    features: list[torch.Tensor] = []
    for clip in loader:
        if not features:
            begin = time.perf_counter()  # the workers have started
        features.append(clip)
    each = 1e3 * (time.perf_counter() - begin) / max(1, len(features) - 1)
    print(f"{len(features)} clips of {options.seconds:.0f} s: {each:.0f} ms a clip")
    draw_features(options.output / "corpus.png", features[:12])


if __name__ == "__main__":
    main()
