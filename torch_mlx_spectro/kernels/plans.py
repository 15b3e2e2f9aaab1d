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


#: Threads of a walking group to aim at, and most of them.
WALK_GROUP = 128
MOST_WALK_GROUP = 512
#: Frames of a walking group over a (bins, frames) spectrum: 8 of 8 bytes are two sectors.
WALK_FASTEST_FRAMES = 8
#: Points below which a walk is not worth a compilation for each hop.
LEAST_WALK_POINTS = 32
#: Output samples of each thread of a group that makes an end, where padding's transpose adds.
END_SAMPLES = 4
#: Registers that a walking thread may keep: for window pieces, and for sums besides.
KEPT_WINDOW = 40
KEPT_SUMS = 24
#: Radices of a walk's first pass: the best, those for what they do not divide, and of the others.
FIRST_RADICES = ((8, 10, 6, 4), (12, 2))
LATER_RADICES = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16)
#: Threads that run at once on the GPU that runs were sized for (one H100: 132 cores of 640).
RESIDENT_THREADS = 132 * 640
#: What a run costs besides its rounds, in rounds.
RUN_OVERHEAD = 1
MOST_ROUNDS = 64
#: Frames of a run over a (bins, frames) spectrum: of longer ones, lines read in part leave the
#: cache before their other frames are read.
MOST_FASTEST_FRAMES = 24


@dataclass(frozen=True)
class WalkPlan:
    """How a group walks over frames, for packed real signals and one hop (run_sums.h).

    Attributes:
        fft: one frame's transform; its first radix and what is left of the points are even.
        hop: hop length.
        width: neighbouring samples that a thread adds at once.
    """

    fft: FftPlan
    hop: int
    width: int

    @property
    def overlap(self) -> int:
        """Frames over a sample."""
        return -(-2 * self.fft.points // self.hop)

    @property
    def _abreast(self) -> int:
        """Hops that the group adds to at once."""
        units, frames = self.hop // self.width, self.fft.frames
        if units >= self.fft.group:
            return 1
        power = 1 << ((self.fft.group // units).bit_length() - 1)
        while frames % power:
            power //= 2
        return power

    @property
    def _owned(self) -> int:
        """Units of one hop that a thread owns."""
        return 1 if self._abreast > 1 else -(-self.hop // self.width // self.fft.group)

    @property
    def keeps_window(self) -> bool:
        """Whether a thread's pieces of the window stay in its registers."""
        return self.overlap * self._owned * self.width <= KEPT_WINDOW

    @property
    def sums(self) -> int:
        """Registers for sums that a thread carries from round to round."""
        return -(-(self.overlap - 1) // self._abreast) * self._owned * self.width

    def template(self) -> list[tuple[str, int]]:
        """The plan as a kernel's template arguments."""
        return [
            *self.fft.template(),
            ("HOP", self.hop),
            ("WIDTH", self.width),
            ("KEEP_WINDOW", self.keeps_window),
        ]

    def run_hops(self, hops: int, rows: int, frames_fastest: bool) -> int:
        """Hops of a run: whole rounds, and as few waves of groups as possible."""
        frames, slots = self.fft.frames, max(1, RESIDENT_THREADS // self.fft.group)
        most = max(1, MOST_FASTEST_FRAMES // frames) if frames_fastest else MOST_ROUNDS
        best: tuple[float, int] | None = None
        for rounds in range(1, MOST_ROUNDS + 1):
            run = rounds * frames - (self.overlap - 1)
            if run < 1 or (rounds > most and best is not None):
                continue
            waves = -(-(-(-hops // run) * rows) // slots)
            cost = (waves * (rounds + RUN_OVERHEAD), rounds)
            if best is None or cost < best:
                best = cost
        if best is None:
            return max(1, MOST_ROUNDS * frames - (self.overlap - 1))
        return int(best[1]) * frames - (self.overlap - 1)


def _factorisations(points: int, passes: int, least: int = 2) -> list[tuple[int, ...]]:
    """Ways to write ``points`` as a product of so many later radices, each in ascending order."""
    if passes == 0:
        return [()] if points == 1 else []
    found = []
    for radix in LATER_RADICES:
        if radix >= least and points % radix == 0:
            for others in _factorisations(points // radix, passes - 1, radix):
                found.append((radix, *others))
    return found


@lru_cache(maxsize=4096)
def mirrored_radices(points: int) -> tuple[int, ...] | None:
    """Radices whose first pass takes mirrored pairs of bins as they are; None: there are none."""
    for firsts in FIRST_RADICES:
        for passes in range(1, MAX_PASSES):
            for first in firsts:
                if points % (2 * first):
                    continue
                options = _factorisations(points // first, passes)
                if options:
                    best = min(options, key=lambda others: (_uneven(points, first, others)))
                    # Powers of two first: threads of later passes stay on different banks.
                    return (first, *sorted(best, key=lambda radix: radix & (radix - 1) != 0))
    return None


def _uneven(points: int, first: int, others: tuple[int, ...]) -> tuple[float, int]:
    """What to keep small when choosing later radices: idle threads, then large radices."""
    return _work(points, others, points // first // 2), sum(others)


@lru_cache(maxsize=4096)
def walk_plan(points: int, hop: int, width: int, frames_fastest: bool) -> WalkPlan | None:
    """The plan of a walk, or None where there is none, or it would not pay.

    Args:
        points: n_fft / 2.
        hop: hop length, at most n_fft.
        width: 2 where hop, rows and the first sample are even, else 1.
        frames_fastest: neighbouring frames of the spectrum are neighbours in memory.
    """
    if points > MAX_POINTS or points < LEAST_WALK_POINTS or radices_of(points) is None:
        return None
    radices = mirrored_radices(points)
    if radices is None or len(radices) < 2 or hop > 2 * points:
        return None
    threads = points // radices[0] // 2
    frames = max(1, WALK_GROUP // threads)
    if frames_fastest:
        frames = max(frames, WALK_FASTEST_FRAMES)
    most = GROUP_MEMORY_BYTES // (buffer_points(points) * POINT_BYTES)
    frames = min(frames, most, max(1, MOST_WALK_GROUP // threads))
    plan = WalkPlan(FftPlan(points, radices, threads, frames), hop, width)
    return plan if threads <= MAX_GROUP_THREADS and plan.sums <= KEPT_SUMS else None
