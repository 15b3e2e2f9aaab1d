"""How long a call took, and whether it counts: a call that prepares something does not.

A program waits for the host, which goes through the call and launches the kernels, and for the
device, which computes. The two work at the same time, so a loop of calls takes the longer of both.
Therefore both are timed (:class:`Spent`), and the longer time counts. With a backward pass the
host's times are added, and so are the device's, before the longer one is taken: the host begins the
backward pass while the device still computes the forward pass.

- The host's time is that of the call alone, from its beginning to its return. What is only done
  because the call is timed (deciding, aliases, hooks, events) is left out, for native as for ours.
- The device's time is that between two events, one before the call and one after it. If the device
  is behind the host, this is its work alone. If it waits for the host, the waiting is included:
  the time is then what passes until the result is there, at most the sum of both times. A program
  that reads each result waits that long. Any other program waits for the host alone; its time is
  about the same, unless one launch takes the device about as long as the call takes the host.
- A timer that itself waits for the device at both ends sees one time, the sum of both. That is so
  on the CPU, where nothing is left to wait for, and on MPS, which offers nothing better:
  ``torch.mps.Event.elapsed_time`` waits for all that was launched, even if the event has passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ..store.caches import preparations


class Spent(NamedTuple):
    """Seconds of the host and of the device; the same where both work one after the other."""

    host: float
    device: float


class Timing(Protocol):
    """The time that something took, known at once or later."""

    @property
    def prepared(self) -> bool:
        """Whether something was kept meanwhile for later calls; then the time does not count."""

    def read(self) -> Spent | None:
        """How long it took; None while the device has not finished."""


class Timer(Timing, Protocol):
    """Times what comes between its beginning and its end."""

    def begin(self) -> None: ...

    def end(self) -> None: ...


class HostTimer:
    """Times by the host's clock, and notes whether something is prepared meanwhile.

    Args:
        clock: returns seconds.
        finish: called at both ends; waits for all that was launched.
    """

    def __init__(self, clock: Callable[[], float], finish: Callable[[], None]) -> None:
        self._clock, self._finish = clock, finish
        self._begin = self._took = math.nan
        self.prepared, self._before = False, 0

    def begin(self) -> None:
        self._before = preparations()
        self._finish()
        self._begin = self._clock()

    def end(self) -> None:
        self._finish()
        self._took = self._clock() - self._begin
        self.prepared = preparations() != self._before

    def read_host(self) -> float:
        """Return the seconds that passed on the host's clock."""
        return self._took

    def read(self) -> Spent | None:
        return Spent(self._took, self._took)
