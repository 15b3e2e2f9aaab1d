"""``auto`` lets times decide where CPU tensors of a Mac are computed: MLX, ``cpu`` or native.

Metal is emulated, and a clock advances by what the test says that each takes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import metal
import pytest
import torch
from needs import needs_emulator
from patched import NATIVE

import torch_mlx_spectro as tms
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.backends.cpu.backend import CPU
from torch_mlx_spectro.backends.mlx.backend import MLX
from torch_mlx_spectro.calls import operation as operations
from torch_mlx_spectro.dispatch import decide as deciding
from torch_mlx_spectro.dispatch import run as dispatching
from torch_mlx_spectro.dispatch.autotune import MAX_TRIALS, Trials
from torch_mlx_spectro.dispatch.choice import Choice
from torch_mlx_spectro.dispatch.plans import plans
from torch_mlx_spectro.store import verdicts
from torch_mlx_spectro.store.verdicts import Store

pytestmark = needs_emulator
SIGNAL, WINDOW = torch.linspace(-1, 1, 4000).sin()[None], torch.hann_window(64)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def take(clock: Clock, function: Any, seconds: float) -> Any:
    """The function, which now takes so long."""

    def taking(*given: Any, **more: Any) -> Any:
        clock.now += seconds
        return function(*given, **more)

    return taking


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, metal_cache: Path) -> Iterator[Clock]:
    """As on a Mac: both backends are candidates, and MLX computes by kernels."""
    found = Clock()
    specs = {
        "cpu": registry.find("cpu"),
        "mlx": replace(registry.find("mlx"), in_auto_on_host=True),
    }
    monkeypatch.setattr(registry, "_specs", specs)
    monkeypatch.setattr(deciding, "LEAST_FRAMED", {"stft": 1, "istft": 1})
    monkeypatch.setitem(verdicts._process, "store", Store(None, versions={}))
    trials = Trials(found)
    for module in (deciding, dispatching):
        monkeypatch.setattr(module, "trials", trials)
    for backend in (CPU, MLX):
        monkeypatch.setattr(backend, "prepare", lambda *given: None)
    deciding.ledger.clear()
    plans.clear()
    with metal.emulated(metal_cache, backend="auto"):
        yield found
    deciding.ledger.clear()
    plans.clear()


def settle(clock: Clock, monkeypatch: pytest.MonkeyPatch, times: dict[str, float]) -> str:
    """Who computes the calls once ``auto`` has timed them."""
    for name, backend in (("cpu", CPU), ("mlx", MLX)):
        monkeypatch.setattr(backend, "analyse", take(clock, backend.analyse, times[name]))
    native = take(clock, NATIVE["stft"], times["native"])
    operation = replace(operations.STFT, native=native, small=0)
    given = {"window": WINDOW, "return_complex": True}
    for _ in range(4 * MAX_TRIALS):
        dispatching.dispatch(operation, Choice("auto"), (SIGNAL, 64), given, sys._getframe())
    tms.reset_stats()
    dispatching.dispatch(operation, Choice("auto"), (SIGNAL, 64), given, sys._getframe())
    ((_, who),) = tms.stats().calls
    return who


@pytest.mark.parametrize(
    "times",
    [
        {"mlx": 0.01, "cpu": 0.05, "native": 0.05},
        {"mlx": 0.05, "cpu": 0.01, "native": 0.05},
        {"mlx": 0.05, "cpu": 0.05, "native": 0.02},
    ],
    ids=["mlx", "cpu", "native"],
)
def test_the_fastest_computes_cpu_tensors(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, times: dict[str, float]
) -> None:
    assert set(registry.list_candidates("cpu")) == {"cpu", "mlx"}
    assert settle(clock, monkeypatch, times) == min(times, key=lambda name: times[name])


def test_without_times_cpu_computes_them(clock: Clock) -> None:
    """A fixed rule, where nothing is measured."""
    torch.use_deterministic_algorithms(True)
    try:
        route = tms.explain("stft", SIGNAL, 64, window=WINDOW, return_complex=True)
    finally:
        torch.use_deterministic_algorithms(False)
    assert route.backend == "cpu"
