"""What the walking kernel tells of a call's envelope, before it has computed the call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from cuda_stand_in import Emulated
from metal import several_rounds
from needs import ONCE_ONLY, needs_emulator
from reference import istft_params, native_call

from torch_mlx_spectro.kernels.arguments import Verdict
from torch_mlx_spectro.native import functions as native
from torch_mlx_spectro.store.sources import source

pytestmark = [*ONCE_ONLY, needs_emulator, pytest.mark.usefixtures(several_rounds.__name__)]

#: n_fft and hop: pieces of a window that are 4, 4 and a part, 16, 2 and a part, and 1.
SIZES = ((64, 16), (64, 15), (64, 4), (64, 25), (64, 64))
#: Their squares add up exactly, and below and above the threshold.
VALUES = (0.0, 1.0, 2.0**-19, 2.0**-18)


@pytest.fixture(scope="module")
def kernels(metal_cache: Path) -> Emulated:
    return Emulated(metal_cache)


def told(
    kernels: Emulated, window: torch.Tensor, frames: int, hop: int, rows: int = 1, **more: Any
) -> Verdict:
    """The verdict on a call of n_fft 64, which has to be native's."""
    spectrum = torch.ones(rows, 33, frames, dtype=torch.complex64)
    sizes = {"n_fft": 64, "hop_length": hop, "win_length": len(window)}
    params = istft_params(spectrum, window, **sizes, **more)
    flag = torch.zeros(1, dtype=torch.int32)
    result = kernels.compute_synthesis(params, spectrum.transpose(1, 2), window, vanishing=flag)
    assert kernels.machine.launches[-1].kernel == "spectro_synthesis_walk"
    kernels.machine.launches.clear()
    verdict = Verdict(flag.item())

    def compute() -> torch.Tensor:
        return native_call(native.istft, spectrum, window=window, **sizes, **more)

    if verdict == Verdict.VANISHES:
        with pytest.raises(RuntimeError, match="window overlap add min"):
            compute()
    else:
        assert verdict == Verdict.FINE
        expected = compute()
        assert result is not None
        atol = 1e-5 * float(expected.abs().max())
        assert torch.allclose(result, expected, rtol=1e-4, atol=atol)
    return verdict


def ones_but(*holes: slice) -> torch.Tensor:
    window = torch.ones(64)
    for hole in holes:
        window[hole] = 0
    return window


#: Windows of 12 frames, hop 16, whose envelope has a hole, by where it is.
HOLES: dict[str, tuple[torch.Tensor, dict[str, Any]]] = {
    "first sample": (ones_but(slice(0, 1)), {"center": False}),
    "last sample": (ones_but(slice(63, 64)), {"center": False}),
    "end of the first hop": (ones_but(slice(15, 16)), {"center": False}),
    "begin of the last hop": (ones_but(slice(48, 49)), {"center": False}),
    "head": (ones_but(slice(0, 40)), {"center": False}),
    "tail": (ones_but(slice(30, 64)), {"center": False}),
    "in every hop": (ones_but(slice(5, None, 16)), {"center": False}),
    "in every hop, centred": (ones_but(slice(15, None, 16)), {"center": True}),
    "first kept sample": (ones_but(slice(0, 33, 16)), {"center": True}),
    "last kept sample": (ones_but(slice(63, 64)), {"center": True, "length": 208}),
    "beyond the end": (ones_but(slice(63, 64)), {"center": False, "length": 300}),
    "all": (torch.zeros(64), {"center": True}),
    "nearly": (torch.full((64,), 2.0**-20), {"center": True}),
}
#: Holes just beside what is kept.
FINE: dict[str, tuple[torch.Tensor, dict[str, Any]]] = {
    "none": (torch.ones(64), {"center": False}),
    "before the first kept sample": (ones_but(slice(0, 32)), {"center": True}),
    "behind the last kept sample": (ones_but(slice(63, 64)), {"center": False, "length": 239}),
    "behind, centred": (ones_but(slice(63, 64)), {"center": True, "length": 207}),
    "zeros that follow": (torch.ones(64), {"center": True, "length": 500}),
    "enough": (torch.full((64,), 2.0**-19), {"center": True, "length": 100}),
}


@pytest.mark.parametrize("name", HOLES)
def test_a_hole_is_told_of(kernels: Emulated, name: str) -> None:
    window, more = HOLES[name]
    for rows in (1, 3):
        assert told(kernels, window, 12, 16, rows, **more) == Verdict.VANISHES


@pytest.mark.parametrize("name", FINE)
def test_what_is_left_out_is_not_looked_at(kernels: Emulated, name: str) -> None:
    window, more = FINE[name]
    for rows in (1, 3):
        assert told(kernels, window, 12, 16, rows, **more) == Verdict.FINE


def test_holes_between_few_frames_are_told_of(kernels: Emulated) -> None:
    """Of fewer frames than lie over a sample elsewhere neither end need tell."""
    window = ones_but(slice(16, 48))
    assert told(kernels, window, 2, 16, center=False) == Verdict.VANISHES
    assert told(kernels, window, 4, 16, center=False) == Verdict.FINE
    assert told(kernels, torch.ones(64), 1, 16, center=False) == Verdict.FINE
    for hole in range(0, 64, 7):
        window = ones_but(slice(hole, hole + 1))
        assert told(kernels, window, 1, 16, center=False) == Verdict.VANISHES
        assert told(kernels, window, 1, 16, center=False, length=max(2, hole)) == (
            Verdict.VANISHES if hole == 0 else Verdict.FINE
        )


@hypothesis.settings(max_examples=300)
@hypothesis.given(st.data())
def test_verdicts_are_natives(kernels: Emulated, data: st.DataObject) -> None:
    draw = data.draw
    hop = draw(st.sampled_from([hop for _, hop in SIZES]))
    win = draw(st.sampled_from([64, 64, max(hop, 63), max(hop, 41)]))
    window = torch.ones(win) if draw(st.booleans()) else torch.full((win,), 2.0**-18)
    for _ in range(draw(st.integers(0, 3))):
        first, count = draw(st.integers(0, win - 1)), draw(st.integers(1, win))
        step = draw(st.sampled_from([1, 1, hop]))
        window[first : first + count * step : step] = draw(st.sampled_from(VALUES))
    overlap = -(-64 // hop)
    frames = draw(st.integers(1, 2 * overlap + 3))
    center = draw(st.booleans())
    natural = 64 + hop * (frames - 1) - (64 if center else 0)
    length = draw(st.sampled_from([None, natural, natural - 1, natural + 1, natural + 70]))
    if draw(st.booleans()):
        length = draw(st.integers(1, 64 + hop * frames))
    hypothesis.assume((natural if length is None else length) > 1)  # one sample is no walk
    told(kernels, window, frames, hop, rows=draw(st.integers(1, 2)), center=center, length=length)


def changed(folder: Path, old: str, new: str) -> Emulated:
    """The kernels with another text."""
    found = Emulated(folder)
    compile_shader: Callable[[str], Any] = found.machine.compile_shader

    def compiled(text: str) -> Any:
        assert text.count(old) == 1
        return compile_shader(text.replace(old, new))

    found._compile_shader = compiled
    return found


def test_after_its_verdict_a_launch_writes_no_more(metal_cache: Path) -> None:
    """A call that comes later may have the flag by then. Here the first group tells a lie."""
    lying = changed(metal_cache, "uint(found ? VANISHES : FINE)", "uint(FINE)")
    for frames in (2, 12):
        spectrum = torch.ones(2, 33, frames, dtype=torch.complex64)
        params = istft_params(spectrum, torch.zeros(64), n_fft=64, hop_length=16)
        flag = torch.zeros(1, dtype=torch.int32)
        lying.compute_synthesis(params, spectrum.transpose(1, 2), torch.zeros(64), vanishing=flag)
        assert flag.item() == Verdict.FINE


def test_where_nobody_asks_nothing_is_told(kernels: Emulated) -> None:
    spectrum, window = torch.ones(1, 33, 12, dtype=torch.complex64), torch.zeros(64)
    params = istft_params(spectrum, window, n_fft=64, hop_length=16)
    kernels.compute_synthesis(params, spectrum.transpose(1, 2), window)
    unread = kernels._constants.find(("unread", torch.device("cpu")))
    assert unread is not None
    assert unread.item() == Verdict.NOBODY_ASKS


def test_verdicts_have_one_order() -> None:
    names = ", ".join(verdict.name for verdict in Verdict)
    assert f"enum Verdict {{ {names} }};" in source("envelope.h")
    assert [int(verdict) for verdict in Verdict] == [0, 1, 2, 3]
