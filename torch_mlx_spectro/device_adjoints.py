"""The maps of derivatives (:mod:`.adjoints`) on a device's tensors (:mod:`.device_backend`)."""

from __future__ import annotations

from dataclasses import replace

import torch

from .device_backend import (
    DeviceKind,
    inverse_frames,
    resolved,
    spectrum_of,
    synthesis_of_frames,
)
from .device_backend import analysis as analysis_of_batch
from .forms import Form, analysis_of, bins_that_are_read, synthesis_of
from .kernels import describe
from .kernels.describe import Adjoint, Launch, points_of
from .params import IstftParams, StftParams

Optional = torch.Tensor | None


def launches_back(
    params: StftParams | IstftParams, tensor: torch.Tensor, window: Optional
) -> list[tuple[Launch, ...]]:
    """What the way back of a call launches, alternatives each, where its cotangent lies as usual.

    Args:
        tensor, window: of the call.
    """
    complex_window = window is not None and window.is_complex()
    if isinstance(params, StftParams):
        form = Form(params, tensor.is_complex(), complex_window)
        folded = synthesis_of(form, params.padding, params.samples)
        adjoint = Adjoint(params.padding, params.pad_mode, form.both_halves)
        fused = describe.synthesis(folded, complex_window, False, adjoint)
        found = [fused or (describe.add_frames(folded, complex_window, adjoint),)]
    else:
        form = replace(analysis_of(bins_that_are_read(params)), complex_window=complex_window)
        kinds = (form.complex_signal, complex_window)
        fused = describe.analysis(form.params, *kinds, True)
        found = [fused or (describe.cut_frames(form.params, *kinds),)]
    if window is not None and window.requires_grad:
        found.append((describe.cut_frames(form.params, form.complex_signal, False),))
    return found


def analysis(kind: DeviceKind, form: Form, signal: torch.Tensor, window: Optional) -> torch.Tensor:
    """As :func:`.adjoints.analysis`."""
    return analysis_of_batch(kind, form.params, signal, window, _edge(form))


def _edge(form: Form) -> float:
    return form.edge if form.params.onesided else 1.0


def adjoint(kind: DeviceKind, form: Form, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
    """As :func:`.adjoints.adjoint`, of the transform's kind."""
    params = form.params
    scale = form.inverse_scale
    if points_of(params) is not None:
        # The fused kernel divides not, and takes both halves as one when it packs them.
        scale = params.scale * (1.0 if params.complex_fft else 0.5)
    prepared = kind.windows.scaled(
        window, params.win_length, params.n_fft, scale, spectrum.device, conjugate=True
    )
    return synthesis_of_frames(
        kind,
        synthesis_of(form, params.padding, params.samples),
        resolved(spectrum).transpose(1, 2),
        prepared,
        prepared,  # in the envelope's place: an adjoint has none
        edge=1.0 if params.complex_fft else 2.0 * form.edge,
        adjoint=Adjoint(params.padding, params.pad_mode, form.both_halves),
    )


def correlation(
    kind: DeviceKind, form: Form, signal: torch.Tensor, spectrum: torch.Tensor
) -> torch.Tensor:
    """The sum over all frames of frame times inverse transform, shape (n_fft,), unscaled."""
    params = form.params
    ones = kind.windows.scaled(None, params.n_fft, params.n_fft, 1.0, signal.device)
    frames = kind.kernels().cut_frames(params, resolved(signal), ones)
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
    conjugate = window is not None and window.is_complex()
    kept = cotangent[:, : params.kept]
    rows = kind.windows.envelope(params, window, cotangent.device, conjugate)
    is_fused = points_of(form.params) is not None
    if not is_fused:  # only the fused kernel multiplies as it reads
        kept = kept * _of_samples(params, rows)
    spectrum = spectrum_of(
        kind,
        form.params,
        kept,
        window,
        conjugate=True,
        edge=_edge(form),
        envelope=rows if is_fused else None,
    )
    return spectrum.transpose_(1, 2).contiguous()


def _of_samples(params: IstftParams, envelope: torch.Tensor) -> torch.Tensor:
    """The inverse envelope of every kept sample, of its rows (:func:`.envelope.row_of_hop`)."""
    frames, overlap = params.frames, params.overlap
    row = torch.arange(frames + overlap - 1, device=envelope.device)
    if frames >= overlap:
        row = row.clamp(max=overlap - 1) + (row - (frames - 1)).clamp(min=0)
    covered = envelope.view(-1, params.hop_length)[row].flatten()
    return covered[params.start : params.start + params.kept]
