"""The adjoint of an analysis on host memory: overlap-add in blocks, padding folded back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.linear import Form, describe_synthesis
from ..core.padding import fold_side, padded_sides
from .blocks import istft_blocks
from .host import HostArray, HostView
from .runtime import Runtime


def adjoint_blocks(
    runtime: Runtime, form: Form, spectrum: HostView, window: Any, out: HostArray
) -> None:
    """Write the adjoint of ``spectrum`` into ``out``.

    Args:
        spectrum: array of shape (rows, frames, bins), any strides.
        window: MLX array of shape (n_fft,), times the form's inverse scale, conjugated.
        out: shape (rows, samples), contiguous, complex64 where the frames are complex.
    """
    params = form.params
    covered = (params.frames - 1) * params.hop_length + params.n_fft

    def add_up(start: int, target: HostArray) -> None:
        """The overlap-add from ``start`` on; zeros behind what the frames cover."""
        istft_blocks(
            runtime,
            describe_synthesis(form, start, min(target.shape[1], covered - start)),
            spectrum,
            window,
            None,
            target,
            edge=form.inverse_edge,
            both_halves=form.both_halves,
        )

    add_up(params.padding, out)
    for side in padded_sides(params):
        start = side + params.padding
        if start < covered:
            fallen = np.empty((params.rows, params.padding), out.dtype)
            add_up(start, fallen)
            with np.errstate(all="ignore"):  # torch does not warn when a sum becomes infinite
                first, values = fold_side(params, side, fallen)
                out[:, first : first + values.shape[1]] += values
