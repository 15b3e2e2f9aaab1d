"""Calls that go to native torch, those which look like it and do not, and how both are counted."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_process import python
from discrepancy import compare
from patched import NATIVE, accelerated_calls
from small_calls import istft_case, stft_case
from torch.utils.checkpoint import checkpoint

import torch_mlx_spectro as tms
from stft_parity.cases import Case
from torch_mlx_spectro.backends.cpu.backend import CPU
from torch_mlx_spectro.calls import operation as operations
from torch_mlx_spectro.dispatch import decide as deciding
from torch_mlx_spectro.dispatch import run as dispatching
from torch_mlx_spectro.dispatch.autotune import MAX_ASKED, MAX_TRIALS, TRIALS, Trials
from torch_mlx_spectro.dispatch.choice import Choice
from torch_mlx_spectro.dispatch.plans import plans
from torch_mlx_spectro.store import verdicts
from torch_mlx_spectro.store.verdicts import Store

#: Windows without zeros: also as integers they invert.
CALLS = [stft_case(w="torch.ones(16)"), istft_case(w="torch.ones(16)")]


def check_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Check values, and all that can be told of a tensor without them."""
    torch.testing.assert_close(actual, expected, check_stride=True)
    for look in (type, torch.is_conj, torch.is_neg, torch.is_inference):
        assert look(actual) == look(expected)
    assert actual.requires_grad == expected.requires_grad


@pytest.mark.parametrize("case", CALLS, ids=lambda case: case.op)
def test_ours_computes_what_the_patched_one_does(case: Case) -> None:
    made = 0

    def ours(*args: Any, **kwargs: Any) -> Any:
        nonlocal made
        made += 1
        return getattr(tms, case.op)(*args, **kwargs)

    with tms.backend("mlx", strict=True):
        compare(case, ours, NATIVE[case.op])
    # How often a case is called is the comparison's to decide.
    assert tms.stats().calls == {(case.op, "mlx"): made}
    assert made >= 2


@pytest.mark.parametrize("case", CALLS, ids=lambda case: case.op)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_calls_without_gradients_are_accelerated(
    case: Case, context: Callable[[], Any], strict_mlx: None
) -> None:
    tensors = case.tensors()
    tensors["x"].requires_grad_()
    args, kwargs = case.bind(tensors)
    with context():
        expected = NATIVE[case.op](*args, **kwargs)
        actual = getattr(torch, case.op)(*args, **kwargs)
    assert not actual.requires_grad
    assert actual.is_inference() == expected.is_inference() == (context is torch.inference_mode)
    assert (actual._version if not actual.is_inference() else 0) == 0
    assert accelerated_calls() == 1


OTHER_WINDOWS = [torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.bool]


@pytest.mark.parametrize(
    ("case", "argument", "dtype"),
    [
        (stft_case(), "x", torch.float64),
        (stft_case(), "x", torch.complex128),
        (stft_case(), "x", torch.float16),
        (stft_case(), "x", torch.bfloat16),
        (istft_case(), "x", torch.complex128),
        *((case, "w", dtype) for case in CALLS for dtype in OTHER_WINDOWS),
    ],
    ids=lambda value: value.op if isinstance(value, Case) else str(value),
)
def test_other_dtypes_are_natives_and_counted(
    case: Case, argument: str, dtype: torch.dtype
) -> None:
    tensors = case.tensors()
    tensors[argument] = tensors[argument].to(dtype)
    args, kwargs = case.bind(tensors)
    expected = NATIVE[case.op](*args, **kwargs)
    reason = f"dtype {dtype} of {'input' if argument == 'x' else 'window'} is not accelerated"
    with tms.patch(backend="mlx"):
        actual = getattr(torch, case.op)(*args, **kwargs)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert tms.stats().fallbacks == {reason: 1}
    with tms.patch(backend="mlx", strict=True), pytest.raises(tms.NotAccelerated) as refused:
        getattr(torch, case.op)(*args, **kwargs)
    assert refused.value.reasons == (reason,)


def test_strictly_torchs_own_exception_comes_before_ours() -> None:
    """This torch computes no such transform, whoever does not accelerate it."""
    signal = torch.randn(40).to(torch.float16)
    arguments = {"window": torch.ones(15, dtype=torch.float16), "return_complex": True}
    with pytest.raises(RuntimeError) as expected:
        NATIVE["stft"](signal, 15, **arguments)
    with tms.patch(backend="mlx", strict=True), pytest.raises(RuntimeError) as raised:
        torch.stft(signal, 15, **arguments)
    assert (type(raised.value), str(raised.value)) == (type(expected.value), str(expected.value))


def test_every_reason_is_given() -> None:
    signal = torch.randn(40, dtype=torch.float64, requires_grad=True)
    with tms.patch(backend="mlx", strict=True), pytest.raises(tms.NotAccelerated) as refused:
        torch.stft(signal, 16, window=torch.ones(16).double(), return_complex=True)
    assert set(refused.value.reasons) == {
        "dtype torch.float64 of input is not accelerated",
        "dtype torch.float64 of window is not accelerated",
    }


@pytest.mark.parametrize("case", CALLS, ids=lambda case: case.op)
def test_the_default_dtype_changes_nothing(case: Case, strict_mlx: None) -> None:
    args, kwargs = case.bind(case.tensors())
    expected = NATIVE[case.op](*args, **kwargs)
    torch.set_default_dtype(torch.float64)
    try:
        actual = getattr(torch, case.op)(*args, **kwargs)
    finally:
        torch.set_default_dtype(torch.float32)
    check_same(actual, expected)
    assert accelerated_calls() == 1


@pytest.mark.parametrize("case", CALLS, ids=lambda case: case.op)
def test_the_default_device_changes_nothing(case: Case, strict_mlx: None) -> None:
    args, kwargs = case.bind(case.tensors())
    expected = NATIVE[case.op](*args, **kwargs)
    torch.set_default_device("cpu")
    try:
        actual = getattr(torch, case.op)(*args, **kwargs)
    finally:
        torch.set_default_device(None)
    check_same(actual, expected)
    assert accelerated_calls() == 1


@pytest.mark.parametrize("op", ["stft", "istft"])
def test_integers_get_torchs_exception(op: str) -> None:
    # Strict or not: torch computes no such call, so there is nothing to fall back from.
    def raised() -> tuple[type[Exception], str]:
        with pytest.raises((RuntimeError, TypeError)) as error:  # TypeError: istft since 2.14
            getattr(torch, op)(torch.ones(9, 20, dtype=torch.int64), 16, window=torch.ones(16))
        return type(error.value), str(error.value)

    expected = raised()
    with tms.patch(backend="mlx"):
        assert raised() == expected
    assert tms.stats().fallbacks == {}


#: Values that torch converts although their type is another one.
CONVERTED = {
    "center is an integer": stft_case(center="1"),
    "n_fft is a tensor": stft_case(n_fft="torch.tensor(16)"),
    "hop_length is a tensor": istft_case(hop_length="torch.tensor(4)"),
    "length is negative": istft_case(length="-20"),
}


@pytest.mark.parametrize("case", CONVERTED.values(), ids=CONVERTED)
def test_what_only_torch_understands_is_natives_and_counted(case: Case) -> None:
    expected = case.call(NATIVE[case.op])
    with tms.patch(backend="mlx"):
        torch.testing.assert_close(case.call(getattr(torch, case.op)), expected)
    (reason,) = tms.stats().fallbacks
    assert "not known to this package" in reason
    tms.reset_stats()
    with tms.patch(backend="mlx", strict=True), pytest.raises(tms.NotAccelerated):
        case.call(getattr(torch, case.op))
    assert tms.stats().refused == 1
    assert tms.stats().fallbacks == {reason: 1}


WARNED = """\
import sys, warnings, torch, torch_mlx_spectro as tms
from torch.overrides import TorchFunctionMode
backend, names = sys.argv[1:]
if backend != "torch":
    tms.patch(backend, strict=backend == "mlx")
module = torch if names == "torch" else tms
signal, window = torch.ones(64), torch.ones(16)
spectrum = torch.ones(9, 20, dtype=torch.complex64)

class Passing(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))

class Tagged(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs)

def by_name(signal, spectrum):
    module.stft(signal, 16, return_complex=True)
    module.stft(signal, 16, window=window, return_complex=False)
    module.stft(signal, 16, return_complex=False)
    try:
        module.stft(signal, 16, window=window)
    except RuntimeError:
        pass
    module.istft(spectrum, 16)
    module.istft(
        spectrum, 16, window=window, length=200
    )
    module.istft(spectrum, 16, length=200)
    module.istft(spectrum, 16, None, None, None, True, False, None, 200)

def by_method(signal, spectrum):
    signal.stft(16, return_complex=True)
    signal.stft(16, window=window, return_complex=False)
    spectrum.istft(16)
    spectrum.istft(16, window=window, length=200)

for action, always in (("always", False), ("default", False), ("always", True), ("default", True)):
    torch.set_warn_always(always)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        for repeat in range(2):
            by_name(signal, spectrum)
            by_method(signal, spectrum)
            by_name(signal.as_subclass(Tagged), spectrum.as_subclass(Tagged))
            with Passing():
                by_name(signal, spectrum)
                by_method(signal, spectrum)
    for given in caught:
        print(action, always, given.category.__name__, given.message, given.filename, given.lineno)
if backend == "mlx":
    assert tms.stats().native == 0, tms.stats()
"""


def test_warnings_are_natives_down_to_the_line_and_how_often(tmp_path: Path) -> None:
    """Under any backend, by torch's names, ours and methods, and behind a mode or a subclass."""
    path = tmp_path / "program.py"
    path.write_text(WARNED)

    def told(backend: str, names: str) -> list[str]:
        finished = python(str(path), backend, names, cwd=tmp_path)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout.splitlines()

    expected = told("torch", "torch")
    assert any(str(path) in line for line in expected)
    assert any("_tensor.py" in line for line in expected)
    assert any("functional.py" in line for line in expected)
    assert len(expected) > 100
    for how in (("native", "torch"), ("auto", "torch"), ("mlx", "torch"), ("mlx", "tms")):
        assert told(*how) == expected, how


#: As strange as windows can be: squares, sums and casts of theirs leave single precision.
STRANGE = {
    "large": torch.full((16,), 1e38),
    "largest": torch.full((16,), 3.4e38),
    "small": torch.full((16,), 1e-38),
    "denormal": torch.full((16,), 1e-45),
    "infinite": torch.full((16,), torch.inf),
    "not a number": torch.full((16,), torch.nan),
    "large, complex": torch.full((16,), complex(3e38, 3e38)),
    "infinite, complex": torch.full((16,), complex(0, torch.inf)),
}


@pytest.mark.parametrize("numpys", ["warn", "raise"])
@pytest.mark.parametrize("window", STRANGE.values(), ids=STRANGE)
def test_numpy_says_nothing_of_windows(window: torch.Tensor, numpys: Any) -> None:
    """Its warnings are exceptions here, and what the program asks of NumPy is not ours."""
    rejected = 0
    with tms.patch("mlx", strict=True), np.errstate(all=numpys):
        for normalized, tracked in itertools.product((False, True), repeat=2):
            options: dict[str, Any] = {
                "window": window,
                "normalized": normalized,
                "onesided": not window.is_complex(),
            }
            signal = torch.ones(2, 100).requires_grad_(tracked)
            spectrum = torch.stft(signal, 16, 4, **options, return_complex=True)
            cotangent = spectrum.detach().clone().requires_grad_(tracked)
            results = [spectrum]
            try:
                results.append(torch.istft(cotangent, 16, 4, **options, return_complex=True))
            except RuntimeError:  # torch's own, of windows that vanish
                rejected += 1
            for result in results:
                if result.requires_grad:
                    result.abs().sum().backward()
    assert tms.stats().calls[("stft", "mlx")] == 4
    assert tms.stats().calls.get(("istft", "mlx"), 0) == 4 - rejected
    assert tms.stats().native == 0


def expect_reasons(**reasons: int) -> None:
    """Every call so far was native's, each with its reason, by part of its text."""
    stats = tms.stats()
    if stats.accelerated or stats.native != sum(reasons.values()):
        pytest.fail(f"other calls than were to be made: {stats}")
    assert not stats.fallbacks
    counted = {
        text: sum(n for reason, n in stats.choices.items() if text.replace("_", " ") in reason)
        for text in reasons
    }
    assert counted == reasons


def call_each(spelling: str) -> None:
    """One small stft and one small istft, by the names that are asked for."""
    signal, window = torch.ones(100), torch.ones(16)
    if spelling == "method":
        signal.stft(16, 4, window=window, return_complex=True).istft(16, 4, window=window)
        return
    module = torch if spelling == "torch" else tms
    spectrum = module.stft(signal, 16, 4, window=window, return_complex=True)
    module.istft(spectrum, 16, 4, window=window)


@pytest.mark.parametrize("spelling", ["torch", "ours", "method"])
def test_small_calls_are_counted_with_their_reason(spelling: str) -> None:
    with tms.patch():
        for _ in range(3):
            call_each(spelling)
    expect_reasons(too_small=6)


def test_calls_that_were_decided_to_be_small_are_counted_with_their_reason() -> None:
    """The first is decided, the next are known."""
    signal, window = torch.ones(1 << 19), torch.ones(16)
    with tms.patch():
        for _ in range(3):
            torch.stft(signal, 16, 16, window=window, return_complex=True)
    expect_reasons(too_small=3)


@pytest.mark.parametrize("spelling", ["torch", "ours", "method"])
def test_what_native_was_chosen_for_is_counted_with_its_reason(spelling: str) -> None:
    with tms.patch("native"):
        call_each(spelling)
    with tms.patch("mlx"), tms.backend("native"):
        call_each(spelling)
    expect_reasons(native_backend_was_asked_for=4)


def test_what_is_measured_is_counted_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native's turns while it is measured, and all that follow, as it is the faster one."""
    now = itertools.count()
    right = CPU.analyse

    def analysis(*args: Any) -> Any:
        for _ in range(1000):
            next(now)
        return right(*args)

    trials = Trials(lambda: next(now) / 10_000)
    for module in (deciding, dispatching):
        monkeypatch.setattr(module, "trials", trials)
    monkeypatch.setattr(CPU, "analyse", analysis)
    monkeypatch.setattr(CPU, "prepare", lambda *given: None)
    monkeypatch.setattr(deciding, "LEAST_FRAMED", {"stft": 1, "istft": 1})
    signal, window = torch.ones(1 << 19), torch.ones(16)
    with tms.patch():
        for _ in range(2 * MAX_TRIALS + 4):
            torch.stft(signal, 16, 16, window=window, return_complex=True)
    stats = tms.stats()
    if not 0 < stats.accelerated <= TRIALS < stats.native:
        pytest.fail(f"other calls than were to be made: {stats}")
    (seconds,) = (race.list_seconds()["native"] for race in trials._races._values.values())
    measured = stats.native - MAX_TRIALS
    assert stats.estimated == {("stft", "native"): (measured, pytest.approx(measured * seconds), 0)}
    assert not stats.fallbacks
    assert stats.choices == {
        "auto: being measured": MAX_TRIALS,
        "auto: measured faster": stats.native - MAX_TRIALS,
    }


class Costs:
    """What native and ``cpu`` take there and back, by a clock of their own."""

    def __init__(self, native: tuple[float, float], cpu: tuple[float, float]) -> None:
        self.now = 0.0
        self.native, self.cpu = native, cpu

    def spend(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have calls take this, and ``auto`` time them."""
        for name, seconds in (("analyse", self.cpu[0]), ("adjoint", self.cpu[1])):
            right = getattr(CPU, name)
            monkeypatch.setattr(CPU, name, partial(self._spend, right, seconds))
        monkeypatch.setattr(CPU, "prepare", lambda *given: None)
        monkeypatch.setattr(deciding, "LEAST_FRAMED", {"stft": 1, "istft": 1})
        monkeypatch.setitem(verdicts._process, "store", Store(None, versions={}))
        trials = Trials(lambda: self.now)
        for module in (deciding, dispatching):
            monkeypatch.setattr(module, "trials", trials)
        deciding.ledger.clear()

    def _spend(self, function: Callable[..., Any], seconds: float, *args: Any) -> Any:
        self.now += seconds
        return function(*args)

    def of_native(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        result: torch.Tensor = self._spend(partial(NATIVE["stft"], **kwargs), self.native[0], *args)
        if result.requires_grad:

            def back(cotangent: torch.Tensor) -> None:
                self.now += self.native[1]

            result.register_hook(back)
            result = result.view_as(result)  # so that this hook comes after those on the result
        return result

    def train(self, steps: int, *, backward: bool = True) -> list[str]:
        """Who has computed each call."""
        operation = replace(operations.STFT, native=self.of_native, small=0)
        window, found = torch.hann_window(16), []
        for _ in range(steps):
            tms.reset_stats()
            signal = torch.randn(2, 400, requires_grad=True)
            given = {"window": window, "return_complex": True}
            args = (operation, Choice("auto"), (signal, 16, 4), given, sys._getframe())
            spectrum = dispatching.dispatch(*args)
            expected = NATIVE["stft"](signal, 16, 4, **given)
            torch.testing.assert_close(spectrum, expected)
            if backward:
                (ours,) = torch.autograd.grad(spectrum.abs().sum(), signal)
                (theirs,) = torch.autograd.grad(expected.abs().sum(), signal)
                torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
            ((_, backend),) = tms.stats().calls
            found.append(backend)
        return found


@pytest.mark.parametrize(
    ("native", "cpu", "winner"),
    [((0.2, 0.1), (0.1, 0.9), "native"), ((0.2, 0.9), (0.25, 0.1), "cpu")],
    ids=["slower back", "faster back"],
)
def test_training_is_timed_there_and_back(
    native: tuple[float, float],
    cpu: tuple[float, float],
    winner: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    costs = Costs(native, cpu)
    costs.spend(monkeypatch)
    steps = costs.train(2 * TRIALS + 4)
    assert steps == ["native"] * TRIALS + ["cpu"] * TRIALS + [winner] * 4
    races = deciding.trials._races
    race = races.find(next(key for key in races._values if "grad" in str(key)))
    assert race is not None
    assert race.list_seconds() == pytest.approx({"native": sum(native), "cpu": sum(cpu)})
    # The statistics are those of the last step.
    spent, base = sum(native if winner == "native" else cpu), sum(native)
    estimated = {("stft", winner): pytest.approx((1, spent, base - spent))}
    assert tms.stats().estimated == estimated


def test_what_is_differentiated_in_vain_is_timed_there(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = Costs(native=(0.2, 0.1), cpu=(0.1, 0.9))
    costs.spend(monkeypatch)
    decided = 2 * TRIALS + MAX_ASKED
    assert costs.train(decided + 3, backward=False)[decided:] == ["cpu"] * 3
    assert tms.stats().estimated == {("stft", "cpu"): pytest.approx((1, 0.1, 0.1))}


def test_checkpointed_calls_are_always_the_same_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved when they are computed again has to be what was saved before."""
    costs = Costs(native=(0.1, 0.1), cpu=(0.2, 0.1))
    costs.spend(monkeypatch)
    operation = replace(operations.STFT, native=costs.of_native, small=0)
    given = {"window": torch.hann_window(16), "return_complex": True}

    def analysed(signal: torch.Tensor) -> torch.Tensor:
        args = (operation, Choice("auto"), (signal, 16, 4), given, sys._getframe())
        return dispatching.dispatch(*args).abs()

    def computed_by() -> str:
        ((_, backend),) = tms.stats().calls
        tms.reset_stats()
        return backend

    signal = torch.randn(2, 400, requires_grad=True)
    before = checkpoint(analysed, signal, use_reentrant=False)
    assert computed_by() == "cpu"
    assert costs.train(2 * TRIALS + 1)[-1] == "native"
    tms.reset_stats()
    before.sum().backward()
    assert computed_by() == "cpu"
    for _ in range(2):
        checkpoint(analysed, signal, use_reentrant=False).sum().backward()
        assert computed_by() == "cpu"
    with torch.autograd.graph.save_on_cpu():  # nothing is computed again
        analysed(signal)
    assert computed_by() == "native"
    plans.clear()
    checkpoint(analysed, signal, use_reentrant=False).sum().backward()
    assert computed_by() == "cpu"
