"""The two maps that the derivatives of a spectrum need besides analysis, on torch tensors.

Analysis is linear in the signal ``x`` and in the window ``w``. With ``F`` framing (padding
included), ``D`` the transform of each frame, ``s`` a scale, ``E`` the factor of DC and Nyquist,

    A(x, w) = s E D (w . F x)

and ``<a, b> = Re sum conj(a) b`` (torch's convention for gradients of complex values), the two
maps that make ``<z, A(x, w)>`` linear in the third argument are

    adjoint(z, w):    <adjoint(z, w), x>   = <z, A(x, w)>    overlap-add, padding folded back
    correlation(x, z): <correlation(x, z), w> = <z, A(x, w)>   a sum over all frames

(the chain rule in Griffin and Lim's linear framing; see any text on adjoints of filter banks). All
derivatives of all orders are compositions of these three: :mod:`.autograd.derivatives`. An istft is
an adjoint times an inverse envelope, so it needs no map of its own.
"""

from __future__ import annotations

import torch

from ..backends import registry
from ..backends.base import Backend
from ..core.linear import Form, Inversion
from ..core.params import IstftParams


def _backend(name: str | None, tensor: torch.Tensor) -> Backend:
    """The backend of a name, else the last candidate for the tensor's device: MLX on the host."""
    return registry.load(name or registry.list_candidates(tensor.device.type)[-1])


def analysis(form: Form, signal: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
    """``A(x, w)``, shape (rows, bins, frames), complex64.

    Args:
        signal: shape (rows, samples).
        window: shape (win_length,), or None.
    """
    return _backend(form.backend, signal).analyse(form.params, signal, window, form.edge)


def adjoint(form: Form, spectrum: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
    """``adjoint(z, w)``, shape (rows, samples), contiguous, of the signal's kind.

    Args:
        spectrum: shape (rows, bins, frames), complex64.
        window: shape (win_length,), or None.
    """
    if form.params.samples == 0:
        signal = spectrum.new_zeros((form.params.rows, 0))
    else:
        signal = _backend(form.backend, spectrum).adjoint(form, spectrum, window)
    if signal.is_complex() and not form.complex_signal:
        signal = signal.real.contiguous()
    return signal


def correlation(form: Form, signal: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
    """``correlation(x, z)``, shape (win_length,), of the window's kind.

    Args:
        signal: shape (rows, samples).
        spectrum: shape (rows, bins, frames), complex64.
    """
    params = form.params
    summed = _backend(form.backend, signal).differentiate_window(form, signal, spectrum)
    left = (params.n_fft - params.win_length) // 2
    window = summed[left : left + params.win_length] * form.inverse_scale
    if window.is_complex() and not form.complex_window:
        window = window.real
    return window.to(torch.complex64 if window.is_complex() else torch.float32).contiguous()


def istft(
    inversion: Inversion, spectrum: torch.Tensor, window: torch.Tensor | None
) -> torch.Tensor:
    """The signal of a batch of spectra, its envelope included, shape (rows, output length)."""
    return _backend(inversion.backend, spectrum).synthesise(inversion.params, spectrum, window)


def check_envelope(
    backend: str | None, params: IstftParams, spectrum: torch.Tensor, window: torch.Tensor | None
) -> None:
    """Raise UnresolvedArguments where the envelope of an istft vanishes."""
    _backend(backend, spectrum).check_envelope(params, window)


def istft_adjoint(
    inversion: Inversion, cotangent: torch.Tensor, window: torch.Tensor | None
) -> torch.Tensor:
    """The adjoint of a onesided or complex istft.

    Shape (rows, bins, frames), complex64, contiguous: native's gradient is.

    Args:
        cotangent: shape (rows, output length).
        window: shape (win_length,), or None.
    """
    computing = _backend(inversion.backend, cotangent)
    return computing.adjoint_synthesis(inversion.params, cotangent, window)
