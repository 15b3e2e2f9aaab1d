"""torch's tracers, transforms and modes see under patch() what they see without it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo  # before any patch; a test with a process of its own imports it later
from cli_process import python
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import torch_mlx_spectro as tms

OWN: dict[str, Callable[..., Any]] = {"stft": torch.stft, "istft": torch.istft}

SIGNAL = torch.randn(2, 240, generator=torch.Generator().manual_seed(4))
WINDOW = torch.hann_window(16)


def round_trip(signal: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    spectrum = torch.stft(signal, 16, 4, window=window, return_complex=True)
    return torch.istft(spectrum * 0.5, 16, 4, window=window, length=signal.shape[-1])


class RoundTrip(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", WINDOW.clone())

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return round_trip(signal, self.window)


@pytest.fixture
def expected() -> torch.Tensor:
    assert torch.stft is OWN["stft"]
    return round_trip(SIGNAL, WINDOW)


@pytest.fixture
def patched(expected: torch.Tensor) -> Iterator[None]:
    """MLX where possible; after ``expected``, which is native's."""
    with tms.patch(backend="mlx"):
        tms.reset_stats()
        yield


def reasons() -> set[str]:
    """Reasons of the calls so far, none of which was accelerated."""
    assert tms.stats().accelerated == 0
    return set(tms.stats().fallbacks)


@contextmanager
def torchs_own_deprecations() -> Iterator[None]:
    """TorchScript is deprecated, and says so; forward-mode derivatives use it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.* is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", ".*torch.jit.* is not supported", DeprecationWarning)
        yield


@pytest.mark.usefixtures("patched")
def test_scripting_is_natives(expected: torch.Tensor) -> None:
    with torchs_own_deprecations():
        scripted = torch.jit.script(round_trip)
        module = torch.jit.script(RoundTrip())
    assert torch.equal(scripted(SIGNAL, WINDOW), expected)
    assert torch.equal(module(SIGNAL), expected)
    tms.unpatch()
    assert torch.equal(scripted(SIGNAL, WINDOW), expected)
    with torchs_own_deprecations():
        again = torch.jit.script(RoundTrip())
    assert torch.equal(again(SIGNAL), expected)


@pytest.mark.usefixtures("patched")
def test_tracing_is_natives(expected: torch.Tensor) -> None:
    with torchs_own_deprecations():
        traced = torch.jit.trace(lambda signal: round_trip(signal, WINDOW), SIGNAL)
    graph = str(traced.graph)
    assert "aten::stft" in graph
    assert "aten::istft" in graph
    other = torch.flip(SIGNAL, (0, 1))
    assert torch.equal(traced(SIGNAL), expected)
    tms.unpatch()
    assert torch.equal(traced(other), round_trip(other, WINDOW))


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("strict", [False, True])
def test_compiling_breaks_no_graph(expected: torch.Tensor, strict: bool) -> None:
    torch.compiler.reset()
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    tms.patch(backend="mlx", strict=strict)
    compiled = torch.compile(round_trip, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(SIGNAL, WINDOW), expected)
    torch.testing.assert_close(compiled(SIGNAL, WINDOW), expected)
    assert len(graphs) == 1
    tms.unpatch()
    torch.testing.assert_close(compiled(SIGNAL, WINDOW), expected)


def test_what_was_compiled_before_the_patch_works_after_it(expected: torch.Tensor) -> None:
    torch.compiler.reset()
    compiled = torch.compile(round_trip, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(SIGNAL, WINDOW), expected)
    with tms.patch(backend="mlx"):
        torch.testing.assert_close(compiled(SIGNAL, WINDOW), expected)
    torch.testing.assert_close(compiled(SIGNAL, WINDOW), expected)


FIRST_COMPILED_WHILE_PATCHED = """\
import torch, torch_mlx_spectro as tms

def transform(signal):
    return torch.stft(signal, 16, window=torch.ones(16), return_complex=True)

def compiled():
    torch.compiler.reset()
    return torch.compile(transform, fullgraph=True, backend="eager")(torch.ones(64))

with tms.patch(backend="mlx"):
    expected = compiled()
assert torch.equal(compiled(), expected)
"""


def test_unpatching_restores_the_compiler_too(tmp_path: Path) -> None:
    # The compiler knows torch's functions by identity, and may first look while they are ours.
    finished = python("-c", FIRST_COMPILED_WHILE_PATCHED, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("strict", [False, True])
def test_exporting_is_natives(expected: torch.Tensor, strict: bool) -> None:
    program = torch.export.export(RoundTrip(), (SIGNAL,), strict=strict)
    under_patch = [str(node.target) for node in program.graph.nodes]
    torch.testing.assert_close(program.module()(SIGNAL), expected)
    tms.unpatch()
    natively = torch.export.export(RoundTrip(), (SIGNAL,), strict=strict)
    assert under_patch == [str(node.target) for node in natively.graph.nodes]
    torch.testing.assert_close(program.module()(SIGNAL), expected)


@pytest.mark.usefixtures("patched")
def test_fake_tensors_stay_fake() -> None:
    with FakeTensorMode() as mode:
        signal, window = mode.from_tensor(SIGNAL), mode.from_tensor(WINDOW)
        actual = torch.stft(signal, 16, 4, window=window, return_complex=True)
        expected = OWN["stft"](signal, 16, 4, window=window, return_complex=True)
    assert type(actual) is type(expected)
    assert (actual.shape, actual.stride()) == (expected.shape, expected.stride())
    assert tms.stats().native == 1
    assert any("FakeTensor" in reason for reason in reasons())


@pytest.mark.usefixtures("patched")
def test_meta_tensors_stay_meta() -> None:
    signal, window = SIGNAL.to("meta"), WINDOW.to("meta")
    actual = torch.stft(signal, 16, 4, window=window, return_complex=True)
    expected = OWN["stft"](signal, 16, 4, window=window, return_complex=True)
    assert actual.device.type == "meta"
    assert (actual.shape, actual.stride()) == (expected.shape, expected.stride())
    assert reasons() == {
        "device meta of input is not accelerated",
        "device meta of window is not accelerated",
    }


def test_functionalize_is_natives(expected: torch.Tensor) -> None:
    with tms.patch(backend="mlx"):
        actual = torch.func.functionalize(round_trip)(SIGNAL, WINDOW)
    assert torch.equal(actual, expected)
    assert reasons() == {"torch.func.functionalize is active"}


class Recorder(TorchFunctionMode):
    """Notes which of torch's functions a program calls."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("patched")
def test_function_modes_see_the_public_function(expected: torch.Tensor) -> None:
    with Recorder() as recorder:
        actual = round_trip(SIGNAL, WINDOW)
    torch.testing.assert_close(actual, expected)
    assert recorder.seen.count(torch.stft) == 1
    assert recorder.seen.count(torch.istft) == 1
    assert tms.stats().calls == {("stft", "mlx"): 1, ("istft", "mlx"): 1}


class Operators(TorchDispatchMode):
    """Notes which operators torch dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_dispatch_modes_see_natives_operators() -> None:
    with Operators() as natively:
        expected = round_trip(SIGNAL, WINDOW)
    with tms.patch(backend="mlx"), Operators() as under_patch:
        actual = round_trip(SIGNAL, WINDOW)
    assert torch.equal(actual, expected)
    assert under_patch.seen == natively.seen
    assert reasons() == {"a TorchDispatchMode is active"}


class Tagged(torch.Tensor):
    """A tensor subclass that notes which functions reach it."""

    seen: list[Any] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        cls.seen.append(func)
        return super().__torch_function__(func, types, args, kwargs)


@pytest.mark.usefixtures("patched")
def test_subclasses_are_asked_as_without_the_patch(expected: torch.Tensor) -> None:
    Tagged.seen.clear()
    actual = round_trip(SIGNAL.as_subclass(Tagged), WINDOW)
    assert type(actual) is Tagged
    assert torch.equal(actual.as_subclass(torch.Tensor), expected)
    assert Tagged.seen.count(torch.stft) == 1
    assert Tagged.seen.count(torch.istft) == 1
    assert tms.stats().calls == {("stft", "native"): 1, ("istft", "native"): 1}
    assert all("Tagged" in reason for reason in reasons())


@pytest.mark.usefixtures("patched")
def test_parameters_are_plain_tensors(expected: torch.Tensor) -> None:
    with torch.no_grad():
        actual = round_trip(torch.nn.Parameter(SIGNAL.clone()), WINDOW)
    assert type(actual) is torch.Tensor
    torch.testing.assert_close(actual, expected)
    assert tms.stats().accelerated == 2


@pytest.mark.usefixtures("patched")
def test_autocast_keeps_natives_dtypes(expected: torch.Tensor) -> None:
    """Autocast leaves float32 transforms alone, and makes them of lower precision native's."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for dtype in (torch.float32, torch.bfloat16):
            signal = SIGNAL.to(dtype)
            natively = OWN["stft"](signal, 16, 4, window=WINDOW, return_complex=True)
            actual = torch.stft(signal, 16, 4, window=WINDOW, return_complex=True)
            assert actual.dtype == natively.dtype == torch.complex64
            torch.testing.assert_close(actual, natively)
        torch.testing.assert_close(round_trip(SIGNAL, WINDOW), expected)
    assert tms.stats().calls == {("stft", "mlx"): 2, ("stft", "native"): 1, ("istft", "mlx"): 1}
