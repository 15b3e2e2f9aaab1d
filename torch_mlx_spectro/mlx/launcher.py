"""The launcher for ``mx.fast.metal_kernel``: how kernels are made, compiled and cached.

A kernel is made once; MLX compiles it once for each template, whatever the length of the signal.
Where a GPU allows a compiled kernel fewer threads than asked, MLX raises ValueError when the result
is evaluated: so the first launch of a template is, and :mod:`.kernels.chooser` chooses then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.params import IstftParams, StftParams
from ..errors import KernelRefused
from ..kernels.arguments import HEADERS, INPUTS, OUTPUTS
from ..kernels.chooser import Chooser
from ..kernels.describe import MAX_COUNT, largest_count
from ..kernels.functions import Kernels
from ..kernels.launches import Launch
from ..kernels.radices import APPLE_CORES, fused_points
from ..kernels.tables import make_table
from ..kernels.texts.metal import body, header
from ..store.caches import Cache, cached
from .host import copy_to_mlx

#: Inputs of fewer elements come to a kernel in another address space; ours are made longer.
DEVICE_ELEMENTS = 8
CACHE_ENTRIES = 256
#: ml-explore/mlx#4013: larger transforms were silently wrong on Metal.
MAX_FFT = 1 << 20
#: In what MLX raises where values are asked for that a transformation only stands in for.
TRACING = "during function transformations"
#: In what MLX raises where a pipeline allows fewer threads than the group has.
_REFUSAL = "hread group size"


class MetalKernels(Kernels):
    """The kernels that one factory of MLX makes.

    Their windows have ``n_fft`` values. Whether an envelope vanishes is found before, on the host.

    Args:
        mx: the module ``mlx.core``.
        factory: ``mx.fast.metal_kernel``, or what stands in for it.
        chooser: chooses among launches; one that tries no shapes if not given.
        cores: of the GPU; None for those of the one that plans were sized for.
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
        if chooser is not None:
            self.chooser = chooser

    def refusal(self, params: StftParams | IstftParams) -> str | None:
        """Why no kernel may compute this call; None where one does."""
        return refusal(params)

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
        first = self._in_device_memory(first, stream)
        if launches[0].plan is None:
            given = [first, window, self._integers(launches[0])]
            return self._launch(launches[0], given, stream)

        def inputs(launch: Launch) -> list[Any]:
            table = self._table(launch)
            return [first, window, table, self._integers(launch), self._number(edge)]

        chosen = self.chooser.find(launches)
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

    def _evaluate(self, launch: Launch, given: list[Any], stream: Any, count: int = 1) -> list[Any]:
        """Results of so many launches, with their values.

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
        """An input, or zeros in its place where it only stands in for values."""
        try:
            self._mx.eval(value)
        except ValueError:
            return self._mx.zeros(value.shape, value.dtype)
        return value

    def _is_equal(self, first: Any, second: Any) -> bool:
        mx = self._mx
        bits = [mx.view(result, mx.uint32) for result in (first, second)]
        return bool(mx.array_equal(*bits))

    def _launch(self, launch: Launch, inputs: list[Any], stream: Any) -> Any:
        mx = self._mx
        (result,) = self._kernel(launch)(
            inputs=inputs,
            template=self._template(launch),
            grid=self._grid(launch),
            threadgroup=launch.threadgroup,
            output_shapes=[launch.shape],
            output_dtypes=[mx.complex64 if launch.complex_output else mx.float32],
            stream=stream,
        )
        return result

    def _template(self, launch: Launch) -> list[tuple[str, int]]:
        """What a kernel is compiled for."""
        return list(launch.template)

    def _grid(self, launch: Launch) -> tuple[int, int, int]:
        """Threads of a launch, as MLX counts them."""
        return launch.grid

    def _kernel(self, launch: Launch) -> Any:
        name = launch.kernel
        kernel = self._kernels.find(name)
        if kernel is None:
            kernel = self._factory(
                name=f"spectro_{name}",
                input_names=list(INPUTS[name]),
                output_names=list(OUTPUTS[name]),
                header=header(*HEADERS[name]),
                source=body(name),
                ensure_row_contiguous=False,
            )
            self._kernels.put(name, kernel)
        return kernel

    def _table(self, launch: Launch) -> Any:
        assert launch.plan is not None
        table = self._tables.find(launch.plan)
        if table is None:
            table = self._tables.put(launch.plan, self.constant(make_table(launch.plan)[0]))
        return table

    def _integers(self, launch: Launch) -> Any:
        numbers = self._numbers(launch)
        values = self._tables.find(numbers)
        if values is None:
            values = self._tables.put(numbers, self.constant(np.array(numbers, np.int64)))
        return values

    def _numbers(self, launch: Launch) -> tuple[int, ...]:
        """The integers that a kernel is passed."""
        return launch.integers

    def _number(self, value: float) -> Any:
        """A number as a kernel is passed it."""
        return value

    def constant(self, values: Any) -> Any:
        """An evaluated MLX array of a flat host array, long enough to be in device memory."""
        missing = max(0, DEVICE_ELEMENTS - values.size)
        array = copy_to_mlx(self._mx, np.pad(values.reshape(-1), (0, missing)))
        self._mx.eval(array)  # nothing lazy may cross to another thread
        return array

    def _in_device_memory(self, array: Any, stream: Any) -> Any:
        """The same rows; where there are too few values, with rows behind that nobody reads."""
        if array.size >= DEVICE_ELEMENTS:
            return array
        more = [(0, DEVICE_ELEMENTS)] + [(0, int(extent == 0)) for extent in array.shape[1:]]
        return self._mx.pad(array, more, stream=stream)


def refusal(params: StftParams | IstftParams) -> str | None:
    """Why no kernel of MLX's may compute this call; None where one does."""
    fused = fused_points(params)
    if fused is None and params.n_fft > MAX_FFT:
        return f"n_fft above {MAX_FFT} is not computed by MLX on a GPU"
    threads = params.frames * (fused[0] if fused else 1)
    if max(largest_count(params), threads) > MAX_COUNT:
        return "a dimension exceeds what MLX's grids count"
    return None


def device_name(mx: Any) -> str:
    """MLX's name of its default device."""
    return str(mx.device_info().get("device_name", mx.default_device()))


@cached(4)
def _make_kernels(mx: Any, factory: Callable[..., Any]) -> MetalKernels:
    if getattr(factory, "emulated", False):
        return MetalKernels(mx, factory)
    return MetalKernels(mx, factory, Chooser(lambda: device_name(mx)), APPLE_CORES)


def metal_kernels(mx: Any, device_type: str) -> MetalKernels | None:
    """The kernels for tensors of a device: a GPU's own for MPS, emulated ones for any."""
    kernels = _make_kernels(mx, mx.fast.metal_kernel)
    if kernels.emulated or (device_type == "mps" and mx.metal.is_available()):
        return kernels
    return None
