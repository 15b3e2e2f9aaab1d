"""Take hiss and hum out of a recording by a spectral gate.

    python examples/denoising.py

The first half second has noise alone: from it the gate learns how loud the noise is in each bin.
Each bin is then turned down as Wiener's filter does, by the share of noise in its power.
"""

from __future__ import annotations

import sounds
import torch
from showing import compare, draw, parse

N_FFT, HOP = 1024, 256
#: Seconds of noise alone at the beginning, and how much of every bin is kept at least.
SILENCE, FLOOR = 0.5, 0.05


def denoise(noisy: torch.Tensor) -> torch.Tensor:
    """Recordings (..., samples) without the noise that they begin with."""
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(noisy, N_FFT, HOP, window=window, return_complex=True)
    power = spectrum.abs().square()
    noise = power[..., : int(SILENCE * sounds.RATE / HOP)].mean(-1, keepdim=True)
    # A bin's power varies from frame to frame, the more so that of noise: its neighbours in time
    # are heard, too, and the noise is taken for twice as loud.
    smooth = torch.nn.functional.avg_pool1d(power, 5, 1, padding=2)
    gain = (1 - 2 * noise / smooth.clamp(min=1e-12)).clamp(min=FLOOR)
    return torch.istft(gain * spectrum, N_FFT, HOP, window=window, length=noisy.shape[-1])


def record(seconds: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A stereo recording of strings with hiss and hum, and the strings: both (2, samples).

    Each seed has another tune, and other noise.
    """
    silence = torch.zeros(int(SILENCE * sounds.RATE))
    tune = [note + seed % 12 for note in sounds.SONG[seed % 5 :]]
    strings = torch.cat([silence, sounds.pluck(seconds - SILENCE, tune)])
    noise = [sounds.hiss(len(strings), 0.02, seed=2 * seed + side) for side in (0, 1)]
    clean = torch.stack([0.8 * strings, 0.6 * strings])
    return clean + torch.stack(noise), clean


def main() -> None:
    """Denoise, tell what came of it, and write it."""
    options = parse(__doc__, seconds=60.0).parse_args()
    noisy, clean = record(options.seconds)
    denoised = compare(denoise, noisy, backend=options.backend)
    before, after = sounds.decibels(clean, noisy), sounds.decibels(clean, denoised)
    print(f"signal:       {before:.1f} dB over the noise before, {after:.1f} dB after")
    sounds.write(options.output / "denoising-noisy.wav", noisy)
    sounds.write(options.output / "denoising-denoised.wav", denoised)
    shown = 4 * sounds.RATE
    draw(options.output / "denoising.png", {
        "Noisy": noisy[:, :shown], "Denoised": denoised[:, :shown],
        "The strings alone, for comparison": clean[:, :shown],
    })  # fmt: skip


if __name__ == "__main__":
    main()
