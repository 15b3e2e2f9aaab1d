"""Walks: plans that fit, runs that cover, and the kernel with several rounds to a run."""

from __future__ import annotations

from pathlib import Path

import metal
import mlx.core as mx
import numpy as np
import pytest
import torch
from metal import several_rounds
from needs import needs_emulator
from patched import check_patched
from reference import istft_params, random_array, random_tensor, stft_params
from small_calls import istft_case
from test_metal_kernels import Emulated, adjoint_params, agree, inner

from torch_mlx_spectro.kernels import describe
from torch_mlx_spectro.kernels import radices as plans
from torch_mlx_spectro.kernels.describe import Adjoint
from torch_mlx_spectro.kernels.walks import WalkPlan, list_walks, mirrored_radices, walk_plan

POINTS = [points for points in range(1, plans.MAX_POINTS + 1) if plans.find_radices(points)]


def every_plan() -> list[WalkPlan]:
    found = []
    for points in POINTS:
        for hop in {2 * points, points, max(1, points // 2), max(1, points // 2 + 1)}:
            for fastest in (False, True):
                for halves in (False, True):
                    width = 2 - hop % 2
                    given = (points, hop, width, fastest, halves)
                    found += {*list_walks(*given, None), *list_walks(*given, 10)}
    return found


def test_plans_fit_a_group_and_the_kernel() -> None:
    found = every_plan()
    assert len(found) > 700
    for plan in found:
        fft = plan.fft
        first = fft.radices[0]
        assert first % 2 == 0
        assert fft.points // first % 2 == 0
        assert fft.threads == fft.points // first // 2
        assert 2 <= len(fft.radices) <= plans.MAX_PASSES
        assert fft.memory_bytes <= plans.GROUP_MEMORY_BYTES
        assert fft.group <= plans.MAX_GROUP_THREADS
        assert plan.hop % plan.width == 0
        assert not fft.half or plan.width == 2
        assert 1 <= plan.resident <= plans.H100.registers // fft.group // 32


def test_sizes_that_nobody_walks_over() -> None:
    assert walk_plan(511, 256, 2, False, True) is None  # 7 * 73
    assert walk_plan(441, 220, 2, False, True) is None  # odd
    assert walk_plan(64, 32, 2, False, True) is None  # too short
    assert walk_plan(8192, 4096, 2, False, True) is None
    assert walk_plan(512, 1025, 1, False, True) is None  # gaps
    assert walk_plan(4096, 1, 1, False, True) is None  # sums of 8191 hops
    assert mirrored_radices(2 * 11) is None


def test_wide_spectra_are_read_in_whole_lines() -> None:
    frames = {n: walk_plan(n // 2, n // 4, 2, True, True) for n in (512, 1024, 4096, 6144)}
    assert [plan.fft.frames for plan in frames.values() if plan] == [8, 8, 4, 2]
    assert [plan.fft.half for plan in frames.values() if plan] == [False, False, True, True]


def test_an_h100_has_one_walk() -> None:
    for given in (
        (512, 256, 2, False, True),
        (2048, 1024, 2, True, True),
        (511, 256, 2, True, True),
    ):
        best = walk_plan(*given)
        assert list_walks(*given, None) == (() if best is None else (best,))


@pytest.mark.parametrize("n", [512, 1024, 2048, 4096, 6144, 8192])
@pytest.mark.parametrize("fastest", [False, True])
def test_apples_gpus_have_walks_of_several_memories(n: int, fastest: bool) -> None:
    found = list_walks(n // 2, n // 4, 2, fastest, True, 10)
    best = walk_plan(n // 2, n // 4, 2, fastest, True)
    assert best in found
    assert len(set(found)) == len(found) <= 5
    memories = {plan.fft.memory_bytes for plan in found}
    whole = n // 2 * plans.POINT_BYTES
    for wanted in (8 << 10, 16 << 10, 32 << 10):
        if whole <= 2 * wanted:  # else not even half a frame fits
            assert any(wanted // 2 < memory <= wanted for memory in memories), wanted
    first, *others = found
    assert first.registers <= plans.find_gpu(10).registers
    if best.registers <= plans.find_gpu(10).registers:
        assert first == best
    # A GPU that refuses the first one is asked for smaller groups before larger ones.
    groups = [plan.fft.group for plan in others if plan.fft.group <= best.fft.group]
    assert groups == sorted(groups, reverse=True)
    assert [plan.fft.group for plan in others][: len(groups)] == groups
    assert any(plan.fft.group < best.fft.group for plan in found) or n == 4096
    assert len({plan.fft.radices for plan in found}) == 2  # 16 values a thread, and 8


def test_groups_that_a_core_of_apples_holds() -> None:
    """By what group memory allows, too: an H100's registers run out before."""
    plan = walk_plan(1024, 512, 2, False, True)
    assert plan is not None
    assert plan.fft.memory_bytes == 32 << 10
    assert plan.count_resident(plans.find_gpu(10)) == 1 < plan.resident


#: n_fft, hop, frames, and how many walks there are.
EVERY_WALK = [(400, 100, 30), (512, 128, 50), (1024, 441, 24), (4096, 1024, 12), (6144, 1536, 9)]


@needs_emulator
@pytest.mark.parametrize("fastest", [False, True])
@pytest.mark.parametrize(("n", "hop", "frames"), EVERY_WALK)
def test_every_walk_computes_the_same(
    n: int, hop: int, frames: int, fastest: bool, metal_cache: Path
) -> None:
    emulated, window = Emulated(metal_cache), random_array(1, n) + 2
    spectrum = random_array(2, 2, frames, n // 2 + 1, complex_values=True)
    given = torch.from_numpy(spectrum)
    params = istft_params(given.mT, torch.from_numpy(window), n_fft=n, hop_length=hop)
    launches = describe.list_syntheses(params, False, fastest, cores=10)
    walked = [launch for launch in launches if launch.kernel == "synthesis_walk"]
    assert len(walked) > 3
    if fastest:
        given = given.mT.contiguous().mT
    read = mx.array(given.mT.contiguous().numpy() if fastest else given.numpy())
    read = read.transpose(0, 2, 1) if fastest else read
    results = [
        np.array(emulated.kernels.run((launch,), read, mx.array(window), None))
        for launch in (*walked, launches[-1])
    ]
    for result in results[:-1]:
        np.testing.assert_allclose(result, results[-1], atol=2e-6 * np.abs(results[-1]).max())


@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize("hops", [1, 100, 5_000, 1_000_000])
@pytest.mark.parametrize("fastest", [False, True])
def test_runs_are_whole_rounds(rows: int, hops: int, fastest: bool) -> None:
    for plan in every_plan()[::97]:
        run = plan.run_hops(hops, rows, fastest)
        assert run >= 1
        assert (run + plan.overlap - 1) % plan.fft.frames == 0


def test_a_full_gpu_transforms_few_frames_twice() -> None:
    plan = walk_plan(512, 256, 2, False, True)
    assert plan is not None
    run = plan.run_hops(20_000, 4, False)
    assert (run + 3) / run < 1.15
    assert plan.run_hops(60, 1, False) < run


def test_fewer_cores_transform_fewer_frames_twice() -> None:
    """Ten seconds of music: an H100's cores are kept busy by short runs, ten cores by long ones."""
    plan = walk_plan(512, 256, 2, False, True)
    assert plan is not None
    hops = 1723

    def twice(cores: int | None) -> float:
        run = plan.run_hops(hops, 1, False, cores)
        return (run + plan.overlap - 1) / run

    assert twice(10) < twice(40) < twice(None) == twice(132)
    assert twice(10) < 1.15 < 1.3 < twice(None)


#: n_fft, hop, frames, more arguments: units of two and of one, hops side by side and over several
#: threads' turns, windows that end within a hop, windows read anew, halves, a tail of zeros.
WALKED = [
    (64, 16, 300, {}),
    (64, 21, 150, {"length": "3000"}),
    (96, 48, 100, {}),
    (128, 128, 40, {}),
    (400, 100, 60, {}),
    (400, 160, 40, {"length": "7000"}),
    (512, 32, 80, {}),
    (640, 213, 30, {}),
    (1024, 256, 30, {"center": "False"}),
    (1200, 300, 30, {"length": "10000"}),
    (2048, 441, 24, {}),
    (4096, 1024, 14, {}),
    (6144, 1024, 12, {}),
    (5120, 1280, 9, {}),
]


@needs_emulator
@pytest.mark.parametrize("layout", [".mT", ".mT.contiguous()"])
@pytest.mark.parametrize(("n", "hop", "frames", "more"), WALKED)
@pytest.mark.usefixtures(several_rounds.__name__)
def test_long_runs_are_natives(
    n: int, hop: int, frames: int, more: dict[str, str], layout: str, metal_cache: Path
) -> None:
    shape = f"torch.randn((2, {frames}, {n // 2 + 1}), dtype=torch.complex64, generator=g)"
    given = {"n_fft": str(n), "hop_length": str(hop), **more}
    case = istft_case(f"{shape}{layout}", f"torch.hamming_window({n}) + 0.1", **given)
    with metal.emulated(metal_cache) as machine:
        check_patched(case)
        assert {launch.kernel for launch in machine.launches} == {"spectro_synthesis_walk"}


@needs_emulator
@pytest.mark.parametrize("mode", ["reflect", "constant", "replicate", "circular"])
@pytest.mark.parametrize("fastest", [False, True])
@pytest.mark.parametrize(("n", "hop"), [(64, 16), (96, 37), (1024, 256)])
@pytest.mark.usefixtures(several_rounds.__name__)
def test_walks_are_adjoints(n: int, hop: int, fastest: bool, mode: str, metal_cache: Path) -> None:
    """<A x, y> = <x, A* y>: both ends by groups of their own, what is between by runs."""
    emulated = Emulated(metal_cache)
    signal = random_tensor(0, 2, 9 * n + 7)
    params = stft_params(signal, None, n_fft=n, hop_length=hop, pad_mode=mode, onesided=True)
    window = random_array(1, n)
    spectrum = random_array(2, 2, params.frames, params.bins, complex_values=True)
    transformed = emulated.call("compute_analysis", params, signal.numpy(), window)
    back = emulated.call(
        "compute_synthesis",
        adjoint_params(params),
        spectrum,
        window,
        adjoint=Adjoint(params.padding, mode, both_halves=False, scale=0.5, edge=2.0),
        frames_fastest=fastest,
    )
    assert emulated.machine.launches[-1].kernel == "spectro_synthesis_walk"
    agree(inner(transformed, spectrum), inner(signal.numpy(), back), transformed, spectrum)
