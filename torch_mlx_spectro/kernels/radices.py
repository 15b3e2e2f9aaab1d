"""Split a frame's Fourier transform into passes, threads and groups.

A kernel is compiled for a plan. Signal lengths, hops and strides are not part of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

from ..core.params import IstftParams, StftParams
from ..store.caches import cached

#: Most points (complex values) of one frame that fit in a group's memory.
MAX_POINTS = 4096
GROUP_MEMORY_BYTES = 32 << 10
MAX_GROUP_THREADS = 1024
#: Most passes that a plan of the kernels may have.
MAX_PASSES = 6
POINT_BYTES = 8
#: Points per line of a frame's buffer: a buffer has whole lines (slots_of in fft.h).
LINE_POINTS = 16

#: Values that one thread holds in a pass: in the best plan, and in plans for GPUs that allow a
#: group fewer threads. A synthesis thread holds output samples, too. For analysis 8 values were
#: faster than 16 in all sizes tried but the longest, where fewer passes were
#: (docs/contributing/kernels.md).
ANALYSIS_VALUES = (8, 16, 32, 64)
SYNTHESIS_VALUES = (8, 16, 32, 64)
#: Threads of a group to aim at; fewer for analysis, whose frames share nothing.
ANALYSIS_GROUP = 128
SYNTHESIS_GROUP = 256
#: Other shapes of a plan that are tried on a GPU: values that a thread holds, threads of a group,
#: and the most shapes, since each has to be compiled.
SHAPE_VALUES = (8, 16, 32)
SHAPE_GROUPS = (128, 256, 64, 512)
MAX_SHAPES = 8
#: Multiple of the threads that all cores run at once from which on frames count as many.
ANALYSIS_WAVES = 2
#: Radices of an analysis: none needs more than the best plan's values, or few more.
ANALYSIS_RADICES = (2, 3, 4, 5, 6, 7, 8, 9, 10)
#: Points from which an analysis counts as long, its radices, and the values of its threads.
LONG_POINTS = 2048
LONG_RADICES = (*ANALYSIS_RADICES, 16)
LONG_VALUES = (18, 32, 64)
SIMD_WIDTH = 32
#: Cost of a barrier of the whole group, in units of work, where a frame has threads in more than
#: one SIMD group.
GROUP_BARRIER_WORK = 1.15
#: Frames per group that read whole sectors of a (bins, frames) spectrum: 4 values of 8 bytes each.
FASTEST_FRAMES = 4
#: Output samples of a synthesis group, in frames' lengths: less means more frames computed twice.
TILE_FRAMES = 4
MAX_TILE_SAMPLES = 32


@dataclass(frozen=True)
class Gpu:
    """What plans depend on in a GPU.

    Attributes:
        cores: how many it has.
        threads: that a core runs at once.
        registers: of 32 bits, of a core.
        memory_bytes: group memory of a core; None where registers always run out before.
    """

    cores: int
    threads: int
    registers: int
    memory_bytes: int | None = None


#: The GPU that plans were sized for. Only where ``cores`` is None, so for no Apple GPU.
H100 = Gpu(cores=132, threads=2048, registers=65536)


#: Cores of the largest GPU of Apple's that has a name with this end (M1 to M4: M1 Pro has 16, M2
#: Max 38). Smaller ones have the same name. Too high a number costs less: some frames are
#: transformed twice, while too low a number leaves cores idle. Not measured.
_APPLE_CORES = {"Pro": 20, "Max": 40, "Ultra": 80}
_LEAST_APPLE_CORES = 10
#: Cores that emulated kernels are planned for: those of an M2, M3 or M4.
EMULATED_CORES = 10


def guess_cores(name: str) -> int:
    """Guess the cores of an Apple GPU by its name, such as "Apple M2 Max"."""
    last = name.split()[-1:] or [""]
    return _APPLE_CORES.get(last[0], _LEAST_APPLE_CORES)


def find_gpu(cores: int | None) -> Gpu:
    """Return the Apple GPU of so many cores, or the H100 for None.

    What a core of Apple's has is not documented by Apple. The numbers are public measurements of
    families 7 and 8 (M1, M2; philipturner/metal-benchmarks): 208 KB of registers, some 60 KB of
    group memory, at most 3072 threads. A thread of our analyses has some 56 registers.
    """
    if cores is None:
        return H100
    return Gpu(cores, threads=896, registers=208 << 8, memory_bytes=60 << 10)


@dataclass(frozen=True)
class FftPlan:
    """One frame's transform, and the frames of a group.

    Attributes:
        points: complex points: n_fft, or n_fft / 2 for packed real signals.
        radices: of the passes, in order; their product is ``points``.
        threads: threads per frame.
        frames: frames per group.
        half: real and imaginary parts are exchanged one after the other, in buffers of half the
            size.
    """

    points: int
    radices: tuple[int, ...]
    threads: int
    frames: int
    half: bool = False

    @property
    def group(self) -> int:
        """Threads of a group."""
        return self.threads * self.frames

    @property
    def memory_bytes(self) -> int:
        """Group memory that the frames need."""
        points = count_buffer_points(-(-self.points // 2) if self.half else self.points)
        return self.frames * points * POINT_BYTES

    def template(self) -> list[tuple[str, int]]:
        """The plan as a kernel's template arguments."""
        radices = (*self.radices, *[1] * (MAX_PASSES - len(self.radices)))
        named = [(f"R{index}", radix) for index, radix in enumerate(radices)]
        return [
            ("POINTS", self.points),
            ("THREADS", self.threads),
            ("FRAMES", self.frames),
            *named,
        ]


def count_buffer_points(points: int) -> int:
    """Return the points of a frame's buffer, in whole lines."""
    return -(-points // LINE_POINTS) * LINE_POINTS


@cached(4096)
def find_radices(points: int) -> tuple[int, ...] | None:
    """Find the radices of the passes; None where ``points`` has a prime factor above 7."""
    if points < 1:
        return None
    twos = (points & -points).bit_length() - 1
    rest, odd = points >> twos, []
    for radix in (9, 3, 5, 7):
        while rest % radix == 0:
            rest //= radix
            odd.append(radix)
    if rest != 1:
        return None
    passes = -(-twos // 4)
    powers = [1 << (twos // passes + (index < twos % passes)) for index in range(passes)]
    # Odd radices come first: with their spans the threads of later passes use different banks.
    return tuple(odd + sorted(powers)) or (1,)


def find_fused_points(params: StftParams | IstftParams) -> tuple[int, bool] | None:
    """Return the points of the fused kernel's transform, and whether it is packed; or None."""
    packed = not params.complex_fft and params.n_fft % 2 == 0
    points = params.n_fft // 2 if packed else params.n_fft
    if points > MAX_POINTS or find_radices(points) is None:
        return None
    return points, packed


def _count_work(points: int, radices: tuple[int, ...], threads: int) -> float:
    """Count the values that the threads' passes take up, idle threads included."""
    values = sum(-(-(points // radix) // threads) * threads * radix for radix in radices)
    return values * (1.0 if SIMD_WIDTH % threads == 0 else GROUP_BARRIER_WORK)


def count_values(points: int, radices: tuple[int, ...], threads: int) -> int:
    """Count the most values that a thread holds."""
    return max(-(-(points // radix) // threads) * radix for radix in radices)


def _choose_threads(points: int, radices: tuple[int, ...], values: int) -> int:
    """Choose the threads per frame that hold about ``values`` values each and are least idle."""
    # Beyond one SIMD group in steps of eight: full SIMD groups are worth more than an exact fit.
    # At most twice as many as hold that many values: a plan of more values is one of less threads.
    most = min(-(-2 * points // values), MAX_GROUP_THREADS)
    candidates = [*range(1, min(most, SIMD_WIDTH) + 1), *range(SIMD_WIDTH + 8, most + 1, 8)]
    is_best = values <= ANALYSIS_VALUES[0]
    values = max(values, *radices)

    def fits(threads: int) -> bool:
        # A few more are better than whole SIMD groups that idle in every other pass.
        more = is_best and threads > SIMD_WIDTH
        return count_values(points, radices, threads) <= (values * 3 // 2 if more else values)

    fitting = [threads for threads in candidates if fits(threads)]
    fitting = fitting or candidates[-1:]
    best: int = min(fitting, key=lambda threads: (_count_work(points, radices, threads), threads))
    return best


@cached(4096)
def find_even_radices(points: int, radices: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the fewest radices, as equal as possible, in ascending order."""
    if points == 1:
        return (1,)
    for passes in range(1, MAX_PASSES + 1):
        combinations = combinations_with_replacement(radices, passes)
        options = [found for found in combinations if math.prod(found) == points]
        if options:
            return min(options, key=lambda option: (sum(option), option[::-1]))
    return None


def is_power_of_two(number: int) -> bool:
    """Whether a number is 1, 2, 4, ..."""
    return number & (number - 1) == 0


def list_analysis_plans(points: int, frames: int, cores: int | None = None) -> tuple[FftPlan, ...]:
    """List plans of an analysis, as :func:`list_plans` does.

    Args:
        frames: of all rows. If they are more than run at once, plans whose frames each fill one
            SIMD group come first. Those are as fast, and a group reads samples that its frames
            share once.
        cores: as in :func:`find_gpu`.
    """
    radices = find_analysis_radices(points)
    if points >= LONG_POINTS:
        return _list_plans(points, radices, LONG_VALUES, ANALYSIS_GROUP, 1)
    found = _list_plans(points, radices, ANALYSIS_VALUES, ANALYSIS_GROUP, 1)
    gpu = find_gpu(cores)
    if frames * found[0].threads > ANALYSIS_WAVES * gpu.cores * gpu.threads:
        lean = _list_plans(points, radices, ANALYSIS_VALUES[1:], SYNTHESIS_GROUP, 1)
        if lean[0].threads == SIMD_WIDTH:
            return lean
    return found


def find_analysis_radices(points: int) -> tuple[int, ...] | None:
    """Find the radices of an analysis' passes; None where ``points`` has a prime factor above 7.

    Of the orders tried, the fastest had a large power of two at both ends; a single power of two
    stood between odd radices. Long transforms were fastest with two powers of two at the beginning.
    """
    is_long = points >= LONG_POINTS
    radices = find_even_radices(points, LONG_RADICES if is_long else ANALYSIS_RADICES)
    if radices is None:
        return None
    powers = [radix for radix in radices if is_power_of_two(radix)]
    others = [radix for radix in radices if not is_power_of_two(radix)]
    if len(powers) == 1:
        return (*others[:1], *powers, *others[1:])
    if is_long and others and len(powers) > 2:
        return (*powers[-2:], *others, *powers[:-2])
    return (*powers[-1:], *others, *powers[:-1])


def list_plans(
    points: int, values: tuple[int, ...] = SYNTHESIS_VALUES, least_frames: int = 1
) -> tuple[FftPlan, ...]:
    """List plans of a frame of ``points`` points, best first, each of fewer threads than the last.

    Args:
        points: complex points, at most MAX_POINTS, with no prime factor above 7.
        values: values that a thread holds, for one plan after another.
        least_frames: frames per group to aim at.

    Returns:
        At least one plan; the later ones are for a GPU that refuses groups of so many threads.
    """
    return _list_plans(points, find_radices(points), values, SYNTHESIS_GROUP, least_frames)


def _list_plans(
    points: int,
    radices: tuple[int, ...] | None,
    values: tuple[int, ...],
    group: int,
    least_frames: int,
) -> tuple[FftPlan, ...]:
    if radices is None or points > MAX_POINTS:
        raise ValueError(f"points must be at most {MAX_POINTS} and 7-smooth; got {points}")
    found: list[FftPlan] = []
    for held in values:
        threads = _choose_threads(points, radices, held)
        frames = max(-(-group // threads), least_frames)
        frames = min(frames, GROUP_MEMORY_BYTES // (count_buffer_points(points) * POINT_BYTES))
        frames = min(frames, MAX_GROUP_THREADS // threads)
        while frames:
            plan = FftPlan(points, radices, threads, frames)
            if not found or plan.group < found[-1].group:
                found.append(plan)
            frames //= 2
    return tuple(found)


def list_plan_shapes(plan: FftPlan) -> tuple[FftPlan, ...]:
    """List an analysis' plan, and others that compute the same by groups of other shapes.

    The radices are the same, so each value is the same sum of the same products. Results are equal
    bit by bit, and the shape only decides the speed. (A synthesis is different: the order in which
    it adds frames depends on its groups.)
    """
    counts = [plan.threads]
    counts += [_choose_threads(plan.points, plan.radices, values) for values in SHAPE_VALUES]
    found = [plan]
    for group in SHAPE_GROUPS:
        for threads in dict.fromkeys(counts):
            frames = min(
                max(1, group // threads), count_fitting_frames(plan), MAX_GROUP_THREADS // threads
            )
            found.append(replace(plan, threads=threads, frames=frames))
    return tuple(dict.fromkeys(found))[:MAX_SHAPES]


def count_fitting_frames(plan: FftPlan) -> int:
    """Return how many frames' buffers fit a group's memory."""
    return GROUP_MEMORY_BYTES // replace(plan, frames=1).memory_bytes


def with_frames(plan: FftPlan, least: int) -> FftPlan:
    """Return the plan with groups of at least so many frames, or of as many as fit."""
    most = min(count_fitting_frames(plan), MAX_GROUP_THREADS // plan.threads)
    return replace(plan, frames=max(plan.frames, min(least, most)))


def resize_group(plan: FftPlan, group: int, *, same_threads: bool = False) -> FftPlan:
    """Return the plan with groups of so many threads.

    Args:
        same_threads: change only the frames of a group, not the threads of a frame.

    Raises:
        ValueError: no whole number of frames makes such a group.
    """
    counts = [plan.threads]
    if not same_threads:
        counts += [_choose_threads(plan.points, plan.radices, values) for values in ANALYSIS_VALUES]
    for threads in counts:
        if group % threads == 0 and 0 < group // threads <= count_fitting_frames(plan):
            return replace(plan, threads=threads, frames=group // threads)
    multiples = " or ".join(map(str, sorted(set(counts))))
    raise ValueError(
        f"no group of {group} threads transforms frames of {plan.points} points: it has a multiple "
        f"of {multiples} threads, of at most {count_fitting_frames(plan)} frames"
    )


def count_tile_samples(plan: FftPlan, n_fft: int) -> int:
    """Return the output samples of each thread of a synthesis group: a power of two."""
    wanted = -(-TILE_FRAMES * n_fft // plan.group)
    return min(MAX_TILE_SAMPLES, 1 << max(3, (wanted - 1).bit_length()))
