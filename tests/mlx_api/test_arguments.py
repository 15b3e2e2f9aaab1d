"""Arguments of the MLX API: what differs from torch, and what is said of the rest."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from torch_mlx_spectro import SpectralTransform, get_transform_mlx
from torch_mlx_spectro.mlx_api.arguments import (
    Sizes,
    check_choice,
    read_integer,
    resolve_fft_params,
    resolve_istft_call,
    resolve_stft_call,
)


def sizes(n_fft: int = 16, hop: int | None = 4, win: int | None = None, **more: Any) -> Sizes:
    given = {
        "center": True,
        "pad_mode": "reflect",
        "tail_pad": "symmetric",
        "normalized": False,
        "onesided": True,
        **more,
    }
    return Sizes.resolve(n_fft, hop, win, **given)


def test_a_choice_is_one_of_those_known() -> None:
    check_choice("mode", "b", ("a", "b"))
    with pytest.raises(ValueError, match="mode must be one of 'a', 'b'; got 'c'"):
        check_choice("mode", "c", ("a", "b"))


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ({"n_fft": 0}, "n_fft must be positive"),
        ({"hop": 0}, "hop_length must be positive"),
        ({"win": -1}, "win_length must be positive"),
        ({"win": 17}, "must be <= n_fft"),
        ({"pad_mode": "edge"}, "pad_mode"),
        ({"tail_pad": "none"}, "center_tail_pad"),
        ({"tail_pad": "minimal"}, "needs constant padding"),
    ],
)
def test_sizes_that_cannot_be_are_refused(call: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        sizes(**call)


def test_defaults_are_torchs() -> None:
    found = sizes(hop=None)
    assert (found.hop_length, found.win_length) == (4, 16)
    assert resolve_stft_call(found, 40, False).bins == 9
    assert resolve_stft_call(sizes(onesided=False), 40, False).bins == 16


@pytest.mark.parametrize("samples", [16, 17, 40])
@pytest.mark.parametrize("center", [True, False])
def test_frames_are_as_many_as_torchs(samples: int, center: bool) -> None:
    params = resolve_stft_call(sizes(center=center), samples, False)
    expected = torch.stft(
        torch.zeros(samples), 16, 4, window=torch.ones(16), center=center, return_complex=True
    )
    assert (params.bins, params.frames) == tuple(expected.shape)


@pytest.mark.parametrize("samples", [1, 7, 8, 40])
def test_a_minimal_tail_has_a_frame_for_each_hop(samples: int) -> None:
    params = resolve_stft_call(sizes(pad_mode="constant", tail_pad="minimal"), samples, False)
    assert params.frames == math.ceil(samples / 4)


def test_a_signal_shorter_than_a_frame_is_one_frame_without_centring() -> None:
    params = resolve_stft_call(sizes(center=False), 5, False)
    assert (params.samples, params.frames) == (5, 1)


def test_what_torch_refuses_says_why() -> None:
    with pytest.raises(ValueError, match="reflect padding of n_fft=16 needs at least 9 samples"):
        resolve_stft_call(sizes(), 3, False)
    with pytest.raises(ValueError, match="at least one frame"):
        resolve_istft_call(sizes(), 0, None, False)
    with pytest.raises(ValueError, match="1 frames of n_fft=16, hop_length=4 and length=None"):
        resolve_istft_call(sizes(), 1, None, False)
    with pytest.raises(ValueError, match="length is required"):
        resolve_istft_call(sizes(pad_mode="constant", tail_pad="minimal"), 3, None, False)


def test_fft_params_grow_by_their_padding() -> None:
    assert resolve_fft_params(16, None, None, 4) == (24, 4, 16)
    for wrong in ((0, None, None, 0), (16, 0, None, 0), (16, 4, 0, 0), (16, 4, 17, 0)):
        with pytest.raises(ValueError, match="must be"):
            resolve_fft_params(*wrong)
    with pytest.raises(ValueError, match="pad must be >= 0"):
        resolve_fft_params(16, 4, 16, -1)


INTEGERS = [7, 7.0, np.int16(7), np.float32(7), np.array(7), torch.tensor(7), mx.array(7)]
OTHERS = [6.7, np.float64(6.7), np.array(6.7), mx.array(6.7), "7", True, np.True_, None, [7], 7j]


@pytest.mark.parametrize("value", INTEGERS, ids=repr)
def test_sizes_are_integers_of_any_kind(value: Any) -> None:
    found = read_integer("hop_length", value)
    assert (found, type(found)) == (7, int)


@pytest.mark.parametrize("value", [*OTHERS, float("inf"), float("nan")], ids=repr)
def test_what_is_no_integer_is_refused_by_its_name(value: Any) -> None:
    with pytest.raises(ValueError, match=r"hop_length must be an integer; got "):
        read_integer("hop_length", value)


@pytest.mark.parametrize("name", ["n_fft", "hop_length", "win_length"])
def test_no_size_is_truncated(name: str) -> None:
    given: dict[str, Any] = {"n_fft": 64, "hop_length": 16, "win_length": 8, name: 14.7}
    for make in (SpectralTransform, get_transform_mlx, partial(resolve_fft_params, pad=0)):
        with pytest.raises(ValueError, match=f"{name} must be an integer; got 14.7"):
            make(**given)
    made = SpectralTransform(**given | {name: 16.0})
    assert getattr(made, name) == 16


def test_no_length_is_truncated() -> None:
    transform = SpectralTransform(64, 16)
    spectrum = transform.stft(mx.zeros((1, 400)))
    refused = pytest.raises(ValueError, match=r"length must be an integer; got 300.5")
    with refused:
        transform.istft(spectrum, 300.5)  # type: ignore[arg-type]
    with refused:
        transform.compiled_pair(300.5)  # type: ignore[arg-type]
    assert transform.istft(spectrum, 300.0).shape == (1, 300)  # type: ignore[arg-type]
