"""A device that computes while its host goes on, both with clocks that only their work advances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from torch_mlx_spectro.backends.cpu.backend import TorchBlocks
from torch_mlx_spectro.backends.cuda.timer import CudaTimer
from torch_mlx_spectro.calls.timer import Timer

#: Seconds that the host takes to record an event.
RECORDING = 2e-6


class Work(NamedTuple):
    """What a call does.

    Attributes:
        launches: of each the seconds that the host takes to make it, and the device to run it.
        after: seconds that the host goes on after the last one.
    """

    launches: Sequence[tuple[float, float]]
    after: float = 0.0


def work(launches: int, host: float, device: float, after: float = 0.0) -> Work:
    """Work of launches that are all alike, of microseconds in all."""
    each = (1e-6 * (host - after) / launches, 1e-6 * device / launches)
    return Work([each] * launches, 1e-6 * after)


class Simulation:
    """A host and its device.

    Attributes:
        now: what the host's clock shows.
        free: when the device will have run all that was launched.
    """

    def __init__(self) -> None:
        self.now = self.free = 0.0

    def clock(self) -> float:
        return self.now

    def launch(self, host: float, device: float) -> None:
        self.now += host
        self.free = max(self.free, self.now) + device

    def do(self, work: Work) -> None:
        for host, device in work.launches:
            self.launch(host, device)
        self.now += work.after

    def wait(self) -> None:
        """The host waits for the device."""
        self.now = max(self.now, self.free)

    def make_event(self, enable_timing: bool = False) -> Event:
        assert enable_timing
        return Event(self)


class Event:
    """As ``torch.cuda.Event``."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.passed = float("nan")

    def record(self) -> None:
        self._simulation.launch(RECORDING, 0.0)
        self.passed = self._simulation.free

    def query(self) -> bool:
        return self._simulation.now >= self.passed

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds; it may be asked for once both have passed."""
        assert self.query()
        assert end.query()
        return 1e3 * (end.passed - self.passed)


class Ways(NamedTuple):
    """The work of a call, and of its way back."""

    there: Work
    back: Work = Work(())


class SimulatedBackend(TorchBlocks):
    """Computes on the host, and takes the time of a simulated device's work.

    ``torch.cuda.Event`` has to be the simulation's.
    """

    def __init__(self, simulation: Simulation, ways: Ways) -> None:
        super().__init__()
        self._simulation, self._ways = simulation, ways

    def explain_absence(self, device_type: str | None = None) -> str | None:
        return None

    def analyse(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._simulation.do(self._ways.there)
        return super().analyse(*args, **kwargs)

    def adjoint(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._simulation.do(self._ways.back)
        return super().adjoint(*args, **kwargs)

    def make_timer(self, clock: Any = None) -> Timer:
        return CudaTimer(clock)


class SimulatedNative:
    """Torch's function, as one that takes the time of a simulated device's work."""

    def __init__(self, simulation: Simulation, ways: Ways, function: Any) -> None:
        self._simulation, self._ways, self._function = simulation, ways, function

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._simulation.do(self._ways.there)
        result: torch.Tensor = self._function(*args, **kwargs)
        if result.requires_grad:
            result.register_hook(self._spend)
            result = result.view_as(result)  # so that this hook comes after those on the result
        return result

    def _spend(self, cotangent: torch.Tensor) -> None:
        self._simulation.do(self._ways.back)
