"""The ``cpu`` backend: every map in torch's own operations, in blocks that fit the cache.

It says what each map is in a few lines, and is what the author of a new backend starts from: a
subclass replaces one map after the other.
"""

from __future__ import annotations

import numpy as np
import torch

from ...calls.operation import Call
from ...core.linear import Analysis, describe_analysis
from ...core.padding import fold_side, padded_sides
from ...core.params import IstftParams, StftParams
from ...errors import UnresolvedArguments
from ...native.strides import host_spectrum_strides
from ..base import Backend, Optional
from ..envelope import VANISHES
from .blocks import Inverse, Target, add_blocks, analyse_blocks, correlate_blocks
from .memory import memory
from .windows import get_envelope, prepare_window


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
        strides = host_spectrum_strides(params, signal, window)
        prepared = prepare_window(params, window, dtype, params.scale)
        out = memory.make((params.rows, params.bins, params.frames), strides, dtype)
        analyse_blocks(params, signal.detach(), prepared, _by_frames(out.data), edge=edge)
        return out

    def synthesise(
        self, params: IstftParams, spectrum: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        dtype = _to_complex(spectrum, window)
        envelope = get_envelope(params, window, dtype)
        if envelope.vanishes:
            raise UnresolvedArguments(VANISHES)
        out = _make_signal(params.rows, params.output_length, dtype, params.return_complex)
        add_blocks(
            params,
            _by_frames(spectrum.detach()),
            prepare_window(params, window, dtype),
            [Target(params.start, out.data)],
            inverse=Inverse(envelope.rows, params),
        )
        return out

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
        envelope = get_envelope(params, window, dtype)
        shape = (params.rows, params.bins, params.frames)
        out = memory.make(shape, (params.bins * params.frames, params.frames, 1), dtype)
        analyse_blocks(
            analysis.params,
            cotangent.detach()[:, : params.kept],
            prepare_window(params, window, dtype, analysis.params.scale, conjugate=True),
            _by_frames(out.data),
            Inverse(envelope.rows.conj().resolve_conj(), params),
            analysis.edge,
        )
        return out

    def check_envelope(self, params: IstftParams, window: Optional) -> None:
        if get_envelope(params, window, _to_complex(window, None)).vanishes:
            raise UnresolvedArguments(VANISHES)


CPU = TorchBlocks()


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
