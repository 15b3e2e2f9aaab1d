"""Losses on the magnitudes of short-time Fourier transforms."""

from __future__ import annotations

import torch
from torch import nn

#: n_fft, hop_length, win_length of the three resolutions of the paper below.
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
#: Least power of a bin that programs often take.
FLOOR = 1e-7


class MultiResolutionStftLoss(nn.Module):
    """Spectral convergence plus the L1 distance of log magnitudes, over several resolutions.

    Yamamoto, Song and Kim, "Parallel WaveGAN: A fast waveform generation model based on
    generative adversarial networks with multi-resolution spectrogram" (ICASSP 2020,
    arXiv:1910.11480), equations 5 to 7. auraloss, ESPnet and other training programs have it too.

    Args:
        resolutions: (n_fft, hop_length, win_length) of each.
        floor: a bin of less power counts as one of this power. The gradient of a logarithm grows
            as its argument shrinks, so with a floor far below the noise of the recordings a few
            nearly empty bins lead, and training amplifies rounding a hundredfold in every step.
    """

    def __init__(
        self, resolutions: tuple[tuple[int, int, int], ...] = RESOLUTIONS, floor: float = FLOOR
    ) -> None:
        super().__init__()
        self.resolutions, self.floor = resolutions, floor
        for index, (_, _, win_length) in enumerate(resolutions):
            # Buffers go to the device of the module, and are not in its state.
            self.register_buffer(f"window_{index}", torch.hann_window(win_length), persistent=False)

    def forward(self, estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of signals (rows, samples): a scalar."""
        total = estimate.new_zeros(())
        for index, sizes in enumerate(self.resolutions):
            window = self.get_buffer(f"window_{index}")
            ours = self._magnitude(estimate, sizes, window)
            theirs = self._magnitude(target, sizes, window)
            convergence = torch.linalg.norm(theirs - ours) / torch.linalg.norm(theirs)
            total = total + convergence + (theirs.log() - ours.log()).abs().mean()
        return total / len(self.resolutions)

    def _magnitude(
        self, signal: torch.Tensor, sizes: tuple[int, int, int], window: torch.Tensor
    ) -> torch.Tensor:
        n_fft, hop, win_length = sizes
        spectrum = torch.stft(signal, n_fft, hop, win_length, window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return power.clamp(min=self.floor).sqrt()
