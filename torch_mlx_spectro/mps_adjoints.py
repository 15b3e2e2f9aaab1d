"""The maps of derivatives (:mod:`.adjoints`) on MPS tensors."""

from __future__ import annotations

import torch

from . import device_adjoints
from .forms import Form
from .mps_backend import CHECKS, MPS
from .mps_backend import istft as istft
from .params import IstftParams

Optional = torch.Tensor | None


def analysis(form: Form, signal: torch.Tensor, window: Optional) -> torch.Tensor:
    """As :func:`.adjoints.analysis`."""
    return device_adjoints.analysis(MPS, form, signal, window)


def adjoint(form: Form, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
    """As :func:`.adjoints.adjoint`, of the transform's kind."""
    return device_adjoints.adjoint(MPS, form, spectrum, window)


def correlation(form: Form, signal: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
    """The sum over all frames of frame times inverse transform, shape (n_fft,), unscaled."""
    return device_adjoints.correlation(MPS, form, signal, spectrum)


def istft_adjoint(params: IstftParams, cotangent: torch.Tensor, window: Optional) -> torch.Tensor:
    """As :func:`.adjoints.istft_adjoint`."""
    return device_adjoints.istft_adjoint(MPS, params, cotangent, window)


#: As :func:`.adjoints.check_envelope`.
check_envelope = CHECKS.check
