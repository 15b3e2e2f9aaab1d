"""Maps on tensors of the host, by MLX's operations in blocks that fit the processor's cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...core.envelope import inverse_of_frames
from ...core.linear import Form
from ...core.params import IstftParams, StftParams
from ...mlx.adjoint_blocks import adjoint_blocks
from ...mlx.blocks import correlate_blocks, istft_blocks, stft_blocks
from ...mlx.runtime import runtime
from .bridge import empty_result, host_view, view_memory
from .windows import Window, get_envelope


def analyse(
    params: StftParams,
    signal: torch.Tensor,
    window: Any,
    strides: tuple[int, ...],
    factors: Any = None,
    edge: float = 1.0,
) -> torch.Tensor:
    """A spectrum of shape (rows, bins, frames).

    Args:
        signal: shape (rows, samples).
        window: MLX array of n_fft values, every scale folded in, or None.
        strides: of the result.
        factors, edge: see :func:`.mlx.blocks.stft_blocks`.
    """
    shape = (params.rows, params.bins, params.frames)
    out = empty_result(shape, strides, torch.complex64)
    by_frames = view_memory(out).transpose(0, 2, 1)
    stft_blocks(runtime(), params, host_view(signal), window, by_frames, factors, edge)
    return out


def synthesise(params: IstftParams, spectrum: torch.Tensor, window: Window) -> torch.Tensor:
    """A signal of shape (rows, output length).

    Args:
        spectrum: shape (rows, bins, frames).
    """
    dtype = torch.complex64 if params.return_complex else torch.float32
    shape = (params.rows, params.output_length)
    signal = empty_result(shape, (params.output_length, 1), dtype)
    view = host_view(spectrum.transpose(1, 2))
    envelope = get_envelope(params, window)
    istft_blocks(runtime(), params, view, window.for_maps(1.0), envelope, view_memory(signal))
    return signal


def adjoint(form: Form, spectrum: torch.Tensor, window: Window) -> torch.Tensor:
    """Compute :meth:`.Backend.adjoint`."""
    params = form.params
    prepared = window.for_maps(form.inverse_scale, conjugate=True)
    dtype = torch.complex64 if params.complex_fft else torch.float32
    signal = empty_result((params.rows, params.samples), (params.samples, 1), dtype)
    view = host_view(spectrum.transpose(1, 2))
    adjoint_blocks(runtime(), form, view, prepared, view_memory(signal))
    return signal


def differentiate_window(form: Form, signal: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
    """Compute :meth:`.Backend.differentiate_window`."""
    params = form.params
    total = np.zeros(params.n_fft, np.complex128 if params.complex_fft else np.float64)
    view = host_view(spectrum.transpose(1, 2))
    correlate_blocks(runtime(), form, host_view(signal), view, total)
    return torch.from_numpy(total)


def adjoint_synthesis(
    params: IstftParams,
    form: Form,
    cotangent: torch.Tensor,
    window: Window,
    strides: tuple[int, ...],
) -> torch.Tensor:
    """The adjoint of a synthesis.

    Args:
        params: of the synthesis.
        form: the analysis that it is the adjoint of, its envelope left out.
        cotangent: of the samples that are kept, shape (rows, kept).
        strides: of the result.
    """
    rows = get_envelope(params, window).rows.conj()

    def inverse(first: int, count: int) -> Any:
        return inverse_of_frames(rows, params.frames, params.overlap, params.n_fft, first, count)

    scaled = window.for_maps(form.params.scale, conjugate=True)
    return analyse(form.params, cotangent, scaled, strides, inverse, form.edge)
