"""The maps that every derivative is made of, on torch tensors, computed by one backend.

Analysis is linear in the signal ``x`` and in the window ``w``. With ``F`` framing (padding
included), ``D`` the transform of each frame, ``s`` a scale, ``E`` the factor of DC and Nyquist,

    A(x, w) = s E D (w . F x)

and ``<a, b> = Re sum conj(a) b`` (torch's convention for gradients of complex values), the two
maps that make ``<z, A(x, w)>`` linear in the third argument are

    adjoint(z, w):    <adjoint(z, w), x>   = <z, A(x, w)>    overlap-add, padding folded back
    correlation(x, z): <correlation(x, z), w> = <z, A(x, w)>   a sum over all frames

(the chain rule in Griffin and Lim's linear framing; see any text on adjoints of filter banks).
All derivatives of all orders are compositions of these three: :data:`.core.linear.RULES`. An istft
is an adjoint times an inverse envelope. Where its window is constant, ``inverse`` computes both in
one step, and ``inverse_adjoint`` is the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch

from ..backends.base import Backend, Optional
from ..core.linear import Analysis
from ..core.params import IstftParams

Subject = TypeVar("Subject", Analysis, IstftParams)


@dataclass(eq=False)  # frozen, it would take three times as long to make
class Task(Generic[Subject]):
    """What a map needs besides its two tensors; calls that are alike share it.

    Attributes:
        backend: computes the map and all its derivatives.
        subject: the analysis; for an istft by a constant window, its resolved arguments.
        checked: the istft whose envelope the map checks before it computes; None to check nothing.
        copies_window: whether autograd saves a constant window as a copy.
        refers: whether native's gradient in the first argument refers to that argument, though it
            does not depend on its values.
    """

    backend: Backend
    subject: Subject
    checked: IstftParams | None = None
    copies_window: bool = False
    refers: bool = False

    def for_derivatives(self) -> Task[Subject]:
        """Return the task of the map's derivatives, which check, copy and refer to nothing."""
        if self.checked is None and not (self.copies_window or self.refers):
            return self
        return Task(self.backend, self.subject)

    def with_rows(self, rows: int) -> Task[Subject]:
        """Return the same task for another number of rows."""
        subject: Any = self.subject
        is_analysis = isinstance(subject, Analysis)
        more = subject.with_rows(rows) if is_analysis else replace(subject, rows=rows)
        return replace(self, subject=more)


def compute_analysis(task: Task[Analysis], signal: torch.Tensor, window: Optional) -> torch.Tensor:
    """Compute ``A(x, w)``, shape (rows, bins, frames), complex64.

    Args:
        signal: shape (rows, samples).
        window: shape (win_length,), or None.
    """
    return task.backend.analyse(task.subject.params, signal, window, task.subject.edge)


def compute_adjoint(task: Task[Analysis], spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
    """Compute ``adjoint(z, w)``, shape (rows, samples), contiguous; real if the signal is.

    Args:
        spectrum: shape (rows, bins, frames), complex64.
        window: shape (win_length,), or None.

    Raises:
        UnresolvedArguments: the task checks an envelope, and it vanishes.
    """
    if task.checked is not None:
        task.backend.check_envelope(task.checked, window)
    analysis = task.subject
    if analysis.params.samples == 0:
        signal = spectrum.new_zeros((analysis.params.rows, 0))
    else:
        signal = task.backend.adjoint(analysis, spectrum, window)
    if signal.is_complex() and not analysis.complex_signal:
        signal = signal.real.contiguous()
    return signal


def compute_correlation(
    task: Task[Analysis], signal: torch.Tensor, spectrum: torch.Tensor
) -> torch.Tensor:
    """Compute ``correlation(x, z)``, shape (win_length,); real if the window is.

    Args:
        signal: shape (rows, samples).
        spectrum: shape (rows, bins, frames), in the window's precision.
    """
    analysis, params = task.subject, task.subject.params
    summed = task.backend.differentiate_window(analysis, signal, spectrum)
    window = summed[params.window_left :][: params.win_length] * analysis.inverse_scale
    if window.is_complex() and not analysis.complex_window:
        window = window.real
    single = torch.complex64 if window.is_complex() else torch.float32
    return window.to(window.dtype if spectrum.dtype == torch.complex128 else single).contiguous()


def compute_inverse(
    task: Task[IstftParams], spectrum: torch.Tensor, window: Optional
) -> torch.Tensor:
    """Compute a whole istft, divided by its envelope, shape (rows, output length).

    Raises:
        UnresolvedArguments: the envelope vanishes.
    """
    return task.backend.synthesise(task.subject, spectrum, window)


def compute_inverse_adjoint(
    task: Task[IstftParams], cotangent: torch.Tensor, window: Optional
) -> torch.Tensor:
    """Compute the adjoint of a whole istft.

    Its shape is (rows, bins, frames), its dtype complex64. It is contiguous, as native's gradient,
    which is (rows, frames, bins) made contiguous: along a size of one its strides stay.

    Args:
        cotangent: shape (rows, output length).
        window: shape (win_length,), or None.
    """
    params, found = task.subject, task.backend.adjoint_synthesis(task.subject, cotangent, window)
    if params.frames == 1 or params.bins == 1:
        found.as_strided_(found.shape, (params.frames * params.bins, 1, params.bins))
    return found
