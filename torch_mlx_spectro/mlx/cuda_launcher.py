"""The launcher for ``mx.fast.cuda_kernel``: the same headers and bodies, on an MLX that has CUDA.

MLX puts a body between names that it generates, as it does for Metal, but offers none of Metal's
positions, passes numbers as arrays, and counts rows by CUDA's second dimension, which ends at
65535. ``cuda.h`` gives Metal's names their meaning, and what is missing is said before the body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.params import IstftParams, StftParams
from ..kernels.arguments import HEADERS, INPUTS, JUDGES, OUTPUTS, VANISHING
from ..kernels.chooser import Chooser
from ..kernels.describe import MAX_COUNT, Launch
from ..kernels.radices import MAX_GROUP_THREADS, fused_points
from ..kernels.texts.cuda import (
    MAX_ROWS,
    count_blocks,
    find_grid,
    positions,
    write_body,
    write_bounds,
)
from ..kernels.texts.metal import header
from ..store.caches import cached
from .launcher import MetalKernels, device_name

#: Name of the input whose first element is what a body calls ``edge``.
EDGE = "edge_value"


def write_header(kernel: str, group: int, resident: int | None) -> str:
    """What comes before the function that MLX generates.

    MLX declares it ``__global__`` with no bounds, for which the compiler takes registers that a
    large group has not: the word means both here.
    """
    return (
        f"{header('cuda.h', *HEADERS[kernel])}\n"
        "#undef __global__\n"
        f"#define __global__ __attribute__((global)) {write_bounds(group, resident)}\n"
    )


def write_source(kernel: str) -> str:
    """The body of the function: its integers are followed by the launch's grid."""
    inputs = INPUTS[kernel]
    grid = ", ".join(f"uint(parameters[INTEGERS + {axis}])" for axis in range(3))
    return "".join(
        [
            f"  const uint threads_in_grid[3] = {{{grid}}};\n",
            positions("threads_in_grid", cooperate="table" in inputs),
            f"  const float edge = {EDGE}[0];\n" if "edge" in inputs else "",
            f"  atomic_uint* {VANISHING} = 0;\n" if kernel in JUDGES else "",
            write_body(kernel),
        ]
    )


class MlxCudaKernels(MetalKernels):
    """The kernels of one ``mx.fast.cuda_kernel``.

    Args:
        mx: the module ``mlx.core``.
        factory: ``mx.fast.cuda_kernel``, or what stands in for it.
    """

    def refusal(self, params: StftParams | IstftParams) -> str | None:
        """As of :meth:`.MetalKernels.refusal`, and what MLX's grids count in CUDA."""
        is_stft = isinstance(params, StftParams)
        outer = params.rows
        if fused_points(params) is None and is_stft:
            outer = max(params.rows, params.frames)  # of cut_frames
        length = 0 if isinstance(params, StftParams) else params.output_length
        threads = max(params.frames * params.n_fft, length) + MAX_GROUP_THREADS
        if outer > MAX_ROWS and params.rows * threads > MAX_COUNT:
            return "rows that CUDA counts by its first dimension are more than MLX's grids count"
        return super().refusal(params)

    def _template(self, launch: Launch) -> list[tuple[str, int]]:
        flat = find_grid(launch)[1:] != count_blocks(launch)[1:]
        more = (
            ("FLAT", flat),
            ("GROUP", launch.threadgroup[0]),
            ("INTEGERS", len(launch.integers)),
        )
        return [*launch.template, *more]

    def _grid(self, launch: Launch) -> tuple[int, int, int]:
        blocks, rows, layers = find_grid(launch)
        return blocks * launch.threadgroup[0], rows, layers

    def _kernel(self, launch: Launch) -> Any:
        name, group = launch.kernel, launch.threadgroup[0]
        key = (name, group, launch.resident)
        kernel = self._kernels.find(key)
        if kernel is None:
            kernel = self._factory(
                name=f"spectro_{name}",
                input_names=[EDGE if given == "edge" else given for given in INPUTS[name]],
                output_names=list(OUTPUTS[name]),
                header=write_header(name, group, launch.resident),
                source=write_source(name),
                ensure_row_contiguous=False,
            )
            self._kernels.put(key, kernel)
        return kernel

    def _numbers(self, launch: Launch) -> tuple[int, ...]:
        return (*launch.integers, *launch.grid)

    def _number(self, value: float) -> Any:
        """An array of one number: MLX would make a new one of a number at each call."""
        key = ("edge", value)
        found = self._tables.find(key)
        if found is None:
            found = self._tables.put(key, self.constant(np.array([value], np.float32)))
        return found


@cached(4)
def _make_kernels(mx: Any, factory: Callable[..., Any]) -> MlxCudaKernels:
    return MlxCudaKernels(mx, factory, Chooser(lambda: device_name(mx)))


def mlx_cuda_kernels(mx: Any) -> MlxCudaKernels | None:
    """The kernels for arrays on MLX's CUDA device; None where this MLX has none."""
    return _make_kernels(mx, mx.fast.cuda_kernel) if mx.cuda.is_available() else None
