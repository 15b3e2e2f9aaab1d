"""The text of a launch as CUDA C++: the same headers and bodies, between names that CUDA knows.

``cuda.h`` gives Metal's names their meaning; a generated function has the body's inputs as
parameters and what it is compiled for as constants. Twiddle factors are part of the text: loading
the code puts them where every device has them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...store.sources import source
from ..arguments import CHECKING_KERNELS, HEADERS, INPUTS, OUTPUTS, VANISHING
from ..launches import Launch, Template
from ..radices import FftPlan
from ..tables import make_table
from .metal import header, write_constants

#: Blocks in a grid's second and third dimension, and in its first.
MAX_ROWS = (1 << 16) - 1
MAX_BLOCKS = (1 << 31) - 1

_SHARED = re.compile(r"^threadgroup (?=\w+ \w+\[)", re.MULTILINE)

_POSITIONS = """\
  const uint3 threadgroup_position_in_grid = group_in_grid<FLAT>({grid}, GROUP);
  const uint3 thread_position_in_threadgroup = threadIdx;
  uint3 thread_position_in_grid = threadgroup_position_in_grid;
  thread_position_in_grid.x = thread_position_in_grid.x * GROUP + threadIdx.x;
"""
#: After what every thread computes from its own position: there it cost the least (docs/gpu.md).
_WAIT = "  after_earlier_launches();\n"
_EXACT = "  if (thread_position_in_grid.x >= {grid}[0]) return;\n"


@dataclass(frozen=True)
class Variant:
    """What is compiled: one kernel for one template.

    Attributes:
        kernel, template, plan: of the launches that use it.
        integers: number of a launch's run-time integers.
        group: threads of a block.
        flat: a grid with more rows than CUDA's second dimension counts.
        resident: blocks that a multiprocessor should hold at once, if that is known.
    """

    kernel: str
    template: Template
    plan: FftPlan | None
    integers: int
    group: int
    flat: bool
    resident: int | None = None

    @property
    def name(self) -> str:
        """Of the generated function."""
        return f"spectro_{self.kernel}"


def count_blocks(launch: Launch) -> tuple[int, int, int]:
    """Blocks of a launch in each dimension, as the body counts them."""
    width = launch.threadgroup[0]
    return -(-launch.grid[0] // width), launch.grid[1], launch.grid[2]


def make_variant(launch: Launch) -> Variant:
    """What has to be compiled for a launch."""
    _, rows, layers = count_blocks(launch)
    return Variant(
        kernel=launch.kernel,
        template=launch.template,
        plan=launch.plan,
        integers=len(launch.integers),
        group=launch.threadgroup[0],
        flat=max(rows, layers) > MAX_ROWS,
        resident=launch.resident,
    )


def find_grid(launch: Launch) -> tuple[int, int, int]:
    """Blocks of a launch in each dimension, as CUDA counts them."""
    across, rows, layers = count_blocks(launch)
    if max(rows, layers) > MAX_ROWS:
        return across * rows * layers, 1, 1
    return across, rows, layers


def write_body(kernel: str) -> str:
    """A kernel's body, its group memory declared as CUDA does."""
    return _SHARED.sub("__shared__ __align__(128) ", source(f"{kernel}.metal"))


def positions(grid: str, *, cooperate: bool, early: bool = False) -> str:
    """What ``mx.fast.metal_kernel`` offers a body besides its inputs.

    Args:
        grid: expression of the launch's threads in three dimensions.
        cooperate: groups fill their grid, as those with a plan do; others leave the threads of the
            last block that are beyond it.
        early: the launch may come before an earlier one has ended.
    """
    wait = _WAIT if early else ""  # of all threads: one that left at once would not have waited
    return _POSITIONS.format(grid=grid) + wait + ("" if cooperate else _EXACT.format(grid=grid))


def write_bounds(group: int, resident: int | None) -> str:
    """How many threads a block has, and how many blocks a core is to hold, for the compiler."""
    bounds = ", ".join(str(bound) for bound in (group, resident) if bound)
    return f"__launch_bounds__({bounds})"


def write_text(variant: Variant) -> str:
    """The whole text of one variant."""
    first = INPUTS[variant.kernel][0]
    # Without __restrict__: with it the compiler might read an input before the wait, and by a way
    # that is only for what nobody writes as long as the kernel is there.
    inputs = f"const float* {first}, const float* window, "
    outputs = "".join(f"float* {name}, " for name in OUTPUTS[variant.kernel])
    if variant.kernel in CHECKING_KERNELS:
        outputs += f"atomic_uint* {VANISHING}, "
    kind = f"LaunchArguments<{variant.integers}>"
    template = (*variant.template, ("FLAT", variant.flat), ("GROUP", variant.group))
    parts = [
        header("cuda.h", *HEADERS[variant.kernel]),
        "" if variant.plan is None else _table(variant.plan),
        f'extern "C" __global__ void {write_bounds(variant.group, variant.resident)}',
        f"{variant.name}({inputs}{outputs}",
        f"    const __grid_constant__ {kind} arguments) {{",
        write_constants(template),
        f"  const long* {first}_strides = arguments.strides;",
        "  const long* parameters = arguments.integers;",
        "  const float edge = arguments.edge;",
        "" if variant.plan is None else "  const float2* table = twiddle_factors;",
        positions("arguments.grid", cooperate=variant.plan is not None, early=True),
        write_body(variant.kernel) + "}",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _table(plan: FftPlan) -> str:
    values = ", ".join(f"{{{_exact(z.real)}, {_exact(z.imag)}}}" for z in make_table(plan)[0])
    return f"__device__ __align__(128) const float2 twiddle_factors[] = {{{values}}};"


def _exact(value: float) -> str:
    return f"{float(value).hex()}f"
