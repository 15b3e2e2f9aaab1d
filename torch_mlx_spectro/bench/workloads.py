"""The tensors of a case, the calls that are timed on them, and their errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from types import ModuleType
from typing import Any

import torch

from ..native import functions as native
from .cases import ISTFT, ISTFT_BACKWARD, ISTFT_BINS, ROUND_TRIP, STFT, STFT_BACKWARD, Case
from .measuring import Call
from .schema import Accuracy

Compute = Callable[[torch.Tensor], torch.Tensor]

#: Memory that inputs and outputs rotate through on a GPU: three times an H100's cache.
ROTATED_BYTES = 160_000_000
MAX_SETS = 64

#: How far a result may be from native's, in units of its largest value, to be timed at all: what
#: is right to rounding is far below, what is wrong (a frame, a weight) far above.
AGREEMENT = 1e-4


class Workload:
    """The tensors of a case: noise of unit variance, the same on every run.

    On a GPU there are as many sets of them as it takes to rotate through more memory than its
    cache has: a call that finds its input in the cache is no call of a program.

    Args:
        case: the size.
        device: ``"cpu"``, ``"mps"`` or ``"cuda"``.
    """

    def __init__(self, case: Case, device: str) -> None:
        self.case = case
        wanted = 1 if device == "cpu" else -(-ROTATED_BYTES // case.nbytes)
        self.sets = 1 if device == "cpu" else max(2, min(MAX_SETS, wanted))
        self.window = torch.hann_window(case.n_fft).to(device)
        self._sizes: dict[str, Any] = {
            "n_fft": case.n_fft,
            "hop_length": case.hop_length,
            "window": self.window,
        }
        # Drawn on the CPU: the same numbers whatever the device.
        generator = torch.Generator().manual_seed(1)
        shape = (case.rows, case.samples)
        self.signals = [
            torch.randn(shape, generator=generator).to(device) for _ in range(self.sets)
        ]
        # Of signals, so that DC and Nyquist are real: native's istft on CUDA uses their imaginary
        # parts, which the definition has not.
        self.spectra = [self._stft(native, signal) for signal in self.signals]

    def call(self, operation: str, namespace: ModuleType) -> Call:
        """One of the operations on the set that a call's number chooses.

        Args:
            operation: one of those in :mod:`.cases`.
            namespace: has both functions: this package, or native torch.
        """
        stft, istft = partial(self._stft, namespace), partial(self._istft, namespace)
        signals, spectra = self.signals, self.spectra
        # What is called, on what, and with which cotangents; None: there is no backward pass.
        uses: dict[str, tuple[Compute, list[torch.Tensor], list[torch.Tensor] | None]] = {
            STFT: (stft, signals, None),
            ISTFT: (istft, spectra, None),
            ISTFT_BINS: (istft, spectra, None),
            STFT_BACKWARD: (stft, signals, spectra),
            ISTFT_BACKWARD: (istft, spectra, signals),
            ROUND_TRIP: (lambda signal: istft(stft(signal)), signals, signals),
        }
        compute, inputs, cotangents = uses[operation]
        sets = self.sets
        if operation == ISTFT_BINS:
            inputs = [spectrum.contiguous() for spectrum in inputs]
        if cotangents is None:
            return lambda number: compute(inputs[number % sets])
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]

        def differentiate(number: int) -> torch.Tensor:
            leaf = leaves[number % sets]
            (gradient,) = torch.autograd.grad(compute(leaf), leaf, cotangents[number % sets])
            return gradient

        return differentiate

    def _stft(self, namespace: ModuleType, signal: torch.Tensor) -> Any:
        return namespace.stft(signal, **self._sizes, return_complex=True)

    def _istft(self, namespace: ModuleType, spectrum: torch.Tensor) -> Any:
        return namespace.istft(spectrum, **self._sizes, length=self.case.samples)

    def errors(self, namespace: ModuleType, backend: str) -> Accuracy:
        """The largest errors on the first set; the caller chooses the backend."""
        signal, spectrum = self.signals[0], self.spectra[0]
        exact = self._sizes | {"window": self.window.cpu().double()}
        there, wide = self._stft(namespace, signal), signal.cpu().double()
        wide_spectrum, length = spectrum.cpu().to(torch.complex128), self.case.samples
        exact_there = native.stft(wide, **exact, return_complex=True)
        exact_back = native.istft(wide_spectrum, **exact, length=length)
        return {
            "case": facts(self.case),
            "backend": backend,
            "round_trip": _largest(self._istft(namespace, there), wide),
            "stft": _largest(there, exact_there),
            "istft": _largest(self._istft(namespace, spectrum), exact_back),
        }


def facts(case: Case) -> Any:
    """The case as reports have it."""
    return asdict(case)


def disagreement(expected: torch.Tensor, got: torch.Tensor) -> str:
    """What is wrong with a result beside native's; empty when they agree."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return f"{got.dtype} {tuple(got.shape)} for {expected.dtype} {tuple(expected.shape)}"
    largest = float(expected.abs().max())
    apart = float((got - expected).abs().max())
    # Not "apart > ...", of which NaN would be no case.
    if apart <= AGREEMENT * largest:
        return ""
    return f"differs from native by {apart:.3g} where the largest value is {largest:.3g}"


def _largest(got: torch.Tensor, exact: torch.Tensor) -> float:
    return float((got.cpu().to(exact.dtype) - exact).abs().max())
