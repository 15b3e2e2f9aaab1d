"""The two maps that the derivatives of a spectrum need besides analysis, on torch tensors.

Analysis is linear in the signal ``x`` and in the window ``w``. With ``F`` framing (padding
included), ``D`` the transform of each frame, ``s`` a scale, ``E`` the factor of DC and Nyquist,

    A(x, w) = s E D (w . F x)

and ``<a, b> = Re sum conj(a) b`` (torch's convention for gradients of complex values), the two
maps that make ``<z, A(x, w)>`` linear in the third argument are

    adjoint(z, w):    <adjoint(z, w), x>   = <z, A(x, w)>    overlap-add, padding folded back
    correlation(x, z): <correlation(x, z), w> = <z, A(x, w)>   a sum over all frames

(the chain rule in Griffin and Lim's linear framing; see any text on adjoints of filter banks). All
derivatives of all orders are compositions of these three: :mod:`.derivatives`. An istft is an
adjoint times an inverse envelope, so it needs no map of its own.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Protocol, cast

import torch

from .forms import Form
from .params import IstftParams

#: Modules of maps by device type; all other devices' tensors are MLX's.
_MAPS = {"cuda": "cuda_adjoints"}


class Maps(Protocol):
    """The maps of one kind of device, on batches; arguments as of the functions here."""

    def analysis(
        self, form: Form, signal: torch.Tensor, window: torch.Tensor | None
    ) -> torch.Tensor: ...

    def adjoint(
        self, form: Form, spectrum: torch.Tensor, window: torch.Tensor | None
    ) -> torch.Tensor: ...

    def correlation(
        self, form: Form, signal: torch.Tensor, spectrum: torch.Tensor
    ) -> torch.Tensor: ...

    def istft(
        self, params: IstftParams, spectrum: torch.Tensor, window: torch.Tensor | None
    ) -> torch.Tensor: ...

    def istft_adjoint(
        self, params: IstftParams, cotangent: torch.Tensor, window: torch.Tensor | None
    ) -> torch.Tensor: ...


@lru_cache(maxsize=8)
def _maps_of(device_type: str) -> Maps:
    """The maps for a device type; only they load what computes there."""
    name = _MAPS.get(device_type, "mlx_adjoints")
    return cast(Maps, importlib.import_module(f".{name}", __package__))


def _maps(tensor: torch.Tensor) -> Maps:
    return _maps_of(tensor.device.type)


def analysis(form: Form, signal: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
    """``A(x, w)``, shape (rows, bins, frames), complex64.

    Args:
        signal: shape (rows, samples).
        window: shape (win_length,), or None.
    """
    return _maps(signal).analysis(form, signal, window)


def adjoint(form: Form, spectrum: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
    """``adjoint(z, w)``, shape (rows, samples), contiguous, of the signal's kind.

    Args:
        spectrum: shape (rows, bins, frames), complex64.
        window: shape (win_length,), or None.
    """
    if form.params.samples == 0:
        signal = spectrum.new_zeros((form.params.rows, 0))
    else:
        signal = _maps(spectrum).adjoint(form, spectrum, window)
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
    summed = _maps(signal).correlation(form, signal, spectrum)
    left = (params.n_fft - params.win_length) // 2
    window = summed[left : left + params.win_length] * form.inverse_scale
    if window.is_complex() and not form.complex_window:
        window = window.real
    return window.to(torch.complex64 if window.is_complex() else torch.float32).contiguous()


def istft(params: IstftParams, spectrum: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
    """An istft, its envelope included; as :func:`.mlx_backend.istft`."""
    return _maps(spectrum).istft(params, spectrum, window)


def istft_adjoint(
    params: IstftParams, cotangent: torch.Tensor, window: torch.Tensor | None
) -> torch.Tensor:
    """The adjoint of a onesided or complex istft: shape (rows, bins, frames), complex64.

    Args:
        cotangent: shape (rows, output length).
        window: shape (win_length,), or None.
    """
    return _maps(cotangent).istft_adjoint(params, cotangent, window)
