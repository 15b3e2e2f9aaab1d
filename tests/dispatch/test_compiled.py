"""Compiled programs: operators in one graph, their gradients, and who computes when it runs."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import metal
import pytest
import torch
import torch._dynamo.utils
from cli_process import python
from compiling import fresh_compiler
from gradients import check_close, noise, torchs_own_warnings, wide
from patched import NATIVE
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import torch_mlx_spectro as tms
from torch_mlx_spectro import emulator
from torch_mlx_spectro.dispatch import choice as routing
from torch_mlx_spectro.dispatch import compiled as operators
from torch_mlx_spectro.dispatch import decide as deciding
from torch_mlx_spectro.dispatch import run
from torch_mlx_spectro.dispatch.plans import plans
from torch_mlx_spectro.native import private_state as torch_state

WINDOW = torch.hann_window(16) + 0.1
MASK = torch.rand(9, generator=torch.Generator().manual_seed(2))
LENGTHS = (240, 400, 512)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    with fresh_compiler():
        yield


def signal_of(length: int, rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, length, generator=torch.Generator().manual_seed(length))


def separate(signal: torch.Tensor, mask: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """By torch's own names: looked up when it runs."""
    spectrum = torch.stft(signal, 16, 4, window=window, return_complex=True)
    masked = spectrum * mask[:, None]
    return torch.istft(masked, 16, 4, window=window, length=signal.shape[-1])


def separate_by_ours(
    signal: torch.Tensor, mask: torch.Tensor, window: torch.Tensor
) -> torch.Tensor:
    spectrum = tms.stft(signal, 16, 4, window=window, return_complex=True)
    masked = spectrum * mask[:, None]
    return tms.istft(masked, 16, 4, window=window, length=signal.shape[-1])


PROGRAMS = {"patched": separate, "ours": separate_by_ours}


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_one_graph_for_all_lengths_after_the_first(
    program: Callable[..., torch.Tensor], backend: str
) -> None:
    expected = [separate(signal_of(length), MASK, WINDOW) for length in LENGTHS]
    with tms.patch(backend="mlx", strict=True):
        compiled = torch.compile(program, fullgraph=True, backend=backend)
        tms.reset_stats()
        for length, native in zip(LENGTHS, expected, strict=True):
            actual = compiled(signal_of(length), MASK, WINDOW)
            torch.testing.assert_close(actual, native)
            assert actual.stride() == native.stride()
        stats = tms.stats()
    assert graphs() <= 2
    assert stats.calls == {("stft", "mlx"): 3, ("istft", "mlx"): 3}


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductors_programs_call_mlx_and_are_counted_for_the_programs_line() -> None:
    expected = separate(signal_of(240), MASK, WINDOW)
    with tms.patch(backend="mlx", strict=True):
        compiled = torch.compile(separate, fullgraph=True)
        with torchs_own_warnings():
            compiled(signal_of(240), MASK, WINDOW)
        tms.reset_stats()
        actual = compiled(signal_of(240), MASK, WINDOW)
        stats = tms.stats()
    torch.testing.assert_close(actual, expected)
    assert stats.calls == {("stft", "mlx"): 1, ("istft", "mlx"): 1}
    assert all(Path(site.rpartition(":")[0]).name == Path(__file__).name for site in stats.sites)


def gradients(program: Any, native: bool) -> dict[str, torch.Tensor]:
    """Gradients of a program in signal, mask and window, natively in double precision."""
    given = {"signal": signal_of(240), "mask": MASK, "window": WINDOW}
    leaves = {
        name: (wide(tensor) if native else tensor.clone()).requires_grad_()
        for name, tensor in given.items()
    }
    result = program(*leaves.values())
    result.backward(noise(result, 3))
    return {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("kernels", [False, True])
def test_gradients_of_compiled_programs(
    program: Any, backend: str, kernels: bool, metal_cache: Path
) -> None:
    if kernels and (reason := emulator.available()) is not None:
        pytest.skip(reason)
    exact = gradients(separate, native=True)
    with tms.patch(backend="mlx", strict=True):
        compiled = torch.compile(program, fullgraph=True, backend=backend)
        if kernels:
            with metal.emulated(metal_cache) as machine:
                found = gradients(compiled, native=False)
            assert len(machine.launches) >= 4
        else:
            found = gradients(compiled, native=False)
    assert set(found) == {"signal", "mask", "window"}
    for name, gradient in found.items():
        narrow = exact[name].to(gradient.dtype)
        assert gradient.stride() == narrow.stride()
        check_close(name, gradient, narrow, exact[name])


def louder(spectrum: torch.Tensor) -> torch.Tensor:
    """Not what istft undoes exactly: a perfect round trip has no gradient in its window."""
    return spectrum * spectrum.abs()


def test_a_window_on_its_own_and_half_spectra() -> None:
    """Every gradient operator by itself, on calls whose result takes another form."""
    signal, windows = signal_of(100)[0], {"complex": torch.hamming_window(16)}
    calls: dict[str, Callable[[Any, Any], torch.Tensor]] = {
        "as real": lambda x, w: torch.stft(
            x, 16, 5, 12, window=w, normalized=True, return_complex=False
        ),
        "two-sided": lambda x, w: torch.istft(
            louder(torch.stft(x, 16, 5, 12, window=w, onesided=False, return_complex=True)),
            16,
            5,
            12,
            window=w,
            onesided=False,
        ),
        "complex": lambda x, w: (
            torch.istft(
                louder(torch.stft(x * (1 + 1j), 16, window=w)), 16, window=w, return_complex=True
            ).real
        ),
    }
    for name, call in calls.items():
        for of in ({0}, {1}, {0, 1}):
            check_call(name, call, signal, windows.get(name, torch.hann_window(12)), of)


def check_call(name: str, call: Any, signal: Any, window: Any, of: set[int]) -> None:
    def found(function: Any, double: bool) -> list[torch.Tensor]:
        given = [wide(tensor) if double else tensor.clone() for tensor in (signal, window)]
        leaves = [given[index].requires_grad_() for index in sorted(of)]
        result = function(*given)
        return list(torch.autograd.grad(result, leaves, noise(result, 5)))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*return_complex=False is deprecated")
        exact, expected = found(call, True), found(call, False)
        torch.compiler.reset()
        with tms.patch(backend="mlx", strict=True):
            tms.reset_stats()
            compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
            actual = found(compiled, False)
            assert tms.stats().native == 0
            assert tms.stats().accelerated >= 1
    for triple in zip(actual, expected, exact, strict=True):
        check_close(f"{name} of {sorted(of)}", *triple)


def adjoints(cotangents: list[torch.Tensor]) -> list[torch.Tensor]:
    """The gradient of an stft at each of these cotangents, by the operator that programs call."""
    operator = torch.ops.torch_mlx_spectro.stft_gradient.default
    sizes = (16, 4, None, WINDOW, True, "reflect", False, None, True, None, False)
    return [operator(z, [2, 240], False, *sizes) for z in cotangents]


def record_decisions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backends that are asked for by all gradients decided from now on; none is kept yet."""
    decided: list[str] = []

    def decide(op: Any, choice: Any, args: Any, kwargs: Any) -> Any:
        decided.append(choice.backend)
        return deciding.decide(op, choice, args, kwargs)

    monkeypatch.setattr(operators, "decide", decide)
    plans.clear()
    return decided


def make_cotangent() -> tuple[torch.Tensor, torch.Tensor]:
    """A cotangent of :func:`adjoints`, and native's gradient by it."""
    leaf = signal_of(240).requires_grad_()
    spectrum = NATIVE["stft"](leaf, 16, 4, window=WINDOW, return_complex=True)
    one = noise(spectrum.detach(), 5)
    (expected,) = torch.autograd.grad(spectrum, leaf, one)
    return one, expected


def test_gradients_that_come_again_are_not_decided_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """By layout of the cotangent; until something was found to be wrong, or is withdrawn."""
    decided = record_decisions(monkeypatch)
    leaf = signal_of(240).requires_grad_()
    spectrum = NATIVE["stft"](leaf, 16, 4, window=WINDOW, return_complex=True)
    one = noise(spectrum.detach(), 5)
    flipped = one.conj().resolve_conj().conj()  # the same values, by their bit
    layouts = [one, one.mT.contiguous().mT, flipped, one[:1].expand_as(one)]
    expected = [torch.autograd.grad(spectrum, leaf, z, retain_graph=True)[0] for z in layouts]
    with tms.backend("mlx", strict=True):
        for times in (1, 2):
            torch.testing.assert_close(adjoints(layouts), expected)
            assert decided == ["mlx"] * len(layouts), times
        deciding.ledger.epoch += 1
        torch.testing.assert_close(adjoints(layouts[:1]), expected[:1])
        assert len(decided) == len(layouts) + 1
    with tms.backend("native"):
        torch.testing.assert_close(adjoints(layouts[:1]), expected[:1])
    assert decided[-1] == "native"


def test_gradients_in_autograds_own_thread_are_decided_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No ``backend()`` of the program's holds in a device's thread, and nothing is timed there."""
    decided = record_decisions(monkeypatch)
    one, expected = make_cotangent()
    with tms.backend("mlx", strict=True):
        for _ in range(2):
            with ThreadPoolExecutor(1) as thread:
                torch.testing.assert_close(thread.submit(adjoints, [one]).result(), [expected])
    first, *more = decided
    assert first != "auto"
    assert not more


def test_compiled_programs_decide_neither_way_again(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = gradients(separate, native=True)
    with tms.patch(backend="mlx", strict=True):
        compiled = torch.compile(separate, fullgraph=True, backend="aot_eager")
        leaf = signal_of(240).requires_grad_()
        compiled(leaf, MASK, WINDOW).sum().backward()
        monkeypatch.setattr(operators, "decide", None)
        monkeypatch.setattr(run, "decide", None)
        tms.reset_stats()
        leaf.grad = None
        result = compiled(leaf, MASK, WINDOW)
        result.backward(noise(result, 3))
        assert tms.stats().calls == {("stft", "mlx"): 1, ("istft", "mlx"): 1}
    assert leaf.grad is not None
    check_close("signal", leaf.grad, exact["signal"].to(leaf.grad.dtype), exact["signal"])


# opcheck of torch 2.14 looks at the gradients of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("has_private_name", [True, False])
def test_an_operator_is_computed_traced_and_differentiated(
    has_private_name: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by what is public alone, which takes longer."""
    if not has_private_name:
        monkeypatch.setattr(torch_state, "make_autograd", None)
    space = f"torch_mlx_spectro_test_{has_private_name}"
    monkeypatch.setattr(operators, "NAMESPACE", space)
    with torch.library._scoped_library(space, "FRAGMENT") as library:
        operator = operators._define_operator(
            library,
            "triple",
            "Tensor input",
            lambda x: x.detach() * 3,
            torch.empty_like,
            backward=lambda ctx, cotangent: cotangent * 3,
            save=lambda ctx, inputs, output: None,
        )
        leaf = torch.ones(3, requires_grad=True)
        compiled = torch.compile(operator, fullgraph=True, backend="aot_eager")
        for function in (operator, compiled):
            result = function(leaf)
            assert torch.equal(result, torch.full((3,), 3.0))
            assert torch.equal(torch.autograd.grad(result.sum(), leaf)[0], result)
            assert not function(leaf.detach()).requires_grad
            with torch.no_grad():
                assert not function(leaf).requires_grad
        torch.library.opcheck(operator, (leaf,))


def test_inductor_leaves_what_waits_for_a_device_out_of_cuda_graphs() -> None:
    waiting = {
        (name, which)
        for name, every in operators.OPERATORS.items()
        for which in operators.Operators._fields[:3]
        if torch.Tag.cudagraph_unsafe in getattr(every, which).tags
    }
    istfts = {("istft", which) for which in operators.Operators._fields[:3]}
    assert waiting == istfts | {("stft", "window_gradient")}


def test_a_gradient_that_was_not_made_before_is_natives_in_a_cuda_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its kernels may have to be compiled; one that was made is launched."""
    one, expected = make_cotangent()
    by_native: list[torch.Tensor] = []

    def compute_natively(*given: Any, **more: Any) -> torch.Tensor:
        by_native.append(natively(*given, **more))
        return by_native[-1]

    natively = operators._differentiate_natively
    monkeypatch.setattr(operators, "_differentiate_natively", compute_natively)
    plans.clear()
    with tms.backend("mlx", strict=True):
        for captured, count in ((True, 1), (False, 1), (True, 1)):
            monkeypatch.setattr(torch_state, "is_captured", lambda x, now=captured: now)
            torch.testing.assert_close(adjoints([one]), [expected])
            assert len(by_native) == count


def test_a_dispatch_mode_sees_the_operators() -> None:
    """What is computed at once is computed unseen, so it must be where nobody looks."""
    seen: list[str] = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    signal, sizes = signal_of(240), (16, 4, None, WINDOW, True, "reflect", False, None, True, None)
    with tms.backend("mlx"):
        operators.OPERATORS["stft"].call(signal, *sizes, False)
        assert seen == []
        with Watching():
            operators.OPERATORS["stft"].call(signal, *sizes, False)
    assert seen[0] == "torch_mlx_spectro.stft.default"


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_second_derivatives_are_refused(backend: str) -> None:
    def energy(signal: torch.Tensor) -> torch.Tensor:
        spectrum = tms.stft(signal, 16, 4, window=WINDOW, return_complex=True)
        return torch.view_as_real(spectrum).pow(3).sum()

    leaf = signal_of(240).requires_grad_()
    with tms.backend("mlx", strict=True):
        compiled = torch.compile(energy, fullgraph=True, backend=backend)
        # torch 2.10 gives a gradient that has no graph, at which its autograd stops.
        refused = "second derivatives of compiled|not currently support double|not require grad"

        def differentiate_twice() -> None:
            (gradient,) = torch.autograd.grad(compiled(leaf), leaf, create_graph=True)
            gradient.sum().backward()

        with pytest.raises(RuntimeError, match=refused):
            differentiate_twice()


def test_programs_compiled_for_mlx_run_natively_once_it_is_withdrawn() -> None:
    """Forward and backward: also where MLX is gone altogether, as in a forked child."""
    exact = gradients(separate, native=True)
    with tms.backend("mlx"):
        compiled = torch.compile(separate_by_ours, fullgraph=True, backend="aot_eager")
        gradients(compiled, native=False)
    tms.reset_stats()
    with tms.backend("native"):
        found = gradients(compiled, native=False)
    assert tms.stats().calls == {("stft", "native"): 1, ("istft", "native"): 1}
    for name, gradient in found.items():
        check_close(name, gradient, exact[name].to(gradient.dtype), exact[name])


def test_a_compiled_program_that_holds_the_patched_function_is_native_after_the_patch() -> None:
    """Also where our own functions compute by MLX: torch's names are not ours unasked."""
    with tms.patch(backend="mlx"):
        held = torch.stft
        compiled = torch.compile(
            lambda signal: held(signal, 16, window=WINDOW, return_complex=True),
            fullgraph=True,
            backend="aot_eager",
        )
        compiled(signal_of(240))
        assert tms.stats().calls == {("stft", "mlx"): 1}
    tms.reset_stats()
    with tms.backend("mlx"):
        compiled(signal_of(240))
    assert graphs() == 1
    assert tms.stats().calls == {("stft", "native"): 1}


def test_what_auto_or_native_compiles_on_the_cpu_is_natives_own_program() -> None:
    for backend in ("auto", "native"):
        torch.compiler.reset()
        seen: list[str] = []

        def note(graph: torch.fx.GraphModule, _: Any, seen: list[str] = seen) -> Any:
            seen.extend(str(node.target) for node in graph.graph.nodes)
            return graph.forward

        with tms.backend(backend):
            torch.compile(separate_by_ours, fullgraph=True, backend=note)(
                signal_of(240), MASK, WINDOW
            )
        assert not any(operators.NAMESPACE in name for name in seen)


def test_what_is_large_calls_operators_under_auto() -> None:
    signal, seen = signal_of(300_000), list[str]()

    def note(graph: torch.fx.GraphModule, _: Any) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    tms.reset_stats()
    with tms.backend("auto"):
        compiled = torch.compile(separate_by_ours, fullgraph=True, backend=note)
        found = compiled(signal, MASK, WINDOW)
    assert sum(operators.NAMESPACE in name for name in seen) == 2
    torch.testing.assert_close(found, separate(signal, MASK, WINDOW), atol=1e-5, rtol=1e-5)
    assert {op for op, _ in tms.stats().calls} == {"stft", "istft"}


def test_where_nothing_is_measured_what_is_large_is_the_first_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routing._default, "measures", False)
    signal = signal_of(300_000)
    with tms.backend("auto"):
        compiled = torch.compile(separate_by_ours, fullgraph=True, backend="aot_eager")
        tms.reset_stats()
        compiled(signal, MASK, WINDOW)
    assert tms.stats().calls == {("stft", "cpu"): 1, ("istft", "cpu"): 1}


def test_double_precision_is_natives() -> None:
    given = [wide(tensor) for tensor in (signal_of(240), MASK, WINDOW)]
    with tms.backend("mlx"):
        compiled = torch.compile(separate_by_ours, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*given), separate(*given))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_transforms_of_torch_func_compile_as_natively() -> None:
    def energy(signal: torch.Tensor) -> torch.Tensor:
        return separate_by_ours(signal, MASK, WINDOW).square().sum()

    signals = torch.stack([signal_of(240), signal_of(240) + 1])
    for transform in (torch.func.vmap(energy), torch.func.vmap(torch.func.grad(energy))):
        expected = transform(signals)
        with tms.backend("mlx"):
            compiled = torch.compile(transform, fullgraph=True, backend="aot_eager")
            torch.testing.assert_close(compiled(signals), expected)


def test_torchs_errors_come_through() -> None:
    def program(signal: torch.Tensor) -> torch.Tensor:
        return tms.istft(torch.zeros(9, 3) * (1 + 0j), 16, 4, window=signal, center=False)

    with tms.backend("mlx"):
        compiled = torch.compile(program, fullgraph=True, backend="aot_eager")
        with pytest.raises(RuntimeError, match="window overlap add min"):
            compiled(torch.zeros(16))
        torch.testing.assert_close(
            compiled(torch.ones(16)),
            NATIVE["istft"](
                torch.zeros(9, 3) * (1 + 0j), 16, 4, window=torch.ones(16), center=False
            ),
        )


@pytest.mark.parametrize("strict", [False, True])
def test_without_mlx_programs_compile_to_natives_own_or_raise(
    strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "missing_reason", lambda device, accelerator: "there is no MLX")
    given = signal_of(240), MASK, WINDOW
    expected = separate(*given)
    with tms.backend("mlx", strict=strict):
        compiled = torch.compile(separate_by_ours, fullgraph=True, backend="aot_eager")
        if not strict:
            torch.testing.assert_close(compiled(*given), expected)
            return
        with pytest.raises(tms.NotAccelerated, match="there is no MLX"):
            compiled(*given)


WRONG: dict[str, dict[str, Any]] = {
    "no n_fft": {"window": WINDOW},
    "an unknown name": {"n_fft": 16, "n_ftt": 16},
    "a float": {"n_fft": 16, "hop_length": 4.0},
    "no tensor": {"n_fft": 16, "window": [1.0] * 16},
}


@pytest.mark.parametrize("kwargs", WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_torchs_to_reject(kwargs: dict[str, Any]) -> None:
    def told(function: Any) -> str:
        torch.compiler.reset()
        compiled = torch.compile(
            lambda signal: function(signal, return_complex=True, **kwargs),
            fullgraph=True,
            backend="aot_eager",
        )
        with pytest.raises(Exception) as raised:  # noqa: PT011
            compiled(signal_of(64))
        text = str(raised.value).partition("\n\nfrom user code")[0]
        return re.sub("0x[0-9a-f]+", "0x...", text)

    expected = told(torch.stft)
    with tms.patch(backend="mlx"):
        assert told(torch.stft) == expected


STRIDES = [
    {"center": center, "onesided": onesided, "return_complex": as_complex, "window": window}
    for center in (True, False)
    for onesided in (True, False)
    for as_complex in (True, False)
    for window in (None, WINDOW)
]


@pytest.mark.filterwarnings("ignore:stft with return_complex=False:UserWarning")
@pytest.mark.filterwarnings("ignore:A window was not provided:UserWarning")
@pytest.mark.parametrize("rows", [None, 1, 3])
def test_symbolic_sizes_and_strides_are_natives(rows: int | None) -> None:
    """What the compiler is told of a result is what the result will be."""
    signal = signal_of(240, rows or 1)
    signal = signal if rows else signal[0]
    for kwargs in STRIDES:
        for n_fft, hop in ((16, 4), (15, 15), (1, 1)):
            call: Any = {"n_fft": n_fft, "hop_length": hop} | kwargs
            if call["window"] is not None:
                call["window"] = torch.ones(n_fft)
            rest = {"normalized": False, "align_to_window": None}
            found = operators._make_symbolic_stft(signal, **call, **rest)
            expected = NATIVE["stft"](signal, **call)
            assert found is not None
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
            assert found.stride() == expected.stride()
    odd = signal_of(480, 3)[:, ::2]
    assert operators._make_symbolic_stft(odd, 16, 4, None, True, None, True, None) is None


def test_operators_know_fake_and_meta_tensors() -> None:
    signal = signal_of(240)
    arguments = (16, 4, None, WINDOW, True, "reflect", False, None, True, None, False)
    expected = NATIVE["stft"](signal, 16, 4, window=WINDOW, return_complex=True)
    operator = torch.ops.torch_mlx_spectro.stft
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments]
        fake = operator(mode.from_tensor(signal), *fakes)
    metas = [a.to("meta") if isinstance(a, torch.Tensor) else a for a in arguments]
    for result in (fake, operator(signal.to("meta"), *metas)):
        assert (result.shape, result.stride()) == (expected.shape, expected.stride())
        assert result.dtype == torch.complex64


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # 2.14's
def test_torchs_own_checks_of_operators() -> None:
    """Schema, fake implementation, autograd registration, and tracing with AOT autograd."""
    signal = signal_of(64).requires_grad_()
    window = WINDOW.clone().requires_grad_()
    forward = (signal, 16, 4, None, window, True, "reflect", False, None, True, None, False)
    spectrum = NATIVE["stft"](signal, 16, 4, window=WINDOW, return_complex=True).detach()
    backward = (spectrum.requires_grad_(), 16, 4, None, window, True, False, None, 60, False, False)
    with tms.backend("mlx", strict=True):
        for operator, args in (
            (torch.ops.torch_mlx_spectro.stft.default, forward),
            (torch.ops.torch_mlx_spectro.istft.default, backward),
        ):
            torch.library.opcheck(operator, args, atol=1e-5, rtol=1e-4)


EXPORTED = """\
import sys, torch, torch_mlx_spectro as tms

class Program(torch.nn.Module):
    def forward(self, signal):
        return tms.stft(signal, 16, 4, window=torch.ones(16), return_complex=True)

signal = torch.ones(2, 64)
with tms.backend("mlx"):
    length = torch.export.Dim("length", min=32, max=4096)
    program = torch.export.export(Program(), (signal,), dynamic_shapes={"signal": {1: length}})
names = [str(node.target) for node in program.graph.nodes]
assert any("torch_mlx_spectro" in name for name in names), names
longer = torch.ones(2, 99)
with tms.backend("mlx", strict=True):
    result = program.module()(longer)
assert tms.stats().accelerated == 1
expected = torch.stft(longer, 16, 4, window=torch.ones(16), return_complex=True)
torch.testing.assert_close(result, expected)
"""


def test_our_own_functions_are_exported_as_operators(tmp_path: Path) -> None:
    finished = python("-c", EXPORTED, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr


HELD = """\
import torch, torch_mlx_spectro as tms
from functools import partial

def program(held, signal):
    return held(signal, 16, window=torch.ones(16), return_complex=True)

held, signal = torch.stft, torch.ones(64)
expected = program(held, signal)
class Holder: own = staticmethod(torch.stft)
import torch._dynamo
tms.patch(backend="mlx")
for function in (Holder.own, tms.stft, torch.stft):
    for backend in ("mlx", "native"):
        torch.compiler.reset()
        with tms.backend(backend):
            compiled = torch.compile(partial(program, function), fullgraph=True, backend="eager")
            torch.testing.assert_close(compiled(signal), expected)
"""


def test_what_a_program_held_before_the_patch_compiles_too(tmp_path: Path) -> None:
    finished = python("-c", HELD, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
