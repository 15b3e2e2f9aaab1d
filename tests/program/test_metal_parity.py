"""torch.stft and torch.istft by the Metal kernels, emulated, against native: strict, checked.

Every launch runs in three orders of threads, which have to agree bit by bit, and every access to
memory is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import metal
import mlx.core as mx
import pytest
import torch
from needs import needs_emulator
from patched import check_patched
from small_calls import istft_case, stft_case
from strategies import istft_cases, stft_cases

import torch_mlx_spectro as tms
from stft_parity.cases import Case
from torch_mlx_spectro import emulator
from torch_mlx_spectro.calls.operation import ISTFT
from torch_mlx_spectro.kernels import walks
from torch_mlx_spectro.kernels.radices import find_radices
from torch_mlx_spectro.kernels.walks import walk_plan
from torch_mlx_spectro.mlx.launcher import metal_kernels

pytestmark = needs_emulator

SIZES = [
    *(320, 400, 441, 480, 512, 600, 640, 720, 800, 882, 960, 1000, 1024, 1200, 1536, 1920, 2000),
    *(2048, 2205, 2400, 3072, 4096, 4410, 5120, 6144, 7680, 8192),
    *(4099, 8190, 9000, 16384),  # rough, or beyond the fused kernels
]


@pytest.fixture
def machine(metal_cache: Path) -> Iterator[emulator.Machine]:
    with metal.emulated(metal_cache) as used:
        yield used


#: Pairs of n_fft and hop, of those that walks are compiled for one by one, that are drawn: all
#: would take minutes. The sizes below have more of them.
WALKED_PAIRS = 24
#: By the profile's draws: calls that are drawn here, and how many of them have to be distinct.
DRAWS = {100: (48, 33), 3_000: (1_100, 750), 25_000: (6_000, 4_166)}


def compare_drawn(cases: st.SearchStrategy[Case]) -> None:
    """Compare as many drawn calls as the profile says, and make sure that they were many."""
    seen: set[Case] = set()
    pairs: set[tuple[int, int]] = set()
    profile = hypothesis.settings.default
    assert profile is not None
    draws, distinct = DRAWS[profile.max_examples]

    @hypothesis.settings(profile, max_examples=draws)
    @hypothesis.given(cases)
    def drawn(case: Case) -> None:
        pair = walked_pair(case)
        if pair is not None and pair not in pairs:
            if len(pairs) == WALKED_PAIRS:
                return
            pairs.add(pair)
        check_patched(case)
        seen.add(case)

    drawn()
    assert len(seen) >= distinct


def walked_pair(case: Case) -> tuple[int, int] | None:
    """The n_fft and hop of an istft that may be walked over."""
    if case.op != "istft" or case.fault:
        return None
    args, kwargs = case.bind(case.tensors())
    bound = ISTFT.bind(*args, **kwargs)
    n_fft, hop = bound["n_fft"], bound["hop_length"]
    if n_fft % 2 or n_fft // 2 < walks.LEAST_WALK_POINTS:
        return None
    return n_fft, n_fft // 4 if hop is None else hop


def test_every_drawn_call_of_stft_is_natives(machine: emulator.Machine) -> None:
    compare_drawn(stft_cases())
    assert {launch.kernel for launch in machine.launches} == {
        "spectro_analysis",
        "spectro_cut_frames",
    }


def test_every_drawn_call_of_istft_is_natives(machine: emulator.Machine) -> None:
    compare_drawn(istft_cases())
    kernels = {launch.kernel for launch in machine.launches}
    assert kernels - {"spectro_synthesis_walk"} == {"spectro_synthesis", "spectro_add_frames"}


def hop_of(n: int) -> int:
    return max(1, n // 4 + n % 3)


def grid_case(make: Callable[..., Case], n: int) -> Case:
    """Three and a half frames' worth of hops, and a window without zeros."""
    hop = hop_of(n)
    window = f"torch.hamming_window({n}) + 0.1"
    if make is stft_case:
        signal = f"torch.randn((2, {2 * n + 5}), generator=g)"
        return make(signal, window, n_fft=str(n), hop_length=str(hop))
    spectrum = f"torch.randn((2, 9, {n // 2 + 1}), dtype=torch.complex64, generator=g)"
    length = (n + 8 * hop) - n // 2
    spectrum = f"{spectrum}.transpose(1, 2)" if n % 2 else f"{spectrum}.mT.contiguous()"
    return make(spectrum, window, n_fft=str(n), hop_length=str(hop), length=str(length))


def fused(n: int) -> bool:
    points = n // 2 if n % 2 == 0 else n
    return points <= 4096 and find_radices(points) is not None


def walked(n: int) -> bool:
    return n % 2 == 0 and walk_plan(n // 2, hop_of(n), 1, n % 2 == 0, True) is not None


@pytest.mark.parametrize("first", [*range(1, 301, 25), *SIZES])
def test_every_size_is_natives(first: int, machine: emulator.Machine) -> None:
    """n_fft from 1 to 300, in runs of 25, and the sizes that programs use."""
    for n in range(first, first + 25) if first <= 300 else [first]:
        for make, kernels in (
            (stft_case, ("spectro_analysis", "spectro_cut_frames")),
            (istft_case, ("spectro_synthesis", "spectro_add_frames")),
        ):
            machine.launches.clear()
            assert check_patched(grid_case(make, n))
            expected = kernels[0] if fused(n) else kernels[1]
            if make is istft_case and walked(n):
                expected = "spectro_synthesis_walk"
            assert {launch.kernel for launch in machine.launches} == {expected}
            metal.LAUNCHES[expected] += len(machine.launches)
    machine.launches.clear()


@pytest.mark.parametrize("n", [8, 15, 22, 60, 400, 1024])
def test_address_spaces_are_right(n: int, metal_cache: Path) -> None:
    """The unchecked build has them; every combination of kernel and flags that calls can reach."""
    complex_window = f"torch.randn({n}, dtype=torch.complex64, generator=g)"
    signal = f"torch.randn((2, {3 * n}), generator=g)"
    full = f"torch.randn((2, 9, {n}), dtype=torch.complex64, generator=g)"
    sizes = {"n_fft": str(n), "hop_length": str(max(1, n // 4))}
    both = {"onesided": "False"}
    with metal.emulated(metal_cache, checked=False):
        for case in (
            grid_case(stft_case, n),
            grid_case(istft_case, n),
            stft_case(signal, complex_window, **sizes),
            stft_case(signal.replace(", gen", ", dtype=torch.complex64, gen"), None, **sizes),
            istft_case(f"{full}.mT", None, **sizes, **both, return_complex="True"),
            istft_case(f"{full}.mT.contiguous()", complex_window, **sizes, return_complex="True"),
        ):
            check_patched(case)


def test_routes_name_the_kernel(machine: emulator.Machine) -> None:
    signal, window = torch.randn(400), torch.ones(32)
    route = tms.explain("stft", signal, 32, window=window, return_complex=True)
    assert (route.backend, route.kernel) == ("mlx", "metal analysis")
    route = tms.explain("stft", signal, 22, return_complex=True)
    assert route.kernel == "metal cut_frames + mlx fft"
    route = tms.explain("istft", torch.zeros(17, 9, dtype=torch.complex64), 32)
    assert route.kernel == "metal synthesis"


def bytes_of(launch: emulator.Launch) -> int:
    """Bytes of memory that a launch read and wrote, its constants included."""
    assert launch.device_read is not None
    assert launch.device_written is not None
    assert launch.constant_read is not None
    return launch.device_read + launch.device_written + launch.constant_read


@pytest.fixture
def small_gpu(machine: emulator.Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One core, which any input keeps busy: groups share as much as those of a large input do."""
    monkeypatch.setattr(metal_kernels(mx, "cpu"), "cores", 1)


@pytest.mark.parametrize("frames", [64, 200])
@pytest.mark.parametrize("layout", ["frames, bins", "bins, frames"])
@pytest.mark.usefixtures("small_gpu")
def test_nothing_but_input_and_output_is_in_memory(
    machine: emulator.Machine, frames: int, layout: str
) -> None:
    """Bytes of device memory, windows and tables included, each counted once for each group."""
    window, signal = torch.hann_window(1024), torch.randn(2, 256 * frames)
    spectrum = torch.stft(signal, 1024, 256, window=window, return_complex=True)
    moved = bytes_of(machine.launches[-1])
    assert moved <= 1.3 * (signal.nbytes + spectrum.nbytes)
    spectrum = spectrum if layout == "frames, bins" else spectrum.contiguous()
    signal = torch.istft(spectrum, 1024, 256, window=window)
    moved = bytes_of(machine.launches[-1])
    assert moved <= 1.3 * (signal.nbytes + spectrum.nbytes)
    assert [launch.kernel for launch in machine.launches] == [
        "spectro_analysis",
        "spectro_synthesis_walk",
    ]
