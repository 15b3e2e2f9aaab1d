"""``mx.fast.cuda_kernel`` on a machine without CUDA: MLX's contract, computed by the emulator.

The generated text follows mlx/backend/cuda/custom_kernel.cpp; an MLX without CUDA refuses even to
make it. What runs is the same body as Metal, launched over the grid that the kernel is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from torch_mlx_spectro import emulator
from torch_mlx_spectro.kernels.arguments import HEADERS, INPUTS
from torch_mlx_spectro.kernels.texts.metal import body, header
from torch_mlx_spectro.mlx.launcher import EDGE, MlxCudaKernels

#: Blocks in each dimension of a grid, by CUDA.
MOST_BLOCKS = ((1 << 31) - 1, (1 << 16) - 1, (1 << 16) - 1)
_TYPES = {mx.float32: "float", mx.complex64: "complex64_t", mx.int64: "int64_t"}
#: In the place of MLX's own headers, for what the generated function says of their types.
DECLARATIONS = """\
namespace mlx::core::cu {
struct complex64_t { float real, imaginary; };
struct Shape { int values[10]; __device__ int operator[](int i) const { return values[i]; } };
struct Strides { long values[10]; __device__ long operator[](int i) const { return values[i]; } };
}
typedef long int64_t;
"""


def generated(
    name: str,
    names: tuple[Sequence[str], Sequence[str]],
    texts: tuple[str, str],
    arrays: tuple[Sequence[Any], Sequence[Any]],
    template: Sequence[tuple[str, Any]],
) -> str:
    """What MLX hands to NVRTC, after its own headers.

    Args:
        names: of inputs and outputs.
        texts: header and source.
        arrays: inputs, and the outputs' dtypes.
    """
    header, source = texts
    parameters = []
    for given, array in zip(names[0], arrays[0], strict=True):
        parameters.append(f"    const {_TYPES[array.dtype]}* {given}")
        for what, kind in (("shape", "Shape"), ("strides", "Strides"), ("ndim", "int")):
            if array.ndim and f"{given}_{what}" in source:
                parameters.append(f"    const __grid_constant__ {kind} {given}_{what}")
    for given, dtype in zip(names[1], arrays[1], strict=True):
        parameters.append(f"    {_TYPES[dtype]}* {given}")
    constants = [
        f"  constexpr {'bool' if isinstance(value, bool) else 'int'} {given} = "
        f"{str(value).lower()};\n"
        for given, value in template
    ]
    return (
        f"{header}namespace mlx::core::cu {{\n\n__global__ void {name}(\n"
        + ",\n".join(parameters)
        + f") {{\n{''.join(constants)}\n{source}\n}}\n\n}} // namespace mlx::core::cu\n"
    )


class Kernel:
    """What ``cuda_kernel`` returns."""

    def __init__(self, owner: CudaKernel, given: dict[str, Any]) -> None:
        self._owner, self._given = owner, given

    def __call__(
        self,
        *,
        inputs: Sequence[Any],
        output_shapes: Sequence[Sequence[int]],
        output_dtypes: Sequence[Any],
        grid: tuple[int, int, int],
        threadgroup: tuple[int, int, int],
        template: Sequence[tuple[str, Any]],
        stream: Any = None,
    ) -> list[Any]:
        given, group = self._given, threadgroup[0]
        assert all(type(value) in (bool, int) for _, value in template)
        assert all(isinstance(array, mx.array) for array in inputs)
        assert threadgroup[1:] == (1, 1)
        assert group <= 1024
        assert grid[0] % group == 0
        assert grid[0] < 1 << 31
        blocks = (grid[0] // group, *grid[1:])
        assert all(0 < n <= most for n, most in zip(blocks, MOST_BLOCKS, strict=True))
        assert f"__launch_bounds__({group}" in given["header"]
        names = (given["input_names"], given["output_names"])
        texts = (given["header"], given["source"])
        name = f"custom_kernel_{given['name']}"
        text = generated(name, names, texts, (inputs, output_dtypes), template)
        self._owner.texts.append(text)
        kernel = given["name"].removeprefix("spectro_")
        by_name = dict(zip(given["input_names"], inputs, strict=True))
        extra = {name: value for name, value in template if name in ("FLAT", "GROUP", "INTEGERS")}
        assert extra["GROUP"] == group
        numbers = [int(number) for number in np.array(by_name["parameters"])]
        threads = tuple(numbers[extra["INTEGERS"] : extra["INTEGERS"] + 3])
        whole = (-(-threads[0] // group), *threads[1:])
        assert blocks == ((int(np.prod(whole)), 1, 1) if extra["FLAT"] else whole)
        arrays = [
            float(np.array(by_name[EDGE])[0]) if name == "edge" else by_name[name]
            for name in INPUTS[kernel]
        ]
        return self._owner.metal(kernel, given["output_names"])(
            inputs=arrays,
            output_shapes=output_shapes,
            output_dtypes=output_dtypes,
            grid=threads,
            threadgroup=threadgroup,
            template=[pair for pair in template if pair[0] not in extra],
            stream=stream,
        )


class CudaKernel:
    """``mx.fast.cuda_kernel`` of one machine.

    Attributes:
        texts: of the launches, as NVRTC would be given them.
    """

    def __init__(self, folder: Path) -> None:
        self.machine = emulator.Machine(cache_dir=folder)
        self.texts: list[str] = []
        self._metal: dict[str, Any] = {}

    def __call__(
        self,
        name: str,
        input_names: Sequence[str],
        output_names: Sequence[str],
        source: str,
        header: str = "",
        ensure_row_contiguous: bool = True,
        shared_memory: int = 0,
    ) -> Kernel:
        assert not ensure_row_contiguous
        assert shared_memory == 0
        given = {
            "name": name,
            "input_names": input_names,
            "output_names": output_names,
            "source": source,
            "header": header,
        }
        return Kernel(self, given)

    def metal(self, kernel: str, outputs: Sequence[str]) -> Any:
        """The same body, as the emulator runs it."""
        if kernel not in self._metal:
            self._metal[kernel] = self.machine.metal_kernel(
                f"spectro_{kernel}",
                INPUTS[kernel],
                outputs,
                body(kernel),
                header(*HEADERS[kernel]),
                ensure_row_contiguous=False,
            )
        return self._metal[kernel]


def kernels(folder: Path) -> tuple[MlxCudaKernels, CudaKernel]:
    """Kernels that this machine computes, and what they are made by."""
    factory = CudaKernel(folder)
    return MlxCudaKernels(mx, factory), factory
