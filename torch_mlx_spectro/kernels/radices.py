"""How a frame's Fourier transform is split into passes, threads and groups.

A plan is what a kernel is compiled for. Lengths of signals, hops and strides are not in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

from ..core.params import IstftParams, StftParams
from ..store.caches import cached

#: Points (complex values) of one frame that fit in a group's memory.
MAX_POINTS = 4096
GROUP_MEMORY_BYTES = 32 << 10
MAX_GROUP_THREADS = 1024
#: Passes that a plan of the kernels may have.
MAX_PASSES = 6
POINT_BYTES = 8
#: Points per line of a frame's buffer: a buffer has whole lines (slots_of in fft.h).
LINE_POINTS = 16

#: Values that one thread holds in a pass: of the best plan, and of those for GPUs that allow a
#: group fewer threads. Synthesis holds its output samples besides. For analysis 8 were faster than
#: 16 for all sizes tried but the longest, and few passes then, too (docs/gpu.md).
ANALYSIS_VALUES = (8, 16, 32, 64)
SYNTHESIS_VALUES = (8, 16, 32, 64)
#: Threads of a group to aim at. Analysis has nothing to share among frames.
ANALYSIS_GROUP = 128
SYNTHESIS_GROUP = 256
#: Other shapes of a plan that are worth a trial on the GPU at hand: how many values a thread holds,
#: how many threads a group has, and how many shapes at most, each of which has to be compiled.
SHAPE_VALUES = (8, 16, 32)
SHAPE_GROUPS = (128, 256, 64, 512)
MAX_SHAPES = 8
#: Cores of the GPU that plans were sized for, an H100.
CORES = 132
#: Cores of an Apple GPU where nobody tells their number, which is 7 to 80: too many cost less than
#: too few, some frames transformed twice and not idle cores. Not measured.
APPLE_CORES = 40
#: Threads that a core runs at once, and how many times all cores' threads make many frames.
CORE_THREADS = 2048
ANALYSIS_WAVES = 2
#: Radices of an analysis: none needs more than the best plan's values, or few more.
ANALYSIS_RADICES = (2, 3, 4, 5, 6, 7, 8, 9, 10)
#: Points from which an analysis is long, the radices of such a one, and its threads' values.
LONG_POINTS = 2048
LONG_RADICES = (*ANALYSIS_RADICES, 16)
LONG_VALUES = (18, 32, 64)
SIMD_WIDTH = 32
#: What a barrier of the whole group costs, as work, where the threads of a frame are not part of
#: one SIMD group.
GROUP_BARRIER_WORK = 1.15
#: Frames per group that make reads of a (bins, frames) spectrum whole: 4 of 8 bytes are a sector.
FASTEST_FRAMES = 4
#: Output samples of a synthesis group, in frames' lengths: less means more frames computed twice.
TILE_FRAMES = 4
MAX_TILE_SAMPLES = 32


@dataclass(frozen=True)
class FftPlan:
    """One frame's transform and its place in a group.

    Attributes:
        points: complex points: n_fft, or n_fft / 2 for packed real signals.
        radices: of the passes, in order; their product is ``points``.
        threads: threads per frame.
        frames: frames per group.
        half: real and imaginary parts take turns in buffers of half the size.
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
        points = buffer_points(-(-self.points // 2) if self.half else self.points)
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


def buffer_points(points: int) -> int:
    """Points of a frame's buffer, in whole lines."""
    return -(-points // LINE_POINTS) * LINE_POINTS


@cached(4096)
def find_radices(points: int) -> tuple[int, ...] | None:
    """Radices of the passes, or None where ``points`` has a prime factor above 7."""
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
    # Odd radices first: their spans keep threads of later passes on different banks.
    return tuple(odd + sorted(powers)) or (1,)


def fused_points(params: StftParams | IstftParams) -> tuple[int, bool] | None:
    """Points of the fused kernel's transform and whether it is packed; None: not covered."""
    packed = not params.complex_fft and params.n_fft % 2 == 0
    points = params.n_fft // 2 if packed else params.n_fft
    if points > MAX_POINTS or find_radices(points) is None:
        return None
    return points, packed


def _work(points: int, radices: tuple[int, ...], threads: int) -> float:
    """Values that the threads' passes take up, idle threads included."""
    values = sum(-(-(points // radix) // threads) * threads * radix for radix in radices)
    return values * (1.0 if SIMD_WIDTH % threads == 0 else GROUP_BARRIER_WORK)


def count_values(points: int, radices: tuple[int, ...], threads: int) -> int:
    """Most values that a thread holds."""
    return max(-(-(points // radix) // threads) * radix for radix in radices)


def _choose_threads(points: int, radices: tuple[int, ...], values: int) -> int:
    """Threads per frame that hold about ``values`` values each and idle least."""
    # Past one SIMD group, by eights: threads that fill it are worth more than an exact fit.
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
    best: int = min(fitting, key=lambda threads: (_work(points, radices, threads), threads))
    return best


@cached(4096)
def even_radices(points: int, radices: tuple[int, ...]) -> tuple[int, ...] | None:
    """The fewest, most equal radices, in ascending order."""
    if points == 1:
        return (1,)
    for passes in range(1, MAX_PASSES + 1):
        combinations = combinations_with_replacement(radices, passes)
        options = [found for found in combinations if math.prod(found) == points]
        if options:
            return min(options, key=lambda option: (sum(option), option[::-1]))
    return None


def is_power_of_two(number: int) -> bool:
    """Whether it is 1, 2, 4, ..."""
    return number & (number - 1) == 0


def analysis_plans(points: int, frames: int) -> tuple[FftPlan, ...]:
    """Plans of an analysis, as :func:`plans` gives them.

    Args:
        frames: of all rows. Where they are more than run at once, plans whose frames each fill one
            SIMD group come first: as fast there, and a group reads what its frames share once.
    """
    radices = analysis_radices(points)
    if points >= LONG_POINTS:
        return _plans(points, radices, LONG_VALUES, ANALYSIS_GROUP, 1)
    found = _plans(points, radices, ANALYSIS_VALUES, ANALYSIS_GROUP, 1)
    if frames * found[0].threads > ANALYSIS_WAVES * CORES * CORE_THREADS:
        lean = _plans(points, radices, ANALYSIS_VALUES[1:], SYNTHESIS_GROUP, 1)
        if lean[0].threads == SIMD_WIDTH:
            return lean
    return found


def analysis_radices(points: int) -> tuple[int, ...] | None:
    """Radices of an analysis' passes, or None where ``points`` has a prime factor above 7.

    Of all orders tried, a large power of two at both ends was the best, and among odd radices; of
    long ones, two at the beginning.
    """
    is_long = points >= LONG_POINTS
    radices = even_radices(points, LONG_RADICES if is_long else ANALYSIS_RADICES)
    if radices is None:
        return None
    powers = [radix for radix in radices if is_power_of_two(radix)]
    others = [radix for radix in radices if not is_power_of_two(radix)]
    if len(powers) == 1:
        return (*others[:1], *powers, *others[1:])
    if is_long and others and len(powers) > 2:
        return (*powers[-2:], *others, *powers[:-2])
    return (*powers[-1:], *others, *powers[:-1])


def plans(
    points: int, values: tuple[int, ...] = SYNTHESIS_VALUES, least_frames: int = 1
) -> tuple[FftPlan, ...]:
    """Plans of a frame of ``points`` points, best first, each of fewer threads than the last.

    Args:
        points: complex points, at most MAX_POINTS, with no prime factor above 7.
        values: that a thread holds, of each plan in turn.
        least_frames: frames per group to aim at.

    Returns:
        At least one plan; the later ones are for a GPU that refuses groups of so many threads.
    """
    return _plans(points, find_radices(points), values, SYNTHESIS_GROUP, least_frames)


def _plans(
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
        frames = min(frames, GROUP_MEMORY_BYTES // (buffer_points(points) * POINT_BYTES))
        frames = min(frames, MAX_GROUP_THREADS // threads)
        while frames:
            plan = FftPlan(points, radices, threads, frames)
            if not found or plan.group < found[-1].group:
                found.append(plan)
            frames //= 2
    return tuple(found)


def shapes(plan: FftPlan) -> tuple[FftPlan, ...]:
    """The plan of an analysis and others that compute the same, step by step, by other groups.

    The radices are the same, so each value is the same sum of the same products: results are equal
    bit by bit, and which shape is taken is a question of speed alone. (Not so of a synthesis, which
    adds frames up as its groups come upon them.)
    """
    counts = [plan.threads]
    counts += [_choose_threads(plan.points, plan.radices, values) for values in SHAPE_VALUES]
    found = [plan]
    for group in SHAPE_GROUPS:
        for threads in dict.fromkeys(counts):
            frames = min(max(1, group // threads), most_frames(plan), MAX_GROUP_THREADS // threads)
            found.append(replace(plan, threads=threads, frames=frames))
    return tuple(dict.fromkeys(found))[:MAX_SHAPES]


def most_frames(plan: FftPlan) -> int:
    """Frames whose buffers fit a group's memory."""
    return GROUP_MEMORY_BYTES // replace(plan, frames=1).memory_bytes


def resize_group(plan: FftPlan, group: int, *, same_threads: bool = False) -> FftPlan:
    """The plan with groups of so many threads.

    Args:
        same_threads: by the frames of a group alone.

    Raises:
        ValueError: no whole number of frames makes such a group.
    """
    counts = [plan.threads]
    if not same_threads:
        counts += [_choose_threads(plan.points, plan.radices, values) for values in ANALYSIS_VALUES]
    for threads in counts:
        if group % threads == 0 and 0 < group // threads <= most_frames(plan):
            return replace(plan, threads=threads, frames=group // threads)
    multiples = " or ".join(map(str, sorted(set(counts))))
    raise ValueError(
        f"no group of {group} threads transforms frames of {plan.points} points: it has a multiple "
        f"of {multiples} threads, of at most {most_frames(plan)} frames"
    )


def tile_samples(plan: FftPlan, n_fft: int) -> int:
    """Output samples of each thread of a synthesis group: a power of two."""
    wanted = -(-TILE_FRAMES * n_fft // plan.group)
    return min(MAX_TILE_SAMPLES, 1 << max(3, (wanted - 1).bit_length()))
