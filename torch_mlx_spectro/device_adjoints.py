"""The maps of derivatives (:mod:`.adjoints`) on a device's tensors (:mod:`.device_backend`)."""

from __future__ import annotations

from dataclasses import replace

import torch

from .device_backend import (
    DeviceKind,
    inverse_frames,
    readable,
    resolved,
    spectrum_of,
    synthesis_of_frames,
)
from .device_backend import analysis as analysis_of_batch
from .forms import Form, analysis_of, bins_that_are_read, synthesis_of
from .kernels import describe
from .kernels.describe import Launch, adjoint_of
from .kernels.tensors import layout_of
from .params import IstftParams, StftParams

Optional = torch.Tensor | None


def launches_back(
    params: StftParams | IstftParams, tensor: torch.Tensor, window: Optional
) -> list[tuple[Launch, ...]]:
    """What the way back of a call launches, alternatives each, where its cotangent lies as usual.

    Args:
        tensor, window: of the call.
    """
    complex_window, step = layout_of(window, params.n_fft)
    if isinstance(params, StftParams):
        form = Form(params, tensor.is_complex(), complex_window)
        folded = synthesis_of(form, params.padding, params.samples)
        adjoint = adjoint_of(form)
        fused = describe.synthesis(folded, complex_window, False, adjoint, step=step)
        found = [fused or (describe.add_frames(folded, complex_window, adjoint, step=step),)]
    else:
        form = replace(analysis_of(bins_that_are_read(params)), complex_window=complex_window)
        kinds = (form.complex_signal, complex_window)
        divisor = divisor_of(form, params)
        fused = describe.analysis(form.params, *kinds, divisor, step=step)
        found = [fused or (describe.cut_frames(form.params, *kinds, step=step, divisor=divisor),)]
    if window is not None and window.requires_grad:
        kinds = (form.complex_signal, False)
        found.append((describe.cut_frames(form.params, *kinds, step=describe.NO_WINDOW),))
    return found


def divisor_of(form: Form, params: IstftParams) -> float:
    """What a cotangent is divided by besides the envelope, before the analysis of the form."""
    return 1.0 / (form.params.scale * params.scale)


def analysis(kind: DeviceKind, form: Form, signal: torch.Tensor, window: Optional) -> torch.Tensor:
    """As :func:`.adjoints.analysis`."""
    return analysis_of_batch(kind, form.params, signal, window, _edge(form))


def _edge(form: Form) -> float:
    return form.edge if form.params.onesided else 1.0


def adjoint(kind: DeviceKind, form: Form, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
    """As :func:`.adjoints.adjoint`, of the transform's kind."""
    params = form.params
    return synthesis_of_frames(
        kind,
        synthesis_of(form, params.padding, params.samples),
        resolved(spectrum).transpose(1, 2),
        readable(window, conjugate=True),
        adjoint=adjoint_of(form),
    )


def correlation(
    kind: DeviceKind, form: Form, signal: torch.Tensor, spectrum: torch.Tensor
) -> torch.Tensor:
    """The sum over all frames of frame times inverse transform, shape (n_fft,), unscaled."""
    params = replace(form.params, win_length=form.params.n_fft, scale=1.0)
    frames = kind.kernels().cut_frames(params, resolved(signal), None)
    inverse = inverse_frames(
        kind,
        params,
        resolved(spectrum).transpose(1, 2),
        edge=form.inverse_edge,
        both_halves=form.both_halves,
    )
    return kind.summed(frames.conj() * inverse)


def istft_adjoint(
    kind: DeviceKind, params: IstftParams, cotangent: torch.Tensor, window: Optional
) -> torch.Tensor:
    """As :func:`.adjoints.istft_adjoint`."""
    form = analysis_of(params)
    spectrum = spectrum_of(
        kind,
        form.params,
        cotangent[:, : params.kept],
        window,
        conjugate=True,
        edge=_edge(form),
        divisor=divisor_of(form, params),
    )
    return spectrum.transpose_(1, 2).contiguous()
