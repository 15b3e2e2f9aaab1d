"""The maps in torch's own operations, for whoever watches what a backward pass computes.

Tracers, dispatch modes and compilers record operations or compute without memory. They see none of
what a backend does, so what they see here are operations of torch's. torch differentiates and
batches these by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch.nn.functional import pad

from ..backends.base import Optional
from ..backends.envelope import inverse_envelope
from ..core.linear import Analysis, describe_analysis
from ..core.params import IstftParams, StftParams
from .linear_maps import Task


def _analyse(task: Task[Analysis], signal: torch.Tensor, window: Optional) -> torch.Tensor:
    return _compute_spectrum(task.subject, signal, window)


def _compute_spectrum(analysis: Analysis, signal: torch.Tensor, window: Optional) -> torch.Tensor:
    params = analysis.params
    frames = _cut_frames(params, signal)
    widened = _widen(params, window, signal)
    if widened is not None:
        frames = frames * widened
    transform = torch.fft.rfft if params.onesided else torch.fft.fft
    return _scale(analysis, transform(frames)).transpose(1, 2)


def _adjoin(task: Task[Analysis], spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
    return _compute_signal(task.subject, spectrum, window).contiguous()


def _compute_signal(analysis: Analysis, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
    params, frames = analysis.params, _invert(analysis, spectrum)
    widened = _widen(params, window, frames)
    if widened is not None:
        frames = frames * widened.conj()
    length = params.samples + 2 * params.padding
    sizes = (params.rows, max(length, _count_covered(params)))
    added = torch.ops.aten.unfold_backward(frames, sizes, 1, params.n_fft, params.hop_length)
    signal = _fold_padding(params, added[:, :length])
    return signal.real if signal.is_complex() and not analysis.complex_signal else signal


def _correlate(task: Task[Analysis], signal: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
    analysis, params = task.subject, task.subject.params
    summed = (_cut_frames(params, signal).conj() * _invert(analysis, spectrum)).sum((0, 1))
    window = summed[params.window_left :][: params.win_length]
    if window.is_complex() and not analysis.complex_window:
        window = window.real
    return window.contiguous()


def _synthesise(task: Task[IstftParams], spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
    params, window = task.subject, _find_window(task.subject, spectrum, window)
    signal = _compute_signal(describe_analysis(params), spectrum, window.conj())
    return pad(signal * inverse_envelope(params, window, signal.dtype), (0, params.zero_tail))


def _adjoin_synthesis(
    task: Task[IstftParams], cotangent: torch.Tensor, window: Optional
) -> torch.Tensor:
    params, window = task.subject, _find_window(task.subject, cotangent, window)
    divided = cotangent[:, : params.kept] * inverse_envelope(params, window, cotangent.dtype).conj()
    return _compute_spectrum(describe_analysis(params), divided, window.conj()).contiguous()


#: By the name of a map, what computes it; arguments and results as in :mod:`.autograd.linear_maps`.
PLAIN_MAPS: Mapping[str, Callable[[Task[Any], Any, Any], torch.Tensor]] = MappingProxyType(
    {
        "analysis": _analyse,
        "adjoint": _adjoin,
        "correlation": _correlate,
        "inverse": _synthesise,
        "inverse_adjoint": _adjoin_synthesis,
    }
)


def _find_window(params: IstftParams, tensor: torch.Tensor, window: Optional) -> torch.Tensor:
    """Return the window, or the ones that native has in its place."""
    if window is not None:
        return window
    return torch.ones(params.win_length, dtype=tensor.dtype.to_real(), device=tensor.device)


def _widen(params: StftParams, window: Optional, tensor: torch.Tensor) -> Optional:
    """Return the window with zeros around it, as many values as a frame; None for no window."""
    if window is None:
        if params.win_length == params.n_fft:
            return None
        window = torch.ones(params.win_length, dtype=tensor.dtype.to_real(), device=tensor.device)
    left = params.window_left
    return pad(window, (left, params.n_fft - params.win_length - left))


def _cut_frames(params: StftParams, signal: torch.Tensor) -> torch.Tensor:
    """Pad a signal and cut it, shape (rows, frames, n_fft).

    The frames of an istft's adjoint may end before or after the padded signal.
    """
    if params.padding:
        signal = pad(signal, (params.padding, params.padding), params.pad_mode)
    rest = _count_covered(params) - signal.shape[-1]
    if rest:
        signal = pad(signal, (0, rest))
    return signal.unfold(-1, params.n_fft, params.hop_length)


def _count_covered(params: StftParams) -> int:
    """Count the samples of the padded signal that all frames cover."""
    return (params.frames - 1) * params.hop_length + params.n_fft


def _invert(analysis: Analysis, spectrum: torch.Tensor) -> torch.Tensor:
    """Compute the adjoint of the scaled transform of each frame, shape (rows, frames, n_fft)."""
    by_frames = _scale(analysis, spectrum.transpose(1, 2))
    frames: torch.Tensor = torch.fft.ifft(by_frames, analysis.params.n_fft, norm="forward")
    return frames if analysis.params.complex_fft else frames.real


def _scale(analysis: Analysis, by_frames: torch.Tensor) -> torch.Tensor:
    """Multiply spectra, bins last, by the scale, and DC and Nyquist by their factor."""
    params, edge = analysis.params, analysis.edge
    if params.onesided and edge != 1.0:
        ends = 2 - params.n_fft % 2 if params.n_fft > 1 else 1
        inner = torch.ones(params.bins - ends, device=by_frames.device)
        factors = pad(inner, (1, ends - 1), value=edge)
        by_frames = by_frames * factors
    return by_frames * params.scale if params.scale != 1.0 else by_frames


def _fold_padding(params: StftParams, padded: torch.Tensor) -> torch.Tensor:
    """Compute the adjoint of the padding of a signal."""
    width, samples = params.padding, params.samples
    if not width:
        return padded
    parts: tuple[torch.Tensor, ...] = torch.split(padded, [width, samples, width], -1)
    left, signal, right = parts
    rest = samples - width
    if params.pad_mode == "reflect":
        return signal + pad(left.flip(-1), (1, rest - 1)) + pad(right.flip(-1), (rest - 1, 1))
    if params.pad_mode == "circular":
        return signal + pad(left, (rest, 0)) + pad(right, (0, rest))
    if params.pad_mode == "replicate":
        ends = (left.sum(-1, keepdim=True), right.sum(-1, keepdim=True))
        return signal + pad(ends[0], (0, samples - 1)) + pad(ends[1], (samples - 1, 0))
    return signal
