"""Which shape of a kernel's groups is the fastest on this GPU: timed once, remembered, persisted.

Only shapes whose results are equal bit by bit compete, and they are compared when they are timed:
what a program computes does not depend on how a trial went. A trial is short (bounded in seconds
and in shapes) and never needed: a kernel that is not tuned runs by its first plan.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

from ..settings import ANY_KERNEL, AutotuneSettings, autotune_settings
from ..store.verdicts import store
from .launches import Launch

#: Of the store.
SECTION = "threads"
VARIABLE = "SPEC_MLX_TGX"
#: Seconds after which no further shape is tried: of a kernel, and of all kernels of a process. A
#: kernel that takes longer to compile is not tuned: each shape would take as long.
KERNEL_SECONDS = 1.0
PROCESS_SECONDS = 10.0
#: Launches that are timed at once, and how often; the best of them counts.
LAUNCHES = 16
ROUNDS = 3
#: Memory that the results of launches timed at once may take.
RESULT_BYTES = 128 << 20
#: How much faster than the first plan another shape must be.
ADVANTAGE = 1.05

#: Threads and frames of a group.
Shape = list[int]


class Refused(Exception):
    """The GPU does not run groups of so many threads."""


class Verdicts(Protocol):
    """What is asked of the store."""

    def get(self, section: str, key: str) -> Any: ...

    def put(self, section: str, key: str, value: Any) -> None: ...


def shape_of(launch: Launch) -> Shape:
    """Threads and frames of a launch's groups: what tells shapes of a kernel from another."""
    return [launch.threadgroup[0], 1 if launch.plan is None else launch.plan.frames]


class Tuning:
    """Trials of the kernels of one device.

    Args:
        device: returns the name of the GPU, a part of what a verdict is kept under.
        verdicts: returns where they are kept.
        clock: returns seconds.
        settings: what the environment says; read here where not given.
    """

    def __init__(
        self,
        device: Callable[[], str],
        *,
        verdicts: Callable[[], Verdicts] = store,
        clock: Callable[[], float] = time.perf_counter,
        settings: AutotuneSettings | None = None,
    ) -> None:
        self._device = device
        self._verdicts = verdicts
        self.clock = clock
        self._measures = (settings or autotune_settings()).measure
        self._left = PROCESS_SECONDS
        self._busy = threading.Lock()

    def key(self, launch: Launch) -> str:
        """What a verdict is kept under: GPU, kernel, and what that is compiled for."""
        numbers = ",".join(f"{name}={int(value)}" for name, value in launch.template)
        return f"{self._device()} {launch.kernel} {numbers}"

    def known(self, key: str, launches: Sequence[Launch]) -> int | None:
        """Index of the launch that an earlier trial, of any process, found best."""
        if not self._measures:
            return None
        wanted = self._verdicts().get(SECTION, key)
        shapes = [shape_of(launch) for launch in launches]
        return shapes.index(wanted) if wanted in shapes else None

    def best(
        self,
        key: str,
        launches: Sequence[Launch],
        seconds: float,
        run: Callable[[Launch, int], list[Any]],
        equal: Callable[[Any, Any], bool],
    ) -> int | None:
        """Index of the fastest launch, after a trial; None where none can be held.

        Two threads do not try at once: the clock would count one's launches as the other's.

        Args:
            launches: the first has run, in so many ``seconds``, compilation included.
            run: launches so many times and waits for the results; raises Refused.
            equal: whether two results are the same bits.
        """
        is_worth_it = self._measures and len(launches) > 1 and seconds <= KERNEL_SECONDS
        if not (is_worth_it and self._left > 0 and self._busy.acquire(blocking=False)):
            return None
        begin = self.clock()
        try:
            index = self._fastest(launches, begin + min(KERNEL_SECONDS, self._left), run, equal)
        finally:
            self._left -= self.clock() - begin
            self._busy.release()
        self._verdicts().put(SECTION, key, shape_of(launches[index]))
        return index

    def _fastest(
        self,
        launches: Sequence[Launch],
        deadline: float,
        run: Callable[[Launch, int], list[Any]],
        equal: Callable[[Any, Any], bool],
    ) -> int:
        (reference,) = run(launches[0], 1)
        count = max(1, min(LAUNCHES, RESULT_BYTES // max(1, reference.nbytes)))
        best, least = 0, self._seconds(launches[0], count, run) / ADVANTAGE
        for index, launch in enumerate(launches[1:], start=1):
            if self.clock() >= deadline:
                break
            try:
                (result,) = run(launch, 1)
            except Refused:
                continue
            if not equal(reference, result):
                continue
            seconds = self._seconds(launch, count, run)
            if seconds < least:
                best, least = index, seconds
        return best

    def _seconds(
        self, launch: Launch, count: int, run: Callable[[Launch, int], list[Any]]
    ) -> float:
        """Of one round of launches."""
        rounds = []
        for _ in range(ROUNDS):
            begin = self.clock()
            run(launch, count)
            rounds.append(self.clock() - begin)
        return min(rounds)


class Demands:
    """A launcher that heeds what the environment demands."""

    @cached_property
    def _threads(self) -> Mapping[str, int]:
        """Threads of groups, as the environment was at the first launch."""
        return autotune_settings().threads

    def _group(self, kernel: str) -> int | None:
        """Threads of a kernel's group, where the environment says how many."""
        return self._threads.get(kernel, self._threads.get(ANY_KERNEL))


def demanded(described: Callable[..., tuple[Launch, ...]], *arguments: Any) -> tuple[Launch, ...]:
    """Launches by :mod:`.kernels.describe`, which refuses what the environment demands."""
    try:
        return described(*arguments)
    except ValueError as error:
        raise ValueError(f"{VARIABLE} cannot be satisfied: {error}") from None
