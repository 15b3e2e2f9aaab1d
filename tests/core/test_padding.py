"""What frames read is what torch's padding and framing give them."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from reference import drawn, random_array, random_tensor, stft_params

from torch_mlx_spectro.core.padding import (
    covered_samples,
    find_sources,
    fold_side,
    outside_positions,
    padded_sides,
)
from torch_mlx_spectro.core.params import StftParams

MODES = ("reflect", "constant", "replicate", "circular")


def padded_by_torch(row: torch.Tensor, params: StftParams) -> torch.Tensor:
    pads = [params.padding, params.padding]
    return torch.nn.functional.pad(row.view(1, 1, -1), pads, params.pad_mode).view(-1)


def check_frames(row: torch.Tensor, params: StftParams, first: int, count: int) -> None:
    """Compare a run of frames with padding and unfolding the whole signal in torch."""
    frames = padded_by_torch(row, params).unfold(0, params.n_fft, params.hop_length)
    covered = covered_samples(row.numpy(), params, first, count)
    assert covered.shape == ((count - 1) * params.hop_length + params.n_fft,)
    assert covered.dtype == row.numpy().dtype
    ours = torch.from_numpy(np.array(covered)).unfold(0, params.n_fft, params.hop_length)
    assert torch.equal(ours, frames[first : first + count])
    assert len(frames) == params.frames


@st.composite
def framings(draw: Any) -> tuple[torch.Tensor, StftParams, int, int]:
    n_fft = draw(st.integers(1, 24))
    mode = draw(st.sampled_from(MODES))
    # Signals down to the shortest that torch pads: much shorter than a frame and its overhang.
    least = {"reflect": n_fft // 2 + 1, "circular": max(1, n_fft // 2)}.get(mode, 1)
    samples = draw(st.integers(least, least + 40))
    arguments: dict[str, Any] = {"n_fft": n_fft, "hop_length": draw(st.integers(1, 30))}
    arguments["center"] = samples < n_fft or draw(st.booleans())
    if not arguments["center"] and draw(st.booleans()):
        # The signal is padded for frames that stick out of it although nothing is centred.
        arguments["align_to_window"] = True
        arguments["win_length"] = draw(st.integers(n_fft - n_fft % 2 - n_fft // 4 or 1, n_fft))
        hypothesis.assume((n_fft - arguments["win_length"]) % 2 == 0)
    signal = random_tensor(0, samples, complex_values=draw(st.booleans()))
    params = stft_params(signal, None, pad_mode=mode, **arguments)
    first = draw(st.integers(0, params.frames - 1))
    return signal, params, first, draw(st.integers(1, params.frames - first))


@drawn(200)
@hypothesis.given(framings())
def test_any_run_of_frames_reads_what_torch_pads_and_unfolds(
    framing: tuple[torch.Tensor, StftParams, int, int],
) -> None:
    check_frames(*framing)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n_fft", [7, 8])
def test_frame_that_overhangs_a_short_signal_on_both_sides(mode: str, n_fft: int) -> None:
    signal = random_tensor(0, n_fft // 2 + 1)
    params = stft_params(signal, None, n_fft=n_fft, hop_length=1, pad_mode=mode)
    for first in range(params.frames):
        check_frames(signal, params, first, 1)
    check_frames(signal, params, 0, params.frames)


def test_circular_padding_by_the_whole_signal() -> None:
    """The most that torch wraps around: every sample appears again on either side."""
    signal = random_tensor(0, 6)
    params = stft_params(signal, None, n_fft=12, hop_length=1, pad_mode="circular")
    assert params.padding == params.samples
    covered = covered_samples(signal.numpy(), params, 0, params.frames)
    np.testing.assert_array_equal(covered, np.tile(signal.numpy(), 3))
    check_frames(signal, params, 0, params.frames)


def test_constant_padding_of_an_empty_signal_is_zeros() -> None:
    signal = torch.zeros(0)
    params = stft_params(signal, None, n_fft=6, hop_length=2, pad_mode="constant")
    assert params.frames == 1
    np.testing.assert_array_equal(covered_samples(signal.numpy(), params, 0, 1), np.zeros(6))


@pytest.mark.parametrize("mode", ["constant", "replicate"])
def test_run_of_frames_that_lies_in_the_padding_alone(mode: str) -> None:
    """A hop shorter than the overhang gives runs which touch no sample of the signal."""
    signal = random_tensor(0, 2)
    params = stft_params(signal, None, n_fft=20, hop_length=1, pad_mode=mode)
    check_frames(signal, params, 0, params.frames)
    wide = stft_params(random_tensor(0, 3), None, n_fft=21, hop_length=1, pad_mode=mode)
    for first in range(wide.frames):
        check_frames(random_tensor(0, 3), wide, first, 1)


def test_runs_inside_the_signal_are_views() -> None:
    """A copy of every block here would cost as much as the transform reads."""
    row = random_array(0, 200)
    params = stft_params(torch.from_numpy(row), None, n_fft=16, hop_length=4)
    covered = covered_samples(row, params, 2, 40)
    assert np.shares_memory(covered, row)
    np.testing.assert_array_equal(covered, row[: 39 * 4 + 16])
    uncentred = stft_params(torch.from_numpy(row), None, n_fft=16, hop_length=4, center=False)
    assert np.shares_memory(covered_samples(row, uncentred, 0, uncentred.frames), row)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("step", [2, -1, -3])
def test_rows_of_any_stride(mode: str, step: int) -> None:
    row = random_array(0, 120)[::step]
    plain = torch.from_numpy(row.copy())
    params = stft_params(plain, None, n_fft=16, hop_length=5, pad_mode=mode)
    covered = covered_samples(row, params, 0, params.frames)
    wanted = padded_by_torch(plain, params)[: len(covered)]
    np.testing.assert_array_equal(covered, wanted.numpy())


def test_signal_is_never_written() -> None:
    row = random_array(0, 30)
    row.flags.writeable = False
    for mode in MODES:
        params = stft_params(torch.zeros(30), None, n_fft=20, pad_mode=mode)
        covered_samples(row, params, 0, params.frames)


def test_positions_of_constant_padding_have_no_meaning() -> None:
    with pytest.raises(ValueError, match="reflect, replicate or circular; got 'constant'"):
        outside_positions(np.arange(-3, 0), 10, "constant")


@pytest.mark.parametrize("n_fft", [2, 3, 8])
@pytest.mark.parametrize("mode", MODES)
def test_what_falls_on_padding_goes_to_the_samples_that_it_repeats(mode: str, n_fft: int) -> None:
    """``fold_side`` is the transpose of torch's padding, and adds each value in its place."""
    samples = n_fft + 3
    params = stft_params(torch.zeros(2, samples), None, n_fft=n_fft, hop_length=1, pad_mode=mode)
    signal = torch.zeros(1, samples, dtype=torch.float64, requires_grad=True)
    padding = params.padding
    padded = torch.nn.functional.pad(signal[None], [padding, padding], mode)[0]
    cotangent = random_tensor(3, samples + 2 * padding).double()
    (expected,) = torch.autograd.grad(padded, signal, cotangent[None])
    found = cotangent[padding : padding + samples].numpy().copy()[None]
    assert padded_sides(params) == (() if mode == "constant" else (-padding, samples))
    for side in padded_sides(params):
        fallen = cotangent[None, padding + side : 2 * padding + side].numpy()
        sources = np.arange(-padding, samples + padding)[padding + side :][:padding]
        repeated = outside_positions(sources, samples, mode)
        begin, step = find_sources(params, side)
        assert list(repeated) == [begin + step * index for index in range(padding)]
        first, values = fold_side(params, side, fallen)
        assert first == repeated.min()
        found[:, first : first + values.shape[1]] += values
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-12)
