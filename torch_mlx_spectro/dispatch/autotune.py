"""Backends are timed against each other, call by call; the outcome is kept between processes.

Every call is computed once, by the backend whose turn it is: native first, so that a program of few
calls never pays for loading and warming up another, then each candidate, TRIALS calls each. From
then on calls of that kind go to the fastest; to native, unless another is faster by more than
noise. Nothing is measured again in this process, nor in later ones that find the times in the
store.

The time of a call is what a program in a loop waits for: the longer of the host's time and the
device's (:mod:`.calls.timer`).

A call that compiles, allocates or prepares is no measurement. So the first call of a backend does
not count, nor does a call that kept something new for later ones
(:func:`.store.caches.preparations`). Some preparations are not reported (a plan of cuFFT's, a block
of memory, a pipeline that Metal makes late). They show in the times, so the best two have to agree.

The host is slow at code that is new to it. On a machine with nothing to compute, calls of 50 to
180 µs took up to six times as long the second time, native's as well as ours. The quotient of the
two was wrong by up to 2.2 after three calls each, by 1.5 after eight, and by 1.1 after sixteen. So
unless a candidate is far ahead, each is timed up to MAX_TRIALS times while that is cheap. The calls
of each come in a row: where the two took turns, ours came out 1.3 times too slow, since the
processor's caches forget more of an interpreter's work than of compiled code's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeGuard

from ..calls.timer import HostTimer, Spent, Timer, Timing
from ..store.caches import Recent
from ..store.fork import after_fork
from ..store.verdicts import MAX_NUMBER, Store

#: Timed calls of each backend: one that warms up, and COUNTED that have to agree.
COUNTED = 2
TRIALS = 1 + COUNTED
#: Two times agree if the longer one is at most this multiple of the other.
AGREEING = 2.0
#: Timed calls of a backend whose times do not agree, or while no candidate is far ahead.
MAX_TRIALS = 16
#: The most calls that do not count because something was prepared. A program may have something
#: prepared in each call, such as a new window: then that is part of what its calls take.
MAX_WARM_UPS = 4
#: Seconds of timed calls from which one call is enough, since noise is small beside long calls.
#: COUNTED are needed even then to find a candidate hopeless.
LONG = 0.5
#: Seconds that all counted calls of a backend may take; after that, two that agree are enough.
CHEAP = 0.1
#: The share of native's time that another may take at most to be preferred; and of the time of a
#: candidate before it. Native's calls from STEADY seconds on vary less.
ADVANTAGE = 0.9
STEADY, STEADY_ADVANTAGE = 1e-3, 0.95
#: A backend looks hopeless if it takes more than this multiple of another's time.
HOPELESS = 2.0
MAX_KINDS = 256
#: Differentiated calls in a row that are timed only because their gradients may be asked for.
MAX_ASKED = 8
#: Section of the store, and seconds after which times are measured again: what was measured in a
#: busy minute should not hold for ever.
ROUTES = "routes"
MAX_AGE = 7 * 24 * 3600
#: The rule by which times were taken; those of another rule are measured again. Under the first one
#: a call that still warmed up could count. Under the second one the host's time was not seen.
RULE = 3


class _Times:
    """The times of one backend in a race.

    Attributes:
        calls: how many were timed.
        warm_ups: how many of them do not count.
        counted: seconds of those that count, as far as the device has finished them.
    """

    __slots__ = ("calls", "counted", "warm_ups")

    def __init__(self) -> None:
        self.calls = self.warm_ups = 0
        self.counted: list[float] = []

    def begin(self, prepared: bool) -> bool:
        """Note one more call, and return whether its time counts."""
        counts = self.calls > 0 and not (prepared and self.warm_ups < MAX_WARM_UPS)
        self.calls += 1
        self.warm_ups += not counts
        return counts

    def agree(self) -> bool:
        """Whether the best two are about the same, so that neither is an accident."""
        best, second = sorted(self.counted)[:COUNTED]
        return second <= AGREEING * best


class Race:
    """The times of one kind.

    Args:
        earlier: the best times of backends, as an earlier process has stored them.
    """

    __slots__ = ("_earlier", "_times", "asked", "kept")

    def __init__(self, earlier: dict[str, float]) -> None:
        self._earlier = earlier
        self._times: dict[str, _Times] = {}
        #: The times as the store has them.
        self.kept = earlier
        #: Calls that were chosen to be timed since the last time was noted; see MAX_ASKED.
        self.asked = 0

    def begin(self, name: str, prepared: bool) -> bool:
        """Note that a call of a backend was timed, and return whether its time counts.

        Args:
            prepared: see :class:`Timing`.
        """
        return self._times.setdefault(name, _Times()).begin(prepared)

    def note(self, name: str, took: float) -> None:
        """Note the seconds of a call that counts."""
        self._times.setdefault(name, _Times()).counted.append(took)

    def find_best(self, name: str) -> float | None:
        """Return a backend's best time so far; None if it has none."""
        times, earlier = self._times.get(name), self._earlier.get(name)
        counted = [] if times is None else times.counted
        return min([*counted, *([earlier] if earlier else [])], default=None)

    def has_enough(self, name: str, waiting: int) -> bool:
        """Whether a backend need not be timed again.

        Args:
            waiting: how many of its times the device has yet to tell.
        """
        if name in self._earlier:
            return True
        times = self._times.get(name)
        if times is None:
            return False
        counted, total = len(times.counted), sum(times.counted)
        is_hopeless = self._is_hopeless(name)
        if times.calls >= MAX_TRIALS or (total >= LONG and (counted >= COUNTED or not is_hopeless)):
            return True
        is_open = counted > 0 and (is_hopeless or not self._is_clear())
        # Go on in a row, even if the device has not told the last times yet.
        if counted + waiting < COUNTED or (
            is_open and total + waiting * min(times.counted) < CHEAP
        ):
            return False
        # While times are still to come, nobody knows whether more calls are needed.
        return bool(waiting) or times.agree()

    def _is_hopeless(self, name: str) -> bool:
        native, ours = self.find_best("native"), self.find_best(name)
        return bool(name != "native" and native and ours and ours > HOPELESS * native)

    def _is_clear(self) -> bool:
        """Whether one candidate makes all others look hopeless, or only one backend was timed."""
        seconds = self.list_seconds()
        fastest, *others = sorted(seconds.values())
        return not others or (
            HOPELESS * fastest <= min(others) and fastest != seconds.get("native")
        )

    def find_winner(self, candidates: tuple[str, ...]) -> str:
        """Return the fastest of native and the candidates that have times."""
        chosen, fastest = "native", self.find_best("native")
        share = STEADY_ADVANTAGE if fastest and fastest >= STEADY else ADVANTAGE
        for name in candidates:
            ours = self.find_best(name)
            if ours is not None and (fastest is None or ours < share * fastest):
                chosen, fastest, share = name, ours, ADVANTAGE
        return chosen

    def list_seconds(self) -> dict[str, float]:
        """Return the best time of each backend that has one."""
        best = {name: self.find_best(name) for name in sorted({*self._times, *self._earlier})}
        return {name: took for name, took in best.items() if took is not None}


class _Progress(NamedTuple):
    """How a race stands.

    Attributes:
        lacking: the backend to be timed next; None if all have enough times.
        is_waited_for: whether the device has yet to tell some times.
        ahead: the fastest backend so far.
    """

    race: Race
    lacking: str | None
    is_waited_for: bool
    ahead: str


def read_stored_seconds(outcome: Any, now: float) -> dict[str, float]:
    """Read the times out of a stored outcome; none if it is too old, or not an outcome at all."""
    if not isinstance(outcome, dict):
        return {}
    seconds, measured = outcome.get("seconds"), outcome.get("measured")
    if not (isinstance(seconds, dict) and "native" in seconds and _is_time(measured)):
        return {}
    if outcome.get("rule") != RULE:
        return {}
    if not (0 <= now - measured <= MAX_AGE and all(map(_is_time, seconds.values()))):
        return {}
    return {name: float(took) for name, took in seconds.items()}


def _is_time(value: Any) -> TypeGuard[float]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 < value <= MAX_NUMBER


class Trials:
    """All races of a process.

    Calls on a device may be timed by the device. Then their times come later, and nobody waits.

    Args:
        clock: returns seconds; a test passes its own.
        store: returns the store of outcomes; by default one that keeps nothing.
        now: returns the time of day; a test passes its own.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        store: Callable[[], Store] = lambda: Store(None),
        now: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self._store = store
        self._now = now
        self._lock = threading.Lock()
        self._races: Recent[Hashable, Race] = Recent(MAX_KINDS)
        #: Calls whose device has yet to say how long they took.
        self._running: list[tuple[Hashable, str, Timing, bool]] = []
        after_fork(self.after_fork_in_child)

    def pick(self, kind: Hashable, candidates: tuple[str, ...]) -> tuple[str, bool]:
        """Pick the backend for a call of this kind, and say whether the call is to be timed.

        Args:
            candidates: beside native; where they tie, the earlier one is preferred.
        """
        progress = self._read_progress(kind, candidates)
        if progress.lacking is not None:
            return progress.lacking, True
        if progress.is_waited_for:
            return (
                progress.ahead if progress.race.find_best(candidates[0]) else candidates[0]
            ), False
        return self._keep_winner(kind, progress.race, candidates), False

    def pick_both_ways(
        self, kind: Hashable, both: Hashable, candidates: tuple[str, ...]
    ) -> tuple[str, bool]:
        """Pick as :meth:`pick` does, for a differentiated call: the fastest with its gradient.

        If autograd never asks for gradients, the fastest without.

        Args:
            both: the kind of times that include the gradient (:class:`GradientTimer`).
        """
        fastest, timed = self.pick(kind, candidates)
        if timed or self.is_running(kind):
            return fastest, timed
        progress = self._read_progress(both, candidates)
        if progress.lacking is not None:
            with self._lock:
                progress.race.asked += 1
                is_timed = progress.race.asked <= MAX_ASKED
            return (progress.lacking, True) if is_timed else (fastest, False)
        if progress.is_waited_for:
            return fastest, False
        return self._keep_winner(both, progress.race, candidates), False

    def list_seconds(self, kind: Hashable) -> dict[str, float]:
        """Return the best time that each backend has for calls of a kind."""
        with self._lock:
            race = self._races.find(kind)
            return {} if race is None else race.list_seconds()

    def _read_progress(self, kind: Hashable, candidates: tuple[str, ...]) -> _Progress:
        """Collect the times that have come by now, and say how a race stands."""
        earlier = {} if kind in self._races else self._recall_times(kind)
        with self._lock:
            self._collect()
            race = self._find_race(kind, earlier)
            running = [entry for entry in self._running if entry[0] == kind]
            waiting = [name for _, name, _, counts in running if counts]
            lacking = (
                name
                for name in ("native", *candidates)
                if not race.has_enough(name, waiting.count(name))
            )
            return _Progress(race, next(lacking, None), bool(running), race.find_winner(candidates))

    def _keep_winner(self, kind: Hashable, race: Race, candidates: tuple[str, ...]) -> str:
        """Return the winner of a race, and store its times if they are new."""
        with self._lock:
            winner, seconds = race.find_winner(candidates), race.list_seconds()
            is_new, race.kept = race.kept != seconds, seconds
        if is_new:
            measured = int(self._now())
            outcome = {"winner": winner, "seconds": seconds, "measured": measured, "rule": RULE}
            self._store().put(ROUTES, str(kind), outcome)
        return winner

    def time(
        self,
        kind: Hashable,
        backend_name: str,
        call: Callable[[], Any],
        timer: Timer | None = None,
    ) -> Any:
        """Run a call and time it, by default on the host; a call that raises is not noted."""
        timer = timer or HostTimer(self.clock, lambda: None)
        timer.begin()
        result = call()
        timer.end()
        self.note(kind, backend_name, timer)
        return result

    def note(self, kind: Hashable, backend_name: str, timing: Timing) -> None:
        """Note the time of a call, now or when the device has finished it."""
        with self._lock:
            took, race = timing.read(), self._find_race(kind, {})
            counts, race.asked = race.begin(backend_name, timing.prepared), 0
            if took is None:
                self._running.append((kind, backend_name, timing, counts))
                del self._running[:-MAX_KINDS]
            else:
                self._note(kind, backend_name, took, counts)

    def is_running(self, kind: Hashable) -> bool:
        """Whether a time of this kind is still to come."""
        with self._lock:
            self._collect()
            return any(running == kind for running, *_ in self._running)

    def _recall_times(self, kind: Hashable) -> dict[str, float]:
        return read_stored_seconds(self._store().get(ROUTES, str(kind)), self._now())

    def _collect(self) -> None:
        """Note the times that have come by now."""
        unknown = []
        for kind, name, timer, counts in self._running:
            took = timer.read()
            if took is None:
                unknown.append((kind, name, timer, counts))
            else:
                self._note(kind, name, took, counts)
        self._running = unknown

    def _find_race(self, kind: Hashable, earlier: dict[str, float]) -> Race:
        return self._races.find(kind) or self._races.put(kind, Race(earlier))

    def _note(self, kind: Hashable, backend_name: str, took: Spent, counts: bool) -> None:
        if counts:
            # Never zero, which a coarse clock may show: a share of zero could decide nothing.
            self._find_race(kind, {}).note(backend_name, max(*took, 1e-9))

    def clear(self) -> None:
        with self._lock:
            self._races.clear()
            self._running.clear()

    def after_fork_in_child(self) -> None:
        """Make a lock that nobody holds, in a forked child."""
        self._lock = threading.Lock()
