"""How a frame's transform is split: every plan can run, and computes what it is for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from torch_mlx_spectro.kernels import radices as plans
from torch_mlx_spectro.kernels.radices import (
    FftPlan,
    count_buffer_points,
    count_tile_samples,
    find_radices,
)


def smooth(n: int) -> bool:
    for prime in (2, 3, 5, 7):
        while n % prime == 0:
            n //= prime
    return n == 1


COVERED = [points for points in range(1, plans.MAX_POINTS + 1) if smooth(points)]


def product(numbers: tuple[int, ...]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result


def test_every_smooth_size_has_radices_that_the_kernels_know() -> None:
    for points in range(1, plans.MAX_POINTS + 1):
        radices = find_radices(points)
        assert (radices is not None) == smooth(points)
        if radices is not None:
            assert product(radices) == points
            assert len(radices) <= plans.MAX_PASSES
            assert set(radices) <= {1, 2, 3, 4, 5, 7, 8, 9, 16}


#: Ways to ask for plans: analyses of few and of many frames, syntheses of either layout.
KINDS: dict[str, Callable[[int], tuple[FftPlan, ...]]] = {
    "analysis of few": lambda points: plans.list_analysis_plans(points, 1),
    "analysis of many": lambda points: plans.list_analysis_plans(points, 1 << 20),
    "synthesis": plans.list_plans,
    "synthesis of many": lambda points: plans.list_plans(points, least_frames=plans.FASTEST_FRAMES),
}


@pytest.mark.parametrize("kind", KINDS)
def test_plans_fit_a_group_and_get_smaller(kind: str) -> None:
    for points in COVERED:
        found = KINDS[kind](points)
        for plan in found:
            assert product(plan.radices) == points
            assert plan.points == points
            assert 1 <= plan.threads <= max(points, 1)
            assert plan.group <= plans.MAX_GROUP_THREADS
            assert plan.memory_bytes <= plans.GROUP_MEMORY_BYTES
            held = max(-(-(points // radix) // plan.threads) * radix for radix in plan.radices)
            assert held <= plans.SYNTHESIS_VALUES[-1]
        sizes = [plan.group for plan in found]
        assert sizes == sorted(set(sizes), reverse=True)


def test_a_gpu_that_allows_few_threads_still_has_a_plan() -> None:
    for points in COVERED:
        for kind in KINDS.values():
            assert kind(points)[-1].group <= 128


def test_reads_across_frames_are_whole_lines_where_memory_allows() -> None:
    assert plans.list_plans(512, least_frames=plans.FASTEST_FRAMES)[0].frames >= 4
    assert plans.list_plans(4096, least_frames=plans.FASTEST_FRAMES)[0].frames == 1


@pytest.mark.parametrize("points", [0, 11, 4097, 8192])
def test_sizes_without_a_plan(points: int) -> None:
    for kind in KINDS.values():
        with pytest.raises(ValueError, match="points"):
            kind(points)


def test_frames_of_a_full_gpu_fill_a_simd_group_each() -> None:
    assert plans.list_analysis_plans(512, 100)[0].threads == 64
    assert plans.list_analysis_plans(512, 100_000)[0].threads == plans.SIMD_WIDTH


def test_template_has_every_radix() -> None:
    named = dict(FftPlan(200, (5, 5, 8), 40, 4).template())
    assert [named[f"R{index}"] for index in range(plans.MAX_PASSES)] == [5, 5, 8, 1, 1, 1]
    assert (named["POINTS"], named["THREADS"], named["FRAMES"]) == (200, 40, 4)


def test_buffers_are_whole_lines() -> None:
    assert [count_buffer_points(n) for n in (1, 16, 17, 512)] == [16, 16, 32, 512]


def test_tiles_are_several_frames_long_where_registers_allow() -> None:
    for points in COVERED:
        plan = plans.list_plans(points)[0]
        samples = count_tile_samples(plan, 2 * points)
        assert samples & (samples - 1) == 0
        assert samples <= plans.MAX_TILE_SAMPLES
        assert plan.group * samples >= min(4 * 2 * points, plan.group * plans.MAX_TILE_SAMPLES)
