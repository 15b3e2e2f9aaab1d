"""The ``cpu`` backend: every map in torch's own operations, in blocks that fit the cache.

It says what each map is in a few lines, and is what the author of a new backend starts from: a
subclass replaces one map after the other.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from ...calls.operation import Call
from ...core.linear import Analysis, describe_analysis
from ...core.padding import fold_side, padded_sides
from ...core.params import IstftParams, StftParams
from ...native.strides import drop_rows, host_spectrum_strides, in_order, with_rows
from ..base import Backend, Optional, Prepared
from .analysis import analyse_at_once, analyse_blocks, correlate_blocks
from .blocks import fits_one_block
from .memory import memory
from .synthesis import Target, add_at_once, add_blocks
from .windows import Inverse, LastWindow, get_inverse, prepare_window


class TorchBlocks(Backend):
    """Tensors of the host, by torch's operations; it has no threads of its own."""

    def explain_absence(self, device_type: str | None = None) -> str | None:
        return None

    def name_kernel(self, call: Call) -> str:
        return "torch operations"

    def analyse(
        self, params: StftParams, signal: torch.Tensor, window: Optional, edge: float = 1.0
    ) -> torch.Tensor:
        dtype = _to_complex(signal, window)
        prepared = prepare_window(params, window, dtype, params.scale)
        strides = host_spectrum_strides(params, signal, window)
        return _analyse(params, strides, dtype, signal, prepared, edge)

    def synthesise(
        self, params: IstftParams, spectrum: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        dtype = _to_complex(spectrum, window)
        return _synthesise(params, dtype, spectrum, _read_window(params, dtype, window))

    def adjoint(self, analysis: Analysis, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
        params, dtype = analysis.params, _to_complex(spectrum, window)
        out = _make_signal(params.rows, params.samples, dtype, params.complex_fft)
        # The padding is folded back onto the samples that it repeats.
        sides = [
            (side, out.new_empty((params.rows, params.padding))) for side in padded_sides(params)
        ]
        add_blocks(
            params,
            _by_frames(spectrum.detach()),
            prepare_window(params, window, dtype, analysis.inverse_scale, conjugate=True),
            [
                Target(params.padding, out.data),
                *(Target(side + params.padding, fallen) for side, fallen in sides),
            ],
            edge=analysis.inverse_edge,
            both_halves=analysis.both_halves,
        )
        for side, fallen in sides:
            first, values = fold_side(params, side, fallen.numpy())
            with np.errstate(all="ignore"):  # torch does not warn when a sum becomes infinite
                out.data.numpy()[:, first : first + values.shape[1]] += values
        return out

    def differentiate_window(
        self, analysis: Analysis, signal: torch.Tensor, spectrum: torch.Tensor
    ) -> torch.Tensor:
        return correlate_blocks(analysis, signal.detach(), _by_frames(spectrum.detach()))

    def adjoint_synthesis(
        self, params: IstftParams, cotangent: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        analysis, dtype = describe_analysis(params), _to_complex(cotangent, window)
        shape = (params.rows, params.bins, params.frames)
        out = memory.make(shape, (params.bins * params.frames, params.frames, 1), dtype)
        analyse_blocks(
            analysis.params,
            cotangent.detach()[:, : params.kept],
            prepare_window(params, window, dtype, analysis.params.scale, conjugate=True),
            _by_frames(out.data),
            get_inverse(params, window, dtype, conjugate=True),
            analysis.edge,
        )
        return out

    def check_envelope(self, params: IstftParams, window: Optional) -> None:
        _read_window(params, _to_complex(window, None), window)


class CpuBackend(TorchBlocks):
    """The same, which remembers what calls that come again have in common."""

    def prepare(self, call: Call, result: torch.Tensor) -> Prepared | None:
        params, tensor, window = call
        dtype = _to_complex(tensor, window)
        if isinstance(params, IstftParams):
            return _bind_istft(params, dtype)
        strides = host_spectrum_strides(params, with_rows(params, tensor), window)
        known = LastWindow(lambda window: prepare_window(params, window, dtype, params.scale))

        def transform(signal: torch.Tensor, window: Optional) -> torch.Tensor:
            batch, prepared = with_rows(params, signal), known.find(window)
            return drop_rows(params, _analyse(params, strides, dtype, batch, prepared))

        return transform


def _bind_istft(params: IstftParams, dtype: torch.dtype) -> Prepared:
    """What computes an istft in this dtype, which may be wider than the spectrum's own."""
    known = LastWindow(partial(_read_window, params, dtype))

    def invert(spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
        batch = with_rows(params, spectrum)
        return drop_rows(params, _synthesise(params, dtype, batch, known.find(window)))

    return invert


CPU = CpuBackend()


def _analyse(
    params: StftParams,
    strides: tuple[int, ...],
    dtype: torch.dtype,
    signal: torch.Tensor,
    window: Optional,
    edge: float = 1.0,
) -> torch.Tensor:
    """The spectrum of a signal.

    Args:
        strides, dtype: of the spectrum.
        window: as prepared.
    """
    signal = signal.detach()
    if fits_one_block(params, dtype):
        # In place, as native does: a view that a custom function returns may not be changed.
        spectrum = analyse_at_once(params, signal, window, edge).transpose_(1, 2)
        return in_order(spectrum, strides)
    out = memory.make((params.rows, params.bins, params.frames), strides, dtype)
    analyse_blocks(params, signal, window, _by_frames(out.data), edge=edge)
    return out


def _read_window(
    params: IstftParams, dtype: torch.dtype, window: Optional
) -> tuple[Optional, Inverse]:
    """What an istft needs of its window.

    Raises:
        UnresolvedArguments: its envelope vanishes.
    """
    inverse = get_inverse(params, window, dtype)
    return prepare_window(params, window, dtype), inverse


def _synthesise(
    params: IstftParams,
    dtype: torch.dtype,
    spectrum: torch.Tensor,
    window: tuple[Optional, Inverse],
) -> torch.Tensor:
    """The signal of a spectrum of this dtype, by what is known of its window."""
    (prepared, inverse), by_frames = window, _by_frames(spectrum.detach())
    if inverse.whole is not None and not params.zero_tail and fits_one_block(params, dtype):
        return add_at_once(params, by_frames.to(dtype), prepared, inverse.whole)
    out = _make_signal(params.rows, params.output_length, dtype, params.return_complex)
    target = Target(params.start, out.data)
    add_blocks(params, by_frames, prepared, [target], inverse=inverse)
    return out


def _to_complex(tensor: Optional, window: Optional) -> torch.dtype:
    """The dtype of spectra of a call with these."""
    given = [one.dtype for one in (tensor, window) if one is not None]
    is_wide = torch.float64 in given or torch.complex128 in given
    return torch.complex128 if is_wide else torch.complex64


def _by_frames(spectrum: torch.Tensor) -> torch.Tensor:
    """A spectrum, shape (rows, bins, frames), as (rows, frames, bins)."""
    return spectrum.transpose(1, 2)


def _make_signal(rows: int, samples: int, dtype: torch.dtype, is_complex: bool) -> torch.Tensor:
    """An uninitialised signal.

    Args:
        dtype: of its spectrum.
    """
    return memory.make((rows, samples), (samples, 1), dtype if is_complex else dtype.to_real())
