"""The launchers for ``mx.fast.metal_kernel`` and ``mx.fast.cuda_kernel``.

A kernel is made once, and MLX compiles it once for each template, whatever the length of the
signal. Where a GPU allows a compiled kernel fewer threads than asked, MLX raises ValueError when
the result is evaluated. Therefore the first launch of a template is evaluated at once, and
:mod:`.kernels.chooser` may choose another one.

Headers and bodies are the same for both functions. MLX puts a body between names that it generates.
On CUDA it offers none of Metal's names for positions, passes numbers as arrays, and counts rows in
CUDA's second dimension, which ends at 65535. ``cuda.h`` defines Metal's names; the rest is written
before the body.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.params import IstftParams, StftParams
from ..errors import KernelRefused
from ..kernels.arguments import CHECKING_KERNELS, HEADERS, INPUTS, OUTPUTS, VANISHING
from ..kernels.chooser import WALK_AGREEMENT, Chooser
from ..kernels.describe import MAX_COUNT, largest_count
from ..kernels.functions import Kernels
from ..kernels.launches import Launch
from ..kernels.radices import EMULATED_CORES, MAX_GROUP_THREADS, find_fused_points, guess_cores
from ..kernels.tables import make_table
from ..kernels.texts import cuda, metal
from ..store.caches import Cache, cached
from .host import copy_to_mlx

#: MLX passes inputs of fewer elements in another address space, so ours are made longer.
DEVICE_ELEMENTS = 8
CACHE_ENTRIES = 256
#: ml-explore/mlx#4013: larger transforms were silently wrong on Metal.
MAX_FFT = 1 << 20
#: Name of the input on CUDA whose first element is what a body calls ``edge``.
EDGE = "edge_value"
#: Part of MLX's message where a placeholder of a transformation is asked for values.
TRACING = "during function transformations"
#: Part of MLX's message where a pipeline allows fewer threads than the group has.
_REFUSAL = "hread group size"


Grid = tuple[int, int, int]


class MetalKernels(Kernels):
    """The kernels that one factory of MLX makes.

    Their windows have ``n_fft`` values. The host checks envelopes before it launches.

    Args:
        mx: the module ``mlx.core``.
        factory: ``mx.fast.metal_kernel``, or what stands in for it.
        chooser: chooses among launches; one that tries no shapes if not given.
        cores: as in the base class.
    """

    def __init__(
        self,
        mx: Any,
        factory: Callable[..., Any],
        chooser: Chooser | None = None,
        cores: int | None = None,
    ) -> None:
        self.cores = cores
        #: Computed on the host, and good for host tensors.
        self.emulated = bool(getattr(factory, "emulated", False))
        self._mx = mx
        self._factory = factory
        self._kernels: Cache[Any, Any] = Cache(CACHE_ENTRIES)
        self._tables: Cache[Any, Any] = Cache(CACHE_ENTRIES)
        self.chooser = chooser or Chooser()

    @staticmethod
    def refusal(params: StftParams | IstftParams) -> str | None:
        """Why no kernel may compute this call; None where one does."""
        fused = find_fused_points(params)
        if fused is None and params.n_fft > MAX_FFT:
            return f"n_fft above {MAX_FFT} is not computed by MLX on a GPU"
        threads = params.frames * (fused[0] if fused else 1)
        if max(largest_count(params), threads) > MAX_COUNT:
            return "a dimension exceeds what MLX's grids count"
        return None

    def _is_complex(self, array: Any) -> bool:
        return "complex" in str(array.dtype)

    def _window_layout(self, window: Any, n_fft: int) -> tuple[bool, int | None]:
        return self._is_complex(window), None

    def run(
        self,
        launches: Sequence[Launch],
        first: Any,
        window: Any,
        stream: Any,
        *,
        edge: float = 1.0,
        vanishing: Any = None,
    ) -> Any:
        assert vanishing is None, "MLX's arrays are written whole"
        first, window = (self._in_device_memory(given, stream) for given in (first, window))

        def inputs(launch: Launch) -> list[Any]:
            return self.list_inputs(launch, first, window, edge)

        chosen = launches[0] if launches[0].plan is None else self.chooser.find(launches)
        if chosen is not None:
            return self._launch(chosen, inputs(chosen), stream)

        def run(launch: Launch, count: int) -> list[Any]:
            return self._evaluate(launch, inputs(launch), stream, count)

        def accept(launch: Launch) -> Any:
            """The result; None in a trace, where zeros stand in for values."""
            try:
                return run(launch, 1)[0]
            except ValueError as error:
                if TRACING not in str(error):
                    raise
            zeros = [self._with_values(value) for value in inputs(launch)]
            self._evaluate(launch, zeros, stream)
            return None

        launch, result = self.chooser.choose(launches, accept, run, self._is_equal)
        return self._launch(launch, inputs(launch), stream) if result is None else result

    def list_inputs(self, launch: Launch, first: Any, window: Any, edge: float = 1.0) -> list[Any]:
        """List the inputs of a launch's kernel."""
        integers, plan = self._keep(np.int64, self._numbers(launch)), launch.plan
        if plan is None:
            return [first, window, integers]
        table = self._tables.get(plan, lambda: self.constant(make_table(plan)[0]))
        return [first, window, table, integers, self._number(edge)]

    def _evaluate(self, launch: Launch, given: list[Any], stream: Any, count: int = 1) -> list[Any]:
        """Return the evaluated results of so many launches.

        Raises:
            KernelRefused: the GPU allows no group of so many threads.
        """
        try:
            results = [self._launch(launch, given, stream) for _ in range(count)]
            self._mx.eval(results)
        except ValueError as error:
            if _REFUSAL not in str(error):
                raise
            raise KernelRefused(str(error)) from error
        return results

    def _with_values(self, value: Any) -> Any:
        """Return an input, or zeros like it where it is a placeholder."""
        try:
            self._mx.eval(value)
        except ValueError:
            return self._mx.zeros(value.shape, value.dtype)
        return value

    def _is_equal(self, first: Any, second: Any) -> bool:
        """Whether two spectra are the same bits, and two signals the same but for rounding."""
        mx = self._mx
        if not self._is_complex(first):
            differ, largest = mx.max(mx.abs(first - second)), mx.max(mx.abs(first))
            return bool(differ <= WALK_AGREEMENT * largest)
        bits = [mx.view(result, mx.uint32) for result in (first, second)]
        return bool(mx.array_equal(*bits))

    def _launch(self, launch: Launch, inputs: list[Any], stream: Any) -> Any:
        mx = self._mx
        grid, template = self._arrange(launch)
        (result,) = self.make_kernel(launch)(
            inputs=inputs,
            template=template,
            grid=grid,
            threadgroup=launch.threadgroup,
            output_shapes=[launch.shape],
            output_dtypes=[mx.complex64 if launch.complex_output else mx.float32],
            stream=stream,
        )
        return result

    def _arrange(self, launch: Launch) -> tuple[Grid, list[tuple[str, int]]]:
        """Return a launch's threads, as MLX counts them, and what its kernel is compiled for."""
        return launch.grid, list(launch.template)

    def make_kernel(self, launch: Launch) -> Any:
        """Make the kernel of a launch, or find it among those that were made."""
        name = launch.kernel
        return self._kernels.get(
            name,
            lambda: self._make_kernel(
                name, INPUTS[name], metal.write_header(name), metal.body(name)
            ),
        )

    def list_made(self) -> list[str]:
        """List the kernels that were made, each as often as it was compiled for another group."""
        return [key if isinstance(key, str) else key[0] for key in self._kernels.list_keys()]

    def _make_kernel(self, name: str, inputs: Sequence[str], head: str, source: str) -> Any:
        return self._factory(
            name=f"spectro_{name}",
            input_names=list(inputs),
            output_names=list(OUTPUTS[name]),
            header=head,
            source=source,
            ensure_row_contiguous=False,
        )

    def _numbers(self, launch: Launch) -> tuple[int, ...]:
        """Return the integers that a kernel is passed."""
        return launch.integers

    def _number(self, value: float) -> Any:
        """Return a number as a kernel is passed it."""
        return value

    def _keep(self, dtype: Any, numbers: tuple[float, ...]) -> Any:
        """Return an array of numbers, which is made once."""
        return self._tables.get((dtype, numbers), lambda: self.constant(np.array(numbers, dtype)))

    def constant(self, values: Any) -> Any:
        """Make an evaluated MLX array of a flat host array, long enough to be in device memory."""
        missing = max(0, DEVICE_ELEMENTS - values.size)
        array = copy_to_mlx(self._mx, np.pad(values.reshape(-1), (0, missing)))
        self._mx.eval(array)  # nothing lazy may cross to another thread
        return array

    def _in_device_memory(self, array: Any, stream: Any) -> Any:
        """Return the rows, with more behind them that nobody reads if they have too few values."""
        if array.size >= DEVICE_ELEMENTS:
            return array
        more = [(0, DEVICE_ELEMENTS)] + [(0, int(extent == 0)) for extent in array.shape[1:]]
        return self._mx.pad(array, more, stream=stream)


def write_header(kernel: str, group: int, resident: int | None) -> str:
    """Write what comes before the function that MLX generates.

    MLX declares that function ``__global__`` without bounds, for which the compiler takes more
    registers than a large group has. So the word is redefined here to mean both.
    """
    return (
        f"{metal.header('cuda.h', *HEADERS[kernel])}\n"
        "#undef __global__\n"
        f"#define __global__ __attribute__((global)) {cuda.write_bounds(group, resident)}\n"
    )


def write_source(kernel: str) -> str:
    """Write the body of the function. The launch's grid follows its integers."""
    inputs = INPUTS[kernel]
    grid = ", ".join(f"uint(parameters[INTEGERS + {axis}])" for axis in range(3))
    return "".join(
        [
            f"  const uint threads_in_grid[3] = {{{grid}}};\n",
            cuda.positions("threads_in_grid", cooperate="table" in inputs),
            f"  const float edge = {EDGE}[0];\n" if "edge" in inputs else "",
            f"  atomic_uint* {VANISHING} = 0;\n" if kernel in CHECKING_KERNELS else "",
            cuda.write_body(kernel),
        ]
    )


class MlxCudaKernels(MetalKernels):
    """The kernels of one ``mx.fast.cuda_kernel``.

    Args:
        mx: the module ``mlx.core``.
        factory: ``mx.fast.cuda_kernel``, or what stands in for it.
    """

    @staticmethod
    def refusal(params: StftParams | IstftParams) -> str | None:
        """:meth:`.MetalKernels.refusal`, and what MLX's grids do not count in CUDA."""
        outer, length = params.rows, 0
        if isinstance(params, IstftParams):
            length = params.output_length
        elif find_fused_points(params) is None:
            outer = max(params.rows, params.frames)  # of cut_frames
        threads = max(params.frames * params.n_fft, length) + MAX_GROUP_THREADS
        if outer > cuda.MAX_ROWS and params.rows * threads > MAX_COUNT:
            return "rows that CUDA counts by its first dimension are more than MLX's grids count"
        return MetalKernels.refusal(params)

    def _arrange(self, launch: Launch) -> tuple[Grid, list[tuple[str, int]]]:
        blocks, rows, layers = cuda.find_grid(launch)
        flat, group = (rows, layers) != cuda.count_blocks(launch)[1:], launch.threadgroup[0]
        more = (("FLAT", flat), ("GROUP", group), ("INTEGERS", len(launch.integers)))
        return (blocks * group, rows, layers), [*launch.template, *more]

    def make_kernel(self, launch: Launch) -> Any:
        name, bounds = launch.kernel, (launch.threadgroup[0], launch.resident)
        inputs = [EDGE if given == "edge" else given for given in INPUTS[name]]
        return self._kernels.get(
            (name, *bounds),
            lambda: self._make_kernel(
                name, inputs, write_header(name, *bounds), write_source(name)
            ),
        )

    def _numbers(self, launch: Launch) -> tuple[int, ...]:
        return (*launch.integers, *launch.grid)

    def _number(self, value: float) -> Any:
        """Return an array of one number: of plain numbers MLX makes an array in each call."""
        return self._keep(np.float32, (value,))


def device_name(mx: Any) -> str:
    """Return MLX's name of its default device."""
    return str(mx.device_info().get("device_name", mx.default_device()))


def is_deterministic() -> bool:
    """Whether the program, if it has imported torch, wants deterministic algorithms."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.are_deterministic_algorithms_enabled())


def count_cores(name: str) -> tuple[int, str]:
    """Count the cores of an Apple GPU, and say who told. MLX itself tells no number.

    Args:
        name: MLX's name of the device.
    """
    torch = sys.modules.get("torch")
    try:
        told = 0 if torch is None else int(torch.backends.mps.get_core_count())
    except (AttributeError, RuntimeError):
        told = 0
    return (told, "torch") if told > 0 else (guess_cores(name), "a table, by its name")


@cached(4)
def _make_kernels(mx: Any, factory: Callable[..., Any]) -> MetalKernels:
    if getattr(factory, "emulated", False):
        return MetalKernels(mx, factory, cores=EMULATED_CORES)
    name = device_name(mx)
    chooser = Chooser(lambda: name, is_deterministic=is_deterministic)
    return MetalKernels(mx, factory, chooser, count_cores(name)[0])


def metal_kernels(mx: Any, device_type: str) -> MetalKernels | None:
    """Return the kernels for tensors of a device: a GPU's own for MPS, emulated ones for any."""
    factory = mx.fast.metal_kernel
    if getattr(factory, "emulated", False) or (device_type == "mps" and mx.metal.is_available()):
        return _make_kernels(mx, factory)
    return None


@cached(4)
def _make_cuda_kernels(mx: Any, factory: Callable[..., Any]) -> MlxCudaKernels:
    return MlxCudaKernels(mx, factory, Chooser(lambda: device_name(mx)))


def mlx_cuda_kernels(mx: Any) -> MlxCudaKernels | None:
    """Return the kernels for arrays on MLX's CUDA device; None where this MLX has none."""
    return _make_cuda_kernels(mx, mx.fast.cuda_kernel) if mx.cuda.is_available() else None
