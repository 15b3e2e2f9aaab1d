"""Metal kernels on the CPU: the text that a Mac's compiler would be handed, compiled and run.

    from torch_mlx_spectro import emulator

    machine = emulator.Machine(checked=True)
    with machine.installed():
        ...  # mx.fast.metal_kernel and torch.mps.compile_shader are the machine's
    machine.launches[-1].device_read

MLX generates the same text on every machine; it is taken from MLX itself, not imitated.
``torch.mps.compile_shader`` is handed its text, and has the rules of ``shading.py``. clang (of
the PyPI package ``ziglang``) compiles it in its C++ for OpenCL mode, whose address spaces are
Metal's under other names. Each thread of a group is a fiber; a launch runs in several orders of
threads and groups, and has to give the same bits in all of them.

A checked machine looks at every access to device and threadgroup memory: bounds, memory that
nobody has written, races within a group and between groups, outputs left unwritten; and counts
the bytes that a launch reads and writes.

What it cannot tell:

- Registers: how many threads a pipeline really allows (``max_threads`` can pretend), spilling,
  occupancy, speed.
- Apple's compiler: its own faults, and what it accepts or refuses beyond what ``reading.py``
  lists. Texts that declare methods of an address space are not read as C++14. Recursion and calls
  through pointers are refused, though Metal has had them in kernels since 2.4 and 2.3.
- Arithmetic: fast-math, the last places of sin, exp and their like, the order in which simd_sum
  adds. A literal without suffix is rounded to float by way of double, and a constant that clang
  computes itself may be a denormal number.
- Alignment: only what is left of an access after clang has optimised it is looked at, so that a
  vector of which one component is read counts as that one; and vectors of 16 bytes whose type
  needs 8 (``packed_long2``) have to lie at multiples of 16.
- Memory: the order in which groups see each other's writes (here they run one after the other, and
  meet only in atomics), and what the hardware does with accesses out of bounds. An array of one
  thread is not checked for its bounds. A buffer's bounds are those of the view that MLX passes,
  narrower than its Metal buffer. Dead accesses that the compiler removes are not seen.
- Endless loops: they hang here too.
- SIMD functions in divergent code: all lanes of a SIMD group that have not returned must meet at
  the same call.
- Text: textures, function constants, quad groups' shuffles, ``simdgroup_matrix``, ``bfloat``
  arithmetic and matrices are not there. Vectors of bool are those of uchar to overloads.
"""

from __future__ import annotations

from .compiled import CompiledFunction
from .errors import (
    BarrierDivergence,
    EmulatorError,
    InactiveLane,
    KernelFault,
    Misaligned,
    OrderDependent,
    OutOfBounds,
    Race,
    Rejected,
    Unavailable,
    UninitialisedRead,
    Unwritten,
)
from .execute import Launch, Traffic
from .machine import DEFAULT_ORDERS, MAX_THREADS, Machine
from .reading import judge
from .toolchain import reason_unavailable


def available() -> str | None:
    """None where the emulator can be used, else the reason why not."""
    return reason_unavailable()


__all__ = [
    "DEFAULT_ORDERS",
    "MAX_THREADS",
    "BarrierDivergence",
    "CompiledFunction",
    "EmulatorError",
    "InactiveLane",
    "KernelFault",
    "Launch",
    "Machine",
    "Misaligned",
    "OrderDependent",
    "OutOfBounds",
    "Race",
    "Rejected",
    "Traffic",
    "Unavailable",
    "UninitialisedRead",
    "Unwritten",
    "available",
    "judge",
]
