"""One launch of one kernel, as :mod:`.kernels.describe` makes it and a launcher takes it.

A launch passes integers only, in the order of an enumeration in ``metal_src``. Functions here turn
a call's other values into integers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..core.params import PAD_MODES, IstftParams, StftParams
from ..store.sources import integers
from .radices import FftPlan

#: In the place of a window's stride, which is never negative: there is no window.
NO_WINDOW = -1
#: By index in PadMode of signal.h.
_PAD_MODES = ("constant", "reflect", "replicate", "circular")
assert set(_PAD_MODES) == set(PAD_MODES)

Template = tuple[tuple[str, int], ...]
Size = tuple[int, int, int]


@dataclass(frozen=True)
class Launch:
    """One launch of one kernel.

    Attributes:
        kernel: name of its body in ``metal_src``.
        template: what it is compiled for.
        integers: its run-time integers, in the order of its header.
        grid: threads.
        threadgroup: threads of a group.
        shape: of its output.
        complex_output: whether the output is complex64 or float32.
        plan: of its Fourier transform, if it has one.
        resident: groups that one core should hold at once; None for the compiler's choice. The
            compiler may use all registers that this leaves (CUDA's ``__launch_bounds__``).
    """

    kernel: str
    template: Template
    integers: tuple[int, ...]
    grid: Size
    threadgroup: Size
    shape: tuple[int, ...]
    complex_output: bool
    plan: FftPlan | None = None
    resident: int | None = None


@dataclass(frozen=True)
class Adjoint:
    """What makes a synthesis the adjoint of an analysis: the transpose of that analysis' padding.

    Attributes:
        scale: factor of the result.
        edge: factor of bins 0 and n_fft / 2.
    """

    padding: int
    pad_mode: str
    both_halves: bool
    scale: float = 1.0
    edge: float = 1.0


def _float_bits(value: float) -> int:
    """Return the bits of a value in single precision as a signed integer, as launches take it."""
    (bits,) = struct.unpack("=i", struct.pack("=f", value))
    return int(bits)


def number_window_layout(step: int | None) -> int:
    """Return the index of a window's layout in WindowLayout of window.h."""
    return 1 if step is None else 2 if step == NO_WINDOW else 0


def _place_window(params: StftParams | IstftParams, step: int | None) -> dict[str, int]:
    """Return the integers that say where the values of a window are."""
    if step is None:
        return {"window_step": 1, "window_left": 0, "window_length": params.n_fft}
    return {
        "window_step": step,
        "window_left": params.window_left,
        "window_length": params.win_length,
    }


def order_integers(header: str, enumeration: str, **values: int) -> tuple[int, ...]:
    """Put named integers into their header's order."""
    names = integers(header, enumeration)
    missing = [name for name in names if name not in values]
    unknown = values.keys() - set(names)
    if missing or unknown:
        raise ValueError(f"{enumeration}: missing {missing}, unknown {sorted(unknown)}")
    return tuple(values[name] for name in names)


def list_cutting_values(
    params: StftParams, step: int | None, divisor: float | None
) -> dict[str, int]:
    """List the integers for cutting frames; ``step`` and ``divisor`` as in ``describe``."""
    return {
        "samples": params.samples,
        "frames": params.frames,
        "hop": params.hop_length,
        "padding": params.padding,
        "pad_mode": _PAD_MODES.index(params.pad_mode),
        "n_fft": params.n_fft,
        "scale": _float_bits(params.scale if divisor is None else divisor),
        **_place_window(params, step),
    }


def list_adding_values(
    params: IstftParams, adjoint: Adjoint | None, step: int | None, divisor: int
) -> dict[str, int]:
    """List the integers for overlap-add.

    Args:
        divisor: what remains to be divided by after the inverse transform.
    """
    return {
        "frames": params.frames,
        "hop": params.hop_length,
        "n_fft": params.n_fft,
        "start": params.start,
        "kept": params.kept,
        "length": params.output_length,
        "scale": _float_bits(divisor / params.scale if adjoint is None else adjoint.scale),
        **_place_window(params, step),
        "padding": 0 if adjoint is None else adjoint.padding,
        "pad_mode": 0 if adjoint is None else _PAD_MODES.index(adjoint.pad_mode),
    }
