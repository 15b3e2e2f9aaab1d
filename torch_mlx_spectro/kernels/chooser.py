"""Choose among launches that compute the same: once for a kernel, for signals of all lengths.

The first launch that the device accepts is taken; a GPU may allow a compiled kernel fewer threads
than asked. If a trial finds a faster shape of its groups, that shape is taken instead. The findings
are kept between processes.

Only shapes whose results are equal bit by bit compete, and a trial compares them. So the results of
a program do not depend on how a trial went. A trial is bounded in seconds and in shapes, and
nothing needs it.
"""

from __future__ import annotations

import threading
import time
import timeit
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

from ..errors import KernelRefused
from ..settings import ANY_KERNEL, AutotuneSettings, autotune_settings
from ..store.caches import Cache
from ..store.verdicts import Store, store
from .describe import list_shapes
from .launches import Launch

#: The section of the store.
SECTION = "threads"
VARIABLE = "SPEC_MLX_TGX"
CACHE_ENTRIES = 256
#: Seconds after which no further shape is tried: for one kernel, and for all kernels of a process.
#: A kernel that takes longer to compile is not tuned, since each shape would take as long.
KERNEL_SECONDS = 1.0
PROCESS_SECONDS = 10.0
#: Launches that are timed at once, and how often; the best of them counts.
LAUNCHES = 16
ROUNDS = 3
#: Memory that the results of launches timed at once may take.
RESULT_BYTES = 128 << 20
#: How much faster than the first plan another shape must be.
ADVANTAGE = 1.05

#: Threads and frames of a group: by these the shapes of a kernel differ.
Shape = list[int]
#: What a launcher makes from a launch that the device accepts.
Made = TypeVar("Made")
Run = Callable[[Launch, int], list[Any]]
Equal = Callable[[Any, Any], bool]


def describe_shape(launch: Launch) -> Shape:
    """Return threads and frames of a launch's groups."""
    return [launch.threadgroup[0], 1 if launch.plan is None else launch.plan.frames]


def accept_first(launches: Sequence[Launch], accept: Callable[[Launch], Made]) -> tuple[int, Made]:
    """Find the first launch that a device accepts.

    Returns:
        Its index, and what ``accept`` returned for it.

    Raises:
        KernelRefused: the device accepts none; the error of the last one.
    """
    for index, launch in enumerate(launches):
        try:
            return index, accept(launch)
        except KernelRefused:
            if index + 1 == len(launches):
                raise
    raise AssertionError("there is at least one launch")


def describe_demanded(
    describe: Callable[..., tuple[Launch, ...]], *arguments: Any
) -> tuple[Launch, ...]:
    """Describe launches with the group size that the environment demands.

    Raises:
        ValueError: no launch has groups of that size.
    """
    try:
        return describe(*arguments)
    except ValueError as error:
        raise ValueError(f"{VARIABLE} cannot be satisfied: {error}") from None


class Chooser:
    """Chooses launches for one launcher, and remembers what it chose.

    Args:
        device: returns the name of the GPU, a part of a verdict's key; None where times mean
            nothing: then no shapes are tried.
        verdicts: returns the store of verdicts.
        clock: returns seconds.
        settings: the environment's; read here where not given.
    """

    def __init__(
        self,
        device: Callable[[], str] | None = None,
        *,
        verdicts: Callable[[], Store] = store,
        clock: Callable[[], float] = time.perf_counter,
        settings: AutotuneSettings | None = None,
    ) -> None:
        self._device = device
        self._verdicts = verdicts
        self._clock = clock
        self._settings = settings or autotune_settings()
        self._left = PROCESS_SECONDS
        self._busy = threading.Lock()
        #: By the first launch's kernel, template and device: the index of the launch that is taken,
        #: among the launches and their other shapes.
        self._taken: Cache[Hashable, int] = Cache(CACHE_ENTRIES)

    def count_chosen(self) -> int:
        """Return how many kernels' groups are chosen."""
        return len(self._taken)

    def find_group(self, kernel: str) -> int | None:
        """Return the threads that the environment demands for a kernel's groups, if any."""
        threads = self._settings.threads
        return threads.get(kernel, threads.get(ANY_KERNEL))

    def find(self, launches: Sequence[Launch], device: Hashable = None) -> Launch | None:
        """Find the launch that was chosen before, for this or another length of the signal."""
        first, own = launches[0], len(launches)
        index = self._taken.find((first.kernel, first.template, device))
        if index is None:
            return None
        return launches[index] if index < own else list_shapes(first)[index - own]

    def choose(
        self,
        launches: Sequence[Launch],
        accept: Callable[[Launch], Made | None],
        run: Run,
        equal: Equal,
        device: Hashable = None,
    ) -> tuple[Launch, Made | None]:
        """Choose one of several launches, best first, unless one was chosen before.

        Args:
            accept: makes a launch ready to run, or runs it; raises KernelRefused. It returns None
                where there are no values to run with; then the choice is not kept.
            run: launches so many times and waits for the results; raises KernelRefused.
            equal: returns whether two results are the same bits.
            device: where it is launched, for a launcher of several devices.

        Returns:
            The launch, and what ``accept`` returned if it was called now.

        Raises:
            KernelRefused: the device accepts none.
            ValueError: it accepts none with groups of the size that the environment demands.
        """
        chosen = self.find(launches, device)
        if chosen is not None:
            return chosen, None
        first = launches[0]
        others = self._list_rivals(first)
        every = [*launches, *others]
        recalled = self._recall(every) if others else None
        order = [*([] if recalled is None else [recalled]), *range(len(launches))]
        begin = self._clock()
        try:
            index, made = accept_first([every[index] for index in order], accept)
        except KernelRefused as refused:
            if self.find_group(launches[-1].kernel) is None:
                raise
            raise ValueError(f"{VARIABLE} cannot be satisfied: {refused}") from None
        index = order[index]
        if made is None or 0 in first.shape:
            return every[index], made
        tried = None
        if others and recalled is None:
            name, seconds = self._name(first), self._clock() - begin
            tried = self._try(name, [every[index], *others], seconds, run, equal)
        if tried:
            index, made = len(launches) + tried - 1, None
        # While another thread runs a trial, this entry is preliminary: its result will replace it.
        key = (first.kernel, first.template, device)
        self._taken.put(key, index, replace=tried is not None)
        return every[index], made

    def _list_rivals(self, launch: Launch) -> Sequence[Launch]:
        """List the shapes to try; none where the environment demands one or times mean nothing."""
        is_timed = self._device is not None and self._settings.measure
        return list_shapes(launch) if is_timed and self.find_group(launch.kernel) is None else ()

    def _name(self, launch: Launch) -> str:
        """Return the key of a launch's verdict: GPU, kernel, and what that is compiled for."""
        assert self._device is not None
        numbers = ",".join(f"{name}={int(value)}" for name, value in launch.template)
        return f"{self._device()} {launch.kernel} {numbers}"

    def _recall(self, launches: Sequence[Launch]) -> int | None:
        """Return the index of the launch that an earlier trial, of any process, found best."""
        wanted = self._verdicts().get(SECTION, self._name(launches[0]))
        shapes = [describe_shape(launch) for launch in launches]
        return shapes.index(wanted) if wanted in shapes else None

    def _try(
        self, name: str, launches: Sequence[Launch], seconds: float, run: Run, equal: Equal
    ) -> int | None:
        """Run a trial; return the index of the fastest launch, or None where no trial can be run.

        Two threads do not run trials at once, since each would time the other's launches, too.

        Args:
            name: the key of the verdict.
            launches: the first one was accepted, which took ``seconds``, compilation included.
        """
        is_worth_it = seconds <= KERNEL_SECONDS and self._left > 0
        if not (is_worth_it and self._busy.acquire(blocking=False)):
            return None
        begin = self._clock()
        try:
            deadline = begin + min(KERNEL_SECONDS, self._left)
            index = self._find_fastest(launches, deadline, run, equal)
        finally:
            self._left -= self._clock() - begin
            self._busy.release()
        self._verdicts().put(SECTION, name, describe_shape(launches[index]))
        return index

    def _find_fastest(
        self, launches: Sequence[Launch], deadline: float, run: Run, equal: Equal
    ) -> int:
        (reference,) = run(launches[0], 1)
        count = max(1, min(LAUNCHES, RESULT_BYTES // max(1, reference.nbytes)))
        best, least = 0, self._time(launches[0], count, run) / ADVANTAGE
        for index, launch in enumerate(launches[1:], start=1):
            if self._clock() >= deadline:
                break
            try:
                (result,) = run(launch, 1)
            except KernelRefused:
                continue
            if not equal(reference, result):
                continue
            seconds = self._time(launch, count, run)
            if seconds < least:
                best, least = index, seconds
        return best

    def _time(self, launch: Launch, count: int, run: Run) -> float:
        """Return the seconds of one round of launches."""
        once = partial(run, launch, count)
        return min(timeit.repeat(once, timer=self._clock, repeat=ROUNDS, number=1))
