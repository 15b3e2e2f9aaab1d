"""Metal kernels on the CPU: the text that MLX would hand to Apple's compiler, executed.

``mx.fast.metal_kernel`` generates, while a function is exported, exactly the source that a Mac
compiles, on Linux too. The emulator takes that text, compiles it as C++ with the clang of the
package ``ziglang`` (extra ``emulate``), with address spaces as clang's own, so that a ``device``
pointer where a ``threadgroup`` one is wanted is an error as it is on a Mac, and runs grid,
threadgroups, barriers and SIMD shuffles.

    from torch_mlx_spectro import emulator

    with emulator.Machine().installed():
        ...  # mx.fast.metal_kernel computes on the CPU

Every launch runs in several orders of threads, and the results have to be the same bits. A checked
machine also finds accesses out of bounds, reads of memory that nobody wrote, races (two threads,
one writing, no barrier between) and outputs that are not written, and counts the bytes of device
memory that are read and written.

Rejected as by Metal: wrong address spaces; pointers and references without one; ``double``;
exceptions, ``virtual``, ``new``, ``goto``, RTTI; static and global variables; variable-length
arrays; threadgroup variables outside of a kernel, and more than 32 KiB of them.

What it cannot tell: how many threads a pipeline really allows (registers), what Apple's compiler
makes of the text and its own faults, fast-math and flushed denormals, recursion, unsuffixed
literals that are not promoted, the order of memory between groups, half precision's rounding in
hardware, speed. ``float2(a, b)`` is Metal, but not clang's C++.
"""

from __future__ import annotations

from .compiler import unavailable_reason
from .errors import (
    BarrierDivergence,
    EmulatorError,
    OrderDependent,
    OutOfBounds,
    Race,
    Rejected,
    UninitialisedRead,
    Unwritten,
)
from .machine import Launch, Machine

__all__ = [
    "BarrierDivergence",
    "EmulatorError",
    "Launch",
    "Machine",
    "OrderDependent",
    "OutOfBounds",
    "Race",
    "Rejected",
    "UninitialisedRead",
    "Unwritten",
    "available",
]


def available() -> str | None:
    """None where the emulator runs, else the reason why not."""
    return unavailable_reason()
