"""How a frame's Fourier transform is split into passes, threads and groups.

A plan is what a kernel is compiled for. Lengths of signals, hops and strides are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

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
#: group fewer threads. Synthesis holds its output samples besides.
ANALYSIS_VALUES = (16, 32, 64)
SYNTHESIS_VALUES = (8, 16, 32, 64)
#: Threads of a group to aim at. Large ones read windows and tables less often.
GROUP = 256
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
    """

    points: int
    radices: tuple[int, ...]
    threads: int
    frames: int

    @property
    def group(self) -> int:
        """Threads of a group."""
        return self.threads * self.frames

    @property
    def memory_bytes(self) -> int:
        """Group memory that the frames need."""
        return self.frames * buffer_points(self.points) * POINT_BYTES

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


@lru_cache(maxsize=4096)
def radices_of(points: int) -> tuple[int, ...] | None:
    """Radices of the passes, or None where ``points`` has a prime factor above 7."""
    if points < 1:
        return None
    rest, twos, odd = points, 0, []
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
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


def _work(points: int, radices: tuple[int, ...], threads: int) -> float:
    """Values that the threads' passes take up, idle threads included."""
    values = sum(-(-(points // radix) // threads) * threads * radix for radix in radices)
    return values * (1.0 if SIMD_WIDTH % threads == 0 else GROUP_BARRIER_WORK)


def _values(points: int, radices: tuple[int, ...], threads: int) -> int:
    """Most values that a thread holds."""
    return max(-(-(points // radix) // threads) * radix for radix in radices)


@lru_cache(maxsize=4096)
def _threads_of(points: int, values: int) -> int:
    """Threads per frame that hold about ``values`` values each and idle least."""
    radices = radices_of(points)
    assert radices is not None
    # Past one SIMD group, by eights: threads that fill it are worth more than an exact fit.
    # At most twice as many as hold that many values: a plan of more values is one of less threads.
    most = min(-(-2 * points // values), MAX_GROUP_THREADS)
    candidates = [*range(1, min(most, SIMD_WIDTH) + 1), *range(SIMD_WIDTH + 8, most + 1, 8)]
    values = max(values, *radices)
    fitting = [threads for threads in candidates if _values(points, radices, threads) <= values]
    fitting = fitting or candidates[-1:]
    best: int = min(fitting, key=lambda threads: (_work(points, radices, threads), threads))
    return best


@lru_cache(maxsize=4096)
def plans(points: int, values: tuple[int, ...], least_frames: int = 1) -> tuple[FftPlan, ...]:
    """Plans of a frame of ``points`` points, best first, each of fewer threads than the last.

    Args:
        points: complex points, at most MAX_POINTS, with no prime factor above 7.
        values: that a thread holds, of each plan in turn.
        least_frames: frames per group to aim at.

    Returns:
        At least one plan; the later ones are for a GPU that refuses groups of so many threads.
    """
    radices = radices_of(points)
    if radices is None or points > MAX_POINTS:
        raise ValueError(f"points must be at most {MAX_POINTS} and 7-smooth; got {points}")
    found: list[FftPlan] = []
    for held in values:
        threads = _threads_of(points, held)
        frames = max(-(-GROUP // threads), least_frames)
        frames = min(frames, GROUP_MEMORY_BYTES // (buffer_points(points) * POINT_BYTES))
        frames = min(frames, MAX_GROUP_THREADS // threads)
        while frames:
            plan = FftPlan(points, radices, threads, frames)
            if not found or plan.group < found[-1].group:
                found.append(plan)
            frames //= 2
    return tuple(found)


def tile_samples(plan: FftPlan, n_fft: int) -> int:
    """Output samples of each thread of a synthesis group: a power of two."""
    wanted = -(-TILE_FRAMES * n_fft // plan.group)
    return min(MAX_TILE_SAMPLES, 1 << max(3, (wanted - 1).bit_length()))
