"""Separate a synthesised clip by mlx-audio-separator's HTDemucs with random weights.

python tests/dependants/separate.py SEPARATOR OUTPUT.npy [--by MLX_SPECTRO]

By this package; with ``--by`` by mlx-spectro, whose kernels the Metal emulator runs. SEPARATOR is
the unpacked source distribution of mlx-audio-separator 0.1.20, MLX_SPECTRO the folder ``src`` of
mlx-spectro 0.9.10. Each side is a process of its own; compare the two files.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

import mlx.core as mx
import numpy as np

import torch_mlx_spectro
from torch_mlx_spectro import emulator

RATE, SECONDS = 44_100, 1.6


def make_clip() -> mx.array:
    """Make two channels of tones, a chirp and bursts of noise."""
    t, noise = np.arange(int(RATE * SECONDS)) / RATE, np.random.default_rng(3)
    bursts = noise.standard_normal(t.size) * (np.sin(2 * np.pi * 4 * t) > 0)
    chirp = 0.2 * np.sin(2 * np.pi * 1870 * t * (1 + 0.1 * t))
    left = 0.3 * np.sin(2 * np.pi * 220 * t) + chirp + 0.1 * bursts
    right = 0.3 * np.sin(2 * np.pi * 330 * t) + 0.1 * noise.standard_normal(t.size)
    return mx.array(np.stack([left, right])[None].astype(np.float32))


def separate() -> mx.array:
    """Separate the clip into four; importing the program imports mlx_spectro."""
    from mlx_audio_separator.demucs_mlx.apply_mlx import (  # type: ignore[import-not-found]
        apply_model,
    )
    from mlx_audio_separator.demucs_mlx.mlx_htdemucs import (  # type: ignore[import-not-found]
        HTDemucsMLX,
    )

    mx.random.seed(5)
    sizes = {"channels": 8, "depth": 4, "segment": 1, "bottom_channels": 16}
    sources = ["drums", "bass", "other", "vocals"]
    model = HTDemucsMLX(sources, **sizes, t_layers=2, t_heads=2)
    model.eval()
    mx.eval(model.parameters())
    return apply_model(model, make_clip(), shifts=0, split=True, overlap=0.25, batch_size=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("separator")
    parser.add_argument("output")
    parser.add_argument("--by", metavar="MLX_SPECTRO")
    options = parser.parse_args()
    sys.path.insert(0, options.separator)
    machine = None if options.by is None else emulator.Machine()
    if options.by is None:
        torch_mlx_spectro.as_mlx_spectro()
    else:
        sys.path.insert(0, options.by)
        # Its tuner would time the emulator, and write to a file.
        os.environ |= {"SPEC_MLX_AUTOTUNE": "0", "SPEC_MLX_AUTOTUNE_PERSIST": "0"}
    with contextlib.nullcontext() if machine is None else machine.installed():
        found = np.array(separate())
    np.save(options.output, found)
    launches = 0 if machine is None else len(machine.launches)
    print(f"{found.shape}, largest {np.abs(found).max():.6g}, {launches} launches")


if __name__ == "__main__":
    main()
