"""``mx.compile`` around emulated kernels.

On a Mac a kernel is a node of the graph that MLX compiles. Here no node can be run by Python, and a
kernel wants values, which a trace does not have. So a function is compiled with the results of its
kernels as further arguments, and with the inputs of its kernels as further results. A call runs
what MLX has compiled once for each kernel, for its inputs, and once more with all results. MLX is
lazy: each time it computes what is asked for.

For arguments of new shapes the function's body is traced twice, where a Mac traces it once: the
first trace tells how many results there are.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

#: Part of MLX's message where a placeholder of a transformation is asked for values.
TRACING = "during function transformations"
#: Signatures of one function whose kernels are remembered.
CACHE_ENTRIES = 64
#: A body that launches other kernels each time that it is traced is given up after so many traces.
MOST_TRACES = 5

#: Why a function is not compiled after ``mx.disable_compile()``, or where ``mx.grad`` calls it.
AS_WRITTEN = "MLX does not compile this call"

_TRACE = threading.local()
Outcome = Literal["compiled", "as written", "changed"]


@dataclass(frozen=True)
class CompiledFunction:
    """What became of a function given to ``mx.compile``, for arguments of new shapes.

    A call that MLX does not compile is told each time.

    Attributes:
        name: of the function.
        kernels: launches in a call of it.
        uncompiled: why it runs as it was written; empty where MLX has compiled it.
    """

    name: str
    kernels: int
    uncompiled: str = ""


def make_opaque(mx: Any, inputs: Sequence[Any], results: Sequence[Any]) -> list[Any]:
    """Return results that depend on inputs as a Mac's kernel's do: they have no derivative."""
    kernel = mx.custom_function(lambda *_: list(results))

    def refuse(what: str, *_: Any) -> Any:
        raise ValueError(f"[Primitive::{what}] Not implemented for CustomKernel.")

    kernel.vjp(functools.partial(refuse, "vjp"))
    kernel.jvp(functools.partial(refuse, "jvp"))
    made: list[Any] = kernel(*inputs)
    return made


@dataclass(frozen=True)
class TracedCall:
    """A kernel's call whose inputs have no values yet.

    Attributes:
        kernel: what is called.
        shapes: of the inputs.
        options: the other arguments of the call.
    """

    kernel: Callable[..., list[Any]]
    shapes: tuple[Any, ...]
    options: dict[str, Any]

    def is_like(self, other: TracedCall) -> bool:
        """Whether this is the same launch in another trace of the same function."""
        return (
            self.kernel is other.kernel
            and self.shapes == other.shapes
            and self.options == other.options
        )

    def make_dummies(self, mx: Any) -> list[Any]:
        """Return zeros in the place of the results."""
        options = self.options
        pairs = zip(options["output_shapes"], options["output_dtypes"], strict=True)
        return [mx.zeros(shape, dtype) for shape, dtype in pairs]

    def run(self, inputs: list[Any]) -> list[Any]:
        """Launch the kernel."""
        return self.kernel(inputs=inputs, **self.options)


class Trace:
    """What the kernels of a function are given while MLX traces it.

    Args:
        mx: the module ``mlx.core``.
        expected: the calls of an earlier trace.
        results: of those calls.
    """

    def __init__(self, mx: Any, expected: list[TracedCall], results: list[list[Any]]) -> None:
        self._mx = mx
        self._expected = expected
        self._results = results
        self.calls: list[TracedCall] = []
        self.inputs: list[list[Any]] = []

    def meet(
        self, kernel: Callable[..., list[Any]], inputs: Sequence[Any], options: dict[str, Any]
    ) -> list[Any]:
        """Note a call of a kernel; returns its results, or zeros where there are none yet."""
        mx = self._mx
        arrays = [value if isinstance(value, mx.array) else mx.array(value) for value in inputs]
        shapes = tuple(describe_value(mx, array) for array in arrays)
        call, index = TracedCall(kernel, shapes, options), len(self.calls)
        self.calls.append(call)
        self.inputs.append(arrays)
        known = index < len(self._expected) and call.is_like(self._expected[index])
        results = self._results[index] if known else call.make_dummies(mx)
        return make_opaque(mx, arrays, results)


def find_trace() -> Trace | None:
    """Return the trace of the function that this thread compiles."""
    return getattr(_TRACE, "current", None)


def describe_value(mx: Any, value: Any) -> Any:
    """Return what MLX compiles a function anew for, if it changes."""
    if isinstance(value, mx.array):
        return "array", tuple(value.shape), str(value.dtype)
    if isinstance(value, list | tuple):
        return type(value), tuple(describe_value(mx, one) for one in value)
    if isinstance(value, dict):
        return dict, tuple((key, describe_value(mx, one)) for key, one in value.items())
    return type(value), value


def is_traced(mx: Any, value: Any) -> bool:
    """Return whether arrays have no values, by the first of them; True where there are none."""
    if isinstance(value, mx.array):
        try:
            mx.eval(value)
        except ValueError:
            return True
        return False
    parts = value.values() if isinstance(value, dict) else value
    found = [is_traced(mx, one) for one in parts] if isinstance(value, list | tuple | dict) else []
    return all(found)


class Plan:
    """A function compiled for arguments of some shapes.

    Args:
        mx: the module ``mlx.core``.
        compile: MLX's own ``mx.compile``, bound to its options.
        function: to compile.
        calls: the kernels' calls that are expected.
    """

    def __init__(
        self,
        mx: Any,
        compile: Callable[..., Any],
        function: Callable[..., Any],
        calls: list[TracedCall],
    ) -> None:
        self._mx = mx
        self._function = function
        self._run = compile(self._trace)
        self.calls = calls
        #: Of the last trace.
        self.seen: list[TracedCall] = []

    def _trace(self, results: list[list[Any]], args: Any, kwargs: Any) -> tuple[Any, Any]:
        if not is_traced(self._mx, [args, kwargs]):
            _TRACE.runs_as_written = True
            return self._function(*args, **kwargs), []
        trace = Trace(self._mx, self.calls, results)
        _TRACE.current = trace
        try:
            value = self._function(*args, **kwargs)
        finally:
            _TRACE.current = None
        self.seen = trace.calls
        return value, trace.inputs

    def __call__(self, args: Any, kwargs: Any) -> tuple[Outcome, Any]:
        """Call the function; returns its result unless its kernels have changed."""
        _TRACE.runs_as_written = False
        results = [call.make_dummies(self._mx) for call in self.calls]
        value, inputs = self._run(results, args, kwargs)
        if _TRACE.runs_as_written:
            return "as written", value
        if not self._is_settled():
            return "changed", None
        for index, call in enumerate(self.calls):
            results[index] = call.run(inputs[index])
            # Lazy: what was not evaluated of an earlier call is not computed.
            value, inputs = self._run(results, args, kwargs)
        return "compiled", value

    def _is_settled(self) -> bool:
        return len(self.seen) == len(self.calls) and all(
            one.is_like(other) for one, other in zip(self.seen, self.calls, strict=True)
        )


class Compiled:
    """What ``Machine.compile`` returns.

    Args:
        mx: the module ``mlx.core``.
        compile: MLX's own ``mx.compile``.
        function: to compile.
        options: the other arguments of ``mx.compile``.
        note: is told what became of the function.
    """

    def __init__(
        self,
        mx: Any,
        compile: Callable[..., Any],
        function: Callable[..., Any],
        options: dict[str, Any],
        note: Callable[[CompiledFunction], None],
    ) -> None:
        functools.update_wrapper(self, function)
        self._mx = mx
        self._function = function
        self._real = compile(function, **options)
        # Each plan is for the shapes of its kernels.
        self._compile = functools.partial(compile, **(options | {"shapeless": False}))
        self._updates = options["outputs"] is not None
        self._note = note
        self._name = getattr(function, "__name__", type(function).__name__)
        self._plans: OrderedDict[Any, Plan | None] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if find_trace() is not None:  # a part of the function that is traced
            return self._function(*args, **kwargs)
        key = describe_value(self._mx, (args, kwargs))
        try:
            with self._lock:
                is_known, plan = key in self._plans, self._plans.get(key)
        except TypeError:  # MLX says what is wrong with the argument
            return self._real(*args, **kwargs)
        if is_known and plan is None:
            return self._function(*args, **kwargs)
        return self._call(key, plan or self._make_plan([]), args, kwargs)

    def _make_plan(self, calls: list[TracedCall]) -> Plan:
        return Plan(self._mx, self._compile, self._function, calls)

    def _call(self, key: Any, plan: Plan, args: Any, kwargs: Any) -> Any:
        """Call by a plan; if the function's kernels are others, make one that has them."""
        reason = "it updates arrays that mx.compile captures" if self._updates else ""
        for _ in range(0 if reason else MOST_TRACES):
            outcome, value = plan(args, kwargs)
            if outcome == "as written":
                self._note(CompiledFunction(self._name, 0, AS_WRITTEN))
                return value
            if outcome == "compiled":
                self._keep(key, plan)
                return value
            plan = self._make_plan(plan.seen)
        self._keep(key, None)
        reason = reason or "it launches other kernels whenever it is traced"
        self._note(CompiledFunction(self._name, 0, reason))
        warnings.warn(
            f"{self._name} runs uncompiled in the Metal emulator: {reason}",
            RuntimeWarning,
            stacklevel=3,
        )
        return self._function(*args, **kwargs)

    def _keep(self, key: Any, plan: Plan | None) -> None:
        with self._lock:
            is_new = self._plans.get(key) is not plan
            self._plans[key] = plan
            self._plans.move_to_end(key)
            while len(self._plans) > CACHE_ENTRIES:
                self._plans.popitem(last=False)
        if plan is not None and is_new:
            self._note(CompiledFunction(self._name, len(plan.calls)))
