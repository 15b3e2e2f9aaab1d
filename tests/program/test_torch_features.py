"""torch's tracers, transforms and modes see under patch() what they see without it."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
from torch_mlx_spectro.native import asking
from torch_mlx_spectro.native import private_state as torch_state

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
        warnings.filterwarnings("ignore", ".*torch.jit.* is deprecated")
        warnings.filterwarnings("ignore", ".*torch.jit.* is not supported")
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


#: Both functions were computed by MLX, once each.
BY_MLX = {("stft", "mlx"): 1, ("istft", "mlx"): 1}


def by_names(signal: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    spectrum = tms.stft(signal, 16, 4, window=window, return_complex=True)
    return tms.istft(
        input=spectrum * 0.5, n_fft=16, hop_length=4, window=window, length=signal.shape[-1]
    )


def by_methods(signal: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    spectrum = signal.stft(16, 4, window=window, return_complex=True)
    return (spectrum * 0.5).istft(16, 4, window=window, length=signal.shape[-1])


#: How a program may spell the two calls.
SPELLINGS = {"torch": round_trip, "ours": by_names, "methods": by_methods}
spelled = pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
Spelling = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def seen_natively(spelling: Spelling, *tensors: torch.Tensor) -> list[Any]:
    """What a mode is shown without a patch; ours are torch's."""
    natively = round_trip if spelling is by_names else spelling
    with tms.backend("native"), Recorder() as recorder:
        natively(*(tensors or (SIGNAL, WINDOW)))
    return recorder.seen


@spelled
def test_function_modes_are_shown_torchs_own(expected: torch.Tensor, spelling: Spelling) -> None:
    natively = seen_natively(spelling)
    assert natively.count(OWN["stft"]) == natively.count(OWN["istft"]) == (spelling != by_methods)
    tms.reset_stats()
    with tms.patch("mlx", strict=True), Recorder() as recorder:
        actual = spelling(SIGNAL, WINDOW)
    torch.testing.assert_close(actual, expected)
    assert type(actual) is torch.Tensor
    assert recorder.seen == natively
    assert tms.stats().calls == BY_MLX


class Forwarding(TorchFunctionMode):
    """Has a function for torch's, in a table made before any patch, and calls that on."""

    TABLE = dict.fromkeys((*OWN.values(), torch.Tensor.stft, torch.Tensor.istft), "transforms")

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self.TABLE:
            self.asked.append(self.TABLE[func])
            torch.ones(2).abs()  # which asks those below, too
        return func(*args, **(kwargs or {}))


@spelled
def test_nested_modes_and_a_device_are_all_asked(
    expected: torch.Tensor, spelling: Spelling
) -> None:
    outer, inner, last = Forwarding(), Forwarding(), Recorder()
    before = torch.overrides._get_current_function_mode_stack()
    with tms.patch("mlx", strict=True), torch.device("cpu"), last, outer, inner:
        actual = spelling(SIGNAL, WINDOW)
        stack = torch.overrides._get_current_function_mode_stack()
    torch.testing.assert_close(actual, expected)
    assert stack[1:] == [last, outer, inner]
    assert torch.overrides._get_current_function_mode_stack() == before
    assert inner.asked == outer.asked == ["transforms"] * 2
    shown = (OWN["stft"], OWN["istft"])
    if spelling is by_methods:
        shown = (torch.Tensor.stft, torch.Tensor.istft)
    assert [last.seen.count(function) for function in shown] == [1, 1]
    assert last.seen.count(torch.Tensor.abs) == 4
    assert tms.stats().calls == BY_MLX


@spelled
def test_torchs_own_modes_lose_nothing(expected: torch.Tensor, spelling: Spelling) -> None:
    with tms.patch("mlx", strict=True):
        with torch.device("cpu"):
            torch.testing.assert_close(spelling(SIGNAL, WINDOW), expected)
        assert tms.stats().calls == BY_MLX
        torch.set_default_device("cpu")
        try:
            torch.testing.assert_close(spelling(SIGNAL, WINDOW), expected)
            # A saved native stays native also where somebody is asked, and is not counted.
            OWN["stft"](SIGNAL, 16, 4, window=WINDOW, return_complex=True)
        finally:
            torch.set_default_device(None)
    assert tms.stats().calls == dict.fromkeys(BY_MLX, 2)
    assert torch.overrides._get_current_function_mode_stack() == []


class Looping(TorchFunctionMode):
    """Calls torch's functions by name from within, as a mode that measures or compares does."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not OWN["stft"]:
            return func(*args, **(kwargs or {}))
        halves = [func(half, *args[1:], **(kwargs or {})) for half in args[0].chunk(2)]
        again = torch.stft(*args, **(kwargs or {}))
        torch.testing.assert_close(torch.cat(halves), again)
        return again


@pytest.mark.parametrize("modes", [1, 2, 3])
def test_modes_may_call_as_often_as_they_like(expected: torch.Tensor, modes: int) -> None:
    with tms.patch("mlx", strict=True), ExitStack() as stack:
        for _ in range(modes):
            stack.enter_context(Looping())
        torch.testing.assert_close(round_trip(SIGNAL.repeat(8, 1), WINDOW), expected.repeat(8, 1))
    assert tms.stats().calls == {("stft", "mlx"): 3**modes, ("istft", "mlx"): 1}


class Answering(TorchFunctionMode):
    """Answers by itself, or raises."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not OWN["istft"]:
            return func(*args, **(kwargs or {}))
        if isinstance(self.answer, BaseException):
            raise self.answer
        if self.answer == "native":
            with torch._C.DisableTorchFunction():
                return func(*args, **(kwargs or {}))
        return self.answer


@pytest.mark.usefixtures("patched")
def test_who_does_not_call_on_is_counted_as_such(expected: torch.Tensor) -> None:
    for answer in (3, "native"):
        with Recorder() as recorder, Answering(answer) as asked:
            actual = round_trip(SIGNAL, WINDOW)
            stack = torch.overrides._get_current_function_mode_stack()
        assert stack == [recorder, asked]
        assert OWN["istft"] not in recorder.seen
        if answer == "native":
            torch.testing.assert_close(actual, expected)
        else:
            assert actual == 3
    assert tms.stats().calls == {("stft", "mlx"): 2, ("istft", "native"): 2}
    (reason,) = tms.stats().fallbacks
    assert "Answering was asked" in reason


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt()])
def test_modes_that_raise_leave_the_stack_as_it_was(error: BaseException) -> None:
    with torch.device("cpu"), Recorder() as recorder, Answering(error) as asked:
        with pytest.raises(type(error)):
            round_trip(SIGNAL, WINDOW)
        stack = torch.overrides._get_current_function_mode_stack()
        assert stack[1:] == [recorder, asked]
        with pytest.raises(TypeError, match="n_fft"):
            torch.istft(SIGNAL)
    assert torch.overrides._get_current_function_mode_stack() == []


def test_modes_of_other_threads_are_not_asked(expected: torch.Tensor) -> None:
    barrier, failures = threading.Barrier(4), list[BaseException]()

    def work() -> None:
        try:
            with Recorder() as recorder:
                for _ in range(20):
                    barrier.wait(60)
                    torch.testing.assert_close(round_trip(SIGNAL, WINDOW), expected)
            assert recorder.seen.count(OWN["stft"]) == recorder.seen.count(OWN["istft"]) == 20
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    with tms.patch("mlx", strict=True):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert tms.stats().calls == dict.fromkeys(BY_MLX, 80)


def test_without_a_stack_of_modes_native_computes_and_says_so(
    expected: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_state, "push_mode", None)
    with tms.patch("mlx"), Recorder() as recorder:
        assert torch.equal(round_trip(SIGNAL, WINDOW), expected)
    assert recorder.seen.count(OWN["stft"]) == recorder.seen.count(OWN["istft"]) == 1
    assert tms.stats().calls == {("stft", "native"): 1, ("istft", "native"): 1}
    assert reasons() == {asking.NO_MODES}
    tms.reset_stats()
    with tms.patch("mlx", strict=True), torch.device("cpu"), pytest.raises(tms.NotAccelerated):
        round_trip(SIGNAL, WINDOW)
    assert (tms.stats().refused, reasons()) == (1, {asking.NO_MODES})


@pytest.mark.usefixtures("patched")
def test_scripting_what_asks_modes_is_natives() -> None:
    """While patched, ``torch.functional`` asks through us."""

    def norm(signal: torch.Tensor) -> torch.Tensor:
        return torch.functional.norm(signal)

    with torchs_own_deprecations():
        scripted = torch.jit.script(norm)
    assert torch.equal(scripted(SIGNAL), torch.linalg.vector_norm(SIGNAL))


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


@spelled
@pytest.mark.parametrize("modes", [0, 2])
def test_subclasses_are_asked_as_without_the_patch(
    expected: torch.Tensor, spelling: Spelling, modes: int
) -> None:
    def shown(compute: Spelling) -> tuple[torch.Tensor, list[Any], list[Any]]:
        Tagged.seen.clear()
        recorder = Recorder()
        with ExitStack() as stack:
            for mode in (recorder, Recorder())[:modes]:
                stack.enter_context(mode)
            result = compute(SIGNAL.as_subclass(Tagged), WINDOW)
        return result, list(Tagged.seen), recorder.seen

    _, *natively = shown(round_trip if spelling is by_names else spelling)
    tms.reset_stats()
    with tms.patch("mlx", strict=True):
        actual, *under_patch = shown(spelling)
    assert type(actual) is Tagged
    torch.testing.assert_close(actual.as_subclass(torch.Tensor), expected)
    assert under_patch == natively
    assert tms.stats().calls == BY_MLX


class Tabled(torch.Tensor):
    """Has its own function for torch's, in a table made before any patch."""

    TABLE = {OWN["stft"]: "stft", OWN["istft"]: "istft"}  # noqa: RUF012
    asked: list[str] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in cls.TABLE:
            cls.asked.append(cls.TABLE[func])
            # As subclasses do that hold more than they inherit: on with plain tensors.
            tensor, *rest = args or [(kwargs or {}).pop("input")]
            return func(tensor.as_subclass(torch.Tensor), *rest, **(kwargs or {})).as_subclass(cls)
        return super().__torch_function__(func, types, args, kwargs)


@pytest.mark.parametrize("spelling", [round_trip, by_names])
def test_a_table_from_before_the_patch_is_asked(expected: torch.Tensor, spelling: Spelling) -> None:
    Tabled.asked.clear()
    with tms.patch("mlx", strict=True):
        actual = spelling(SIGNAL.as_subclass(Tabled), WINDOW)
    assert type(actual) is Tabled
    torch.testing.assert_close(actual.as_subclass(torch.Tensor), expected)
    assert Tabled.asked == ["stft", "istft"]
    assert tms.stats().calls == BY_MLX


def test_a_window_of_a_subclass_is_asked_where_native_asks_it(expected: torch.Tensor) -> None:
    spectrum = OWN["stft"](SIGNAL, 16, 4, window=WINDOW, return_complex=True) * 0.5
    window = WINDOW.as_subclass(Tagged)
    with tms.patch("mlx", strict=True):
        Tagged.seen.clear()
        actual = torch.istft(spectrum, 16, 4, window=window, length=240)
        assert Tagged.seen == [OWN["istft"]]
    assert type(actual) is Tagged
    torch.testing.assert_close(actual.as_subclass(torch.Tensor), expected)
    assert tms.stats().calls == {("istft", "mlx"): 1}


def test_a_subclass_is_differentiated_as_natively() -> None:
    def gradient(compute: Spelling) -> torch.Tensor:
        leaf = SIGNAL.clone().as_subclass(Tagged).requires_grad_()
        compute(leaf, WINDOW).square().sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    natively = gradient(round_trip)
    with tms.patch("mlx", strict=True):
        actual = gradient(round_trip)
    assert type(actual) is type(natively)
    torch.testing.assert_close(actual, natively)
    assert tms.stats().calls == BY_MLX


class Refusing(torch.Tensor):
    """Declines everything."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return NotImplemented


@pytest.mark.parametrize("spelling", [round_trip, by_names])
def test_where_everybody_declines_torch_raises_its_own(spelling: Spelling) -> None:
    signal = SIGNAL.as_subclass(Refusing)
    with pytest.raises(TypeError) as natively:
        round_trip(signal, WINDOW)
    with tms.patch("mlx"), pytest.raises(TypeError) as patched:
        spelling(signal, WINDOW)
    assert str(patched.value).partition(" nor in mode")[0] == str(natively.value)
    assert tms.stats().calls == {}


def test_a_subclass_whose_memory_is_elsewhere_goes_native(expected: torch.Tensor) -> None:
    class Elsewhere(torch.Tensor):
        __torch_function__ = torch._C._disabled_torch_function_impl

        @staticmethod
        def __new__(cls, inner: torch.Tensor) -> Any:
            return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

        def __init__(self, inner: torch.Tensor) -> None:
            self.inner = inner

        @classmethod
        def __torch_dispatch__(
            cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            args = [value.inner if isinstance(value, cls) else value for value in args]
            return func(*args, **(kwargs or {}))

    with tms.patch("mlx"):
        torch.testing.assert_close(round_trip(Elsewhere(SIGNAL), WINDOW), expected)
    assert tms.stats().fallbacks == {"input is a Elsewhere, not a plain tensor": 1}


def test_explain_looks_past_those_who_are_asked() -> None:
    for tensor in (SIGNAL, SIGNAL.as_subclass(Tagged)):
        with tms.patch("mlx"), torch.device("cpu"), Recorder() as recorder:
            route = tms.explain(torch.stft, tensor, 16, window=WINDOW, return_complex=True)
        assert route.backend == "mlx"
        assert recorder.seen == []


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
