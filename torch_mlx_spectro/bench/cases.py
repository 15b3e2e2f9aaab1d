"""What is measured: sizes, the operations on them that make up a table, and their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from types import MappingProxyType, ModuleType
from typing import Any

import torch

from ..backends.registry import NATIVE
from ..native import functions as native
from .measuring import Call
from .programs import AURALOSS, LOSS, PROGRAMS, STEPS
from .schema import Accuracy

Compute = Callable[[torch.Tensor], torch.Tensor]

#: What is timed, by the names that reports use.
STFT, ISTFT, ISTFT_BINS = "stft", "istft", "istft of (bins, frames)"
STFT_BACKWARD, ISTFT_BACKWARD = "stft + backward", "istft + backward"
MEAN_SQUARE = "mean square of stft + backward"
ROUND_TRIP = "round trip + backward"
STFT_FRESH, ISTFT_FRESH = "stft, fresh window", "istft, fresh window"
OPERATIONS = (
    *(STFT, ISTFT, ISTFT_BINS, STFT_FRESH, ISTFT_FRESH),
    *(STFT_BACKWARD, ISTFT_BACKWARD, MEAN_SQUARE, ROUND_TRIP),
)
#: Both functions forward, on MLX arrays.
THERE_AND_BACK = "round trip"
#: The sides of calls on MLX arrays: this package's transform, and MLX's own functions.
OURS, OWN = "SpectralTransform", "mx.fft"
#: The unit of the host's time: one allocation of a spectrum.
UNIT = "torch.empty_strided"


@dataclass(frozen=True)
class Case:
    """``rows`` real signals of ``samples`` samples, with a Hann window and centred frames."""

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
    """Cases, and the operations that are timed on each; the table of errors has no operations.

    ``reference`` is the side that every backend is compared with.
    """

    title: str
    operations: tuple[str, ...]
    cases: tuple[Case, ...]
    reference: str = NATIVE


def make_case(rows: int, samples: int, n_fft: int) -> Case:
    """Make a case with a hop of a quarter frame."""
    return Case(rows, samples, n_fft, n_fft // 4)


_FORWARD = (
    make_case(1, 16_000, 512),
    make_case(4, 160_000, 1024),
    make_case(8, 160_000, 1024),
    make_case(4, 1_320_000, 1024),
    make_case(8, 480_000, 1024),
)

#: The tables that are measured by default: those that mlx-spectro publishes, in its sizes, so that
#: results can be compared with its own. Source: the README of mlx-spectro 0.2.2.
PUBLISHED: Mapping[str, Table] = MappingProxyType(
    {
        "stft": Table("STFT, forward", (STFT,), _FORWARD),
        "istft": Table("iSTFT, forward", (ISTFT,), _FORWARD),
        "roundtrip": Table(
            "istft(stft(x)), forward and backward",
            (ROUND_TRIP,),
            (
                make_case(4, 160_000, 1024),
                make_case(8, 160_000, 1024),
                make_case(4, 480_000, 1024),
                make_case(4, 1_320_000, 1024),
                make_case(1, 1_320_000, 1024),
            ),
        ),
        "accuracy": Table(
            "Largest errors, signals of unit variance",
            (),
            (make_case(1, 16_000, 512), make_case(4, 160_000, 2048), make_case(8, 480_000, 1024)),
        ),
    }
)

#: The table of the host's time, see :mod:`.host`.
HOST_TABLE = "host"
#: The table of MLX arrays, see :mod:`.mlx_arrays`.
MLX_TABLE = "mlx"
#: All tables. Besides the published ones: sizes of this project's own (other hops, both layouts of
#: a spectrum, each backward pass), what a training program waits for, the host's time, and MLX's
#: arrays.
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
        "backward": Table(
            "There and back",
            (STFT_BACKWARD, ISTFT_BACKWARD, MEAN_SQUARE),
            (
                Case(1, 16_000, 512, 128),
                Case(4, 160_000, 1024, 256),
                Case(4, 1_300_000, 1024, 256),
            ),
        ),
        # The largest of its three resolutions.
        AURALOSS: Table("The loss of auraloss", (LOSS,), (Case(8, 65_536, 2048, 240),)),
        "training": Table("Training of a small separator", (STEPS,), (Case(2, 8_000, 512, 128),)),
        HOST_TABLE: Table(
            "Host time of calls that come again",
            (STFT, ISTFT, STFT_FRESH, ISTFT_FRESH, STFT_BACKWARD, ISTFT_BACKWARD, ROUND_TRIP),
            (Case(1, 4_000, 512, 128),),
            reference=UNIT,
        ),
        MLX_TABLE: Table(
            "SpectralTransform beside MLX's own functions, on MLX arrays",
            (STFT, ISTFT, THERE_AND_BACK, MEAN_SQUARE),
            (
                Case(1, 1_600, 400, 160),
                Case(1, 16_000, 512, 128),
                Case(1, 60_000, 1024, 256),
                Case(4, 160_000, 1024, 256),
                Case(2, 352_800, 2048, 441),
                Case(2, 441_000, 6144, 1024),
                Case(8, 480_000, 1024, 256),
            ),
            reference=OWN,
        ),
    }
)
#: The size at which memory is measured.
LARGEST = TABLES["sizes"].cases[-1]

#: Memory that inputs and outputs rotate through on a GPU: three times an H100's cache.
ROTATED_BYTES = 160_000_000
MAX_SETS = 64

#: How far a result may be from native's, in units of its largest value, to be timed at all.
#: Rounding stays far below this; an error (in a frame, in a weight) is far above.
AGREEMENT = 1e-4


class Workload:
    """The tensors of a case: noise of unit variance, the same on every run.

    On a GPU there are so many sets of them that rotating through them takes more memory than its
    cache has. In a program, too, a call rarely finds its input in the cache.

    Args:
        case: the size.
        device: ``"cpu"``, ``"mps"`` or ``"cuda"``.
    """

    def __init__(self, case: Case, device: str) -> None:
        self.case = case
        wanted = 1 if device == "cpu" else -(-ROTATED_BYTES // case.nbytes)
        self.sets = 1 if device == "cpu" else max(2, min(MAX_SETS, wanted))
        self.window = torch.hann_window(case.n_fft).to(device)
        self._sizes: dict[str, Any] = {"n_fft": case.n_fft, "hop_length": case.hop_length}
        # Drawn on the CPU, so that the numbers are the same on every device.
        generator = torch.Generator().manual_seed(1)
        shape = (case.rows, case.samples)
        self.signals = [
            torch.randn(shape, generator=generator).to(device) for _ in range(self.sets)
        ]
        # Spectra of signals, so that DC and Nyquist are real. Native's istft on CUDA uses their
        # imaginary parts, which by definition do not matter.
        self.spectra = [*map(self._bind_stft(native, window=self.window), self.signals)]

    def call(self, operation: str, namespace: ModuleType) -> Call:
        """Return a call of an operation; the call's number chooses the set of tensors.

        Args:
            operation: one of those in :mod:`.cases` or :mod:`.programs`.
            namespace: has both functions: this package, or native torch. Programs ignore it, since
                they call torch's own names.
        """
        if operation in PROGRAMS:
            return PROGRAMS[operation](describe_case(self.case), self.window.device)
        known, fresh = {"window": self.window}, self._make_window
        stft, istft = self._bind_stft(namespace, **known), self._bind_istft(namespace, **known)
        bare_stft, bare_istft = self._bind_stft(namespace), self._bind_istft(namespace)
        signals, spectra = self.signals, self.spectra
        # What is called, on which tensors, with which cotangents (None without a backward pass).
        uses: dict[str, tuple[Compute, list[torch.Tensor], list[torch.Tensor] | None]] = {
            STFT: (stft, signals, None),
            ISTFT: (istft, spectra, None),
            ISTFT_BINS: (istft, spectra, None),
            STFT_FRESH: (lambda signal: bare_stft(signal, window=fresh()), signals, None),
            ISTFT_FRESH: (lambda spectrum: bare_istft(spectrum, window=fresh()), spectra, None),
            STFT_BACKWARD: (stft, signals, spectra),
            ISTFT_BACKWARD: (istft, spectra, signals),
            MEAN_SQUARE: (
                lambda signal: torch.view_as_real(stft(signal)).square().mean(),
                signals,
                [torch.ones((), device=signals[0].device)] * self.sets,
            ),
            ROUND_TRIP: (lambda signal: istft(stft(signal)), signals, signals),
        }
        compute, inputs, cotangents = uses[operation]
        if operation == ISTFT_BINS:
            inputs = [spectrum.contiguous() for spectrum in inputs]
        if cotangents is None:
            return lambda number: compute(inputs[number % self.sets])
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]

        def differentiate(number: int) -> torch.Tensor:
            leaf = leaves[number % self.sets]
            cotangent = cotangents[number % self.sets]
            return torch.autograd.grad(compute(leaf), leaf, cotangent)[0]

        return differentiate

    def make_allocation(self) -> Call:
        """Make a call that allocates a spectrum, in the memory order that native gives it."""
        like, allocate = self.spectra[0], torch.empty_strided
        shape, strides, dtype, device = tuple(like.shape), like.stride(), like.dtype, like.device
        return lambda number: allocate(shape, strides, dtype=dtype, device=device)

    def _make_window(self) -> torch.Tensor:
        return torch.hann_window(self.case.n_fft, device=self.window.device)

    # Bound in C: what a lambda adds to a small call would be measured with it.
    def _bind_stft(self, namespace: ModuleType, **more: torch.Tensor) -> Any:
        return partial(namespace.stft, **self._sizes, **more, return_complex=True)

    def _bind_istft(self, namespace: ModuleType, **more: torch.Tensor) -> Any:
        return partial(namespace.istft, **self._sizes, **more, length=self.case.samples)

    def measure_errors(self, namespace: Any, backend: str) -> Accuracy:
        """Measure the largest errors on the first set, by the backend that the caller chose.

        Args:
            namespace: has stft and istft, of tensors.
            backend: the name of that backend.
        """
        signal, spectrum = self.signals[0], self.spectra[0]
        known, wide_window = {"window": self.window}, {"window": self.window.cpu().double()}
        stft, istft = self._bind_stft(namespace, **known), self._bind_istft(namespace, **known)
        there, wide = stft(signal), signal.cpu().double()
        wide_spectrum = spectrum.cpu().to(torch.complex128)
        return {
            "case": describe_case(self.case),
            "backend": backend,
            "round_trip": _find_largest(istft(there), wide),
            "stft": _find_largest(there, self._bind_stft(native, **wide_window)(wide)),
            "istft": _find_largest(
                istft(spectrum), self._bind_istft(native, **wide_window)(wide_spectrum)
            ),
        }


def describe_case(case: Case) -> Any:
    """Describe a case as reports have it."""
    return asdict(case)


def describe_disagreement(expected: torch.Tensor, got: torch.Tensor) -> str:
    """Say how a result disagrees with native's; empty when they agree."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return f"{got.dtype} {tuple(got.shape)} for {expected.dtype} {tuple(expected.shape)}"
    largest = float(expected.abs().max())
    apart = float((got - expected).abs().max())
    # Not "apart > ...", which NaN would pass.
    if apart <= AGREEMENT * largest:
        return ""
    return f"differs from native by {apart:.3g} where the largest value is {largest:.3g}"


def _find_largest(got: torch.Tensor, exact: torch.Tensor) -> float:
    return float((got.cpu().to(exact.dtype) - exact).abs().max())
