"""The launcher for ``mx.fast.metal_kernel``.

A kernel is made once; MLX compiles it once for each template, whatever the length of the signal.
A GPU may allow a compiled kernel fewer threads than asked (MLX then raises ValueError when the
result is evaluated): the first launch of a template is evaluated at once, and the next plan tried
where it is refused.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..host import copy_to_mlx
from ..params import IstftParams, StftParams
from . import describe
from .arguments import HEADERS, INPUTS, OUTPUTS
from .describe import Launch
from .sources import header, source
from .tables import table_of

#: Inputs of fewer elements come to a kernel in another address space; ours are made longer.
DEVICE_ELEMENTS = 8
CACHE_ENTRIES = 256


class _Bounded:
    """A locked, least-recently-used cache."""

    def __init__(self) -> None:
        self._values: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any) -> Any:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Any, value: Any) -> Any:
        with self._lock:
            self._values[key] = value
            while len(self._values) > CACHE_ENTRIES:
                self._values.popitem(last=False)
        return value


class MetalKernels:
    """The kernels of one ``mx.fast.metal_kernel``.

    Args:
        mx: the module ``mlx.core``.
        factory: ``mx.fast.metal_kernel``, or what stands in for it.
    """

    def __init__(self, mx: Any, factory: Callable[..., Any]) -> None:
        #: Computed on the host, and good for host tensors.
        self.emulated = bool(getattr(factory, "emulated", False))
        self._mx = mx
        self._factory = factory
        self._kernels = _Bounded()
        self._tables = _Bounded()
        #: By what a kernel is compiled for: the index of the first plan that runs.
        self._running = _Bounded()

    def analysis(
        self,
        params: StftParams,
        signal: Any,
        window: Any,
        stream: Any,
        *,
        edge: float = 1.0,
        envelope: Any = None,
    ) -> Any | None:
        """Spectrum of shape (rows, frames, bins); None where the fused kernel covers it not.

        Args:
            signal: shape (rows, samples), any strides.
            window: shape (n_fft,) or longer, every scale folded in (:func:`analysis_scale`).
            edge: factor of bins 0 and n_fft / 2.
            envelope: what the signal is multiplied by: the rows of an inverse envelope, flat, of
                the window's type; None for nothing.
        """
        launches = describe.analysis(
            params, _is_complex(signal), _is_complex(window), envelope is not None
        )
        if not launches:
            return None
        signal = self._in_device_memory(signal, stream)

        def inputs(launch: Launch) -> list[Any]:
            table = self._table(launch)
            factors = window if envelope is None else envelope
            return [signal, window, factors, table, self._integers(launch), edge]

        return self._first_running(launches, inputs, stream)

    def synthesis(
        self,
        params: IstftParams,
        spectrum: Any,
        window: Any,
        envelope: Any,
        stream: Any,
        *,
        frames_fastest: bool = False,
        edge: float = 1.0,
        adjoint: describe.Adjoint | None = None,
    ) -> Any | None:
        """Signal of shape (rows, output length); None where the fused kernel covers it not.

        Args:
            spectrum: shape (rows, frames, bins), any strides.
            window: shape (n_fft,) or longer, 1 / n_fft and every other scale folded in.
            envelope: inverse envelope by hops, flat; ignored for an adjoint.
            frames_fastest: neighbouring frames are neighbours in memory.
            edge: factor of bins 0 and n_fft / 2.
            adjoint: leave the envelope out, and fold the padding of an analysis.
        """
        launches = describe.synthesis(params, _is_complex(window), frames_fastest, adjoint)
        if not launches:
            return None
        spectrum = self._in_device_memory(spectrum, stream)

        def inputs(launch: Launch) -> list[Any]:
            table = self._table(launch)
            return [spectrum, window, envelope, table, self._integers(launch), edge]

        return self._first_running(launches, inputs, stream)

    def cut_frames(self, params: StftParams, signal: Any, window: Any, stream: Any) -> Any:
        """Windowed frames, shape (rows, frames, n_fft)."""
        launch = describe.cut_frames(params, _is_complex(signal), _is_complex(window))
        signal = self._in_device_memory(signal, stream)
        return self._launch(launch, [signal, window, self._integers(launch)], stream)

    def add_frames(
        self,
        params: IstftParams,
        frames: Any,
        window: Any,
        envelope: Any,
        stream: Any,
        adjoint: describe.Adjoint | None = None,
    ) -> Any:
        """Windowed, overlap-added signal, shape (rows, output length).

        Args:
            frames: shape (rows, frames, n_fft), contiguous.
        """
        launch = describe.add_frames(params, _is_complex(window), adjoint)
        frames = self._in_device_memory(frames, stream)
        return self._launch(launch, [frames, window, envelope, self._integers(launch)], stream)

    def _first_running(
        self, launches: Sequence[Launch], inputs: Callable[[Launch], list[Any]], stream: Any
    ) -> Any:
        """The result of the first launch whose group the GPU accepts."""
        key = (launches[0].kernel, launches[0].template)
        known = self._running.get(key)
        if known is not None:
            return self._launch(launches[known], inputs(launches[known]), stream)
        for index, launch in enumerate(launches):
            try:
                result = self._launch(launch, inputs(launch), stream)
                self._mx.eval(result)
            except ValueError as error:
                if "hread group size" not in str(error) or index + 1 == len(launches):
                    raise
                continue
            self._running.put(key, index)
            return result
        raise AssertionError("there is at least one launch")

    def _launch(self, launch: Launch, inputs: list[Any], stream: Any) -> Any:
        mx = self._mx
        (result,) = self._kernel(launch.kernel)(
            inputs=inputs,
            template=list(launch.template),
            grid=launch.grid,
            threadgroup=launch.threadgroup,
            output_shapes=[launch.shape],
            output_dtypes=[mx.complex64 if launch.complex_output else mx.float32],
            stream=stream,
        )
        return result

    def _kernel(self, name: str) -> Any:
        kernel = self._kernels.get(name)
        if kernel is None:
            kernel = self._factory(
                name=f"spectro_{name}",
                input_names=list(INPUTS[name]),
                output_names=list(OUTPUTS[name]),
                header=header(*HEADERS[name]),
                source=source(f"{name}.metal"),
                ensure_row_contiguous=False,
            )
            self._kernels.put(name, kernel)
        return kernel

    def _table(self, launch: Launch) -> Any:
        assert launch.plan is not None
        table = self._tables.get(launch.plan)
        if table is None:
            table = self._tables.put(launch.plan, self.constant(table_of(launch.plan)[0]))
        return table

    def _integers(self, launch: Launch) -> Any:
        values = self._tables.get(launch.integers)
        if values is None:
            values = self.constant(np.array(launch.integers, np.int64))
            self._tables.put(launch.integers, values)
        return values

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


def analysis_scale(params: StftParams) -> float:
    """What the analysis kernel's window is multiplied by: the call's scale, halved if packed."""
    fused = describe.points_of(params)
    return 0.5 * params.scale if fused is not None and fused[1] else params.scale


def synthesis_scale(params: IstftParams) -> float:
    """What the synthesis kernel's window is multiplied by: its inverse transform divides not."""
    return 1.0 / params.n_fft if describe.points_of(params) is not None else 1.0


def _is_complex(array: Any) -> bool:
    return "complex" in str(array.dtype)


@lru_cache(maxsize=4)
def _kernels_of(mx: Any, factory: Callable[..., Any]) -> MetalKernels:
    return MetalKernels(mx, factory)


def metal_kernels(mx: Any, device_type: str) -> MetalKernels | None:
    """The kernels for tensors of a device: a GPU's own for MPS, emulated ones for any."""
    kernels = _kernels_of(mx, mx.fast.metal_kernel)
    if kernels.emulated or (device_type == "mps" and mx.metal.is_available()):
        return kernels
    return None
