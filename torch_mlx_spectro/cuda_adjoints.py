"""The maps of derivatives (:mod:`.adjoints`) on CUDA tensors."""

from __future__ import annotations

import torch

from . import device_adjoints
from .cuda_backend import CHECKS, CUDA, on_its_device
from .cuda_backend import istft as istft
from .forms import Form
from .params import IstftParams

Optional = torch.Tensor | None


@on_its_device
def analysis(form: Form, signal: torch.Tensor, window: Optional) -> torch.Tensor:
    """As :func:`.adjoints.analysis`."""
    return device_adjoints.analysis(CUDA, form, signal, window)


@on_its_device
def adjoint(form: Form, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
    """As :func:`.adjoints.adjoint`, of the transform's kind."""
    return device_adjoints.adjoint(CUDA, form, spectrum, window)


@on_its_device
def correlation(form: Form, signal: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
    """The sum over all frames of frame times inverse transform, shape (n_fft,), unscaled."""
    return device_adjoints.correlation(CUDA, form, signal, spectrum)


@on_its_device
def istft_adjoint(params: IstftParams, cotangent: torch.Tensor, window: Optional) -> torch.Tensor:
    """As :func:`.adjoints.istft_adjoint`."""
    return device_adjoints.istft_adjoint(CUDA, params, cotangent, window)


#: As :func:`.adjoints.check_envelope`.
check_envelope = CHECKS.check
