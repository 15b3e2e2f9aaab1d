"""Take the singer out of a stereo mix.

    python examples/separation.py

In most songs the voice is in the middle: as loud on the left as on the right. So is a bin of the
two spectra in which the voice is loudest. A mask keeps these bins, and the rest is karaoke.
"""

from __future__ import annotations

import sounds
import torch
from showing import compare, draw, parse

N_FFT, HOP = 2048, 512


def separate(mix: torch.Tensor) -> torch.Tensor:
    """What is in the middle of a mix (2, samples), and what is left of both sides: (3, samples)."""
    window = torch.hann_window(N_FFT)
    left, right = torch.stft(mix, N_FFT, HOP, window=window, return_complex=True)
    apart = (left - right).abs() / (left.abs() + right.abs()).clamp(min=1e-8)
    middle = (1 - apart).square() * (left + right) / 2
    parts = torch.stack([middle, left - middle, right - middle])
    return torch.istft(parts, N_FFT, HOP, window=window, length=mix.shape[-1])


def make_mix(seconds: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A voice in the middle of strings and drums, and the voice alone: (2, samples), (samples,)."""
    voice = sounds.sing(seconds)
    low, high = (
        sounds.pluck(seconds),
        sounds.pluck(seconds, [12 + note for note in sounds.SONG[::-1]]),
    )
    drums = sounds.drum(seconds)
    band = torch.stack([low + 0.15 * high + 0.2 * drums, 0.15 * low + high + 0.8 * drums])
    return 0.7 * voice + band, 0.7 * voice


def main() -> None:
    """Separate, tell what came of it, and write it."""
    options = parse(__doc__, seconds=60.0).parse_args()
    mix, voice = make_mix(options.seconds)
    parts = compare(separate, mix, backend=options.backend)
    before, after = sounds.decibels(voice, mix.mean(0)), sounds.decibels(voice, parts[0])
    print(f"voice:        {before:.1f} dB over the rest in the mix, {after:.1f} dB once separated")
    folder = options.output
    for name, sound in {"mix": mix, "voice": parts[0], "karaoke": parts[1:]}.items():
        sounds.write(folder / f"separation-{name}.wav", sound)
    shown = 4 * sounds.RATE
    draw(folder / "separation.png", {
        "Mix": mix[:, :shown], "Voice: what is in the middle": parts[0, :shown],
        "Karaoke: what is left": parts[1:, :shown],
    })  # fmt: skip


if __name__ == "__main__":
    main()
