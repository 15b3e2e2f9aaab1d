"""How long a call took, and whether it is a measurement: what prepares something is none.

A program waits for the host, which goes through the call and launches what computes it, and for the
device, which computes. Where both work at the same time a loop of calls takes the longer of them:
beside the device's work the host's is hidden, or the other way round. So both are timed
(:class:`Spent`), and the longer one counts. There and back the host's times are added up, and the
device's, before the longer one is taken: the host goes on to the way back while the device is still
at the way there.

- The host's time is that of the call alone, from its beginning to its return. What is done because
  a call is timed (deciding, aliases, hooks, events) lies outside of it, for native as for ours.
- The device's time is that between two events, one before and one after the call. Where the device
  is behind the host, that is what it works, and shows nothing of the host's time. Where it waits
  for the host, its waiting counts, too: then it is what passes until the result is there, at most
  the host's time and the device's one after the other. A program that reads each result waits for
  that. Any other waits for the host alone, whose time is as long but where one launch takes the
  device about what the call takes the host.
- A timer that itself waits for the device at both ends (CPU, where nothing is left to wait for, and
  MPS) sees one time, the host's and the device's one after the other. MPS cannot do otherwise:
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
    """What tells how long something took."""

    @property
    def prepared(self) -> bool:
        """Whether something was kept meanwhile that later calls find: then it is no measurement."""

    def read(self) -> Spent | None:
        """How long it took; None while the device has not finished."""


class Timer(Timing, Protocol):
    """Times what comes between its beginning and its end."""

    def begin(self) -> None: ...

    def end(self) -> None: ...


class HostTimer:
    """A clock of the host's, and a look at whether something is prepared meanwhile.

    Args:
        clock: returns seconds.
        finish: waits, at both ends, for what was launched.
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

    def seconds(self) -> float:
        """What the clock has shown."""
        return self._took

    def read(self) -> Spent | None:
        return Spent(self._took, self._took)
