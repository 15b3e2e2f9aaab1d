"""A machine that runs Metal kernels, of MLX and of torch, on the CPU."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from .arithmetic import choose_arithmetic
from .capture import Capture
from .compiled import TRACING, Compiled, CompiledFunction, find_trace, make_opaque
from .compiler import Compiler, default_cache_dir
from .errors import Unavailable
from .execute import Call, Launch, Names, execute, in_every_order
from .library import KernelLibrary, Order, Runtime
from .reading import Request
from .shading import ShaderCall, ShaderLibrary, TensorOutput
from .toolchain import reason_unavailable

#: What Apple's GPUs allow at most; a pipeline may allow fewer.
MAX_THREADS = 1024
_LAUNCHES = 10_000
DEFAULT_ORDERS: tuple[Order, ...] = ("ascending", "descending", ("random", 0))


class Kernel:
    """What ``Machine.metal_kernel`` returns; called as MLX's."""

    def __init__(self, machine: Machine, names: Names, capture: Capture) -> None:
        self._machine = machine
        self._names = names
        self._capture = capture

    def __call__(
        self,
        *,
        inputs: Sequence[Any],
        output_shapes: Sequence[Sequence[int]],
        output_dtypes: Sequence[Any],
        grid: tuple[int, int, int],
        threadgroup: tuple[int, int, int],
        template: Sequence[tuple[str, Any]] | None = None,
        init_value: float | None = None,
        verbose: bool = False,
        stream: Any = None,
    ) -> list[Any]:
        """Launch the kernel; returns its outputs, evaluated. ``stream`` is ignored.

        In a function that ``Machine.compile`` traces it is launched when that function is called.
        """
        passed = {
            "template": template,
            "grid": grid,
            "threadgroup": threadgroup,
            "output_shapes": output_shapes,
            "output_dtypes": output_dtypes,
            "init_value": init_value,
            "verbose": verbose,
        }
        try:
            arrays = self._machine.evaluate(inputs)
        except ValueError as error:
            trace = find_trace()
            if TRACING not in str(error):
                raise
            if trace is not None:
                return trace.meet(self, inputs, passed)
            try:  # mx.export_function, which computes nothing
                real: list[Any] = self._capture.kernel(inputs=list(inputs), **passed)
                return real
            except RuntimeError:
                raise error from None
        outputs = self._machine.run(
            Call(
                names=self._names,
                captured=self._capture(arrays, passed),
                arrays=arrays,
                output_shapes=tuple(tuple(shape) for shape in output_shapes),
                output_dtypes=tuple(output_dtypes),
                grid=tuple(grid),
                threadgroup=tuple(threadgroup),
                init_value=init_value,
            )
        )
        return self._machine.evaluate(make_opaque(self._machine._mx, arrays, outputs))


class Machine:
    """Stands in for a Mac's GPU.

    Args:
        orders: in which a launch runs its threads between barriers, and its groups: "ascending",
            "descending", or ("random", seed). Every launch runs once for each, and all must give
            the same bits.
        checked: look at every access to memory; 20 to 100 times slower.
        cache_dir: of compiled kernels, shared by processes; by default the user's cache folder.
        transform: applied to a text before it is compiled.
        updates: kernels of ``compile_shader`` may read and keep what the tensors that they write
            hold; else they have to write all of it.
        contract: a product and a sum of one expression are rounded once, as by Metal; None for what
            the environment says.
        denormals: "flush" takes those of single precision for zeros, as Metal does; "keep" computes
            with them; None for what the environment says.

    Attributes:
        launches: what has run, oldest first; the oldest are dropped beyond 10,000.
        compiled_functions: what became of functions that ``mx.compile`` was given, in the same way.
        max_threads: threads of a group that a pipeline allows: a number, or a function of the
            kernel's name as it was given to ``metal_kernel``.

    Raises:
        Unavailable: there is no compiler here.
        ValueError: no order, or an unknown one.
    """

    def __init__(
        self,
        orders: Sequence[Order] = DEFAULT_ORDERS,
        *,
        checked: bool = False,
        cache_dir: Path | str | None = None,
        transform: Callable[[str], str] | None = None,
        updates: bool = False,
        contract: bool | None = None,
        denormals: Literal["flush", "keep"] | None = None,
    ) -> None:
        reason = reason_unavailable()
        if reason is not None:
            raise Unavailable(reason)
        import mlx.core as mx

        self._mx: Any = mx
        self._real: Callable[..., Any] = _find_real(mx.fast.metal_kernel, "_real")
        self._real_compile: Callable[..., Any] = _find_real(mx.compile, "_real_compile")
        self.orders = tuple(orders)
        self.checked = checked
        self.transform = transform
        self.updates = updates
        self.arithmetic = choose_arithmetic(contract, denormals)
        self.max_threads: int | Callable[[str], int] = MAX_THREADS
        self.launches: deque[Launch] = deque(maxlen=_LAUNCHES)
        self.compiled_functions: deque[CompiledFunction] = deque(maxlen=_LAUNCHES)
        self._compiler = Compiler(Path(cache_dir) if cache_dir else default_cache_dir())
        self._runtime: Runtime | None = None
        self._lock = Lock()
        _check_orders(self.orders)

    @property
    def compilations(self) -> int:
        """The number of texts that this machine has compiled, and not found in its cache."""
        return self._compiler.compilations

    def metal_kernel(
        self,
        name: str,
        input_names: Sequence[str],
        output_names: Sequence[str],
        source: str,
        header: str = "",
        ensure_row_contiguous: bool = True,
        atomic_outputs: bool = False,
        compile_options: object | None = None,
    ) -> Callable[..., list[Any]]:
        """As ``mx.fast.metal_kernel``; the kernel evaluates its inputs and its outputs.

        The kernel takes any ``stream`` and ignores it: a machine without a GPU has only streams
        of the CPU, which MLX's own kernel would refuse.
        """
        real = self._real(
            name=name,
            input_names=input_names,
            output_names=output_names,
            source=source,
            header=header,
            ensure_row_contiguous=ensure_row_contiguous,
            atomic_outputs=atomic_outputs,
            compile_options=compile_options,
        )
        names = Names(name, tuple(input_names), tuple(output_names), ensure_row_contiguous)
        return Kernel(self, names, Capture(self._mx, real))

    #: Says of ``mx.fast.metal_kernel`` that it works without Metal.
    metal_kernel.emulated = True  # type: ignore[attr-defined]

    def compile(
        self,
        fun: Callable[..., Any],
        inputs: object | None = None,
        outputs: object | None = None,
        shapeless: bool = False,
    ) -> Callable[..., Any]:
        """As ``mx.compile``, for functions that launch kernels, too."""
        options = {"inputs": inputs, "outputs": outputs, "shapeless": shapeless}
        return Compiled(self._mx, self._real_compile, fun, options, self.compiled_functions.append)

    def compile_shader(self, source: str) -> ShaderLibrary:
        """As ``torch.mps.compile_shader``; the kernels take host tensors.

        Raises:
            SyntaxError: Metal's compiler would refuse the text.
        """
        return ShaderLibrary(self, source)

    #: Says of ``torch.mps.compile_shader`` that it works without MPS.
    compile_shader.emulated = True  # type: ignore[attr-defined]

    @contextlib.contextmanager
    def installed(self) -> Iterator[Machine]:
        """Put this machine in for ``mx.fast.metal_kernel`` and ``torch.mps.compile_shader``.

        ``mx.compile`` is the machine's, too, since MLX's own traces kernels without values. torch's
        function is replaced only if torch has been imported before.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(_replace(self._mx.fast, "metal_kernel", self.metal_kernel))
            stack.enter_context(_replace(self._mx, "compile", self.compile))
            torch: Any = sys.modules.get("torch")
            if torch is not None:
                stack.enter_context(_replace(torch.mps, "compile_shader", self.compile_shader))
            yield self

    def allowed_threads(self, name: str) -> int:
        """Threads of a group that the pipeline of kernel ``name`` allows."""
        limit = self.max_threads
        return min(limit(name) if callable(limit) else limit, MAX_THREADS)

    def evaluate(self, inputs: Sequence[Any]) -> list[Any]:
        """Return inputs as evaluated arrays; MLX takes Python's numbers, too."""
        arrays = [
            value if isinstance(value, self._mx.array) else self._mx.array(value)
            for value in inputs
        ]
        self._mx.eval(arrays)
        return arrays

    def run(self, call: Call) -> list[Any]:
        """Compile and run a launch; returns its outputs, evaluated.

        Raises:
            ValueError: Metal would not launch it.
            EmulatorError: what went wrong; see ``errors.py``.
        """
        call.check(self.allowed_threads(call.names.kernel))
        runtime, library = self._load(call.captured.text, call.captured.name)
        started = time.perf_counter()
        outputs, launch = execute(
            *(self._mx, runtime, library, call, self.orders),
            checked=self.checked,
            flush=self.arithmetic.flush,
        )
        self._note(launch, started)
        return outputs

    def shader(self, text: str, name: str) -> KernelLibrary:
        """Compile and return a kernel of a shader's text.

        Raises:
            Rejected: Metal's compiler would refuse the text.
        """
        return self._load(text, name, is_shader=True)[1]

    def run_shader(self, library: KernelLibrary, call: ShaderCall) -> list[TensorOutput]:
        """Run a launch of a shader; returns what it wrote, in memory of its own.

        Raises:
            EmulatorError: what went wrong; see ``errors.py``.
        """
        started = time.perf_counter()
        outputs, launch = in_every_order(
            self._start_runtime(),
            library,
            call,
            lambda: call.prepare(self.updates),
            self.orders,
            checked=self.checked,
            flush=self.arithmetic.flush,
        )
        self._note(launch, started)
        return outputs

    def _start_runtime(self) -> Runtime:
        with self._lock:
            if self._runtime is None:
                self._runtime = self._compiler.runtime()
            return self._runtime

    def _load(self, text: str, name: str, is_shader: bool = False) -> tuple[Runtime, KernelLibrary]:
        runtime = self._start_runtime()  # kernels are linked against it
        changed = text if self.transform is None else self.transform(text)
        request = Request(changed, name, self.checked, is_shader, self.arithmetic)
        return runtime, self._compiler.load(request)

    def _note(self, launch: Launch, started: float) -> None:
        launch.seconds = time.perf_counter() - started
        self.launches.append(launch)


@contextlib.contextmanager
def _replace(owner: Any, name: str, function: Any) -> Iterator[None]:
    before = getattr(owner, name, None)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def _find_real(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Find MLX's own function, also where another machine is installed."""
    owner = getattr(function, "__self__", None)
    real: Callable[..., Any] = getattr(owner, name) if isinstance(owner, Machine) else function
    return real


def _check_orders(orders: tuple[Order, ...]) -> None:
    for order in orders:
        if order not in ("ascending", "descending") and not (
            isinstance(order, tuple) and len(order) == 2 and order[0] == "random"
        ):
            raise ValueError(f"unknown order {order!r}")
    if not orders:
        raise ValueError("a machine needs at least one order")
