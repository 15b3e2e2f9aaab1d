"""Backends timed against each other, call by call, and the outcome kept from process to process.

Every call is computed once, by the backend whose turn it is: native first, so that a program of few
calls never pays for loading and warming up another, then each candidate, TRIALS calls each. Then
calls of that kind are the fastest one's; native's, unless another is faster by more than noise.
Nothing is measured again in this process, nor in later ones that find the times in the store.

A call takes what a program in a loop waits for: the longer of the host's time and the device's
(:mod:`.calls.timer`).

A call that compiles, allocates or prepares is no measurement. The first call of a backend does not
count, nor does one during which something new was kept for later calls
(:func:`.store.caches.preparations`). What nobody tells (a plan of cuFFT's, a block of memory, a
pipeline that Metal makes late) shows in the times: the best two have to agree.

The host runs slowly what is new to it. What takes it 50 to 180 µs in the long run took, on a
machine with nothing to compute, up to six times as long in its second call, native's as ours, and
the quotient of the two was wrong by up to 2.2 after three calls each, by 1.5 after eight and by 1.1
after sixteen. So unless a candidate is far ahead each is timed up to MAX_TRIALS times while that is
cheap, and in a row: where two took turns ours came out 1.3 times too slow, since the processor's
caches forget more of an interpreter's work than of compiled code's.
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

#: Timed calls of each backend: one that warms up, and those that have to agree.
COUNTED = 2
TRIALS = 1 + COUNTED
#: Two times agree if the longer one is at most this multiple of the other.
AGREEING = 2.0
#: Timed calls of a backend whose times do not agree, or while no candidate is far ahead.
MAX_TRIALS = 16
#: Of these, calls that do not count because something was prepared. A program may do what has to be
#: prepared in each call, such as making a window: then that is what a call takes.
MAX_WARM_UPS = 4
#: Seconds of a call's time from which one is enough, but to drop a candidate: noise is small beside
#: long calls.
LONG = 0.5
#: Seconds of times that count, after which two that agree are enough.
CHEAP = 0.1
#: Another has to need at most this share of native's time, or of that of a candidate before it.
ADVANTAGE = 0.9
#: Of another's time, beyond which one looks hopeless.
HOPELESS = 2.0
MAX_KINDS = 256
#: Differentiated calls in a row that are timed, beyond those whose own time is wanted, lest their
#: gradients are asked for.
MAX_ASKED = 8
#: Section of the store, and seconds after which what it has is measured again: what was measured in
#: a busy minute does not hold for ever.
ROUTES = "routes"
MAX_AGE = 7 * 24 * 3600
#: How these times were taken. Those of another rule are measured again: under the first one a call
#: that still warmed up could count, and decide; under the second one the host's time was not seen.
RULE = 3


class _Times:
    """What is known of one backend's timed calls.

    Attributes:
        calls: that were timed.
        warm_ups: of them, those that do not count.
        counted: seconds of those that do, and are known.
    """

    __slots__ = ("calls", "counted", "warm_ups")

    def __init__(self) -> None:
        self.calls = self.warm_ups = 0
        self.counted: list[float] = []

    def begin(self, prepared: bool) -> bool:
        """Note one more call; returns whether its time counts."""
        counts = self.calls > 0 and not (prepared and self.warm_ups < MAX_WARM_UPS)
        self.calls += 1
        self.warm_ups += not counts
        return counts

    def agree(self) -> bool:
        """Whether the best two are much the same, so that neither was an accident."""
        best, second = sorted(self.counted)[:COUNTED]
        return second <= AGREEING * best


class Race:
    """The times of one kind.

    Args:
        known: best times of backends, of an earlier process.
    """

    __slots__ = ("_known", "_times", "asked", "kept")

    def __init__(self, known: dict[str, float]) -> None:
        self._known = known
        self._times: dict[str, _Times] = {}
        #: The times as they are in the store.
        self.kept = known
        #: Calls that were to be timed after all others were, since the last one that was.
        self.asked = 0

    def begin(self, name: str, prepared: bool) -> bool:
        """Note that a call of a backend was timed; returns whether its time counts.

        Args:
            prepared: as of :class:`Timing`.
        """
        return self._times.setdefault(name, _Times()).begin(prepared)

    def note(self, name: str, took: float) -> None:
        """Note how long a call took that counts."""
        self._times.setdefault(name, _Times()).counted.append(took)

    def best(self, name: str) -> float | None:
        """A backend's best time so far; None before one counts."""
        times, known = self._times.get(name), self._known.get(name)
        counted = [] if times is None else times.counted
        return min([*counted, *([known] if known else [])], default=None)

    def has_enough(self, name: str, waiting: int) -> bool:
        """Whether a backend need not be timed again; ``waiting`` of its times are under way."""
        if name in self._known:
            return True
        times = self._times.get(name)
        if times is None:
            return False
        known, total = len(times.counted), sum(times.counted)
        is_hopeless = self._is_hopeless(name)
        if times.calls >= MAX_TRIALS or (total >= LONG and (known >= COUNTED or not is_hopeless)):
            return True
        is_open = known > 0 and (is_hopeless or not self._is_clear())
        # In a row, whether or not the device has told of the last ones by now.
        if known + waiting < COUNTED or (is_open and total + waiting * min(times.counted) < CHEAP):
            return False
        # While some are under way it is enough as far as anybody knows.
        return bool(waiting) or times.agree()

    def _is_hopeless(self, name: str) -> bool:
        native, ours = self.best("native"), self.best(name)
        return bool(name != "native" and native and ours and ours > HOPELESS * native)

    def _is_clear(self) -> bool:
        """Whether all others look hopeless beside a candidate, or nothing but native was timed."""
        known = self.seconds()
        fastest, *others = sorted(known.values())
        return not others or (HOPELESS * fastest <= min(others) and fastest != known.get("native"))

    def winner(self, candidates: tuple[str, ...]) -> str:
        """The fastest of native and those candidates whose times are known."""
        chosen, fastest = "native", self.best("native")
        for name in candidates:
            ours = self.best(name)
            if ours is not None and (fastest is None or ours < ADVANTAGE * fastest):
                chosen, fastest = name, ours
        return chosen

    def seconds(self) -> dict[str, float]:
        """The best time of each backend that has one."""
        best = {name: self.best(name) for name in sorted({*self._times, *self._known})}
        return {name: took for name, took in best.items() if took is not None}


class _Progress(NamedTuple):
    """How a race stands.

    Attributes:
        lacking: who is to be timed next; None if nobody is.
        is_waited_for: some times are under way.
        ahead: who is the fastest so far.
    """

    race: Race
    lacking: str | None
    is_waited_for: bool
    ahead: str


def seconds_of(outcome: Any, now: float) -> dict[str, float]:
    """The times in what a store has kept; none where it is old, or anything else: of a file."""
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
    """Every race of a process.

    A device's call is timed by the device: its time is known later, and nobody waits for it.

    Args:
        clock: returns seconds; a test passes its own.
        store: returns where outcomes are kept; by default nowhere.
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
        """The backend for a call of this kind, and whether the call is to be timed.

        Args:
            candidates: beside native; where they tie, an earlier one is preferred.
        """
        progress = self._read_progress(kind, candidates)
        if progress.lacking is not None:
            return progress.lacking, True
        if progress.is_waited_for:
            return (progress.ahead if progress.race.best(candidates[0]) else candidates[0]), False
        return self._won(kind, progress.race, candidates), False

    def pick_both_ways(
        self, kind: Hashable, both: Hashable, candidates: tuple[str, ...]
    ) -> tuple[str, bool]:
        """As :meth:`pick`, of a differentiated call: the fastest there and back.

        If autograd asks for no gradients, the fastest there.

        Args:
            both: kind of the times of both ways, as :class:`WayBack` notes them.
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
        return self._won(both, progress.race, candidates), False

    def _read_progress(self, kind: Hashable, candidates: tuple[str, ...]) -> _Progress:
        """How a race stands, with the times that are known by now."""
        known = {} if kind in self._races else self._recall_times(kind)
        with self._lock:
            self._collect()
            race = self._race(kind, known)
            running = [entry for entry in self._running if entry[0] == kind]
            waiting = [name for _, name, _, counts in running if counts]
            lacking = (
                name
                for name in ("native", *candidates)
                if not race.has_enough(name, waiting.count(name))
            )
            return _Progress(race, next(lacking, None), bool(running), race.winner(candidates))

    def _won(self, kind: Hashable, race: Race, candidates: tuple[str, ...]) -> str:
        """The winner of a race, whose times are kept."""
        with self._lock:
            winner, seconds = race.winner(candidates), race.seconds()
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
        """Run a call and time it, by default on the host; a call that raises leaves no time."""
        timer = timer or HostTimer(self.clock, lambda: None)
        timer.begin()
        result = call()
        timer.end()
        self.note(kind, backend_name, timer)
        return result

    def note(self, kind: Hashable, backend_name: str, timing: Timing) -> None:
        """Note how long a call took, once that is known."""
        with self._lock:
            took, race = timing.read(), self._race(kind, {})
            counts, race.asked = race.begin(backend_name, timing.prepared), 0
            if took is None:
                self._running.append((kind, backend_name, timing, counts))
                del self._running[:-MAX_KINDS]
            else:
                self._note(kind, backend_name, took, counts)

    def is_running(self, kind: Hashable) -> bool:
        """Whether a time of this kind is not known yet."""
        with self._lock:
            self._collect()
            return any(running == kind for running, *_ in self._running)

    def _recall_times(self, kind: Hashable) -> dict[str, float]:
        return seconds_of(self._store().get(ROUTES, str(kind)), self._now())

    def _collect(self) -> None:
        """Note the times that are known by now."""
        unknown = []
        for kind, name, timer, counts in self._running:
            took = timer.read()
            if took is None:
                unknown.append((kind, name, timer, counts))
            else:
                self._note(kind, name, took, counts)
        self._running = unknown

    def _race(self, kind: Hashable, known: dict[str, float]) -> Race:
        return self._races.find(kind) or self._races.put(kind, Race(known))

    def _note(self, kind: Hashable, backend_name: str, took: Spent, counts: bool) -> None:
        if counts:
            # No time is nothing: a clock may be too coarse, and a share of zero decides nothing.
            self._race(kind, {}).note(backend_name, max(*took, 1e-9))

    def clear(self) -> None:
        with self._lock:
            self._races.clear()
            self._running.clear()

    def after_fork_in_child(self) -> None:
        """A forked child has a lock that nobody holds."""
        self._lock = threading.Lock()
