"""The emulated tests can fail: without any one barrier, and with any index map off by one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import metal
import pytest
import test_metal_kernels
import torch
from metal import several_rounds
from needs import ONCE_ONLY, needs_emulator
from patched import check_patched
from small_calls import istft_case, stft_case
from test_metal_kernels import Emulated

import torch_mlx_spectro as tms
from stft_parity.cases import Case
from torch_mlx_spectro import emulator
from torch_mlx_spectro.native import functions as native

pytestmark = [
    needs_emulator,
    pytest.mark.usefixtures(several_rounds.__name__),
    *ONCE_ONLY,
]

#: What a kernel that is wrong ends with: another result, or an error of the emulator.
WRONG = (AssertionError, emulator.EmulatorError)

_BARRIER = re.compile(
    r"(?:threadgroup_barrier|simdgroup_barrier)\(mem_flags::mem_threadgroup\);"
    r"|frame_barrier<P::THREADS>\(\);"
)


def stft(n: int, samples: int, **changes: str) -> Case:
    window = f"torch.hamming_window({n}) + 0.1"
    hop = str(max(1, n // 4))
    given = {"n_fft": str(n), "hop_length": hop, **changes}
    return stft_case(f"torch.randn((2, {samples}), generator=g)", window, **given)


def istft(n: int, frames: int, layout: str = ".mT", **changes: str) -> Case:
    window = f"torch.hamming_window({n}) + 0.1"
    shape = f"torch.randn((2, {frames}, {n // 2 + 1}), dtype=torch.complex64, generator=g)"
    given = {"n_fft": str(n), "hop_length": str(max(1, n // 4)), **changes}
    return istft_case(f"{shape}{layout}", window, **given)


#: Sizes of one SIMD group and of several for each frame, and tiles of several rounds.
ANALYSES = [stft(512, 3000), stft(2048, 5000)]
#: Odd sizes are not walked over.
SYNTHESES = [
    istft(225, 60),
    istft(225, 60, ".mT.contiguous()"),
    istft(1125, 20),
    istft(1125, 20, ".mT.contiguous()"),
]
#: The last two in halves: frames of more than 32 KiB, or too few for whole lines.
WALKS = [
    istft(512, 40),
    istft(2048, 20),
    istft(2048, 20, ".mT.contiguous()"),
    istft(6144, 9),
    istft(4096, 13, ".mT.contiguous()"),
]


def replicated(folder: Path, transform: Callable[[str], str]) -> None:
    """The adjoint of replicate padding: the only one that sums over a whole group."""
    emulated = Emulated(folder, transform=transform)
    test_metal_kernels.test_synthesis_is_the_adjoint_of_analysis(emulated, 16, "replicate", "real")
    test_metal_kernels.test_synthesis_is_the_adjoint_of_analysis(emulated, 60, "replicate", "real")


def barriers(*headers: str) -> list[tuple[str, int]]:
    """Every barrier of these headers: its header, and its place among the barriers there."""
    from torch_mlx_spectro.store.sources import source

    return [
        (name, index) for name in headers for index in range(len(_BARRIER.findall(source(name))))
    ]


def without(header: str, index: int) -> Callable[[str], str]:
    """Delete one barrier of a header from the text that MLX generates."""
    from torch_mlx_spectro.kernels.texts.metal import strip_comments
    from torch_mlx_spectro.store.sources import source

    text = source(header)
    body = strip_comments(text[text.index("namespace spectro {") :])
    place = list(_BARRIER.finditer(body))[index]
    mutated = body[: place.start()] + ";" + body[place.end() :]

    def transform(generated: str) -> str:
        assert generated.count(body) == 1
        return generated.replace(body, mutated)

    return transform


def is_noticed(cases: list[Case], transform: Callable[[str], str], folder: Path) -> bool:
    """Whether any of these calls goes wrong."""
    for case in cases:
        with metal.emulated(folder, transform=transform):
            try:
                check_patched(case)
            except WRONG:
                return True
    return False


def divided(folder: Path, transform: Callable[[str], str], hop: int) -> None:
    """The adjoint of a synthesis: the only one that divides by an envelope as it reads."""
    emulated = Emulated(folder, transform=transform)
    for center in (True, False):
        test_metal_kernels.test_analysis_is_the_adjoint_of_synthesis(
            emulated, 60, hop, None, "real", center
        )


def write_across(folder: Path, transform: Callable[[str], str]) -> None:
    """Spectra whose neighbouring frames are neighbours in memory, which no forward call has."""
    emulated = Emulated(folder, transform=transform)
    for n_fft, onesided in ((512, True), (512, False), (15, True)):
        test_metal_kernels.test_a_spectrum_is_written_in_either_order(emulated, n_fft, onesided)


@pytest.mark.parametrize(("header", "index"), barriers("fft.h", "analysis.h"))
def test_analysis_needs_every_barrier(header: str, index: int, metal_cache: Path) -> None:
    if is_noticed(ANALYSES, without(header, index), metal_cache):
        return
    try:
        write_across(metal_cache, without(header, index))
    except WRONG:
        return
    with pytest.raises(WRONG):
        divided(metal_cache, without(header, index), 7)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("thread_index % FRAMES :", "0u :"),
        ("long(group) * FRAMES + written :", "long(group) * FRAMES + written + 1 :"),
        ("long(row) * bins * frames + place", "long(row) * bins * frames + place + 1"),
        ("written * uint(P::FRAME_BYTES),", "0u,"),
        ("thread_index / FRAMES,", "(thread_index + 1) / FRAMES,"),
        ("place < frames : active", "place + 1 < frames : active"),
        ("ACROSS ? step : 1L", "ACROSS ? step + 1 : 1L"),
        ("(uint(POINTS) - t) * step)", "(uint(POINTS) - t) * step + 1)"),
        ("POINTS / 2 * step", "POINTS / 2 * step + 1"),
        ("spectrum[k * step]", "spectrum[k * step + 1]"),
    ],
)
def test_bins_written_across_frames_are_noticed(old: str, new: str, metal_cache: Path) -> None:
    def transform(text: str) -> str:
        assert text.count(old) == 1
        return text.replace(old, new)

    with pytest.raises(WRONG):
        write_across(metal_cache, transform)


#: Of hops that are multiples of what lies between the inputs of a butterfly, and of others.
DIVISIONS = {
    "piece of a sample": ("other = r % APART;", "other = (r + 1) % APART;", 24),
    "frame over a piece": ("m + (r - other) / APART;", "m + (r - other) / APART + 1;", 24),
    "first of those alike": ("m >= OVERLAP - 1 && m +", "m >= OVERLAP - 2 && m +", 12),
    "last of those alike": ("m + OVERLAP <= frames;", "m + OVERLAP <= frames + 1;", 24),
    "first group": ("first >= OVERLAP - 1 &&", "first >= 0 &&", 7),
    "last group": (
        "first + (FRAMES - 1 + OVERLAP) <= frames;",
        "first + (FRAMES - 1 + OVERLAP) <= frames + 100;",
        7,
    ),
    "hop of a factor": ("int(i / uint(HOP)), r", "int(i / uint(HOP)) + 1, r", 7),
    "place of a factor": (": f * uint(P::FRAME_BYTES));", ": 0u);", 7),
    "factor of a sample": ("2 * j % uint(EVERY);", "(2 * j + 2) % uint(EVERY);", 7),
    "factor of the next": ("(2 * j + 1) % uint(EVERY)]", "(2 * j + 2) % uint(EVERY)]", 7),
}


@pytest.mark.parametrize("name", DIVISIONS)
def test_a_division_off_by_one_is_noticed(name: str, metal_cache: Path) -> None:
    old, new, hop = DIVISIONS[name]

    def transform(text: str) -> str:
        assert text.count(old) == 1 or "DividedFrames" not in text
        return text.replace(old, new)

    with pytest.raises(WRONG):
        divided(metal_cache, transform, hop)


def by_window(window: str, win_length: int, n: int = 16) -> Case:
    given = {"n_fft": str(n), "hop_length": "4", "win_length": str(win_length)}
    return stft_case("torch.randn((2, 60), generator=g)", window, **given)


SHORT = by_window("torch.hamming_window(11) + 0.1", 11)
STRIDED = by_window("(torch.hamming_window(32) + 0.1)[::2]", 16)
#: MLX's kernels have whole windows alone.
WINDOWS = {
    "left of a window": ("inside = i - uint(left);", "inside = i - uint(left) - 1u;", SHORT),
    "end of a window": ("inside < uint(length)", "inside < uint(length - 1)", SHORT),
    "behind a window": ("inside < uint(length)", "inside <= uint(length)", SHORT),
    "stride of a window": ("first[long(inside) * step]", "first[long(inside)]", STRIDED),
    "pairs of a window": (
        "complex(at(2 * j), at(2 * j + 1))",
        "complex(at(2 * j), at(2 * j))",
        STRIDED,
    ),
    "layout of a window": ("left = int(layout[1]);", "left = int(layout[2]);", SHORT),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_read_elsewhere_is_noticed(name: str, metal_cache: Path) -> None:
    old, new, case = WINDOWS[name]

    def transform(text: str) -> str:
        assert text.count(old) == 1
        return text.replace(old, new)

    with (
        metal.emulated(metal_cache, backend="mps", transform=transform),
        pytest.raises(WRONG),
    ):
        check_patched(case)


def check_verdicts(n: int) -> None:
    """Calls whose envelope is zero at one sample of a hop: kept, or just not."""
    hop, frames = n // 4, 12
    spectrum = torch.ones(1, n // 2 + 1, frames, dtype=torch.complex64)
    covered = n + hop * (frames - 1)
    for hole in (0, 1, hop - 2, hop - 1):
        window = torch.ones(n)
        window[hole::hop] = 0
        assert is_refused(spectrum, n, hop, window, None)
        # Zero before the first hop's end alone, at the last hop's alone.
        first, last = torch.ones(n), torch.ones(n)
        first[: hole + 1] = 0
        last[n - hole - 1 :] = 0
        for length in (covered, covered - hole - 1, covered - hole):
            for edge in (first, last):
                is_refused(spectrum, n, hop, edge, length, center=False)
    assert is_refused(spectrum[..., :1], n, hop, window, n // 2 - 2, center=False)
    # Of centred frames that lie over every sample twice no end is kept.
    window = torch.ones(n)
    window[3 :: n // 2] = 0
    assert is_refused(spectrum, n, n // 2, window, None)
    assert not is_refused(spectrum, n, hop, torch.ones(n), covered + 20, center=False)
    assert not is_refused(spectrum, n, hop - 1, torch.ones(n), None)
    # At the end, where a hop that does not divide a frame has one piece less.
    window, place = torch.ones(n), hop // 2
    window[(n - 1 - place) // (hop - 1) * (hop - 1) + place] = 0
    assert is_refused(spectrum, n, hop - 1, window, None, center=False)
    # At the last sample of the first hop alone.
    window = torch.ones(n)
    window[hop - 1] = 0
    assert is_refused(spectrum, n, hop, window, None, center=False)
    # Between frames that are few, and at neither end.
    window = torch.ones(n)
    window[hop : 3 * hop] = 0
    assert is_refused(spectrum[..., :2], n, hop, window, 4 * hop, center=False)


def is_refused(
    spectrum: torch.Tensor, n: int, hop: int, window: torch.Tensor, length: Any, **more: Any
) -> bool:
    """Whether native refuses a call, and so do we."""
    refused = []
    for function in (native.istft, torch.istft):
        try:
            function(spectrum, n, hop, window=window, length=length, **more)
            refused.append(False)
        except emulator.EmulatorError:
            raise
        except RuntimeError:  # NotAccelerated, too
            refused.append(True)
    assert refused[0] == refused[1]
    return refused[0]


VERDICTS = {
    "first hop alone": ("from_end ? kept - 1 - i : i)", "i)", 64),
    "last hop alone": ("from_end ? kept - 1 - i : i)", "kept - 1 - i)", 64),
    "more than kept": ("from_end ? kept - 1 - i", "from_end ? kept - i", 64),
    "before what is kept": ("uint(from_end ?", "uint(0 - 1) + uint(from_end ?", 64),
    "part of a hop": ("HOP < all ? HOP : all", "HOP - 1 < all ? HOP - 1 : all", 64),
    "few frames": ("frames >= OVERLAP && HOP", "frames >= OVERLAP - 2 && HOP", 64),
    "frames there are": ("q - uint(k) < uint(frames)", "q - uint(k) <= uint(frames)", 64),
    "end of the window": (" && place < uint(N_FFT);", ";", 64),
    "behind the window": ("place < uint(N_FFT) ? place : 0u", "place", 64),
    "who tells": ("group == 0 && row == 0 &&", "group == 1 && row == 0 &&", 64),
    "of a walk": ("found ? VANISHES : FINE", "found ? FINE : VANISHES", 64),
    "of a tile": ("if (vanishes(squares)) note", "if (!vanishes(squares)) note", 15),
}


@pytest.mark.parametrize("n", [64, 15, 22])
def test_verdicts_are_natives(n: int, metal_cache: Path) -> None:
    with metal.emulated(metal_cache, backend="mps"):
        check_verdicts(n)


@pytest.mark.parametrize("name", VERDICTS)
def test_a_wrong_verdict_is_noticed(name: str, metal_cache: Path) -> None:
    old, new, n = VERDICTS[name]

    def transform(text: str) -> str:
        assert text.count(old) >= 1 or "synthesis" not in text
        return text.replace(old, new)

    with (
        metal.emulated(metal_cache, backend="mps", transform=transform),
        pytest.raises((*WRONG, tms.NotAccelerated)),
    ):
        check_verdicts(n)


@pytest.mark.parametrize("index", range(3))
def test_votes_need_every_barrier(index: int, metal_cache: Path) -> None:
    def transform(text: str) -> str:
        begin = text.index("inline bool is_any(")
        end = text.index("\n}", begin)
        place = list(_BARRIER.finditer(text, begin, end))[index]
        return text[: place.start()] + ";" + text[place.end() :]

    with (
        metal.emulated(metal_cache, backend="mps", transform=transform),
        pytest.raises((*WRONG, tms.NotAccelerated)),
    ):
        check_verdicts(64)


@pytest.mark.parametrize(("header", "index"), barriers("synthesis.h"))
def test_synthesis_needs_every_barrier(header: str, index: int, metal_cache: Path) -> None:
    if not is_noticed(SYNTHESES, without(header, index), metal_cache):
        with pytest.raises(WRONG):
            replicated(metal_cache, without(header, index))


@pytest.mark.parametrize(("header", "index"), barriers("fft.h", "mirrored.h", "synthesis_walk.h"))
def test_a_walk_needs_every_barrier(header: str, index: int, metal_cache: Path) -> None:
    assert is_noticed(WALKS, without(header, index), metal_cache)


CENTRED = stft(16, 40)
#: Runs in both directions, of several rounds.
WALK = istft(1024, 30)
MUTATIONS = {
    "reflect, left": (
        "mode == PAD_CIRCULAR ? all : 0u;",
        "mode == PAD_CIRCULAR ? all : 1u;",
        CENTRED,
    ),
    "reflect, right": (
        "2u * (all - 1u)",
        "2u * all - 1u",
        CENTRED,
    ),
    "replicate, right": (
        ": all - 1u;",
        ": all - 2u;",
        stft(16, 40, pad_mode="'replicate'"),
    ),
    "replicate, left": (
        "? all : 0u;",
        "? all : 1u;",
        stft(16, 40, pad_mode="'replicate'"),
    ),
    "circular, left": (
        "? all : 0u;",
        "? all - 1u : 0u;",
        stft(16, 40, pad_mode="'circular'"),
    ),
    "circular, right": (
        "? 0u - all",
        "? 1u - all",
        stft(16, 40, pad_mode="'circular'"),
    ),
    "inside, begin": (
        "is_inside = position >= 0",
        "is_inside = position >= -1",
        stft(16, 47, hop_length="1", pad_mode="'constant'"),
    ),
    "inside, end": (
        "position + n_fft <= of.samples",
        "position + n_fft <= of.samples + 1",
        stft(16, 47, hop_length="1"),
    ),
    "outside": (
        "p >= 0 && p < samples",
        "p >= 0 && p <= samples",
        stft(16, 40, pad_mode="'constant'"),
    ),
    "outside, left": (
        "p >= 0 && p < samples",
        "p >= -1 && p < samples",
        stft(16, 40, pad_mode="'constant'"),
    ),
    "start of a frame": (
        "m * parameters[ANALYSIS_HOP] -",
        "m * parameters[ANALYSIS_HOP] + 1 -",
        CENTRED,
    ),
    "frames of a group": ("long(group) * FRAMES + f;", "long(group) * FRAMES + f + 1;", CENTRED),
    "last frame": ("active = asked < frames", "active = asked < frames - 1", CENTRED),
    "mirrored bin": (
        "(uint(POINTS) - t) * uint(BYTES)",
        "(uint(POINTS) - t - 1) * uint(BYTES)",
        CENTRED,
    ),
    "mirror of DC": (
        "t == 0 ? frame : down",
        "t == 0 ? up + 8u : down",
        CENTRED,
    ),
    "middle bin": (
        "uint(POINTS / 2 * BYTES), middle",
        "uint(POINTS / 2 * BYTES + 8), middle",
        CENTRED,
    ),
    "upper bins": (
        "(spectrum + (uint(POINTS) + t) * step)",
        "(spectrum + (uint(POINTS) + t + 1) * step)",
        stft(16, 40, onesided="False"),
    ),
    "upper bins, low": (
        "(spectrum + (uint(2 * POINTS) - t) * step)",
        "(spectrum + (uint(2 * POINTS) - t - 1) * step)",
        stft(16, 40, onesided="False"),
    ),
    "row of a spectrum": (
        "(long(row) * frames + place) * bins",
        "(long(row) * frames + place) * bins + 1",
        CENTRED,
    ),
    "pass input": (
        "t + uint(P::THREADS * i + BUTTERFLIES * r)",
        "t + uint(P::THREADS * i + BUTTERFLIES * r) + 1",
        stft(512, 1500),
    ),
    "pass output": (
        "uint(SPAN * R) + q % uint(SPAN)",
        "uint(SPAN * R) + (q + 1) % uint(SPAN)",
        stft(512, 1500),
    ),
    "factors": (
        "factors[SPAN * power]",
        "factors[SPAN * power + 1]",
        stft(512, 1500),
    ),
    "table of a pass": (
        "for (int p = 1; p < pass; ++p) offset",
        "for (int p = 2; p < pass; ++p) offset",
        stft(512, 1500),
    ),
    "hop remainder": ("r = int(remainder);", "r = int(remainder) + 1;", istft(16, 9)),
    "hop step": ("if (r >= hop) {", "if (r > hop) {", istft(16, 2000, hop_length="5")),
    "oldest frame": ("(first - n_fft) / hop + 1", "(first - n_fft) / hop + 2", istft(16, 2000)),
    "newest frame": (
        "last < 0 ? -1 : last / hop",
        "last < 0 ? -1 : last / hop - 1",
        istft(16, 2000),
    ),
    "frames there are": (
        "to < frames ? int(to) : frames - 1",
        "to < frames ? int(to) : frames - 2",
        istft(16, 9),
    ),
    "length of one of many frames": (
        "m >= first && i < n_fft",
        "m >= first && i < n_fft - 1",
        istft(16, 9, hop_length="5"),
    ),
    "length of one of few frames": (
        "uint(of_frame) < uint(n_fft)",
        "uint(of_frame) < uint(n_fft - 1)",
        istft(1125, 20, hop_length="270"),
    ),
    "newest of many frames": (
        "newest = first + i / hop;",
        "newest = first + (i - 1) / hop;",
        istft(16, 2000),
    ),
    "index in one of few frames": (
        "of_frame = i - f * hop;",
        "of_frame = i - f * hop + 1;",
        istft(1125, 20),
    ),
    "reach of a round": (
        "reach = (last - round) * hop + n_fft;",
        "reach = (last - round) * hop + n_fft - 256;",
        istft(1125, 20),
    ),
    "begin of a round": (
        "begin = long(round) * hop;",
        "begin = long(round) * hop + 1;",
        istft(1125, 20),
    ),
    "envelope, first piece": (
        "q < frames ? 0 : q - frames + 1;",
        "q < frames ? 0 : q - frames;",
        istft(16, 19, length="90"),
    ),
    "envelope, last piece": (
        "piece <= q && i < n_fft;",
        "piece < q && i < n_fft;",
        istft(16, 19),
    ),
    "envelope, length of a frame": (
        "piece <= q && i < n_fft;",
        "piece <= q && i < n_fft - 1;",
        istft(16, 19, hop_length="5"),
    ),
    "envelope, sample": ("int i = piece * hop + r;", "int i = piece * hop + r + 1;", istft(16, 19)),
    "mirrored point": (
        "z[points - k] = exchanged(conjugate(high))",
        "z[points - k - 1] = exchanged(conjugate(high))",
        istft(16, 9),
    ),
    "odd mirrored point": (
        "z[points - k] = exchanged(conjugate(value))",
        "z[points - k - 1] = exchanged(conjugate(value))",
        istft(15, 9),
    ),
    "sample of a frame": (
        "((const threadgroup float*)z)[i]",
        "((const threadgroup float*)z)[i ^ 1]",
        istft(16, 9),
    ),
    "tile": (
        "* (FRAMES * THREADS * SAMPLES)",
        "* (FRAMES * THREADS * SAMPLES) + 1",
        istft(16, 2000),
    ),
    "trim": ("add<false>(t0 + start, 1,", "add<false>(t0 + start + 1, 1,", istft(16, 9)),
    "kept": (
        "start, start + kept, sum)",
        "start, start + kept - 1, sum)",
        istft(16, 9, length="21"),
    ),
    "round": (
        "round += FRAMES)",
        "round += FRAMES + 1)",
        istft(1125, 20),
    ),
    "frame of a round": (
        "made.first = round;",
        "made.first = round - 1;",
        istft(1125, 20),
    ),
    "partner of a butterfly": (
        "uint(PAIRS) : uint(BUTTERFLIES) - t",
        "uint(PAIRS) : uint(BUTTERFLIES) - t - 1",
        WALK,
    ),
    "mirrored bin of a walk": (
        "long(uint(POINTS) - k) * step",
        "long(uint(POINTS) - k - 1) * step",
        WALK,
    ),
    "middle bin of a walk": (
        "step * (POINTS / 2)",
        "step * (POINTS / 2 + 1)",
        WALK,
    ),
    "factor of a pair": (
        "factors[BUTTERFLIES * r])",
        "factors[BUTTERFLIES * r + 1])",
        WALK,
    ),
    "mirror within a butterfly": (
        "high[0][r == 0 ? 0 : HALF - r]",
        "high[0][r == 0 ? 0 : HALF - r - 1]",
        WALK,
    ),
    "mirror in the partner": (
        "of_a = high[1][HALF - 1 - r]",
        "of_a = high[1][r]",
        WALK,
    ),
    "swizzled load": (
        "+ step * uint(BYTES)",
        "+ (step ^ 1u) * uint(BYTES)",
        WALK,
    ),
    "loaded frame": (
        "ACROSS ? thread_index % uint(FRAMES)",
        "ACROSS ? thread_index % uint(FRAMES - 1)",
        istft(1024, 30, ".mT.contiguous()"),
    ),
    "first hop of a run": (
        "/ hop + int(run) * hops;",
        "/ hop + int(run) * hops + 1;",
        WALK,
    ),
    "last hop": (
        "(end - 1 + output.start) / hop;",
        "(end - 1 + output.start) / hop - 1;",
        WALK,
    ),
    "oldest frame of a run": (
        "first_hop - (S::OVERLAP - 1);",
        "first_hop - (S::OVERLAP - 2);",
        WALK,
    ),
    "rounds": (
        "divided_up(end_hop - oldest, FRAMES);",
        "(end_hop - oldest) / FRAMES;",
        WALK,
    ),
    "round, backward": (
        "end_hop - FRAMES * (round + 1)",
        "end_hop - FRAMES * (round + 1) - 1",
        WALK,
    ),
    "round, forward": (
        "oldest + FRAMES * round;",
        "oldest + FRAMES * round + 1;",
        WALK,
    ),
    "newest frame of a run": (
        "end_hop < output.frames ? end_hop :",
        "end_hop < output.frames ? end_hop - 1 :",
        WALK,
    ),
    "frames that are none": (
        "oldest > 0 ? oldest : 0;",
        "oldest > -1 ? oldest : -1;",
        WALK,
    ),
    "position of a unit": (
        "hop * HOP + int(o) * WIDTH - output.start",
        "hop * HOP + int(o) * WIDTH - output.start + WIDTH",
        WALK,
    ),
    "begin of a run": (
        "first_hop * hop - output.start : begin",
        "first_hop * hop - output.start + 2 : begin",
        WALK,
    ),
    "end of a run": (
        "end_hop * hop - output.start : end;",
        "end_hop * hop - output.start - 2 : end;",
        WALK,
    ),
    "sums of before": (
        "const int i = BACKWARD ? j - STEPS : j;",
        "const int i = BACKWARD ? j - STEPS + 1 : j;",
        WALK,
    ),
    "sums for later": (
        "const int i = BACKWARD ? j : j - STEPS;",
        "const int i = BACKWARD ? j : j - STEPS + 1;",
        WALK,
    ),
    "complete, backward": (
        "hop >= OVERLAP - 1 && hop < FRAMES + OVERLAP - 1 : j",
        "hop >= OVERLAP && hop < FRAMES + OVERLAP - 1 : j",
        WALK,
    ),
    "has a piece": (
        "o + uint(k * UNITS) < uint(FRAME_UNITS)",
        "o + uint(k * UNITS) <= uint(FRAME_UNITS)",
        istft(1024, 30, hop_length="250"),
    ),
    "frame of a piece": (
        "const int frame = ABREAST * j - k;",
        "const int frame = ABREAST * j - k - 1;",
        WALK,
    ),
    "place of a piece": (
        "(k * UNITS + GROUP * c) * UNIT_BYTES",
        "(k * UNITS + GROUP * c + 1) * UNIT_BYTES",
        WALK,
    ),
    "envelope, squares of a walk": (
        "SumOfSquares<FROM + COUNT / 2, COUNT - COUNT / 2>::of(",
        "SumOfSquares<FROM, COUNT - COUNT / 2>::of(",
        WALK,
    ),
    "envelope, first round": ("round == 0, output", "round == 1, output", WALK),
    "envelope, rounds at the begin": (
        "(m0 < OVERLAP - 1 ||",
        "(m0 < OVERLAP - 2 ||",
        istft(1024, 30, hop_length="170"),
    ),
    "envelope, rounds at the end": (
        "m0 + FRAMES + OVERLAP - 1 > output.frames",
        "m0 + FRAMES > output.frames",
        istft(1024, 30, center="False"),
    ),
    "envelope, begin of a walk": (
        "hop < OVERLAP - 1 || hop >",
        "hop < OVERLAP - 2 || hop >",
        WALK,
    ),
    "envelope, end of a walk": (
        "hop > output.frames - 1)",
        "hop > output.frames)",
        WALK,
    ),
    "envelope, frames that there are": (
        "uint(hop - k) >= uint(output.frames)",
        "uint(hop - k - 1) >= uint(output.frames)",
        WALK,
    ),
    "cut frame": (
        "parameters[FRAMING_PADDING] + i;",
        "parameters[FRAMING_PADDING] + i + 1;",
        stft(22, 60),
    ),
    "place of a cut frame": ("frame * n_fft + i] =", "frame * n_fft + i + 1] =", stft(22, 60)),
    "added frame": ("first[long(m) * n_fft + i]", "first[long(m) * n_fft + i + 1]", istft(22, 9)),
    "trim of added frames": (
        "add_position(source, long(t) + start, count",
        "add_position(source, long(t) + start + 1, count",
        istft(22, 9),
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_an_index_map_off_by_one_is_noticed(name: str, metal_cache: Path) -> None:
    old, new, case = MUTATIONS[name]
    changed = 0

    def transform(text: str) -> str:
        nonlocal changed
        assert text.count(old) <= 1
        changed += text.count(old)
        return text.replace(old, new)

    with metal.emulated(metal_cache, transform=transform), pytest.raises(WRONG):
        check_patched(case)
    assert changed


FOLDS = {
    "reflected left": (
        "(side == 0 ? 0 : 2 * (padding.samples - 1))",
        "(side == 0 ? 1 : 2 * (padding.samples - 1))",
        "reflect",
        16,
    ),
    "reflected right": (
        ": 2 * (padding.samples - 1));",
        ": 2 * padding.samples - 1);",
        "reflect",
        16,
    ),
    "circular": (
        "(side == 0 ? -padding.samples :",
        "(side == 0 ? -padding.samples + 1 :",
        "circular",
        16,
    ),
    "from": ("from = side == 0 ? 0 : inside;", "from = side == 0 ? 1 : inside;", "reflect", 16),
    "to": ("to = from + padding.padding;", "to = from + padding.padding - 1;", "circular", 16),
    "first sample of a walk": (
        "(begin + output.start) / hop",
        "(begin + output.start) / hop + 1",
        "reflect",
        64,
    ),
    "right end": (
        "left ? 0 : parameters[SYNTHESIS_END]",
        "left ? 0 : parameters[SYNTHESIS_END] + 1",
        "circular",
        64,
    ),
    "tile of an end": ("begin + tile_of_end *", "begin + 1 + tile_of_end *", "reflect", 64),
    "replicated right": (
        "(side == 0 ? 0 : padding.samples - 1) - t0",
        "(side == 0 ? 0 : padding.samples - 2) - t0",
        "replicate",
        16,
    ),
}


@pytest.mark.parametrize("name", FOLDS)
def test_a_transposed_padding_off_by_one_is_noticed(name: str, metal_cache: Path) -> None:
    old, new, mode, n = FOLDS[name]

    def transform(text: str) -> str:
        assert text.count(old) == 1 or "Synthesis" not in text
        return text.replace(old, new)

    with pytest.raises(WRONG):
        test_metal_kernels.test_synthesis_is_the_adjoint_of_analysis(
            Emulated(metal_cache, transform=transform), n, mode, "real"
        )
