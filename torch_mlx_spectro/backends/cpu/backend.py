"""The ``cpu`` backend: every map in torch's own operations, on whole calls.

It says what each map is in a few lines, and is what the author of a new backend starts from: a
subclass replaces one map after the other. All frames of a call are in memory at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import pad

from ...calls.operation import Call
from ...core.linear import Analysis, describe_analysis, own_conjugates
from ...core.padding import outside_positions
from ...core.params import IstftParams, StftParams
from ...native.strides import host_spectrum_strides, in_order
from ..base import Backend, Optional
from ..envelope import check_envelope, inverse_envelope


class TorchBlocks(Backend):
    """Tensors of the host, by torch's operations; it has no threads and keeps nothing."""

    def explain_absence(self, device_type: str | None = None) -> str | None:
        return None

    def name_kernel(self, call: Call) -> str:
        return "torch operations"

    def analyse(
        self, params: StftParams, signal: torch.Tensor, window: Optional, edge: float = 1.0
    ) -> torch.Tensor:
        prepared = _prepare_window(params, window, params.scale)
        spectrum = _transform(params, _cut_frames(params, _resolve(signal)), prepared, edge)
        return in_order(spectrum, host_spectrum_strides(params, signal, window))

    def synthesise(
        self, params: IstftParams, spectrum: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        check_envelope(params, window)
        frames = invert_frames(params, _resolve(spectrum).transpose(1, 2))
        added = _add_frames(params, frames, _prepare_window(params, window))
        kept = added[:, params.start : params.start + params.kept]
        return pad(kept * _invert_envelope(params, window), (0, params.zero_tail))

    def adjoint(self, analysis: Analysis, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
        params = analysis.params
        frames = _invert_cotangent(analysis, spectrum)
        prepared = _prepare_window(params, window, analysis.inverse_scale, conjugate=True)
        return _fold_padding(params, _add_frames(params, frames, prepared))

    def differentiate_window(
        self, analysis: Analysis, signal: torch.Tensor, spectrum: torch.Tensor
    ) -> torch.Tensor:
        params = analysis.params
        frames = _cut_frames(params, _resolve(signal))
        products = frames.conj() * _invert_cotangent(analysis, spectrum)
        wide = torch.complex128 if products.is_complex() else torch.float64
        return products.sum((0, 1), dtype=wide)

    def adjoint_synthesis(
        self, params: IstftParams, cotangent: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        analysis = describe_analysis(params)
        kept = _resolve(cotangent)[:, : params.kept]
        kept = kept * _invert_envelope(params, window).conj()
        prepared = _prepare_window(params, window, analysis.params.scale, conjugate=True)
        spectrum = _transform(
            analysis.params, _cut_frames(analysis.params, kept), prepared, analysis.edge
        )
        return spectrum.contiguous()

    def check_envelope(self, params: IstftParams, window: Optional) -> None:
        check_envelope(params, window)


CPU = TorchBlocks()


def _resolve(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor apart from autograd, with the values in memory that it shows."""
    return tensor.detach().resolve_conj().resolve_neg()


def _prepare_window(
    params: StftParams | IstftParams,
    window: Optional,
    factor: float = 1.0,
    conjugate: bool = False,
) -> Optional:
    """The window times ``factor``, padded to n_fft as torch pads it; None where that is all ones.

    The product is rounded once: errors of a window are the same in all frames.
    """
    if window is None:
        if params.win_length == params.n_fft and factor == 1.0:
            return None
        window = torch.ones(params.win_length, dtype=torch.float32, device="cpu")
    values = _resolve(window)
    wide = values.to(torch.complex128 if values.is_complex() else torch.float64) * factor
    right = params.n_fft - params.win_length - params.window_left
    full = pad(wide, (params.window_left, right)).to(values.dtype)
    return full.conj().resolve_conj() if conjugate else full


def _cut_frames(params: StftParams, signal: torch.Tensor) -> torch.Tensor:
    """Every frame of the padded signal, shape (rows, frames, n_fft); samples may be shared."""
    covered = (params.frames - 1) * params.hop_length + params.n_fft
    end = covered - params.padding
    if params.pad_mode == "constant":
        padded = pad(signal, (params.padding, end - params.samples))
    elif params.padding:
        padded = signal.index_select(1, _signal_positions(params, -params.padding, end))
    else:
        padded = signal[:, :end]
    return padded.unfold(1, params.n_fft, params.hop_length)


def _signal_positions(params: StftParams, begin: int, end: int) -> torch.Tensor:
    """The positions inside the signal that these, which may lie in the padding, are made of."""
    positions = np.arange(begin, end, dtype=np.int64)
    return torch.from_numpy(outside_positions(positions, params.samples, params.pad_mode))


def _fold_padding(params: StftParams, added: torch.Tensor) -> torch.Tensor:
    """The adjoint of padding: what fell on padded samples goes to those that they are made of.

    Args:
        added: what frames cover of the padded signal, shape (rows, covered samples).
    """
    begin, end = -params.padding, added.shape[1] - params.padding
    signal = pad(added, (begin, params.samples - end))
    if params.pad_mode == "constant":
        return signal
    for first, last in ((begin, min(end, 0)), (params.samples, end)):
        if last > first:
            fallen = added[:, first - begin : last - begin]
            inside = _signal_positions(params, first, last).expand(params.rows, -1)
            signal.scatter_add_(1, inside, fallen)
    return signal


def _transform(
    params: StftParams, frames: torch.Tensor, window: Optional, edge: float
) -> torch.Tensor:
    """The spectrum of frames, shape (rows, bins, frames), new and no view.

    Args:
        edge: as of :meth:`.Backend.analyse`.
    """
    windowed = frames if window is None else frames * window
    spectrum: torch.Tensor = (torch.fft.rfft if params.onesided else torch.fft.fft)(windowed)
    weigh_edges(params, spectrum, edge)
    # In place, as native does: a view that a custom function returns may not be changed.
    return spectrum.transpose_(1, 2)


def weigh_edges(params: StftParams, by_frames: torch.Tensor, edge: float) -> None:
    """Multiply, in place, the bins of a onesided spectrum that are their own conjugates.

    Args:
        by_frames: shape (..., bins).
    """
    if params.onesided and edge != 1.0:
        for own in own_conjugates(params.n_fft):
            by_frames[..., own] *= edge


def invert_frames(
    params: StftParams | IstftParams,
    by_frames: torch.Tensor,
    edge: float = 1.0,
    both_halves: bool = False,
    inverse_real: Callable[[torch.Tensor, int], torch.Tensor] | None = None,
) -> torch.Tensor:
    """The inverse transform of every frame, shape (rows, frames, n_fft).

    Args:
        by_frames: shape (rows, frames, bins), its bits resolved.
        edge: factor of DC and Nyquist of real frames.
        both_halves: real frames of all bins: the real part of the sum.
        inverse_real: in the place of ``torch.fft.irfft``.
    """
    if params.complex_fft or both_halves:
        frames: torch.Tensor = torch.fft.ifft(by_frames)
        return frames if params.complex_fft else frames.real
    half = by_frames[..., : params.n_fft // 2 + 1].clone(memory_format=torch.contiguous_format)
    for own in own_conjugates(params.n_fft):
        # Their imaginary parts belong to no real frame; not every transform ignores them.
        half[..., own] = half[..., own].real * edge
    return (inverse_real or torch.fft.irfft)(half, params.n_fft)


def _invert_cotangent(analysis: Analysis, spectrum: torch.Tensor) -> torch.Tensor:
    """The frames of a spectrum's cotangent, shape (rows, frames, n_fft), but for their scale."""
    by_frames = _resolve(spectrum).transpose(1, 2)
    return invert_frames(analysis.params, by_frames, analysis.inverse_edge, analysis.both_halves)


def _add_frames(
    params: StftParams | IstftParams, frames: torch.Tensor, window: Optional
) -> torch.Tensor:
    """Overlap-add of windowed frames, shape (rows, covered samples).

    Hop by hop of the frames: the same hop of all frames meets no sample twice.
    """
    if window is not None:
        frames = frames * window
    n_fft, hop = params.n_fft, params.hop_length
    added = frames.new_zeros(params.rows, (params.frames - 1) * hop + n_fft)
    for begin in range(0, n_fft, hop):
        piece = frames[..., begin : begin + hop]
        places = added[:, begin:].unfold(1, piece.shape[2], hop)
        places[:, : params.frames] += piece
    return added


def _invert_envelope(params: IstftParams, window: Optional) -> torch.Tensor:
    """The inverse envelope of the samples that are kept, the call's scale included."""
    if window is None:
        window = torch.ones(params.win_length, dtype=torch.float32, device="cpu")
    return inverse_envelope(params, _resolve(window))
