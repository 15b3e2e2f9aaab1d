"""How long a call took, and whether it is a measurement: what prepares something is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from ..store.caches import preparations


class Timing(Protocol):
    """What tells how long something took."""

    @property
    def prepared(self) -> bool:
        """Whether something was kept meanwhile that later calls find: then it is no measurement."""

    def seconds(self) -> float | None:
        """How long it took; None while the device has not finished."""


class Timer(Timing, Protocol):
    """Times what comes between its beginning and its end."""

    def begin(self) -> None: ...

    def end(self) -> None: ...


class Watch:
    """Sees whether something is prepared between its beginning and its end."""

    def __init__(self) -> None:
        self.prepared = False
        self._before = 0

    def begin(self) -> None:
        self._before = preparations()

    def end(self) -> None:
        self.prepared = preparations() != self._before


class HostTimer(Watch):
    """A clock of the host's, around work that is finished at both ends."""

    def __init__(self, clock: Callable[[], float], finish: Callable[[], None]) -> None:
        super().__init__()
        self._clock, self._finish = clock, finish
        self._begin = self._took = math.nan

    def begin(self) -> None:
        super().begin()
        self._finish()
        self._begin = self._clock()

    def end(self) -> None:
        self._finish()
        self._took = self._clock() - self._begin
        super().end()

    def seconds(self) -> float:
        return self._took
