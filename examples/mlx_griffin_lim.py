"""A program of mlx-spectro's names, with no torch: train a mask by ``mx.grad``, then resynthesise.

A program that used mlx-spectro changes one line, the import:

    -from mlx_spectro import SpectralTransform
    +from torch_mlx_spectro import SpectralTransform

Run it by ``python examples/mlx_griffin_lim.py``; it prints the error before and after.
"""

from __future__ import annotations

import sys

import mlx.core as mx

from torch_mlx_spectro import GriffinLim, SpectralTransform, Spectrogram

RATE, SECONDS, STEPS, RATE_OF_LEARNING = 16_000, 2.0, 40, 2.0


def sounds() -> tuple[mx.array, mx.array]:
    """A melody, and the same in noise."""
    time = mx.arange(int(RATE * SECONDS)) / RATE
    pitch = 220.0 * mx.power(2.0, mx.floor(4 * time) / 6)
    melody = mx.sin(2 * mx.pi * pitch * time)
    return melody, melody + 0.3 * mx.random.normal(melody.shape, key=mx.random.key(0))


def main() -> int:
    """Train, print, and tell by the exit code whether the error fell by half."""
    transform = SpectralTransform(n_fft=512, hop_length=128, window_fn="hann")
    melody, noisy = sounds()
    spectrum = transform.stft(noisy)

    def masked(weights: mx.array) -> mx.array:
        return transform.istft(spectrum * mx.sigmoid(weights), length=melody.size)[0]

    @mx.compile
    def step(weights: mx.array) -> tuple[mx.array, mx.array]:
        loss, slope = mx.value_and_grad(lambda w: mx.square(masked(w) - melody).sum())(weights)
        return loss / melody.size, weights - RATE_OF_LEARNING * slope

    weights = mx.zeros(spectrum.shape)
    losses = []
    for _ in range(STEPS):
        loss, weights = step(weights)
        losses.append(float(loss))
    print(f"mean square error: {losses[0]:.4f} before, {losses[-1]:.4f} after {STEPS} steps")

    power = Spectrogram(512, hop_length=128)(masked(weights))
    rebuilt = GriffinLim(512, 16, hop_length=128, length=melody.size)(power, mx.random.key(1))
    found = Spectrogram(512, hop_length=128)(rebuilt)
    error = float(mx.linalg.norm(mx.sqrt(found) - mx.sqrt(power)) / mx.linalg.norm(mx.sqrt(power)))
    print(f"spectrogram of the signal that Griffin and Lim find: {error:.1%} off")
    assert "torch" not in sys.modules
    return 0 if losses[-1] < 0.5 * losses[0] else 1


if __name__ == "__main__":
    sys.exit(main())
