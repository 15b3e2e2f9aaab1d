"""Plan how a group walks over frames, in the synthesis kernel that is compiled for one hop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .radices import (
    GROUP_MEMORY_BYTES,
    H100,
    MAX_GROUP_THREADS,
    MAX_PASSES,
    MAX_POINTS,
    FftPlan,
    Gpu,
    count_values,
    find_even_radices,
    find_gpu,
    find_radices,
    is_power_of_two,
    resize_group,
)

#: Threads of a walking group to aim at; more, up to a limit, where a group then has four frames.
WALK_GROUP = 128
WALK_FRAMES, WALK_FRAMES_GROUP = 4, 256
#: Frames of a walking group over a (bins, frames) spectrum: 8 of 8 bytes are two sectors.
WALK_FASTEST_FRAMES, WALK_FASTEST_GROUP = 8, 512
#: Points below which no walk is planned. None was measured, and each hop needs a compilation.
LEAST_WALK_POINTS = 128
#: Output samples of each thread of a group at either end, where folded padding is added.
END_SAMPLES = 4
#: Registers that a walking thread may keep: for pieces of the window; and, in addition, for sums.
KEPT_WINDOW = 40
KEPT_SUMS = 32
#: Radices of a walk's first pass, best first, and of the others.
FIRST_RADICES = (8, 10, 6, 4, 12, 2)
LATER_RADICES = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16)
#: Group memory of the walks that a GPU may try beside the first choice.
WALK_MEMORIES = (8 << 10, 16 << 10, 32 << 10)
#: A walk whose threads hold 8 values, not 16: its radices, and its group memory to aim at.
LEAN_MEMORY = 16 << 10
LEAN_FIRST_RADICES = (4,)
LEAN_RADICES = (2, 3, 4, 5, 6, 7, 8)
#: A walking thread needs this many registers: a base, and more for each one that it keeps and for
#: each value that it holds beyond 16. The numbers fit what CUDA's compiler took.
WALK_REGISTERS = 72
KEPT_REGISTERS = 0.85
VALUE_REGISTERS = 3
#: Frames of a run; longer runs were slower. Over a (bins, frames) spectrum runs are shorter, since
#: lines that were read in part leave the cache before the rest is read. They are shorter still
#: where frames are so long that a group has fewer than eight, unless all groups run at once.
MOST_FRAMES = 36
MOST_FASTEST_FRAMES = 24
MOST_LONG_FASTEST_FRAMES = 16


@dataclass(frozen=True)
class WalkPlan:
    """How a group walks over frames, for packed real signals and one hop (run_sums.h).

    Attributes:
        fft: one frame's transform; its first radix is even, and so is ``points`` over that radix.
        hop: hop length.
        width: neighbouring samples that a thread adds at once.
    """

    fft: FftPlan
    hop: int
    width: int

    @property
    def overlap(self) -> int:
        """How many frames cover a sample."""
        return -(-2 * self.fft.points // self.hop)

    @property
    def _abreast(self) -> int:
        """How many hops the group adds to at once."""
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
        """Whether a thread keeps its pieces of the window in registers."""
        return self.overlap * self._owned * self.width <= KEPT_WINDOW

    @property
    def sums(self) -> int:
        """Registers for sums that a thread carries from round to round."""
        return -(-(self.overlap - 1) // self._abreast) * self._owned * self.width

    @property
    def resident(self) -> int:
        """How many groups a core of the GPU that plans were sized for holds at once."""
        return self.count_resident(H100)

    def count_resident(self, gpu: Gpu) -> int:
        """Count the groups that a core holds at once, by their registers and their memory."""
        fitting = int(gpu.registers / self.registers)
        if gpu.memory_bytes is not None:
            fitting = min(fitting, gpu.memory_bytes // self.fft.memory_bytes)
        return max(1, fitting)

    @property
    def registers(self) -> float:
        """The registers that a group needs, of all its threads."""
        kept = self.sums + self._owned * self.width
        if self.keeps_window:
            kept += self.overlap * self._owned * self.width
        if self.fft.half:
            reached = self.fft.frames // self._abreast * self._owned * self.width
            kept += self.sums + reached
        values = count_values(self.fft.points, self.fft.radices, self.fft.threads)
        held = max(0, values - 2 * FIRST_RADICES[0]) * VALUE_REGISTERS
        return self.fft.group * (WALK_REGISTERS + KEPT_REGISTERS * kept + held)

    def template(self) -> list[tuple[str, int]]:
        """The plan as a kernel's template arguments."""
        return [
            *self.fft.template(),
            ("HOP", self.hop),
            ("WIDTH", self.width),
            ("KEEP_WINDOW", self.keeps_window),
            ("HALF", self.fft.half),
        ]

    def run_hops(self, hops: int, rows: int, frames_fastest: bool, cores: int | None = None) -> int:
        """Choose the hops of a run, in whole rounds.

        A core works as long as its groups have rounds, and then waits for the last group. The cost
        is the sum of both, in rounds; it ordered the runs as measured.

        Args:
            cores: as in :func:`.kernels.radices.find_gpu`. With fewer cores, fewer groups keep
                all of them busy, and longer runs transform fewer frames twice.
        """
        gpu = find_gpu(cores)
        cores, resident, frames = gpu.cores, self.count_resident(gpu), self.fft.frames
        fewest = -(-self.overlap // frames)
        long = frames < WALK_FASTEST_FRAMES
        costs = []
        for rounds in range(fewest, max(MOST_FRAMES // frames, fewest) + 1):
            run = rounds * frames - (self.overlap - 1)
            groups = -(-hops // run) * rows
            waves = -(-groups // (cores * resident))
            most = MOST_FRAMES
            if frames_fastest and not (long and waves == 1):
                most = MOST_LONG_FASTEST_FRAMES if long else MOST_FASTEST_FRAMES
            if rounds * frames <= most or rounds == fewest:
                # Of equals the longest, which transforms the fewest frames twice.
                costs.append(((-(-groups // cores) + waves) * rounds, -run))
        return -min(costs)[1]


def mirrored_radices(
    points: int,
    firsts: tuple[int, ...] = FIRST_RADICES,
    others: tuple[int, ...] = LATER_RADICES,
) -> tuple[int, ...] | None:
    """Find radices whose first pass takes mirrored pairs of bins as they lie; None: none.

    Args:
        firsts: radices of the first pass, best first.
        others: radices of the later passes.
    """
    for first in firsts:
        if points % (2 * first) == 0:
            later = find_even_radices(points // first, others)
            if later is not None and len(later) < MAX_PASSES:
                # Powers of two stand around the others, since their exchanges are swizzled.
                powers = [radix for radix in later if is_power_of_two(radix)]
                between = [radix for radix in later if not is_power_of_two(radix)]
                return (first, *powers[:1], *between, *powers[1:])
    return None


def list_walks(
    points: int, hop: int, width: int, frames_fastest: bool, halves: bool, cores: int | None
) -> tuple[WalkPlan, ...]:
    """List plans of walks for one call, best first; none where :func:`walk_plan` has none.

    An H100 has one, which was measured. For Apple's GPUs nothing was, so their launchers try
    several on first use. There the first one is the first whose registers a core has; smaller ones
    follow, for a GPU that refuses it, and larger ones at the end.

    Args:
        cores: as in :func:`.kernels.radices.find_gpu`.
    """
    best = walk_plan(points, hop, width, frames_fastest, halves)
    if best is None or cores is None:
        return () if best is None else (best,)
    found = {best: None} | dict.fromkeys(_list_other_walks(best, halves and width == 2))
    smaller = sorted(
        (plan for plan in found if plan.fft.group <= best.fft.group and plan is not best),
        key=lambda plan: -plan.fft.group,
    )
    larger = [plan for plan in found if plan.fft.group > best.fft.group]
    ordered = [best, *smaller, *larger]
    registers = find_gpu(cores).registers
    fitting = (plan for plan in ordered if plan.registers <= registers)
    first = next(fitting, min(ordered, key=lambda plan: plan.registers))
    return (first, *(plan for plan in ordered if plan is not first))


def _list_other_walks(best: WalkPlan, halves: bool) -> Iterator[WalkPlan]:
    """Yield walks of other group memories, and one of more threads that hold fewer values."""
    points = best.fft.points
    one = replace(best.fft, frames=1, half=False)
    found = []
    for memory in WALK_MEMORIES:
        half = halves and one.memory_bytes > memory
        frames = memory // replace(one, half=half).memory_bytes
        found.append(replace(one, frames=frames, half=half))
    radices = mirrored_radices(points, LEAN_FIRST_RADICES, LEAN_RADICES)
    if radices is not None and len(radices) > 1:
        lean = FftPlan(points, radices, points // radices[0] // 2, 1)
        found.append(replace(lean, frames=max(1, LEAN_MEMORY // lean.memory_bytes)))
    for fft in found:
        plan = replace(best, fft=fft)
        if fft.frames and fft.group <= WALK_FASTEST_GROUP and plan.sums <= KEPT_SUMS:
            yield plan


def walk_plan(
    points: int, hop: int, width: int, frames_fastest: bool, halves: bool
) -> WalkPlan | None:
    """Make the plan of a walk; None where there is none, or it would not pay.

    Args:
        points: n_fft / 2.
        hop: hop length, at most n_fft.
        width: 2 where hop, rows and the first sample are even, else 1.
        frames_fastest: neighbouring frames of the spectrum are neighbours in memory.
        halves: real and imaginary parts may be exchanged one after the other, where otherwise too
            few frames fit a group.
    """
    if points > MAX_POINTS or points < LEAST_WALK_POINTS or find_radices(points) is None:
        return None
    radices = mirrored_radices(points)
    if radices is None or len(radices) < 2 or hop > 2 * points:
        return None
    threads = points // radices[0] // 2
    frames = max(1, WALK_GROUP // threads)
    if frames_fastest:
        frames = max(frames, min(WALK_FASTEST_FRAMES, WALK_FASTEST_GROUP // threads))
    elif WALK_FRAMES * threads <= WALK_FRAMES_GROUP:
        frames = max(frames, WALK_FRAMES)
    fitting = GROUP_MEMORY_BYTES // FftPlan(points, radices, threads, 1).memory_bytes
    half = halves and width == 2 and fitting < (4 if frames_fastest else 2)
    if half:
        fitting = GROUP_MEMORY_BYTES // FftPlan(points, radices, threads, 1, half).memory_bytes
        frames = max(frames, 2)
    fft = FftPlan(points, radices, threads, min(frames, fitting), half)
    plan = WalkPlan(fft, hop, width)
    return plan if fft.group <= MAX_GROUP_THREADS and plan.sums <= KEPT_SUMS else None


def resize_any_walk(plans: Sequence[WalkPlan], group: int) -> WalkPlan:
    """Return the first plan that can have groups of so many threads, with these.

    Raises:
        ValueError: none can; why the first one cannot.
    """
    refusals = []
    for plan in plans:
        try:
            return _resize_walk(plan, group)
        except ValueError as refusal:
            refusals.append(refusal)
    raise refusals[0]


def _resize_walk(plan: WalkPlan, group: int) -> WalkPlan:
    found = replace(plan, fft=resize_group(plan.fft, group, same_threads=True))
    if found.sums > KEPT_SUMS:
        raise ValueError(f"threads of a group of {group} would have to keep {found.sums} sums")
    return found
