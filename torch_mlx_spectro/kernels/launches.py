"""One launch of one kernel, as :mod:`.kernels.describe` makes it and a launcher takes it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .radices import FftPlan

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
        resident: groups that one core should hold at once, if that is known: as many registers as
            that leaves are better used than spared (CUDA's ``__launch_bounds__``).
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


def bits_of(value: float) -> int:
    """The bits of a value in single precision, as a signed integer: a launch has no others."""
    (bits,) = struct.unpack("=i", struct.pack("=f", value))
    return int(bits)
