"""Counts of what was computed where, and of the reasons why not elsewhere."""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType, MappingProxyType
from typing import NamedTuple

from ..native.functions import is_inner_frame
from ..store.fork import after_fork
from ..terminal import show_seconds
from .recording import Answer, Counted, Process, Record, name_process
from .snapshot import Estimate, Stats

#: INFO: who computes calls of a kind and why, once for each of its sites. DEBUG: each decision.
logger = logging.getLogger(__name__.partition(".")[0])
logger.addHandler(logging.NullHandler())

#: Call sites and routes counted one by one; further ones are counted together.
MAX_COUNTS = 2000
OTHER_SITES = "(other call sites)"
OTHER_REASONS = "(other reasons)"
#: In the place of a backend, for calls that strict mode refused.
REFUSED = "refused"

Site = tuple[int, int]
Bump = Callable[[], int]
#: By call site, what counts one more call there.
Sites = dict[Site, Bump]

#: torch's own modules that pass a call on: not the program's line.
TRANSPARENT = frozenset(
    {
        *("torch._tensor", "torch.functional", "torch.overrides", "torch.utils._device"),
        *("torch.autograd", "torch.autograd.graph"),
    }
)


def find_site(frame: FrameType) -> Site:
    """Find the key of the call site where ``frame`` stands, without its code's hash or line number.

    Both of these would read all of the code.
    """
    return id(frame.f_code), frame.f_lasti


class _Count:
    """Calls of one call site by one route.

    ``bump`` counts one: a step of ``itertools.count``, which no other thread can divide, so that
    counting needs no lock.
    """

    __slots__ = ("_counter", "answer", "bump", "code", "instruction")

    def __init__(self, answer: Answer, code: CodeType | None, instruction: int) -> None:
        self.answer = answer
        #: Kept, so that the site's id stays its own.
        self.code, self.instruction = code, instruction
        self._counter = itertools.count()
        self.bump: Bump = self._counter.__next__

    @property
    def calls(self) -> int:
        """Calls so far; the counter tells its next value by its repr alone."""
        return int(repr(self._counter)[len("count(") : -1])

    def site(self) -> str:
        """``file:line``, looked up only when somebody asks."""
        if self.code is None:
            return OTHER_SITES
        for begin, end, line in self.code.co_lines():
            if begin <= self.instruction < end and line is not None:
                return f"{self.code.co_filename}:{line}"
        return f"{self.code.co_filename}:{self.code.co_firstlineno}"


class _Verified:
    """How many calls were compared, and how many of them were wrong."""

    __slots__ = ("calls", "wrong")

    def __init__(self) -> None:
        self.calls = self.wrong = 0


class Mark(NamedTuple):
    """The counts at one moment."""

    calls: Mapping[_Count, int]
    verified: _Verified
    verified_calls: int
    wrong: int


class Counters:
    """Thread-safe counters; a call costs well under a microsecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: list[_Count] = []
        self._sites_by_answer: dict[Answer, Sites] = {}
        self._verified = _Verified()
        #: Where other processes read these counts, and those of forked children.
        self._folder: Path | None = None
        self._folder_of_children: Path | None = None
        self._record: Record | None = None
        after_fork(self.after_fork_in_child)

    def record(self, folder: Path, children_only: bool = False) -> None:
        """Let other processes read the counts, by :func:`.recording.read`, from now on.

        Args:
            folder: where they are.
            children_only: not this process's, but those of processes that are forked from it.
        """
        with self._lock:
            self._folder = None if children_only else folder
            self._folder_of_children = folder
            self._clear()

    def sites(self, answer: Answer) -> Sites:
        """Return the counters of call sites that were counted before, by :func:`find_site`.

        It is the same dictionary for good, so whoever calls often may keep it.
        """
        with self._lock:
            return self._find_sites(answer)

    def _find_sites(self, answer: Answer) -> Sites:
        # Times differ from kind to kind, of which a program may have any number.
        if answer not in self._sites_by_answer and len(self._sites_by_answer) >= MAX_COUNTS:
            answer = answer._replace(took=None)
        return self._sites_by_answer.setdefault(answer, {})

    def count(self, answer: Answer, caller: FrameType, why: tuple[str, ...] = ()) -> None:
        """Count one answered call, and log the first of its kind at its site.

        Args:
            caller: the frame that made the call.
            why: reasons for the log, besides the answer's.
        """
        sites = self._sites_by_answer.get(answer)
        bump = None if sites is None else sites.get(find_site(caller))
        if bump is None:
            with self._lock:
                bump, new = self._first(answer, caller)
            if new is not None and logger.isEnabledFor(logging.INFO):
                logger.info("%s", _describe(new.answer, new.site(), why))
        bump()

    def _first(self, answer: Answer, caller: FrameType) -> tuple[Bump, _Count | None]:
        """Return what counts an answer at ``caller``, or past torch's methods behind it.

        The second value is the count itself if it is new.
        """
        frame: FrameType | None = caller
        while frame is not None and _is_transparent(frame):
            frame = frame.f_back
        if len(self._counts) >= MAX_COUNTS:
            reasons = answer.reasons and (OTHER_REASONS,)
            frame, answer = None, answer._replace(reasons=reasons, took=None)
        site = (0, 0) if frame is None else find_site(frame)
        sites = self._find_sites(answer)
        bump, counted = sites.get(site), None
        if bump is None:
            counted = _Count(answer, None if frame is None else frame.f_code, site[1])
            self._counts.append(counted)
            if (record := self._get_record()) is not None:
                counted.bump = record.add(answer, counted.site(), counted.bump)
            bump = sites[site] = counted.bump
        return bump, counted

    def count_verified(self, agrees: bool) -> None:
        """Count one call that was computed twice and compared."""
        with self._lock:
            self._verified.calls += 1
            self._verified.wrong += not agrees
            if (record := self._get_record()) is not None:
                record.set_verified(self._verified.calls, self._verified.wrong)

    def mark(self) -> Mark:
        """Note how far the counts are, to tell later what was counted since."""
        with self._lock:
            calls = {count: count.calls for count in self._counts}
            return Mark(calls, self._verified, self._verified.calls, self._verified.wrong)

    def get_counted(self, since: Mark | None = None) -> Process:
        """What this process has counted so far, or since a mark.

        Resetting the counters makes them anew: then all that they have comes after the mark.
        """
        with self._lock:
            counts, verified = [*self._counts], self._verified
            compared, wrong = verified.calls, verified.wrong
        before = {} if since is None else since.calls
        if since is not None and since.verified is verified:
            compared, wrong = compared - since.verified_calls, wrong - since.wrong
        counted = tuple(
            Counted(count.answer, count.site(), count.calls - before.get(count, 0))
            for count in counts
        )
        return Process(name_process(), os.getpid(), counted, compared, wrong)

    def snapshot(self, since: Mark | None = None) -> Stats:
        """The counters as they are now, or what they have counted since a mark."""
        return add_up([self.get_counted(since)])

    def reset(self) -> None:
        """Set every counter to zero."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        for sites in self._sites_by_answer.values():
            sites.clear()
        self._counts.clear()
        self._verified = _Verified()
        if self._record is not None:
            self._record.remove()
            self._record = None

    def _get_record(self) -> Record | None:
        """Return what other processes read, made with the first count; None if none does."""
        if self._record is None and self._folder is not None:
            try:
                self._record = Record(self._folder)
            except OSError:  # nobody reads any more, or the disk is full
                self._folder = None
        return self._record

    def after_fork_in_child(self) -> None:
        """Begin at zero in a forked child, with a new lock and a record of its own."""
        self._lock = threading.Lock()
        self._folder, self._record = self._folder_of_children, None
        self._clear()


def add_up(processes: Sequence[Process]) -> Stats:
    """Add up what processes have counted."""
    calls: Counter[tuple[str, str]] = Counter()
    fallbacks: Counter[str] = Counter()
    choices: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    estimated: dict[tuple[str, str], Estimate] = {}
    sites: dict[str, dict[str, int]] = {}
    for answer, place, number in (each for process in processes for each in process.counted):
        if not number:
            continue  # another thread is about to count the first
        calls[answer.op, answer.backend] += number
        if (took := answer.took) is not None:
            known = estimated.get((answer.op, answer.backend), Estimate(0, 0.0, 0.0))
            estimated[answer.op, answer.backend] = Estimate(
                known.calls + number,
                known.seconds + number * took.here,
                known.saved + number * (took.native - took.here),
            )
        for reason in answer.reasons:
            (choices if answer.by_choice else fallbacks)[reason] += number
        site = sites.setdefault(place, {"accelerated": 0, "native": 0})
        kind = answer.backend if answer.backend in ("native", REFUSED) else "accelerated"
        site[kind] = site.get(kind, 0) + number
        kinds[kind] += number
    return Stats(
        accelerated=kinds["accelerated"],
        native=kinds["native"],
        refused=kinds[REFUSED],
        calls=MappingProxyType(dict(calls)),
        fallbacks=MappingProxyType(dict(fallbacks)),
        choices=MappingProxyType(dict(choices)),
        sites=MappingProxyType(sites),
        verified=sum(process.verified for process in processes),
        mismatches=sum(process.mismatches for process in processes),
        estimated=MappingProxyType(estimated),
    )


def _describe(answer: Answer, site: str, why: tuple[str, ...]) -> str:
    """Say in a line who computes calls of a kind, and why."""
    parts = [*dict.fromkeys((*answer.reasons, *why))]
    if answer.took is not None:
        here, native = map(show_seconds, (answer.took.here, answer.took.native))
        parts.append(f"{native} a call" if here == native else f"{here} a call, native {native}")
    reasons = f": {'; '.join(parts)}" if parts else ""
    return f"torch.{answer.op} at {site}: {answer.backend}{reasons}"


def _is_transparent(frame: FrameType) -> bool:
    """Whether a call only passes here: through this package, or torch's methods."""
    return is_inner_frame(frame) or frame.f_globals.get("__name__") in TRANSPARENT


def levels_to_caller() -> int:
    """Count levels from our caller to the first frame outside this package and torch's methods."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and _is_transparent(frame):
        frame, level = frame.f_back, level + 1
    return level
