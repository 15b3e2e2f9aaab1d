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

    @property
    def name(self) -> str:
        return f"({self.rows}, {self.samples}, {self.n_fft}, {self.hop_length})"


#: backend="mlx"
MLX_CASES = (
    Case(4, 1_300_000, 1024, 256, 1.2, 2.0),
    Case(8, 160_000, 1024, 256, 1.0, 1.5),
    Case(8, 480_000, 1024, 256, 1.0, 1.5),
    Case(2, 352_800, 2048, 441, 1.0, 1.5),
    Case(2, 441_000, 6144, 1024, 1.0, 1.5),
)

#: backend="auto", after it has measured; 0.93 where native takes under 0.1 ms.
AUTO_CASES = (
    Case(1, 1_600, 400, 160, 0.93, 0.93),
    Case(1, 16_000, 512, 128, 0.97, 0.97),
    Case(4, 160_000, 1024, 256, 0.97, 0.97),
    Case(8, 160_000, 1024, 256, 0.97, 0.97),
    Case(2, 352_800, 2048, 441, 0.97, 0.97),
    Case(2, 441_000, 6144, 1024, 0.97, 0.97),
    Case(8, 480_000, 1024, 256, 0.97, 0.97),
    Case(4, 1_300_000, 1024, 256, 0.97, 0.97),
)
