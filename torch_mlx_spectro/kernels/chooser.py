"""Choose among launches that compute the same: once for a kernel, for signals of all lengths.

The first launch that the device accepts is taken; a GPU may allow a compiled kernel fewer threads
than asked. If a trial finds a faster one among its rivals, that one is taken instead. The findings
are kept between processes.

The rivals of an analysis are its groups' other shapes. Their results are equal bit by bit, which a
trial compares, so the results of a program do not depend on how a trial went. The rivals of a walk
are the other walks among the launches, of which there are several on Apple's GPUs alone. They add
frames in other orders, so their results differ by rounding. So none is tried, or taken from an
earlier trial, while the program wants deterministic algorithms, and the call that runs a trial
returns the winner's result.

A trial is bounded in seconds and in launches, and nothing needs it. Compilation is no part of a
time.
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

#: The kernel whose launches differ in rounding.
WALK = "synthesis_walk"
#: The section of the store.
SECTION = "threads"
VARIABLE = "SPEC_MLX_TGX"
CACHE_ENTRIES = 256
#: Seconds after which no further shape is tried: for one kernel, and for all kernels of a process.
#: A kernel that takes longer to compile is not tuned, since each shape would take as long.
KERNEL_SECONDS = 1.0
PROCESS_SECONDS = 10.0
#: The same for the walks of one kernel, which are few, and each of them long to compile.
WALK_SECONDS = 4.0
#: Largest difference between results of walks that compete, relative to the largest value. Rounding
#: differs by some 1e-6.
WALK_AGREEMENT = 1e-4
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
    """Return threads and frames of a launch's groups, and a 1 if these are exchanged by halves."""
    plan = launch.plan
    return [launch.threadgroup[0], *([1] if plan is None else [plan.frames, 1][: 1 + plan.half])]


def list_rivals(launches: Sequence[Launch]) -> tuple[Launch, ...]:
    """List the launches that a trial compares with the first of these."""
    first, *others = launches
    walks = (launch for launch in others if launch.kernel == first.kernel == WALK)
    return (*list_shapes(first), *walks)


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
        is_deterministic: whether the program wants deterministic algorithms.
    """

    def __init__(
        self,
        device: Callable[[], str] | None = None,
        *,
        verdicts: Callable[[], Store] = store,
        clock: Callable[[], float] = time.perf_counter,
        settings: AutotuneSettings | None = None,
        is_deterministic: Callable[[], bool] = lambda: False,
    ) -> None:
        self._device = device
        self._is_deterministic = is_deterministic
        self._verdicts = verdicts
        self._clock = clock
        self._settings = settings or autotune_settings()
        self._left = PROCESS_SECONDS
        self._busy = threading.Lock()
        #: By :meth:`_identify`: the index of the launch that is taken, among the launches and the
        #: shapes of the first one.
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
        own = len(launches)
        index = self._taken.find(self._identify(launches[0], device))
        if index is None:
            return None
        return launches[index] if index < own else list_shapes(launches[0])[index - own]

    def _identify(self, launch: Launch, device: Hashable) -> Hashable:
        """Return the key of a choice, by the first launch."""
        return launch.kernel, launch.template, device, self.is_fixed(launch)

    def is_fixed(self, launch: Launch) -> bool:
        """Whether the rivals of a launch must not compete now, since the bits would change."""
        return launch.kernel == WALK and self._is_deterministic()

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
            equal: returns whether two results are the same (:func:`agree`).
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
        rivals = self._list_rivals(launches)
        recalled = self._recall([first, *rivals]) if rivals else None
        order = [*([] if recalled is None else [recalled]), *launches]
        begin = self._clock()
        try:
            index, made = accept_first(order, accept)
        except KernelRefused as refused:
            if self.find_group(launches[-1].kernel) is None:
                raise
            raise ValueError(f"{VARIABLE} cannot be satisfied: {refused}") from None
        taken = order[index]
        if made is None or 0 in first.shape:
            return taken, made
        fastest = None
        if rivals and recalled is None:
            name, seconds = self._name(first), self._clock() - begin
            others = [rival for rival in rivals if rival is not taken]
            fastest = self._try(name, [taken, *others], seconds, run, equal)
        if fastest not in (None, taken):
            taken, made = fastest, None
        # While another thread runs a trial, this entry is preliminary: its result will replace it.
        index = [*launches, *list_shapes(first)].index(taken)
        self._taken.put(self._identify(first, device), index, replace=fastest is not None)
        return taken, made

    def _list_rivals(self, launches: Sequence[Launch]) -> Sequence[Launch]:
        """List the launches to try; none where the environment demands one or nothing is timed."""
        first = launches[0]
        is_timed = self._device is not None and self._settings.measure
        if not is_timed or self.is_fixed(first) or self.find_group(first.kernel) is not None:
            return ()
        return list_rivals(launches)

    def _name(self, launch: Launch) -> str:
        """Return the key of a launch's verdict: GPU, kernel, and what that is compiled for."""
        assert self._device is not None
        numbers = ",".join(f"{name}={int(value)}" for name, value in launch.template)
        return f"{self._device()} {launch.kernel} {numbers}"

    def _recall(self, launches: Sequence[Launch]) -> Launch | None:
        """Return the launch that an earlier trial, of any process, found best."""
        wanted = self._verdicts().get(SECTION, self._name(launches[0]))
        return next((launch for launch in launches if describe_shape(launch) == wanted), None)

    def _try(
        self, name: str, launches: Sequence[Launch], seconds: float, run: Run, equal: Equal
    ) -> Launch | None:
        """Run a trial; return the fastest launch, or None where no trial can be run.

        Two threads do not run trials at once, since each would time the other's launches, too.

        Args:
            name: the key of the verdict.
            launches: the first one was accepted, which took ``seconds``, compilation included.
        """
        allowed = WALK_SECONDS if launches[0].kernel == WALK else KERNEL_SECONDS
        is_worth_it = seconds <= allowed and self._left > 0
        if not (is_worth_it and self._busy.acquire(blocking=False)):
            return None
        begin = self._clock()
        try:
            deadline = begin + min(allowed, self._left)
            fastest = self._find_fastest(launches, deadline, run, equal)
        finally:
            self._left -= self._clock() - begin
            self._busy.release()
        self._verdicts().put(SECTION, name, describe_shape(fastest))
        return fastest

    def _find_fastest(
        self, launches: Sequence[Launch], deadline: float, run: Run, equal: Equal
    ) -> Launch:
        (reference,) = run(launches[0], 1)
        count = max(1, min(LAUNCHES, RESULT_BYTES // max(1, reference.nbytes)))
        best, least = launches[0], self._time(launches[0], count, run) / ADVANTAGE
        for launch in launches[1:]:
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
                best, least = launch, seconds
        return best

    def _time(self, launch: Launch, count: int, run: Run) -> float:
        """Return the seconds of one round of launches."""
        once = partial(run, launch, count)
        return min(timeit.repeat(once, timer=self._clock, repeat=ROUNDS, number=1))
