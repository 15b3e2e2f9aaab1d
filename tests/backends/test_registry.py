"""A backend is one object and one line of the registry: here one that nothing else knows of."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from bench_reports import TINY_TABLES
from reference import random_tensor

import torch_mlx_spectro as tms
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.backends.cpu.backend import CPU, TorchBlocks
from torch_mlx_spectro.backends.registry import Spec, register_backend
from torch_mlx_spectro.bench import running
from torch_mlx_spectro.calls.operation import STFT, Call
from torch_mlx_spectro.cli.main import build_parser, main
from torch_mlx_spectro.core.linear import Analysis
from torch_mlx_spectro.core.params import StftParams
from torch_mlx_spectro.dispatch import decide as deciding
from torch_mlx_spectro.dispatch import run as dispatching
from torch_mlx_spectro.dispatch.autotune import TRIALS, Trials
from torch_mlx_spectro.dispatch.choice import Choice
from torch_mlx_spectro.doctor import command as doctor
from torch_mlx_spectro.doctor import show
from torch_mlx_spectro.native import functions as native

Optional = torch.Tensor | None


class Toy(TorchBlocks):
    """torch's operations, and a count of what has been computed by them."""

    def __init__(self) -> None:
        self.computed = Counter[str]()

    def name_kernel(self, call: Call) -> str:
        return "toy stft" if isinstance(call.params, StftParams) else "toy istft"

    def analyse(
        self, params: StftParams, signal: torch.Tensor, window: Optional, edge: float = 1.0
    ) -> torch.Tensor:
        self.computed["analyse"] += 1
        return super().analyse(params, signal, window, edge)

    def adjoint(self, analysis: Analysis, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
        self.computed["adjoint"] += 1
        return super().adjoint(analysis, spectrum, window)


TOY = Toy()
SPEC = Spec("toy", ("cpu",), f"{__name__}:TOY", in_auto=False)
SIZES = {"n_fft": 16, "hop_length": 4}


@pytest.fixture
def toy() -> Iterator[Toy]:
    TOY.computed.clear()
    with register_backend(SPEC):
        yield TOY


def test_it_computes_through_a_patch_and_differentiates(toy: Toy) -> None:
    window = torch.hann_window(16)
    signal = random_tensor(0, 2, 100).requires_grad_()
    expected = native.stft(signal, window=window, **SIZES, return_complex=True)
    weight = random_tensor(1, *expected.shape, complex_values=True)
    (of_native,) = torch.autograd.grad(expected, signal, weight)
    with tms.patch("toy", strict=True, verify=1):
        assert "'toy'" in repr(tms.patch("toy"))
        found = torch.stft(signal, window=window, **SIZES, return_complex=True)
        (gradient,) = torch.autograd.grad(found, signal, weight)
        back = torch.istft(found.detach(), window=window, **SIZES)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, of_native)
    torch.testing.assert_close(back, native.istft(expected, window=window, **SIZES).detach())
    assert tms.stats().calls == {("stft", "toy"): 1, ("istft", "toy"): 1}
    assert toy.computed["analyse"] >= 1
    assert toy.computed["adjoint"] >= 1


def test_a_compiled_program_computes_by_it(toy: Toy) -> None:
    signal, window = random_tensor(0, 2, 100), torch.hann_window(16)

    def program(x: torch.Tensor) -> torch.Tensor:
        return torch.stft(x, window=window, **SIZES, return_complex=True).abs() * 2

    expected = program(signal)
    with tms.patch("toy", strict=True):
        found = torch.compile(program, backend="aot_eager")(signal)
    torch.testing.assert_close(found, expected)
    assert toy.computed["analyse"] == 1


def test_it_is_explained_and_available(toy: Toy) -> None:
    signal, window = random_tensor(0, 2, 100), torch.ones(16)
    with tms.backend("toy"):
        route = tms.explain("stft", signal, window=window, **SIZES, return_complex=True)
    assert (route.backend, route.kernel, route.reasons) == ("toy", "toy stft", ())
    with tms.backend("toy"):
        route = tms.explain("stft", signal.double(), 16, return_complex=True)
    assert (route.backend, route.reasons) == (
        "native",
        ("dtype torch.float64 of input is not accelerated",),
    )
    assert tms.available_backends()["toy"] == tms.Availability(True)
    # Only whoever names it is given it.
    assert "toy" not in registry.list_candidates("cpu")


class Costs:
    """What native, ``cpu`` and the toy take, by a clock of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.op = replace(STFT, native=partial(self.take, 0.02, native.stft), small=0)
        monkeypatch.setattr(CPU, "analyse", partial(self.take, 0.05, CPU.analyse))
        monkeypatch.setattr(CPU, "prepare", lambda *given: None)
        monkeypatch.setattr(TOY, "analyse", partial(self.take, 0.001, TOY.analyse))
        monkeypatch.setattr(deciding, "LEAST_FRAMED", {"stft": 1, "istft": 1})
        trials = Trials(lambda: self.now)
        for module in (deciding, dispatching):
            monkeypatch.setattr(module, "trials", trials)

    def take(self, seconds: float, function: Any, *args: Any, **kwargs: Any) -> Any:
        self.now += seconds
        return function(*args, **kwargs)

    def call(self) -> torch.Tensor:
        args = (random_tensor(0, 2, 4000), 16, 4)
        given = {"window": torch.hann_window(16), "return_complex": True}
        return dispatching.dispatch(self.op, Choice("auto"), args, given, sys._getframe())


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Costs]:
    deciding.ledger.clear()
    with register_backend(replace(SPEC, in_auto=True)):
        yield Costs(monkeypatch)
    deciding.ledger.clear()


def test_auto_compares_it_once_and_times_it(costs: Costs) -> None:
    results = [costs.call() for _ in range(6 * TRIALS)]
    assert all(torch.allclose(result, results[0], atol=1e-4) for result in results)
    calls = tms.stats().calls
    assert set(calls) == {("stft", "native"), ("stft", "cpu"), ("stft", "toy")}
    assert calls["stft", "toy"] > TRIALS  # those that are timed, and all that follow
    assert tms.stats().verified == 2  # the first of each candidate
    tms.reset_stats()
    costs.call()
    assert tms.stats().calls == {("stft", "toy"): 1}


def test_auto_finds_that_it_is_wrong(costs: Costs, monkeypatch: pytest.MonkeyPatch) -> None:
    right = TOY.analyse
    monkeypatch.setattr(TOY, "analyse", lambda *given: right(*given) * 1.01)
    with pytest.warns(RuntimeWarning, match="is not native torch's"):
        results = [costs.call() for _ in range(4 * TRIALS)]
    assert all(torch.allclose(result, results[0], atol=1e-4) for result in results)
    assert ("stft", "toy") not in tms.stats().calls
    assert tms.stats().mismatches == 1


def test_the_environment_may_name_it(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_MLX_SPECTRO_BACKEND", "toy")
    with tms.patch():
        torch.stft(random_tensor(0, 100), 16, window=torch.ones(16), return_complex=True)
    assert tms.stats().calls == {("stft", "toy"): 1}


def test_doctor_checks_and_shows_it(toy: Toy) -> None:
    found = doctor.examine()
    assert found["backends"]["toy"] == {"available": True, "reason": ""}
    (check,) = (one for one in found["self_checks"] if one["backend"] == "toy")
    assert (check["ok"], check["error"], check["device"]) == (True, "", "cpu")
    assert check["calls"]["stft/toy"] == check["calls"]["istft/toy"] == 1
    cells = [cell for cell in found["matrix"] if cell["asked"] == "toy"]
    assert {(cell["op"], cell["kernel"]) for cell in cells if cell["backend"] == "toy"} == {
        ("stft", "toy stft"),
        ("istft", "toy istft"),
    }
    assert "backend toy" in show.write_markdown(found)


def test_bench_measures_it(toy: Toy) -> None:
    found, reasons = running.find_backends("cpu")
    assert "toy" in found
    assert "toy" not in reasons
    settings = running.Settings("cpu", ("toy",), passes=1, samples=2, warm_up=1)
    report = running.measure(settings, TINY_TABLES)
    assert report["failures"] == []
    assert [timing["backend"] for timing in report["timings"]] == ["native", "toy"]
    assert report["timings"][1]["computed_by"] == ["toy"]
    assert [one["backend"] for one in report["accuracy"]] == ["native", "toy"]


def test_parity_compares_it(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["dtype=float32", "dtype=complex64", "n_fft=16", "rows=2", "use=plain"]
    few = [argument for value in few for argument in ("--select", value)]
    assert main(["parity", "--backend", "toy", *few]) == 0
    told = capsys.readouterr().out
    assert "computed by toy: toy stft" in told
    assert "computed by toy: toy istft" in told


def test_programs_may_be_run_by_it(toy: Toy) -> None:
    options = build_parser().parse_args(["run", "--backend", "toy"])
    assert options.backend == "toy"


def test_an_exception_ends_it_too() -> None:
    before = registry.specs()

    def fail() -> None:
        with register_backend(SPEC):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert registry.specs() == before


@pytest.mark.parametrize("name", ["auto", *registry.names()])
def test_a_name_that_is_taken_is_refused(name: str) -> None:
    before = registry.specs()
    with (
        pytest.raises(ValueError, match=f"'{name}' is there already"),
        register_backend(Spec(name, ("cpu",), SPEC.location)),
    ):
        pass
    assert registry.specs() == before


def test_afterwards_all_is_as_before() -> None:
    before = registry.specs(), registry.names(), registry.device_types()
    with register_backend(SPEC):
        assert registry.load("toy") is TOY
        assert registry.find("toy") is SPEC
    assert (registry.specs(), registry.names(), registry.device_types()) == before
    with pytest.raises(ValueError, match="got 'toy'"), tms.backend("toy"):
        pass
    with pytest.raises(KeyError):
        registry.load("toy")
    with register_backend(SPEC):
        assert registry.load("toy") is TOY


def test_another_may_take_the_place_of_one() -> None:
    """As what stands in for a device that is not here."""
    before, own = registry.specs(), registry.load("cpu")
    other = replace(registry.find("cpu"), device_types=("cpu", "cuda"))
    with register_backend(other, TOY, replace=True):
        with register_backend(other, Toy(), replace=True):
            assert registry.load("cpu") is not TOY
        assert registry.load("cpu") is TOY
        assert [spec.name for spec in registry.specs()] == [spec.name for spec in before]
        assert "cpu" in registry.list_backends("cuda")
    assert registry.specs() == before
    assert registry.load("cpu") is own
    with (
        pytest.raises(ValueError, match="no backend 'toy' to replace"),
        register_backend(SPEC, replace=True),
    ):
        pass
    assert registry.specs() == before


def test_every_backend_is_named_by_its_place_and_nothing_else() -> None:
    for spec in registry.specs():
        assert registry.load(spec.name) is registry.load(spec.name)
        assert spec.name in registry.list_backends(spec.device_types[0])
    assert {"cpu", "mlx", "mps", "cuda"} <= {spec.name for spec in registry.specs()}
