"""Whole runs on a tiny case: who was timed, and what is never taken for a time."""

from __future__ import annotations

import itertools

import torch
from bench_reports import TINY, TINY_TABLES
from needs import needs_mlx

import torch_mlx_spectro as tms
from torch_mlx_spectro import functional
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.bench import running
from torch_mlx_spectro.bench.cases import ROUND_TRIP, STFT, Table, Workload
from torch_mlx_spectro.bench.measuring import Clock
from torch_mlx_spectro.bench.running import Settings, find_backends, measure, quick, use_threads
from torch_mlx_spectro.bench.schema import read_report, to_json

FEW = {"passes": 2, "samples": 2, "warm_up": 1}


def ticking() -> Clock:
    """A clock that moves by itself, the same in every run."""
    ticks = itertools.count()
    return Clock(lambda: next(ticks) * 1e-3, lambda: None)


@needs_mlx
def test_every_backend_is_timed_beside_native_by_the_route_of_its_name():
    settings = Settings("cpu", ("mlx", "auto"), **FEW)
    seen = []
    report = measure(settings, TINY_TABLES, lambda *told: seen.append(told), ticking())
    assert read_report(to_json(report)) == report
    assert [timing["backend"] for timing in report["timings"]] == ["native", "mlx", "auto"]
    native, mlx, auto = report["timings"]
    assert (native["ratio"], native["computed_by"]) == (None, ["native"])
    assert mlx["computed_by"] == ["mlx"]
    assert auto["computed_by"] == ["native"]  # far below what auto gives to MLX
    assert [len(taken) for taken in mlx["passes"]] == [2, 2]
    assert mlx["ratio"]["n"] == 4
    assert [error["backend"] for error in report["accuracy"]] == ["native", "mlx", "auto"]
    assert report["failures"] == []
    assert [told[:2] for told in seen] == [(1, 3), (2, 3), (3, 3)]
    assert str(TINY) in seen[0][2]


def test_a_call_left_to_native_is_a_failure_and_no_time():
    report = measure(Settings("cpu", ("cuda", "auto"), **FEW), TINY_TABLES, clock=ticking())
    assert {timing["backend"] for timing in report["timings"]} == {"native", "auto"}
    assert [found["backend"] for found in report["failures"]] == ["cuda", "cuda"]
    assert "NotAccelerated" in report["failures"][1]["reason"]
    assert not any(found["backend"] == "cuda" for found in report["accuracy"])


def test_a_wrong_result_is_a_failure_and_no_time(monkeypatch):
    right = functional.stft
    monkeypatch.setattr(tms, "stft", lambda *args, **kwargs: right(*args, **kwargs) * 1.01)
    tables = {"stft": Table("tiny", (STFT,), (TINY,))}
    report = measure(Settings("cpu", ("auto",), **FEW), tables, clock=ticking())
    assert [timing["backend"] for timing in report["timings"]] == ["native"]
    (failure,) = report["failures"]
    assert failure["backend"] == "auto"
    assert failure["reason"].startswith("differs from native by")


def test_memory_that_does_not_suffice_ends_that_case_only(monkeypatch):
    class Greedy(Workload):
        def call(self, operation, namespace):
            if operation == ROUND_TRIP:
                raise torch.OutOfMemoryError("no memory")
            return super().call(operation, namespace)

    monkeypatch.setattr(running, "Workload", Greedy)
    tables = {"all": Table("tiny", (ROUND_TRIP, STFT), (TINY,))}
    report = measure(Settings("cpu", ("auto",), **FEW), tables, clock=ticking())
    assert {timing["operation"] for timing in report["timings"]} == {STFT}
    (failure,) = report["failures"]  # in the first pass, and not again
    assert (failure["operation"], failure["backend"]) == (ROUND_TRIP, "native")
    assert failure["reason"] == "OutOfMemoryError: no memory"


def test_backends_that_do_not_take_a_device_are_not_offered():
    found, reasons = find_backends("cpu")
    assert found[-1] == "auto"
    assert "cuda" not in found
    assert "cuda" not in reasons
    assert ("mlx" in found) == tms.available_backends()["mlx"].available


def test_a_backend_that_is_not_here_has_its_reason(monkeypatch):
    def explained(*args, **kwargs):
        return tms.Route("stft", "native", "torch", ("no MLX today",))

    monkeypatch.setattr(tms, "explain", explained)
    expected = dict.fromkeys(registry.list_backends("cpu"), "no MLX today")
    assert find_backends("cpu") == (("auto",), expected)


def test_threads_are_set_for_as_long_as_it_takes():
    before = torch.get_num_threads()
    with use_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with use_threads(None):
        assert torch.get_num_threads() == before


def test_warm_up_ends_when_the_time_is_over(monkeypatch):
    settings = Settings("cpu", ("auto",), passes=1, samples=1, warm_up=50, seconds_per_case=0.01)
    calls = []
    right = functional.stft
    monkeypatch.setattr(
        tms, "stft", lambda *args, **kwargs: calls.append(1) or right(*args, **kwargs)
    )
    measure(settings, {"stft": TINY_TABLES["stft"]}, clock=ticking())
    assert len(calls) < 30


def test_quick_is_less_of_the_same():
    settings = Settings("cpu", ("auto",))
    less = quick(settings)
    assert (settings.passes * settings.samples, settings.warm_up) == (20, 5)  # the reference's
    assert less.backends == settings.backends
    assert less.passes * less.samples < 20
    assert less.passes > 1  # one pass would show no noise


def test_the_machine_is_named_without_its_users():
    found = measure(Settings("cpu", ("auto",), **FEW), {}, clock=ticking())["machine"]
    assert found["versions"]["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["processor"]
