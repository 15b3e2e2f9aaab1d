"""Describe the launches for sizes that no fused kernel covers: cutting frames, and adding them.

Between the two launches the array library transforms the frames. ``framing.h`` has the kernels.
"""

from __future__ import annotations

from ..core.params import IstftParams, StftParams
from ..store.caches import cached
from .launches import (
    Adjoint,
    Launch,
    list_adding_values,
    list_cutting_values,
    number_window_layout,
    order_integers,
)

#: Threads of a group where threads do not cooperate.
FREE_GROUP = 256


@cached(256)
def cut_frames(
    params: StftParams,
    complex_signal: bool,
    complex_window: bool,
    group: int = FREE_GROUP,
    step: int | None = None,
    divisor: float | None = None,
) -> Launch:
    """Describe the launch that cuts windowed frames, shape (rows, frames, n_fft), for an FFT.

    Args:
        step, divisor: as in :func:`.kernels.describe.list_analyses`.
    """
    return Launch(
        kernel="cut_frames",
        template=(
            ("COMPLEX_SIGNAL", complex_signal),
            ("COMPLEX_WINDOW", complex_window),
            ("WINDOW", number_window_layout(step)),
            ("ENVELOPE", divisor is not None),
        ),
        integers=order_integers(
            "framing.h",
            "FramingParameter",
            **list_cutting_values(params, step, divisor),
        ),
        grid=(params.n_fft, params.frames, params.rows),
        threadgroup=(min(params.n_fft, group), 1, 1),
        shape=(params.rows, params.frames, params.n_fft),
        complex_output=complex_signal or complex_window,
    )


@cached(256)
def add_frames(
    params: IstftParams,
    complex_window: bool,
    adjoint: Adjoint | None = None,
    group: int = FREE_GROUP,
    step: int | None = None,
) -> Launch:
    """Describe the launch that windows and overlap-adds the frames of a library's inverse FFT.

    Args:
        step: as in :func:`.kernels.describe.list_analyses`.
    """
    return Launch(
        kernel="add_frames",
        template=(
            ("COMPLEX_SIGNAL", params.return_complex),
            ("COMPLEX_WINDOW", complex_window),
            ("WINDOW", number_window_layout(step)),
            ("ENVELOPE", adjoint is None),
            ("FOLD", adjoint is not None and adjoint.padding > 0),
        ),
        integers=order_integers(
            "framing.h", "AddingParameter", **list_adding_values(params, adjoint, step, 1)
        ),
        grid=(params.output_length, params.rows, 1),
        threadgroup=(min(params.output_length, group), 1, 1),
        shape=(params.rows, params.output_length),
        complex_output=params.return_complex,
    )
