"""The maps of derivatives (:mod:`.backends.maps`) by MLX: host tensors in blocks, MPS's whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...core.envelope import inverse_of_frames
from ...core.linear import Form, analysis_of, synthesis_of
from ...core.params import IstftParams, StftParams
from ...kernels.describe import adjoint_of
from ...mlx import ops as maps
from ...mlx.adjoint_blocks import adjoint_blocks
from ...mlx.blocks import correlate_blocks
from ...mlx.kernels import MetalKernels
from ...mlx.runtime import runtime
from . import backend as mlx_backend
from .backend import istft as istft
from .bridge import empty_result, host_view, memory_of, to_mlx
from .windows import Window, envelope_of, window_of
from .windows import check_envelope as check_window


def analysis(form: Form, signal: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
    """As :func:`.backends.maps.analysis`."""
    return _weigh_edges(form, mlx_backend.analysis(form.params, signal, window))


def _weigh_edges(form: Form, spectrum: torch.Tensor) -> torch.Tensor:
    """Multiply, in place, the bins that are their own conjugates by the form's factor."""
    if form.params.onesided and form.edge != 1.0:
        for edge in maps.own_conjugates(form.params.n_fft):
            spectrum[:, edge] *= form.edge
    return spectrum


def adjoint(form: Form, spectrum: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
    """As :func:`.backends.maps.adjoint`, of the transform's kind."""
    params = form.params
    prepared = window_of(window, params.win_length, params.n_fft)
    kernels = mlx_backend.kernels_for(spectrum, params)
    if kernels is None:
        return _adjoint_in_blocks(form, spectrum, prepared)
    folded = synthesis_of(form, params.padding, params.samples)
    return mlx_backend.istft_whole(
        kernels, folded, spectrum, prepared, conjugate=True, adjoint=adjoint_of(form)
    )


def _adjoint_in_blocks(form: Form, spectrum: torch.Tensor, window: Window) -> torch.Tensor:
    params = form.params
    prepared = window.for_maps(form.inverse_scale, conjugate=True)
    dtype = torch.complex64 if params.complex_fft else torch.float32
    signal = empty_result((params.rows, params.samples), (params.samples, 1), dtype)
    view = host_view(spectrum.transpose(1, 2))
    adjoint_blocks(runtime(), form, view, prepared, memory_of(signal))
    return signal


def correlation(form: Form, signal: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
    """The sum over all frames of frame times inverse transform, shape (n_fft,), unscaled."""
    params = form.params
    kernels = mlx_backend.kernels_for(signal, params)
    if kernels is not None:
        return _correlation_whole(kernels, form, signal, spectrum)
    total = np.zeros(params.n_fft, np.complex128 if params.complex_fft else np.float64)
    correlate_blocks(
        runtime(),
        params,
        host_view(signal),
        host_view(spectrum.transpose(1, 2)),
        total,
        edge=form.inverse_edge,
        both_halves=form.both_halves,
    )
    return torch.from_numpy(total)


def _correlation_whole(
    kernels: MetalKernels, form: Form, signal: torch.Tensor, spectrum: torch.Tensor
) -> torch.Tensor:
    mx, params = runtime().mx, replace(form.params, scale=1.0)
    ones = Window(None, None, params.n_fft, params.n_fft).for_kernels(kernels)
    with mlx_backend.whole_arrays(signal) as stream:
        lent = to_mlx(mx, spectrum.transpose(1, 2), stream)
        borrowed = to_mlx(mx, signal, stream)
        frames = kernels.cut_frames(params, borrowed.array, ones, stream)
        inverse = maps.windowed_frames(
            mx,
            lent.array,
            None,
            params.n_fft,
            not params.complex_fft,
            stream,
            edge=form.inverse_edge,
            both_halves=form.both_halves,
        )
        result = maps.correlated(mx, frames, inverse, stream)
        exported = mlx_backend.exported(mx, result, borrowed)
        del lent  # until here: the result is computed from it
        return exported


def istft_adjoint(
    params: IstftParams, cotangent: torch.Tensor, window: torch.Tensor | None
) -> torch.Tensor:
    """As :func:`.backends.maps.istft_adjoint`."""
    form = analysis_of(params)
    prepared = window_of(window, params.win_length, params.n_fft)
    kernels = mlx_backend.kernels_for(cotangent, form.params)
    kept = cotangent[:, : params.kept]
    if kernels is not None:
        divisor = 1.0 / (form.params.scale * params.scale)
        return mlx_backend.stft_whole(
            kernels,
            form.params,
            kept,
            prepared,
            _contiguous_strides(form.params),
            conjugate=True,
            edge=form.edge,
            divisor=divisor,
        )
    rows = envelope_of(params, prepared).rows.conj()

    def inverse(first: int, count: int) -> Any:
        return inverse_of_frames(rows, params.frames, params.overlap, params.n_fft, first, count)

    analysed = form.params
    strides = _contiguous_strides(analysed)
    scaled = prepared.for_maps(analysed.scale, conjugate=True)
    return _weigh_edges(form, mlx_backend.stft_in_blocks(analysed, kept, scaled, strides, inverse))


def check_envelope(params: IstftParams, window: torch.Tensor | None) -> None:
    """As :func:`.backends.maps.check_envelope`."""
    check_window(params, window_of(window, params.win_length, params.n_fft))


def _contiguous_strides(params: StftParams) -> tuple[int, int, int]:
    """Strides of a spectrum's gradient, shape (rows, bins, frames)."""
    return (params.bins * params.frames, params.frames, 1)
