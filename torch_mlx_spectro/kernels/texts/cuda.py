"""Write the text of a launch as CUDA C++: the same headers and bodies, with names that CUDA knows.

``cuda.h`` defines Metal's names for CUDA. A generated function has the body's inputs as parameters,
and what it is compiled for as constants. Twiddle factors are part of the text: where the code is
loaded, every device has them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...store.sources import source
from ..arguments import CHECKING_KERNELS, HEADERS, INPUTS, OUTPUTS, VANISHING
from ..launches import Launch, Template
from ..radices import FftPlan
from ..tables import make_table
from .metal import header, strip_comments, write_constants

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
#: After what every thread computes from its own position: there it cost the least
#: (docs/contributing/kernels.md).
_WAIT = "  after_earlier_launches();\n"
_EXACT = "  if (thread_position_in_grid.x >= {grid}[0]) return;\n"


@dataclass(frozen=True)
class Variant:
    """What is compiled: one kernel for one template.

    Attributes:
        kernel, template, plan: of the launches that use it.
        integers: number of a launch's run-time integers.
        group: threads of a block.
        flat: the grid has more rows than CUDA's second dimension counts.
        resident: blocks that a multiprocessor should hold at once; None for the compiler's choice.
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
        """The name of the generated function."""
        return f"spectro_{self.kernel}"


def count_blocks(launch: Launch) -> tuple[int, int, int]:
    """Count the blocks of a launch in each dimension, as the body counts them."""
    width = launch.threadgroup[0]
    return -(-launch.grid[0] // width), launch.grid[1], launch.grid[2]


def make_variant(launch: Launch) -> Variant:
    """Make the variant that a launch needs."""
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
    """Find the blocks of a launch in each dimension, as CUDA counts them."""
    across, rows, layers = count_blocks(launch)
    if max(rows, layers) > MAX_ROWS:
        return across * rows * layers, 1, 1
    return across, rows, layers


def write_body(kernel: str) -> str:
    """Write a kernel's body, with its group memory declared for CUDA."""
    return _SHARED.sub("__shared__ __align__(128) ", strip_comments(source(f"{kernel}.metal")))


def positions(grid: str, *, cooperate: bool, early: bool = False) -> str:
    """Write the names for a thread's position that ``mx.fast.metal_kernel`` offers a body.

    Args:
        grid: expression of the launch's threads in three dimensions.
        cooperate: all blocks are full, as those of kernels with a plan are; otherwise threads of
            the last block that lie beyond the grid return.
        early: the launch may begin before an earlier one has ended.
    """
    wait = _WAIT if early else ""  # of all threads: one that left at once would not have waited
    return _POSITIONS.format(grid=grid) + wait + ("" if cooperate else _EXACT.format(grid=grid))


def write_bounds(group: int, resident: int | None) -> str:
    """Write, for the compiler, a block's threads and how many blocks a core is to hold."""
    bounds = ", ".join(str(bound) for bound in (group, resident) if bound)
    return f"__launch_bounds__({bounds})"


def write_text(variant: Variant) -> str:
    """The whole text of one variant."""
    first = INPUTS[variant.kernel][0]
    # Without __restrict__: with it the compiler might read an input before the wait, and through a
    # cache for memory that nobody writes while the kernel runs.
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
