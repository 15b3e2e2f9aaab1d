"""``mx.compile`` on a machine: functions with kernels are compiled, or it says why not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from needs import needs_emulator

from torch_mlx_spectro import emulator
from torch_mlx_spectro.emulator import CompiledFunction

pytestmark = needs_emulator

VALUES = np.arange(16, dtype=np.float32)
Kernel = Callable[[Any], Any]


@pytest.fixture
def machine(metal_cache: Path) -> Iterator[emulator.Machine]:
    with emulator.Machine(cache_dir=metal_cache).installed() as machine:
        yield machine


@pytest.fixture
def double(machine: emulator.Machine) -> Kernel:
    """A kernel that doubles."""
    made = mx.fast.metal_kernel(
        name="double",
        input_names=["x"],
        output_names=["y"],
        source="uint i = thread_position_in_grid.x; y[i] = 2.0f * x[i];",
    )

    def launch(x: Any) -> Any:
        return made(
            inputs=[x],
            grid=(x.size, 1, 1),
            threadgroup=(8, 1, 1),
            output_shapes=[x.shape],
            output_dtypes=[x.dtype],
        )[0]

    return launch


class Body:
    """A function's body that counts how often Python runs it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__name__ = "body"
        self.function, self.runs = function, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.runs += 1
        return self.function(*args, **kwargs)


def is_fused(array: Any, folder: Path) -> bool:
    """Whether what computes an array has a node that only ``mx.compile`` makes."""
    graph = folder / "graph.dot"
    with graph.open("w") as file:
        mx.export_to_dot(file, array)
    return "Compiled" in graph.read_text()


def test_a_function_with_kernels_is_compiled(
    machine: emulator.Machine, double: Kernel, tmp_path: Path
) -> None:
    body = Body(lambda x: mx.exp(double(double(x + 1.0) * 0.5 - 1.0) * 0.01 + 1.0))
    compiled = mx.compile(body)
    result = compiled(mx.array(VALUES))
    assert is_fused(result, tmp_path)
    assert not is_fused(body.function(mx.array(VALUES)), tmp_path)
    np.testing.assert_allclose(result, np.exp(2 * VALUES * 0.01 + 1), rtol=1e-6)
    assert list(machine.compiled_functions) == [CompiledFunction("body", kernels=2)]
    assert body.runs == 2  # traced
    machine.launches.clear()
    np.testing.assert_allclose(compiled(mx.array(VALUES + 1))[:15], result[1:], rtol=1e-6)
    assert body.runs == 2  # compiled
    assert [launch.kernel for launch in machine.launches] == ["double", "double"]
    compiled(mx.ones(8))  # another shape is another graph
    assert body.runs == 4
    assert len(machine.compiled_functions) == 2


def test_without_kernels_mlx_compiles_once(machine: emulator.Machine) -> None:
    body = Body(lambda x, scale=2.0: {"y": [mx.exp(x) * scale]})
    compiled = mx.compile(body)
    for scale in (2.0, 3.0, 2.0):
        (y,) = compiled(mx.ones(4), scale=scale)["y"]
        assert y[0].item() == pytest.approx(scale * np.e)
    assert body.runs == 2
    assert [told.kernels for told in machine.compiled_functions] == [0, 0]


def test_kernels_of_a_backward_pass_are_compiled(machine: emulator.Machine, double: Kernel) -> None:
    @mx.custom_function
    def function(x: Any) -> Any:
        return double(x)

    @function.vjp
    def backward(x: Any, cotangent: Any, result: Any) -> Any:
        return double(cotangent)

    def loss(x: Any) -> Any:
        return (function(mx.sin(x)) ** 2).sum()

    x = mx.array(VALUES)
    expected = 8 * np.sin(VALUES) * np.cos(VALUES)
    for gradient in (mx.compile(mx.grad(loss)), mx.grad(mx.compile(loss)), mx.grad(loss)):
        np.testing.assert_allclose(gradient(x), expected, rtol=1e-5, atol=1e-6)
    told = list(machine.compiled_functions)
    # MLX compiles no function that it differentiates: its body runs as it is.
    assert told == [
        CompiledFunction("loss", 2),
        CompiledFunction("loss", 0, "MLX does not compile this call"),
    ]


def test_a_kernel_has_no_derivative(machine: emulator.Machine, double: Kernel) -> None:
    x = mx.array(VALUES)
    for function in (double, mx.compile(double)):
        with pytest.raises(ValueError, match=r"vjp\] Not implemented for CustomKernel"):
            mx.grad(lambda x, function=function: function(x).sum())(x)
        with pytest.raises(ValueError, match=r"jvp\] Not implemented for CustomKernel"):
            mx.jvp(function, [x], [x])


def test_a_compiled_function_is_a_part_of_another(
    machine: emulator.Machine, double: Kernel
) -> None:
    inner = mx.compile(lambda x: double(x) + 1.0)
    outer = Body(lambda x: inner(inner(x)) * 2.0)
    compiled = mx.compile(outer)
    for _ in range(2):
        np.testing.assert_array_equal(compiled(mx.array(VALUES)), 8 * VALUES + 6)
    assert outer.runs == 2
    assert list(machine.compiled_functions) == [CompiledFunction("body", kernels=2)]


def test_a_trace_refuses_values_of_a_kernel(machine: emulator.Machine, double: Kernel) -> None:
    def look(x: Any) -> Any:
        y = double(x)
        with pytest.raises(ValueError, match="during function transformations"):
            mx.eval(y)
        return y

    np.testing.assert_array_equal(mx.compile(look)(mx.array(VALUES)), 2 * VALUES)


def test_kernels_of_constants_run_while_the_function_is_traced(
    machine: emulator.Machine, double: Kernel
) -> None:
    window = mx.ones(16)
    compiled = mx.compile(lambda x: double(window) + x)
    np.testing.assert_array_equal(compiled(mx.array(VALUES)), VALUES + 2)
    assert machine.compiled_functions[-1].kernels == 0
    assert len(machine.launches) == 1


def test_a_trace_that_remembers_is_compiled_as_it_comes_again(
    machine: emulator.Machine, double: Kernel
) -> None:
    tried: list[int] = []

    def body(x: Any) -> Any:
        if not tried:
            tried.append(1)
            double(x - 1.0)
        return double(x)

    np.testing.assert_array_equal(mx.compile(body)(mx.array(VALUES)), 2 * VALUES)
    assert list(machine.compiled_functions) == [CompiledFunction("body", kernels=1)]


def test_what_differs_in_each_trace_runs_uncompiled_and_says_so(
    machine: emulator.Machine, double: Kernel
) -> None:
    sizes = iter(range(100))

    def body(x: Any) -> Any:
        return double(mx.concatenate([x, mx.zeros(next(sizes))]))[:16]

    compiled = mx.compile(body)
    with pytest.warns(RuntimeWarning, match="body runs uncompiled in the Metal emulator"):
        np.testing.assert_array_equal(compiled(mx.array(VALUES)), 2 * VALUES)
    np.testing.assert_array_equal(compiled(mx.array(VALUES)), 2 * VALUES)  # and does not repeat it
    (told,) = machine.compiled_functions
    assert told.uncompiled == "it launches other kernels whenever it is traced"


def test_captured_state_runs_uncompiled_and_is_updated_once(
    machine: emulator.Machine, double: Kernel
) -> None:
    state = [mx.array(0.0)]

    def body(x: Any) -> Any:
        state[0] = state[0] + 1.0
        return double(x)

    compiled = mx.compile(body, inputs=state, outputs=state)
    with pytest.warns(RuntimeWarning, match="updates arrays that mx.compile captures"):
        compiled(mx.array(VALUES))
    compiled(mx.array(VALUES))
    assert state[0].item() == 2.0


def test_it_is_told_that_compilation_is_disabled(machine: emulator.Machine, double: Kernel) -> None:
    body = Body(lambda x: double(x) + 1.0)
    compiled = mx.compile(body)
    mx.disable_compile()
    try:
        np.testing.assert_array_equal(compiled(mx.array(VALUES)), 2 * VALUES + 1)
    finally:
        mx.enable_compile()
    np.testing.assert_array_equal(compiled(mx.array(VALUES)), 2 * VALUES + 1)
    assert body.runs == 3
    assert list(machine.compiled_functions) == [
        CompiledFunction("body", 0, "MLX does not compile this call"),
        CompiledFunction("body", 1),
    ]


def test_another_thread_calls_what_was_compiled(machine: emulator.Machine, double: Kernel) -> None:
    compiled, results = mx.compile(lambda x: double(x + 0.0)), []
    compiled(mx.array(VALUES))

    def call() -> None:
        results.append(np.array(compiled(mx.array(VALUES))))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(results[0], 2 * VALUES)


def test_wrong_arguments_raise_what_mlx_raises(machine: emulator.Machine, double: Kernel) -> None:
    with pytest.raises(ValueError, match="compile"):
        mx.compile(double)({1, 2})


def test_mlxs_own_compile_is_back_afterwards(metal_cache: Path) -> None:
    own = mx.compile
    with emulator.Machine(cache_dir=metal_cache).installed():
        assert mx.compile is not own
        with emulator.Machine(cache_dir=metal_cache).installed() as inner:
            np.testing.assert_array_equal(mx.compile(lambda x: x + 1)(mx.zeros(2)), 1)
            assert len(inner.compiled_functions) == 1
    assert mx.compile is own


def test_an_exported_function_has_the_kernel_that_a_mac_would_run(
    machine: emulator.Machine, double: Kernel
) -> None:
    facts: list[dict[str, Any]] = []
    mx.export_function(facts.append, lambda x: double(x + 1.0), mx.array(VALUES))
    primitives = [fact["name"] for fact in facts if fact["type"] == "primitive"]
    assert primitives[-2:] == ["Add", "CustomKernel"]
    assert not machine.launches


def test_what_vmap_refuses_is_refused(machine: emulator.Machine, double: Kernel) -> None:
    with pytest.raises(ValueError, match="during function transformations"):
        mx.vmap(double)(mx.zeros((2, 16)))
