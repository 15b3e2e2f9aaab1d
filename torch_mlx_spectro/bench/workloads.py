"""A case's tensors, the calls that are timed on them, and the errors of both."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch

from ..native import functions as native
from .cases import ISTFT, ISTFT_BACKWARD, ISTFT_BINS, ROUND_TRIP, STFT, STFT_BACKWARD, Case
from .measuring import Call
from .schema import Accuracy

#: Memory that inputs and outputs rotate through on a GPU: three times an H100's cache.
ROTATED_BYTES = 160_000_000
MAX_SETS = 64

#: How far a result may be from native's, in units of its largest value, to be timed at all: what
#: is right to rounding is far below, what is wrong (a frame, a weight) far above.
AGREEMENT = 1e-4


class Namespace(Protocol):
    """What has both functions: this package, or native torch."""

    @property
    def stft(self) -> Callable[..., torch.Tensor]: ...

    @property
    def istft(self) -> Callable[..., torch.Tensor]: ...


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

    def call(self, operation: str, namespace: Namespace) -> Call:
        """One of the operations on the set that a call's number chooses."""
        inputs = self._inputs(operation)
        outputs = self._outputs(operation)
        compute = self._computation(operation, namespace)
        sets = self.sets
        if outputs is None:
            return lambda number: compute(inputs[number % sets])

        def with_gradient(number: int) -> torch.Tensor:
            leaf = inputs[number % sets]
            (gradient,) = torch.autograd.grad(compute(leaf), leaf, outputs[number % sets])
            return gradient

        return with_gradient

    def _computation(
        self, operation: str, namespace: Namespace
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        stft, istft = partial(self._stft, namespace), partial(self._istft, namespace)
        if operation in (STFT, STFT_BACKWARD):
            return stft
        return (lambda signal: istft(stft(signal))) if operation == ROUND_TRIP else istft

    def _inputs(self, operation: str) -> list[torch.Tensor]:
        if operation == ISTFT_BINS:
            return [spectrum.contiguous() for spectrum in self.spectra]
        given = self.spectra if operation in (ISTFT, ISTFT_BACKWARD) else self.signals
        if operation in (STFT, ISTFT):
            return given
        return [tensor.detach().requires_grad_() for tensor in given]

    def _outputs(self, operation: str) -> list[torch.Tensor] | None:
        """The cotangents of operations with a backward pass; None of others."""
        if operation == STFT_BACKWARD:
            return self.spectra
        return self.signals if operation in (ISTFT_BACKWARD, ROUND_TRIP) else None

    def _stft(self, namespace: Namespace, signal: torch.Tensor) -> torch.Tensor:
        return namespace.stft(signal, **self._sizes, return_complex=True)

    def _istft(self, namespace: Namespace, spectrum: torch.Tensor) -> torch.Tensor:
        return namespace.istft(spectrum, **self._sizes, length=self.case.samples)

    def errors(self, namespace: Namespace, backend: str) -> Accuracy:
        """The largest errors on the first set; the caller chooses the backend."""
        case, signal, spectrum = self.case, self.signals[0], self.spectra[0]
        length = case.samples
        exact: dict[str, Any] = {
            "n_fft": case.n_fft,
            "hop_length": case.hop_length,
            "window": self.window.cpu().double(),
        }
        there = self._stft(namespace, signal)
        wide = signal.cpu().double()
        exact_there = native.stft(wide, **exact, return_complex=True)
        exact_back = native.istft(spectrum.cpu().to(torch.complex128), **exact, length=length)
        return {
            "case": facts(case),
            "backend": backend,
            "round_trip": _largest(self._istft(namespace, there), wide),
            "stft": _largest(there, exact_there),
            "istft": _largest(self._istft(namespace, spectrum), exact_back),
        }


def facts(case: Case) -> Any:
    """The case as reports have it."""
    return {
        "rows": case.rows,
        "samples": case.samples,
        "n_fft": case.n_fft,
        "hop_length": case.hop_length,
    }


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
