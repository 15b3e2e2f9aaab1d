"""The sizes that are timed, and how fast each has to be on a CPU against native torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """``rows`` signals of ``samples`` samples; the wanted ratios are native time / ours."""

    rows: int
    samples: int
    n_fft: int
    hop_length: int
    wanted_stft: float = 0.0
    wanted_istft: float = 0.0
    wanted_backward: float = 0.0

    @property
    def name(self) -> str:
        return f"({self.rows}, {self.samples}, {self.n_fft}, {self.hop_length})"


#: backend="mlx"
MLX_CASES = (
    Case(4, 1_300_000, 1024, 256, 1.2, 2.0, 1.3),
    Case(8, 160_000, 1024, 256, 1.0, 1.5),
    Case(8, 480_000, 1024, 256, 1.0, 1.5),
    Case(2, 352_800, 2048, 441, 1.0, 1.5),
    Case(2, 441_000, 6144, 1024, 1.0, 1.5),
)

#: backend="auto", after it has measured: no figures of their own, AUTO_RATIO holds for all.
AUTO_CASES = (
    Case(1, 1_600, 400, 160),
    Case(1, 16_000, 512, 128),
    Case(4, 160_000, 1024, 256),
    Case(8, 160_000, 1024, 256),
    Case(2, 352_800, 2048, 441),
    Case(2, 441_000, 6144, 1024),
    Case(8, 480_000, 1024, 256),
    Case(4, 1_300_000, 1024, 256),
)

#: What ``auto`` may not fall below, and where native takes less than SHORT_SECONDS.
AUTO_RATIO = 0.97
AUTO_RATIO_SHORT = 0.93
SHORT_SECONDS = 100e-6
