"""What is measured: the sizes, and which operations on them make up a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: What is timed, by the names that reports use.
STFT, ISTFT, ISTFT_BINS = "stft", "istft", "istft of (bins, frames)"
STFT_BACKWARD, ISTFT_BACKWARD = "stft + backward", "istft + backward"
ROUND_TRIP = "round trip + backward"
OPERATIONS = (STFT, ISTFT, ISTFT_BINS, STFT_BACKWARD, ISTFT_BACKWARD, ROUND_TRIP)


@dataclass(frozen=True)
class Case:
    """``rows`` real signals of ``samples`` samples; Hann window, centred."""

    rows: int
    samples: int
    n_fft: int
    hop_length: int

    @property
    def frames(self) -> int:
        return 1 + self.samples // self.hop_length

    @property
    def nbytes(self) -> int:
        """Bytes of signal and spectrum together."""
        return self.rows * (4 * self.samples + 8 * self.frames * (self.n_fft // 2 + 1))

    def __str__(self) -> str:
        return f"B={self.rows} T={self.samples} n_fft={self.n_fft} hop={self.hop_length}"


@dataclass(frozen=True)
class Table:
    """Cases, and the operations that are timed on each; the table of errors has no operations."""

    title: str
    operations: tuple[str, ...]
    cases: tuple[Case, ...]


def quarter(rows: int, samples: int, n_fft: int) -> Case:
    """The case with a hop of a quarter frame."""
    return Case(rows, samples, n_fft, n_fft // 4)


_FORWARD = (
    quarter(1, 16_000, 512),
    quarter(4, 160_000, 1024),
    quarter(8, 160_000, 1024),
    quarter(4, 1_320_000, 1024),
    quarter(8, 480_000, 1024),
)

#: What is measured where nothing else is asked for: the tables that mlx-spectro publishes, with its
#: sizes, which a comparison with it needs. Source: the README of mlx-spectro 0.2.2.
PUBLISHED: Mapping[str, Table] = MappingProxyType(
    {
        "stft": Table("STFT, forward", (STFT,), _FORWARD),
        "istft": Table("iSTFT, forward", (ISTFT,), _FORWARD),
        "roundtrip": Table(
            "istft(stft(x)), forward and backward",
            (ROUND_TRIP,),
            (
                quarter(4, 160_000, 1024),
                quarter(8, 160_000, 1024),
                quarter(4, 480_000, 1024),
                quarter(4, 1_320_000, 1024),
                quarter(1, 1_320_000, 1024),
            ),
        ),
        "accuracy": Table(
            "Largest errors, signals of unit variance",
            (),
            (quarter(1, 16_000, 512), quarter(4, 160_000, 2048), quarter(8, 480_000, 1024)),
        ),
    }
)

#: All tables. The sizes of this project's own: other hops, both layouts of a spectrum, and each
#: backward pass.
TABLES: Mapping[str, Table] = MappingProxyType(
    {
        **PUBLISHED,
        "sizes": Table(
            "Other sizes, layouts, and backward passes",
            (STFT, ISTFT, ISTFT_BINS, STFT_BACKWARD, ISTFT_BACKWARD),
            (
                Case(1, 1_600, 400, 160),
                Case(8, 160_000, 1024, 256),
                Case(2, 352_800, 2048, 441),
                Case(2, 441_000, 6144, 1024),
                Case(8, 480_000, 1024, 256),
                Case(4, 1_300_000, 1024, 256),
            ),
        ),
    }
)
#: The size at which memory is measured.
LARGEST = TABLES["sizes"].cases[-1]
