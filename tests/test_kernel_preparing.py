"""The launch that prepares a window: its kernel against NumPy, in double precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import needs_emulator
from reference import istft_params

from torch_mlx_spectro import emulator
from torch_mlx_spectro.envelope import padded_window, resolve_envelope
from torch_mlx_spectro.host import copy_to_mlx
from torch_mlx_spectro.kernels.arguments import HEADERS, INPUTS, OUTPUTS
from torch_mlx_spectro.kernels.preparing import preparation
from torch_mlx_spectro.kernels.sources import header, source
from torch_mlx_spectro.runtime import runtime

Prepare = Any


@pytest.fixture(scope="module")
def prepare(tmp_path_factory: pytest.TempPathFactory) -> Prepare:
    machine = emulator.Machine(checked=True, cache_dir=Path(tmp_path_factory.mktemp("kernels")))
    name = "prepare_window"
    kernel = machine.metal_kernel(
        name=name,
        input_names=list(INPUTS[name]),
        output_names=list(OUTPUTS[name]),
        header=header(*HEADERS[name]),
        source=source(f"{name}.metal"),
        ensure_row_contiguous=False,
    )
    mx = runtime().mx

    def call(made: Any, window: torch.Tensor) -> tuple[Any, Any]:
        launch = made.launch
        prepared, vanishes = kernel(
            inputs=[
                copy_to_mlx(mx, np.pad(window.numpy(), (0, 8))),
                copy_to_mlx(mx, np.array(launch.integers, np.int64)),
            ],
            template=[],
            grid=launch.grid,
            threadgroup=launch.threadgroup,
            output_shapes=[launch.shape, (made.verdicts,)],
            output_dtypes=[mx.float32, mx.float32],
            stream=runtime().streams[0],
        )
        return np.array(prepared), np.array(vanishes)

    return call


def holed(win_length: int) -> torch.Tensor:
    """A window with zeros anywhere: under few frames the envelope vanishes in its middle."""
    return (torch.rand(win_length) > 0.5).float()


@needs_emulator
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_window_and_envelope_are_those_of_double_precision(prepare: Prepare, data: Any) -> None:
    n_fft = data.draw(st.sampled_from([2, 3, 15, 16, 33, 64, 200]))
    win_length = data.draw(st.integers(1, n_fft))
    hop = data.draw(st.integers(1, win_length))
    frames = data.draw(st.integers(1, 12))
    center = data.draw(st.booleans()) and n_fft // 2 < n_fft + hop * (frames - 1) - n_fft // 2
    length = data.draw(st.none() | st.integers(1, 300))
    make = data.draw(st.sampled_from([torch.hann_window, torch.ones, torch.rand, holed]))
    window = make(win_length)
    spectrum = torch.zeros(1, n_fft // 2 + 1, frames, dtype=torch.complex64)
    params = istft_params(
        spectrum,
        window,
        n_fft=n_fft,
        hop_length=hop,
        win_length=win_length,
        center=center,
        length=length,
        normalized=data.draw(st.booleans()),
    )
    factor = data.draw(st.sampled_from([1.0, 1 / n_fft, 0.3]))
    made = preparation(win_length, n_fft, factor, params)
    prepared, vanishes = prepare(made, window)
    full = padded_window(window.numpy(), win_length, n_fft) * factor
    np.testing.assert_array_max_ulp(prepared[:n_fft], full.astype(np.float32), 1)
    assert not prepared[n_fft : made.rows_at].any()
    envelope = resolve_envelope(window.numpy(), params)
    rows = prepared[made.rows_at :].reshape(envelope.rows.shape)
    np.testing.assert_array_max_ulp(rows, envelope.rows, 1)
    assert bool(vanishes.any()) == envelope.vanishes


@needs_emulator
def test_a_window_alone(prepare: Prepare) -> None:
    made = preparation(10, 16, 1 / 3)
    window = torch.rand(10)
    prepared, vanishes = prepare(made, window)
    assert not vanishes.any()
    assert prepared.shape == (32,)
    expected = np.zeros(32, np.float32)
    expected[3:13] = (window.double() / 3).numpy()
    np.testing.assert_array_max_ulp(prepared, expected, 1)


@needs_emulator
@pytest.mark.parametrize("frames", [2, 9])
def test_a_hole_in_a_window_is_one_in_the_envelope_of_few_frames(
    prepare: Prepare, frames: int
) -> None:
    window = torch.tensor([1.0] * 4 + [0.0] * 8 + [1.0] * 4)
    spectrum = torch.zeros(1, 9, frames, dtype=torch.complex64)
    params = istft_params(spectrum, window, n_fft=16, hop_length=4, center=False)
    _, vanishes = prepare(preparation(16, 16, 1.0, params), window)
    assert vanishes.any() == (frames == 2)
    assert resolve_envelope(window.numpy(), params).vanishes == (frames == 2)


@needs_emulator
@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e30, 1e-30])
def test_values_beyond_single_precision(prepare: Prepare, value: float) -> None:
    """Torch squares windows in single precision: infinities and zeros, which are to be the same."""
    window = torch.full((16,), value)
    spectrum = torch.zeros(1, 9, 9, dtype=torch.complex64)
    params = istft_params(spectrum, window, n_fft=16, hop_length=4)
    made = preparation(16, 16, 0.1, params)
    prepared, vanishes = prepare(made, window)
    rows = prepared[made.rows_at :]
    assert np.isnan(rows).all() == np.isnan(value)
    if value == 1e-30:
        assert vanishes.all()
        assert not rows.any()
    elif not np.isnan(value):
        assert not vanishes.any()
        assert not rows.any()
    assert prepared[0] == pytest.approx(0.1 * value, nan_ok=True)
