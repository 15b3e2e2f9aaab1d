"""How kernels are launched by MLX: made, compiled and cached; which plan, where there are several.

A kernel is made once; MLX compiles it once for each template, whatever the length of the signal.
A GPU may allow a compiled kernel fewer threads than asked (MLX then raises ValueError when the
result is evaluated): the first launch of a template is evaluated at once, and the next plan tried
where it is refused. Which of several shapes is the fastest, :mod:`.kernels.tuning` finds out then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..kernels.arguments import HEADERS, INPUTS, OUTPUTS
from ..kernels.launches import Launch
from ..kernels.tables import table_of
from ..kernels.texts.metal import body, header
from ..kernels.tuning import VARIABLE, Demands, Refused, Tuning
from ..store.caches import Cache
from .host import copy_to_mlx

#: Inputs of fewer elements come to a kernel in another address space; ours are made longer.
DEVICE_ELEMENTS = 8
CACHE_ENTRIES = 256
#: In what MLX raises where values are asked for that a transformation only stands in for.
TRACING = "during function transformations"
#: In what MLX raises where a pipeline allows fewer threads than the group has.
_REFUSAL = "hread group size"


class _Taken(NamedTuple):
    """Which of a call's launches is taken; not for good where only a trace has asked so far."""

    place: int
    final: bool


class MlxLauncher(Demands):
    """Launches of the kernels that one factory of MLX makes.

    Args:
        mx: the module ``mlx.core``.
        factory: ``mx.fast.metal_kernel``, or what stands in for it.
        tuning: times shapes of groups; None where times mean nothing.
        cores: of the GPU; None for those of the one that plans were sized for.
    """

    def __init__(
        self,
        mx: Any,
        factory: Callable[..., Any],
        tuning: Tuning | None = None,
        cores: int | None = None,
    ) -> None:
        self.cores = cores
        #: Computed on the host, and good for host tensors.
        self.emulated = bool(getattr(factory, "emulated", False))
        self._mx = mx
        self._factory = factory
        self._kernels: Cache[Any, Any] = Cache(CACHE_ENTRIES)
        self._tables: Cache[Any, Any] = Cache(CACHE_ENTRIES)
        self._tuning = tuning
        #: By what a kernel is compiled for by its first plan: the plan that is taken.
        self._running: Cache[Any, _Taken] = Cache(CACHE_ENTRIES)

    def _best_running(
        self,
        launches: Sequence[Launch],
        inputs: Callable[[Launch], list[Any]],
        stream: Any,
        shapes: Callable[[], Sequence[Launch]] = tuple,
    ) -> Any:
        """The result of the first launch whose group the GPU accepts, or of a faster shape of it.

        Args:
            shapes: returns launches of which one may be taken instead.
        """
        key = (launches[0].kernel, launches[0].template)
        taken: _Taken | None = self._running.find(key)
        if taken is None or not taken.final:
            return self._first(key, launches, inputs, stream, shapes)
        place = taken.place
        launch = launches[place] if place < len(launches) else shapes()[place - len(launches)]
        return self._launch(launch, inputs(launch), stream)

    def _first(
        self,
        key: Any,
        launches: Sequence[Launch],
        inputs: Callable[[Launch], list[Any]],
        stream: Any,
        shapes: Callable[[], Sequence[Launch]],
    ) -> Any:
        """As of :meth:`_best_running`, where it is not known yet which launch that is."""
        tuning = None if self._group(launches[0].kernel) else self._tuning
        every = [*launches, *(shapes() if tuning is not None else ())]
        order = list(range(len(launches)))
        name = "" if tuning is None else tuning.key(launches[0])
        known = None if tuning is None else tuning.known(name, every)
        if known is not None:
            order.insert(0, known)
        begin = time.perf_counter() if tuning is None else tuning.clock()
        index, result = self._first_running([every[place] for place in order], inputs, stream)
        index = order[index]
        if result is None:  # in a trace: an array without values has no result to wait for
            self._running.put(key, _Taken(index, final=False))
            return self._launch(every[index], inputs(every[index]), stream)
        tried = None
        if tuning is not None and known is None:
            others = every[len(launches) :]

            def run(launch: Launch, count: int) -> list[Any]:
                given = inputs(launch)
                try:
                    results = [self._launch(launch, given, stream) for _ in range(count)]
                    self._mx.eval(results)
                except ValueError as error:
                    if _REFUSAL not in str(error):
                        raise
                    raise Refused from error
                return results

            seconds = tuning.clock() - begin
            tried = tuning.best(name, [every[index], *others], seconds, run, self._is_equal)
        if tried:
            index = len(launches) + tried - 1
        # Where another thread is at its trial, this one's first plan gives way to what it finds.
        self._running.put(key, _Taken(index, final=True), replace=tried is not None)
        return result

    def _first_running(
        self, launches: Sequence[Launch], inputs: Callable[[Launch], list[Any]], stream: Any
    ) -> tuple[int, Any]:
        """The index of the first launch whose group the GPU accepts, and its result, if any."""
        for index, launch in enumerate(launches):
            try:
                return index, self._accepted(launch, inputs(launch), stream)
            except ValueError as error:
                if _REFUSAL not in str(error):
                    raise
                if self._group(launch.kernel) is not None:
                    raise ValueError(f"{VARIABLE} cannot be satisfied: {error}") from None
                if index + 1 == len(launches):
                    raise
        raise AssertionError("there is at least one launch")

    def _accepted(self, launch: Launch, given: list[Any], stream: Any) -> Any:
        """The result of a launch, evaluated; None in a trace, where zeros stand in.

        Raises:
            ValueError: the GPU refuses a group of so many threads.
        """
        mx = self._mx
        try:
            result = self._launch(launch, given, stream)
            mx.eval(result)
            return result
        except ValueError as error:
            if TRACING not in str(error):
                raise
        mx.eval(self._launch(launch, [self._with_values(value) for value in given], stream))
        return None

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
            table = self._tables.put(launch.plan, self.constant(table_of(launch.plan)[0]))
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
