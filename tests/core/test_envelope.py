"""The envelope against a sum over frames, sample by sample, and torch's own verdict on it."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from reference import (
    Array,
    close,
    direct_envelope,
    drawn,
    istft_params,
    native_istft,
    random_array,
)

from torch_mlx_spectro.core.envelope import (
    Envelope,
    envelope_key,
    overlap_added_square,
    pad_window,
    resolve_envelope,
    row_of_hop,
)
from torch_mlx_spectro.core.params import IstftParams
from torch_mlx_spectro.errors import UnresolvedArguments


def params_of(
    n_fft: int, hop: int, frames: int, window: Array | None = None, **arguments: Any
) -> IstftParams:
    as_complex = arguments.get("return_complex", False)
    bins = n_fft if as_complex else n_fft // 2 + 1
    spectrum = torch.empty(bins, frames, dtype=torch.complex64)
    tensor = None if window is None else torch.from_numpy(window)
    return istft_params(spectrum, tensor, n_fft=n_fft, hop_length=hop, **arguments)


def unrolled(envelope: Envelope, params: IstftParams) -> Array:
    """The inverse envelope of every covered sample, as the rows stand for it."""
    hops = np.arange(params.frames + params.overlap - 1)
    return envelope.rows[row_of_hop(hops, params.frames, params.overlap)].reshape(-1)


@st.composite
def envelopes(draw: Any) -> tuple[int, int, int, int, bool, bool]:
    n_fft = draw(st.integers(1, 20))
    win = draw(st.integers(1, n_fft))
    hop = draw(st.integers(1, win))
    # From one frame to many more than meet in a hop.
    frames = draw(st.integers(1, 2 * -(-n_fft // hop) + 6))
    return n_fft, win, hop, frames, draw(st.booleans()), draw(st.booleans())


def check_against_sum(
    n_fft: int, win: int, hop: int, frames: int, complex_window: bool, normalized: bool
) -> None:
    window = random_array(3, win, complex_values=complex_window)
    params = params_of(
        n_fft,
        hop,
        frames,
        window,
        win_length=win,
        center=False,
        normalized=normalized,
        return_complex=complex_window,
    )
    left = (n_fft - win) // 2
    total = direct_envelope(np.pad(window, (left, n_fft - win - left)), frames, hop)
    envelope = resolve_envelope(window, params)
    assert envelope.rows.dtype == (np.complex64 if complex_window else np.float32)
    assert envelope.rows.shape[0] <= 2 * params.overlap - 1
    inverse = unrolled(envelope, params)
    assert np.all(inverse[params.covered :] == 0)
    inverse = inverse[: params.covered]
    silent = total == 0
    assert np.all(inverse[silent] == 0)
    np.testing.assert_allclose(inverse[~silent], params.scale / total[~silent], rtol=1e-5)


@drawn(150)
@hypothesis.given(envelopes())
def test_inverse_is_that_of_the_overlap_added_square(
    case: tuple[int, int, int, int, bool, bool],
) -> None:
    check_against_sum(*case)


@pytest.mark.parametrize("complex_window", [False, True])
@pytest.mark.parametrize(
    ("n_fft", "win", "hop", "frames"),
    [
        (16, 16, 16, 5),  # frames side by side
        (17, 17, 17, 1),
        (16, 16, 1, 3),  # fewer frames than meet in a hop
        (16, 16, 1, 40),
        (16, 12, 5, 3),
        (1, 1, 1, 4),
        (9, 5, 4, 9),
    ],
)
def test_extremes_of_overlap(
    n_fft: int, win: int, hop: int, frames: int, complex_window: bool
) -> None:
    check_against_sum(n_fft, win, hop, frames, complex_window, normalized=True)


def test_scale_of_the_call_is_folded_in() -> None:
    window = random_array(0, 12)
    plain = resolve_envelope(window, params_of(12, 3, 9, window))
    scaled = resolve_envelope(window, params_of(12, 3, 9, window, normalized=True))
    close(scaled.rows, plain.rows * np.sqrt(12))


def test_sums_are_made_in_double_precision() -> None:
    """In float32 a small contribution to a large sum would be lost before the inversion."""
    window = np.array([4096.0, 0.5, 4096.0, 0.5], np.float32)
    rows = overlap_added_square(pad_window(window, 4, 4), 1, 4)
    assert rows.dtype == np.float64
    assert rows[3, 0] == 2 * 4096.0**2 + 2 * 0.25


# Powers of two: their squares and sums are exact, so that torch and we judge the same numbers.
# The square of 2 ** -18 lies just above the threshold, that of 2 ** -19 below it.
VALUES = [0.0, 0.0, 0.0, 1.0, 2.0**-18, 2.0**-19]


@st.composite
def judged(draw: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    n_fft = draw(st.integers(1, 8))
    win = draw(st.integers(1, n_fft))
    arguments: dict[str, Any] = {"n_fft": n_fft, "win_length": win}
    arguments["hop_length"] = draw(st.integers(1, win))
    arguments["center"] = draw(st.booleans())
    arguments["length"] = draw(st.none() | st.integers(1, 50))
    arguments["return_complex"] = as_complex = draw(st.booleans())
    # 1 and 1j cancel: complex windows can vanish where none of their values does.
    values = [*VALUES, 1j, 1j] if as_complex else VALUES
    drawn_values = draw(st.lists(st.sampled_from(values), min_size=win, max_size=win))
    window = torch.tensor(drawn_values, dtype=torch.complex64 if as_complex else torch.float32)
    frames = draw(st.integers(1, 30))
    bins = n_fft if as_complex else n_fft // 2 + 1
    return torch.ones(bins, frames, dtype=torch.complex64), window, arguments


def refused_by_native(spectrum: torch.Tensor, **arguments: Any) -> bool:
    try:
        native_istft(spectrum, **arguments)
    except RuntimeError as refusal:
        if "window overlap add min" in str(refusal):
            return True
        raise
    return False


@drawn(300)
@hypothesis.given(judged())
def test_vanishes_where_native_refuses(
    call: tuple[torch.Tensor, torch.Tensor, dict[str, Any]],
) -> None:
    spectrum, window, arguments = call
    try:
        params = istft_params(spectrum, window, **arguments)
    except UnresolvedArguments:
        hypothesis.reject()
    expected = refused_by_native(spectrum, window=window, **arguments)
    assert resolve_envelope(window.numpy(), params).vanishes(params) is expected


@drawn(300)
@hypothesis.given(judged(), st.integers(1, 30), st.none() | st.integers(1, 50))
def test_calls_of_one_key_have_the_same_rows(
    call: tuple[torch.Tensor, torch.Tensor, dict[str, Any]], frames: int, length: int | None
) -> None:
    """Another length needs nothing new, and is refused by its own samples."""
    spectrum, window, arguments = call
    other = torch.ones(spectrum.shape[0], frames, dtype=torch.complex64)
    try:
        params = istft_params(spectrum, window, **arguments)
        others = istft_params(other, window, **(arguments | {"length": length}))
    except UnresolvedArguments:
        hypothesis.reject()
    hypothesis.assume(envelope_key(params) == envelope_key(others))
    own, shared = resolve_envelope(window.numpy(), others), resolve_envelope(window.numpy(), params)
    np.testing.assert_array_equal(shared.rows, own.rows)
    assert shared.vanishes(others) == own.vanishes(others)


@pytest.mark.parametrize("frames", [3, 40, 41, 200])
@pytest.mark.parametrize("center", [True, False])
def test_hann_windows_vanish_only_where_they_are_not_centred(center: bool, frames: int) -> None:
    window = torch.hann_window(16)
    params = params_of(16, 4, frames, window.numpy(), center=center)
    spectrum = torch.ones(9, frames, dtype=torch.complex64)
    call = {"n_fft": 16, "hop_length": 4, "window": window, "center": center}
    assert refused_by_native(spectrum, **call) is not center
    assert resolve_envelope(window.numpy(), params).vanishes(params) is not center


@pytest.mark.parametrize("last", [40, 41, 42])
def test_one_vanishing_sample_at_either_end_of_a_long_signal_is_found(last: int) -> None:
    """Long signals are judged by the hops at their ends, which have to be all that differ."""
    rising = np.array([0, 1, 1, 1], np.float32)
    params = params_of(4, 2, 200, rising, center=False)
    assert resolve_envelope(rising, params).vanishes(params)
    falling = rising[::-1].copy()
    params = params_of(4, 2, last, falling, center=False)
    assert resolve_envelope(falling, params).vanishes(params)
    shorter = params_of(4, 2, last, falling, center=False, length=params.kept - 1)
    assert not resolve_envelope(falling, shorter).vanishes(shorter)


def test_gaps_between_frames_vanish_in_the_middle() -> None:
    window = np.array([0, 1, 1, 0], np.float32)
    params = params_of(4, 4, 300, window, length=1000)
    assert resolve_envelope(window, params).vanishes(params)


def test_zero_rows_give_zero_and_not_nan() -> None:
    """Zeros outside the kept range are multiplied all the same, and must not spread."""
    window = torch.hann_window(8).numpy()
    params = params_of(8, 2, 5, window)
    envelope = resolve_envelope(window, params)
    assert not envelope.vanishes(params)
    assert envelope.rows[0, 0] == 0
    assert np.isfinite(envelope.rows).all()
    nothing = np.zeros(8, np.float32)
    silent = resolve_envelope(nothing, params)
    assert silent.vanishes(params)
    assert not silent.rows.any()


def test_missing_window_is_rectangular_and_padded_left_half_first() -> None:
    np.testing.assert_array_equal(pad_window(None, 3, 6), [0, 1, 1, 1, 0, 0])
    given = pad_window(np.array([1, 2j], np.complex64), 2, 5)
    np.testing.assert_array_equal(given, [0, 1, 2j, 0, 0])
    assert given.dtype == np.complex128
    close(
        resolve_envelope(None, params_of(6, 2, 7, win_length=4)).rows,
        resolve_envelope(np.ones(4, np.float32), params_of(6, 2, 7, win_length=4)).rows,
    )
