"""The resolved values are what torch does, and only torch's own refusals are left to torch."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from reference import (
    drawn,
    istft_params,
    native_istft,
    native_stft,
    random_tensor,
    stft_params,
)

from torch_mlx_spectro.core.params import IstftParams, StftParams, TensorFacts, resolve_stft
from torch_mlx_spectro.errors import UnresolvedArguments

maybe = st.none() | st.booleans()
#: Zero and negative sizes, and every relation of signal, frame, window and hop.
wild = st.integers(-1, 12)


def tensor_of(draw: Any, shape: tuple[int, ...]) -> torch.Tensor:
    return random_tensor(0, *shape, complex_values=draw(st.booleans()))


def sizes_of(draw: Any, sane: bool) -> tuple[int, dict[str, Any], torch.Tensor | None]:
    """n_fft, all sizes and a window; mostly such as torch takes where ``sane``."""
    n_fft = draw(st.integers(1, 12) if sane else wild)
    win = draw(st.none() | (st.integers(1, n_fft) if sane else wild))
    length = n_fft if win is None else win
    hop = draw(st.none() | st.integers(1, max(1, length)) if sane else st.none() | wild)
    if sane and hop is None and n_fft < 4:
        hop = 1
    window = None
    if draw(st.booleans()):
        length += 0 if sane else draw(st.sampled_from([0, 0, 1, -1]))
        window = tensor_of(draw, (max(0, length),))
    return n_fft, {"n_fft": n_fft, "hop_length": hop, "win_length": win}, window


@st.composite
def stft_calls(draw: Any) -> tuple[torch.Tensor, torch.Tensor | None, dict[str, Any]]:
    sane = draw(st.integers(0, 2)) > 0
    rows = draw(st.sampled_from([(), (2,)] if sane else [(), (1,), (3,), (1, 1)]))
    signal = tensor_of(draw, (*rows, draw(st.integers(8 if sane else 0, 30))))
    _, arguments, window = sizes_of(draw, sane)
    modes = ["reflect", "constant", "replicate", "circular"]
    arguments |= {
        "center": draw(st.booleans()),
        "pad_mode": draw(st.sampled_from(modes if sane else [*modes, "mirror"])),
        "normalized": draw(st.booleans()),
        "onesided": draw(st.sampled_from([None, False]) if sane else maybe),
        "return_complex": draw(st.booleans() if sane else maybe),
    }
    may_align = not (sane and arguments["center"])
    arguments["align_to_window"] = draw(maybe) if may_align else None
    return signal, window, arguments


@drawn(300)
@hypothesis.given(stft_calls())
def test_stft_is_resolved_exactly_where_native_accepts_it(
    call: tuple[torch.Tensor, torch.Tensor | None, dict[str, Any]],
) -> None:
    signal, window, arguments = call
    try:
        params = stft_params(signal, window, **arguments)
    except UnresolvedArguments:
        with pytest.raises((RuntimeError, IndexError, NotImplementedError)):
            native_stft(signal, window=window, **arguments)
        return
    result = native_stft(signal, window=window, **arguments)
    rows = (params.rows,) if params.batched else ()
    pair = () if params.return_complex else (2,)
    assert result.shape == (*rows, params.bins, params.frames, *pair)
    assert params.complex_fft == (
        signal.is_complex() or (window is not None and window.is_complex())
    )
    assert params.samples == signal.shape[-1]


@st.composite
def istft_calls(draw: Any) -> tuple[torch.Tensor, torch.Tensor | None, dict[str, Any]]:
    sane = draw(st.integers(0, 2)) > 0
    n_fft, arguments, window = sizes_of(draw, sane)
    rows = draw(st.sampled_from([(), (1,), (2,)] if sane else [(), (1,), (0,), (1, 1)]))
    onesided, as_complex = draw(maybe), draw(st.booleans())
    bins = n_fft // 2 + 1
    if sane:
        as_complex = as_complex or (window is not None and window.is_complex())
        onesided = False if as_complex else onesided
        bins = bins if onesided is not False else n_fft
    else:
        bins = max(0, draw(st.sampled_from([bins, n_fft, n_fft + 1])))
    shape = (*rows, bins, draw(st.integers(1 if sane else 0, 6)))
    spectrum = random_tensor(0, *shape, complex_values=sane or draw(st.booleans()))
    arguments |= {
        "center": draw(st.booleans()),
        "normalized": draw(st.booleans()),
        "onesided": onesided,
        "length": draw(st.none() | st.integers(1 if sane else -3, 60)),
        "return_complex": as_complex,
    }
    return spectrum, window, arguments


@drawn(300)
@hypothesis.given(istft_calls())
def test_istft_is_resolved_exactly_where_native_accepts_it(
    call: tuple[torch.Tensor, torch.Tensor | None, dict[str, Any]],
) -> None:
    """Except for a vanishing envelope, which is a matter of values and not of arguments."""
    spectrum, window, arguments = call
    try:
        params = istft_params(spectrum, window, **arguments)
    except UnresolvedArguments:
        with pytest.raises((RuntimeError, IndexError, TypeError)):  # the last one since torch 2.14
            native_istft(spectrum, window=window, **arguments)
        return
    try:
        result = native_istft(spectrum, window=window, **arguments)
    except RuntimeError as refusal:
        if "window overlap add min" in str(refusal):
            return
        raise
    rows = (params.rows,) if params.batched else ()
    assert result.shape == (*rows, params.output_length)
    assert result.is_complex() == params.return_complex
    assert not result[..., params.kept :].any()


@pytest.mark.parametrize(("samples", "is_enough"), [(8, False), (9, True)])
def test_reflection_needs_more_samples_than_it_adds(samples: int, is_enough: bool) -> None:
    signal = torch.ones(samples)
    if is_enough:
        stft_params(signal, None, n_fft=16)
        return
    with pytest.raises(UnresolvedArguments, match="reflection needs"):
        stft_params(signal, None, n_fft=16)
    with pytest.raises(RuntimeError):
        torch.stft(signal, 16, window=torch.ones(16), return_complex=True)


@pytest.mark.parametrize(
    ("rows", "bins", "frames"), [(1, 0, 3), (1, 5, 0), (0, 5, 3)], ids=["bins", "frames", "rows"]
)
def test_empty_spectra_are_torch_s(rows: int, bins: int, frames: int) -> None:
    spectrum = torch.zeros(rows, bins, frames, dtype=torch.complex64)
    with pytest.raises(UnresolvedArguments):
        istft_params(spectrum, None, n_fft=8)
    with pytest.raises(RuntimeError):
        native_istft(spectrum, n_fft=8, window=torch.ones(8))


def test_empty_batch_is_left_to_torch() -> None:
    """MKL builds refuse it, other builds answer: only torch can tell."""
    with pytest.raises(UnresolvedArguments):
        stft_params(torch.zeros(0, 30), None, n_fft=8)


def test_stft_defaults() -> None:
    params = stft_params(torch.zeros(100), None, n_fft=18)
    assert params == StftParams(
        n_fft=18,
        hop_length=4,
        win_length=18,
        padded=True,
        padding=9,
        pad_mode="reflect",
        scale=1.0,
        onesided=True,
        complex_fft=False,
        return_complex=True,
        batched=False,
        rows=1,
        samples=100,
        frames=26,
        bins=10,
    )


def test_istft_defaults() -> None:
    params = istft_params(torch.zeros(2, 10, 26, dtype=torch.complex64), None, n_fft=18)
    assert params == IstftParams(
        n_fft=18,
        hop_length=4,
        win_length=18,
        scale=1.0,
        onesided=True,
        return_complex=False,
        batched=True,
        rows=2,
        frames=26,
        bins=10,
        covered=118,
        start=9,
        kept=100,
        zero_tail=0,
    )
    assert (params.overlap, params.output_length) == (5, 100)


@pytest.mark.parametrize(
    ("complex_signal", "complex_window"), [(True, False), (False, True), (True, True)]
)
def test_complex_values_default_to_complex_two_sided(
    complex_signal: bool, complex_window: bool
) -> None:
    signal = random_tensor(0, 40, complex_values=complex_signal)
    window = random_tensor(1, 8, complex_values=complex_window)
    params = stft_params(signal, window, n_fft=8, return_complex=None)
    assert params.complex_fft
    assert params.return_complex
    assert (params.onesided, params.bins) == (False, 8)


def test_missing_return_complex_is_torch_s_to_reject() -> None:
    with pytest.raises(UnresolvedArguments):
        resolve_stft(TensorFacts((40,), False), 8)


@pytest.mark.parametrize(("length", "kept", "tail"), [(12, 12, 0), (24, 24, 0), (50, 24, 26)])
def test_length_beyond_the_covered_samples_is_made_of_zeros(
    length: int, kept: int, tail: int
) -> None:
    spectrum = torch.zeros(5, 6, dtype=torch.complex64)
    params = istft_params(spectrum, None, n_fft=8, hop_length=4, length=length)
    # 28 covered samples, of which the first four are cut off by centring.
    assert (params.covered, params.start) == (28, 4)
    assert (params.kept, params.zero_tail, params.output_length) == (kept, tail, length)


def test_scale_is_what_native_multiplies_by() -> None:
    signal, window = random_tensor(0, 60), torch.hann_window(12)
    call = {"n_fft": 12, "hop_length": 3, "window": window}
    plain, scaled = native_stft(signal, **call), native_stft(signal, **call, normalized=True)
    params = stft_params(signal, window, n_fft=12, hop_length=3, normalized=True)
    assert params.scale == pytest.approx(1 / math.sqrt(12))
    torch.testing.assert_close(scaled, plain * params.scale)
    back = istft_params(plain, window, n_fft=12, hop_length=3, normalized=True)
    assert back.scale == pytest.approx(math.sqrt(12))
    torch.testing.assert_close(
        native_istft(plain, **call, normalized=True), native_istft(plain, **call) * back.scale
    )


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint16])
def test_numpy_integers_are_integers(kind: type[np.signedinteger[Any]]) -> None:
    signal, spectrum = torch.zeros(64), torch.zeros(9, 8, dtype=torch.complex64)
    sizes = {"n_fft": kind(16), "hop_length": kind(4), "win_length": kind(16)}
    plain = {name: int(value) for name, value in sizes.items()}
    assert stft_params(signal, None, **sizes) == stft_params(signal, None, **plain)
    params = istft_params(spectrum, None, **sizes, length=kind(20))
    assert params == istft_params(spectrum, None, **plain, length=20)
    numbers = [value for value in vars(params).values() if not isinstance(value, (bool, float))]
    # Plain ints, so that equal calls are equal keys and products cannot overflow eight bits.
    assert {type(value) for value in numbers} == {int}


NOT_INTEGERS = [True, False, 4.0, "4", torch.tensor(4), np.float32(4), np.bool_(True), 4 + 0j]


@pytest.mark.parametrize("value", NOT_INTEGERS, ids=repr)
@pytest.mark.parametrize("name", ["n_fft", "hop_length", "win_length", "length"])
def test_what_is_not_a_plain_integer_is_torch_s_to_judge(name: str, value: Any) -> None:
    arguments: dict[str, Any] = {"n_fft": 4, "hop_length": 1} | {name: value}
    spectrum = torch.zeros(3, 8, dtype=torch.complex64)
    with pytest.raises(UnresolvedArguments):
        istft_params(spectrum, None, **arguments)
    if name != "length":
        with pytest.raises(UnresolvedArguments):
            stft_params(torch.zeros(64), None, **arguments)


@pytest.mark.parametrize("value", [1, 0, "yes", torch.tensor(True), np.bool_(True)], ids=repr)
@pytest.mark.parametrize(
    "name", ["center", "normalized", "onesided", "return_complex", "align_to_window"]
)
def test_what_is_not_a_bool_is_torch_s_to_judge(name: str, value: Any) -> None:
    with pytest.raises(UnresolvedArguments):
        stft_params(torch.zeros(64), None, n_fft=4, **{name: value})
    if name != "align_to_window":
        spectrum = torch.zeros(3, 8, dtype=torch.complex64)
        with pytest.raises(UnresolvedArguments):
            istft_params(spectrum, None, n_fft=4, **{name: value})


@pytest.mark.parametrize("mode", [None, 3, "Reflect", b"reflect", "zero"], ids=repr)
def test_unknown_pad_modes_are_torch_s_only_when_they_are_used(mode: Any) -> None:
    signal = torch.zeros(64)
    with pytest.raises(UnresolvedArguments):
        stft_params(signal, None, n_fft=4, pad_mode=mode)
    uncentred = stft_params(signal, None, n_fft=4, pad_mode=mode, center=False)
    assert uncentred == stft_params(signal, None, n_fft=4, center=False)


def test_params_are_frozen_and_hashable() -> None:
    """They are keys of caches: changing one would make it lie about what was cached."""
    first, second = (stft_params(torch.zeros(2, 64), None, n_fft=16) for _ in range(2))
    spectrum = torch.zeros(9, 8, dtype=torch.complex64)
    third, fourth = (istft_params(spectrum, None, n_fft=16) for _ in range(2))
    assert len({first, second, third, fourth}) == 2
    for params in (first, third):
        with pytest.raises(dataclasses.FrozenInstanceError):
            params.n_fft = 8  # type: ignore[misc]
