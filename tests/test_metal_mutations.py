"""The emulated tests can fail: without any one barrier, and with any index map off by one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import metal
import pytest
import test_kernel_metal
from patched import check_patched
from test_kernel_metal import Emulated

from stft_parity.cases import Case, istft_case, stft_case
from torch_mlx_spectro import emulator

pytestmark = pytest.mark.skipif(emulator.available() is not None, reason=str(emulator.available()))

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
ANALYSES = [stft(1024, 3000), stft(2048, 5000)]
SYNTHESES = [
    istft(1024, 30),
    istft(1024, 30, ".mT.contiguous()"),
    istft(2048, 20),
    istft(2048, 20, ".mT.contiguous()"),
]


def replicated(folder: Path, transform: Callable[[str], str]) -> None:
    """The adjoint of replicate padding: the only one that sums over a whole group."""
    emulated = Emulated(folder, transform=transform)
    test_kernel_metal.test_synthesis_is_the_adjoint_of_analysis(emulated, 16, "replicate", "real")
    test_kernel_metal.test_synthesis_is_the_adjoint_of_analysis(emulated, 60, "replicate", "real")


def barriers(*headers: str) -> list[tuple[str, int]]:
    """Every barrier of these headers: its header, and its place among the barriers there."""
    from torch_mlx_spectro.kernels.sources import source

    return [
        (name, index) for name in headers for index in range(len(_BARRIER.findall(source(name))))
    ]


def without(header: str, index: int) -> Callable[[str], str]:
    """Delete one barrier of a header from the text that MLX generates."""
    from torch_mlx_spectro.kernels.sources import source

    text = source(header)
    body = text[text.index("namespace spectro {") :]
    place = list(_BARRIER.finditer(body))[index]
    mutated = body[: place.start()] + ";" + body[place.end() :]

    def transform(generated: str) -> str:
        assert generated.count(body) == 1
        return generated.replace(body, mutated)

    return transform


@pytest.mark.parametrize(("header", "index"), barriers("fft.h", "analysis.h"))
def test_analysis_needs_every_barrier(header: str, index: int, metal_cache: Path) -> None:
    caught = 0
    for case in ANALYSES:
        with metal.emulated(metal_cache, transform=without(header, index)):
            try:
                check_patched(case)
            except WRONG:
                caught += 1
    assert caught


@pytest.mark.parametrize(("header", "index"), barriers("fft.h", "synthesis.h"))
def test_synthesis_needs_every_barrier(header: str, index: int, metal_cache: Path) -> None:
    caught = 0
    for case in SYNTHESES:
        with metal.emulated(metal_cache, transform=without(header, index)):
            try:
                check_patched(case)
            except WRONG:
                caught += 1
    if not caught:
        with pytest.raises(WRONG):
            replicated(metal_cache, without(header, index))


CENTRED = stft(16, 40)
MUTATIONS = {
    "reflect, left": ("p < 0 ? -p : 2", "p < 0 ? -p - 1 : 2", CENTRED),
    "reflect, right": ("2 * (samples - 1) - p;", "2 * samples - 1 - p;", CENTRED),
    "replicate, right": (
        "0 : samples - 1;",
        "0 : samples - 2;",
        stft(16, 40, pad_mode="'replicate'"),
    ),
    "replicate, left": (
        "return p < 0 ? 0 :",
        "return p < 0 ? 1 :",
        stft(16, 40, pad_mode="'replicate'"),
    ),
    "circular, left": (
        "? p + samples :",
        "? p + samples - 1 :",
        stft(16, 40, pad_mode="'circular'"),
    ),
    "circular, right": (
        ": p - samples;",
        ": p - samples + 1;",
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
        "p < 0 || p >= samples",
        "p < 0 || p > samples",
        stft(16, 40, pad_mode="'constant'"),
    ),
    "start of a frame": (
        "m * parameters[ANALYSIS_HOP] -",
        "m * parameters[ANALYSIS_HOP] + 1 -",
        CENTRED,
    ),
    "frames of a group": ("long(group) * FRAMES + f;", "long(group) * FRAMES + f + 1;", CENTRED),
    "last frame": ("active = asked < frames", "active = asked < frames - 1", CENTRED),
    "mirrored bin": ("slot(k == 0 ? 0 : points - k)", "slot(k == 0 ? 0 : points - k - 1)", CENTRED),
    "upper bins": (
        "spectrum[points + k]",
        "spectrum[points + k + 1]",
        stft(16, 40, onesided="False"),
    ),
    "upper bins, low": (
        "spectrum[both - k]",
        "spectrum[both - k - 1]",
        stft(16, 40, onesided="False"),
    ),
    "row of a spectrum": (
        "(long(row) * frames + m) * bins",
        "(long(row) * frames + m) * bins + 1",
        CENTRED,
    ),
    "pass input": (
        "t + uint(P::THREADS * i + BUTTERFLIES * r)",
        "t + uint(P::THREADS * i + BUTTERFLIES * r) + 1",
        stft(1024, 3000),
    ),
    "pass output": (
        "uint(SPAN * R) + q % uint(SPAN)",
        "uint(SPAN * R) + (q + 1) % uint(SPAN)",
        stft(1024, 3000),
    ),
    "factors": ("factors[SPAN * power]", "factors[SPAN * power + 1]", stft(1024, 3000)),
    "table of a pass": (
        "for (int p = 1; p < pass; ++p) offset",
        "for (int p = 2; p < pass; ++p) offset",
        stft(1024, 3000),
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
        istft(1024, 30, hop_length="250"),
    ),
    "newest of many frames": (
        "newest = first + i / hop;",
        "newest = first + (i - 1) / hop;",
        istft(16, 2000),
    ),
    "index in one of few frames": (
        "of_frame = i - f * hop;",
        "of_frame = i - f * hop + 1;",
        istft(1024, 30),
    ),
    "reach of a round": (
        "reach = (last - round) * hop + n_fft;",
        "reach = (last - round) * hop + n_fft - 256;",
        istft(1024, 30),
    ),
    "begin of a round": (
        "begin = long(round) * hop;",
        "begin = long(round) * hop + 1;",
        istft(1024, 30),
    ),
    "envelope, head": (
        "q < overlap - 1 ? q : overlap - 1",
        "q < overlap - 2 ? q : overlap - 2",
        istft(16, 19),
    ),
    "envelope, tail": (
        "q > frames - 1 ? q - (frames - 1)",
        "q > frames ? q - frames",
        istft(16, 19, length="90"),
    ),
    "mirrored point": (
        "z[slot(points - k)] = exchanged(conjugate(high))",
        "z[slot(points - k - 1)] = exchanged(conjugate(high))",
        istft(16, 9),
    ),
    "odd mirrored point": (
        "z[slot(points - k)] = exchanged(conjugate(value))",
        "z[slot(points - k - 1)] = exchanged(conjugate(value))",
        istft(15, 9),
    ),
    "sample of a frame": (
        "((const threadgroup float*)z)[i]",
        "((const threadgroup float*)z)[i ^ 1]",
        istft(16, 9),
    ),
    "tile": (
        "long(group) * (S::GROUP * SAMPLES)",
        "long(group) * (S::GROUP * SAMPLES) + 1",
        istft(16, 2000),
    ),
    "trim": ("add<false>(t0 + start, 1,", "add<false>(t0 + start + 1, 1,", istft(16, 9)),
    "kept": (
        "start, start + kept, sum)",
        "start, start + kept - 1, sum)",
        istft(16, 9, length="21"),
    ),
    "round": ("round += FRAMES)", "round += FRAMES + 1)", istft(1024, 30)),
    "frame of a round": ("made.first = round;", "made.first = round - 1;", istft(1024, 30)),
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
    ),
    "reflected right": (": 2 * (padding.samples - 1));", ": 2 * padding.samples - 1);", "reflect"),
    "circular": (
        "(side == 0 ? -padding.samples :",
        "(side == 0 ? -padding.samples + 1 :",
        "circular",
    ),
    "from": ("from = side == 0 ? 0 : inside;", "from = side == 0 ? 1 : inside;", "reflect"),
    "to": ("to = from + padding.padding;", "to = from + padding.padding - 1;", "circular"),
    "replicated right": (
        "(side == 0 ? 0 : padding.samples - 1) - t0",
        "(side == 0 ? 0 : padding.samples - 2) - t0",
        "replicate",
    ),
}


@pytest.mark.parametrize("name", FOLDS)
def test_a_transposed_padding_off_by_one_is_noticed(name: str, metal_cache: Path) -> None:
    old, new, mode = FOLDS[name]

    def transform(text: str) -> str:
        assert text.count(old) == 1 or "Synthesis" not in text
        return text.replace(old, new)

    with pytest.raises(WRONG):
        test_kernel_metal.test_synthesis_is_the_adjoint_of_analysis(
            Emulated(metal_cache, transform=transform), 16, mode, "real"
        )
