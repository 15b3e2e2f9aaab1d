"""``auto`` takes what a loop waits less for: on a simulated device, which works beside its host."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from patched import NATIVE
from simulated_device import SimulatedBackend, SimulatedNative, Simulation, Ways, work

from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.backends.cuda.timer import CudaTimer
from torch_mlx_spectro.calls import operation as operations
from torch_mlx_spectro.calls.timer import HostTimer, Spent
from torch_mlx_spectro.dispatch import decide as deciding
from torch_mlx_spectro.dispatch import run as dispatching
from torch_mlx_spectro.dispatch.autotune import ADVANTAGE, MAX_TRIALS, Trials
from torch_mlx_spectro.dispatch.choice import Choice
from torch_mlx_spectro.dispatch.gradient_timer import GradientTimer
from torch_mlx_spectro.dispatch.plans import plans
from torch_mlx_spectro.store import verdicts
from torch_mlx_spectro.store.verdicts import Store

#: Calls after which ``auto`` has settled, although it hears of each time the later, the further
#: the host is ahead of its device.
SETTLED = 40 * MAX_TRIALS
STEPS = 20
#: What a program does between a call and its way back: a loss.
LOSS = work(3, 30, 6)


class Program:
    """A loop of calls that waits for the device at its end alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, native: Ways, ours: Ways) -> None:
        self.simulation = Simulation()
        backend = SimulatedBackend(self.simulation, ours)
        spec = replace(registry.find("cuda"), device_types=("cpu",))
        monkeypatch.setattr(registry, "_specs", {"cuda": spec})
        monkeypatch.setattr(registry, "_loaded", {"cuda": backend})
        monkeypatch.setattr(torch.cuda, "Event", self.simulation.make_event)
        monkeypatch.setattr(deciding, "LEAST_FRAMED", {"stft": 1, "istft": 1})
        monkeypatch.setitem(verdicts._process, "store", Store(None, versions={}))
        trials = Trials(self.simulation.clock)
        for module in (deciding, dispatching):
            monkeypatch.setattr(module, "trials", trials)
        deciding.ledger.clear()
        plans.clear()
        function = SimulatedNative(self.simulation, native, NATIVE["stft"])
        self.operation = replace(operations.STFT, native=function, small=0)

    def step(self, backend: str, trained: bool, reads: bool = False) -> None:
        """One call, and its way back.

        Args:
            reads: the program waits for the result.
        """
        signal = torch.randn(2, 400, requires_grad=trained)
        given = {"window": torch.ones(16), "return_complex": True}
        args = (self.operation, Choice(backend), (signal, 16, 4), given, sys._getframe())
        spectrum = dispatching.dispatch(*args)
        if trained:
            self.simulation.do(LOSS)
            spectrum.backward(torch.ones_like(spectrum))
        if reads:
            self.simulation.wait()

    def take(self, backend: str, trained: bool, reads: bool = False) -> float:
        """Microseconds of a step."""
        self.simulation.wait()
        begin = self.simulation.now
        for _ in range(STEPS):
            self.step(backend, trained, reads)
        self.simulation.wait()
        return 1e6 * (self.simulation.now - begin) / STEPS

    def settle(self, trained: bool, reads: bool = False) -> str:
        """Who computes the calls of ``auto`` for good."""
        for _ in range(SETTLED):
            self.step("auto", trained, reads)
            settled = [plan.route.backend for key, plan in plans._plans.items() if key[0] == "auto"]
            if settled:
                break
        (backend,) = settled
        return backend


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """No plan of a simulated backend."""
    yield
    plans.clear()


#: Of native and of ours what a call does, in microseconds, and who is faster in a loop. Two are as
#: long as on an H200, where the other one was kept.
FORWARD = {
    "ours is less of the device and more of the host": (
        Ways(work(6, 60, 45, after=5)), Ways(work(1, 90, 8, after=60)), "native"),
    "native is many small launches": (
        Ways(work(9, 120, 30, after=5)), Ways(work(1, 25, 6, after=10)), "cuda"),
    "the device is behind, and ours is less of it": (
        Ways(work(6, 60, 300, after=5)), Ways(work(1, 90, 60, after=60)), "cuda"),
    "the device is behind, and ours is more of it": (
        Ways(work(6, 60, 300, after=5)), Ways(work(1, 20, 320, after=5)), "native"),
    "ours hides behind more of the host": (
        Ways(work(2, 30, 100, after=5)), Ways(work(1, 120, 20, after=100)), "native"),
}  # fmt: skip
TRAINED = {
    "stft + backward, 252 to 378": (
        Ways(work(6, 60, 35, after=5), work(12, 160, 60, after=10)),
        Ways(work(1, 120, 8, after=90), work(1, 230, 12, after=150)), "native"),
    "stft + backward, 707 to 290": (
        Ways(work(6, 60, 250, after=5), work(12, 160, 450, after=10)),
        Ways(work(1, 80, 45, after=60), work(1, 180, 70, after=120)), "cuda"),
    "slower there, faster there and back": (
        Ways(work(6, 60, 35, after=5), work(12, 200, 60, after=10)),
        Ways(work(1, 90, 8, after=50), work(1, 90, 12, after=50)), "cuda"),
    "faster there, slower there and back": (
        Ways(work(6, 60, 35, after=5), work(12, 200, 60, after=10)),
        Ways(work(1, 30, 8, after=10), work(1, 290, 12, after=200)), "native"),
    "ours hides behind more of the host": (
        Ways(work(2, 30, 100, after=5), work(4, 60, 200, after=10)),
        Ways(work(1, 150, 20, after=100), work(1, 230, 20, after=150)), "native"),
    "native's ways hide behind each other": (
        Ways(work(1, 20, 160), work(12, 140, 20, after=10)),
        Ways(work(1, 110, 10, after=60), work(1, 110, 10, after=60)), "native"),
}  # fmt: skip
CASES = [
    pytest.param(*case, trained, id=name)
    for cases, trained in ((FORWARD, False), (TRAINED, True))
    for name, case in cases.items()
]


@pytest.mark.parametrize(("native", "ours", "faster", "trained"), CASES)
def test_auto_settles_on_what_a_loop_waits_less_for(
    native: Ways, ours: Ways, faster: str, trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program(monkeypatch, native, ours)
    assert program.settle(trained) == faster
    took = {name: program.take(name, trained) for name in ("native", "cuda", "auto")}
    assert took["auto"] == pytest.approx(took[faster])
    assert took[faster] == min(took["native"], took["cuda"])


@pytest.mark.parametrize(("native", "ours", "faster", "trained"), CASES)
def test_a_program_that_reads_each_result_does_not_wait_much_longer(
    native: Ways, ours: Ways, faster: str, trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program(monkeypatch, native, ours)
    program.settle(trained, reads=True)
    took = {name: program.take(name, trained, reads=True) for name in ("native", "cuda", "auto")}
    assert took["auto"] <= min(took.values()) / ADVANTAGE


def test_the_host_is_timed_for_the_call_alone_and_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulation = Simulation()
    monkeypatch.setattr(torch.cuda, "Event", simulation.make_event)
    simulation.do(work(1, 10, 500))  # so that the device is behind
    timer = CudaTimer(simulation.clock)
    timer.begin()
    simulation.do(work(4, 40, 100, after=20))
    timer.end()
    assert simulation.now < 1e-4
    assert timer.read() is None
    simulation.wait()
    assert timer.read() == pytest.approx((40e-6, 100e-6))


def test_a_device_that_waits_for_the_host_is_timed_until_the_result_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulation = Simulation()
    monkeypatch.setattr(torch.cuda, "Event", simulation.make_event)
    timer = CudaTimer(simulation.clock)
    timer.begin()
    simulation.do(work(1, 60, 100, after=20))
    timer.end()
    simulation.wait()
    assert timer.read() == pytest.approx((60e-6, 140e-6))


def test_there_and_back_the_hosts_times_are_added_up_and_the_devices() -> None:
    class Known(HostTimer):
        def __init__(self, host: float, device: float) -> None:
            super().__init__(lambda: 0.0, lambda: None)
            self.spent: Spent | None = Spent(host, device)

        def read(self) -> Spent | None:
            return self.spent

    there, back = Known(1.0, 5.0), Known(4.0, 2.0)
    both = GradientTimer(there, back, lambda timing: None)
    assert both.read() == (5.0, 7.0)
    trials = Trials(lambda: 0.0)
    for _ in range(2):
        trials.note("kind", "native", both)
    race = trials._races.find("kind")
    assert race is not None
    assert race.list_seconds() == {"native": 7.0}
    for way in (there, back):
        spent, way.spent = way.spent, None
        assert both.read() is None
        way.spent = spent
