"""Both transforms on whole MLX arrays (the path of GPU tensors), run here on a CPU stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from reference import (
    close,
    istft_params,
    native_istft,
    native_stft,
    no_default_stream,
    random_tensor,
    runtime_of,
    stft_params,
)

from torch_mlx_spectro.envelope import resolve_envelope
from torch_mlx_spectro.whole import istft_whole, stft_whole


def stft_of(signal: torch.Tensor, window: torch.Tensor, **arguments: Any) -> Any:
    runtime = runtime_of(1)
    mx, stream = runtime.mx, runtime.streams[0]
    params = stft_params(signal, window, **arguments)
    full = np.pad(window.numpy(), ((params.n_fft - params.win_length) // 2,) * 2)
    rows, prepared = mx.array(signal.numpy()), mx.array(full * np.float32(params.scale))
    with no_default_stream():
        result = stft_whole(mx, params, rows, prepared, stream)
        mx.eval(result)
    return np.asarray(result).transpose(0, 2, 1)


def istft_of(spectrum: torch.Tensor, window: torch.Tensor, **arguments: Any) -> Any:
    runtime = runtime_of(1)
    mx, stream = runtime.mx, runtime.streams[0]
    params = istft_params(spectrum, window, **arguments)
    envelope = resolve_envelope(window.numpy(), params)
    frames = mx.array(spectrum.transpose(1, 2).contiguous().numpy())
    prepared = mx.array(window.numpy())
    with no_default_stream():
        result = istft_whole(mx, params, frames, prepared, envelope, stream)
        mx.eval(result)
    return np.asarray(result)


@pytest.mark.parametrize("mode", ["reflect", "constant", "replicate", "circular"])
@pytest.mark.parametrize("complex_values", [False, True])
def test_stft_in_every_pad_mode(mode: str, complex_values: bool) -> None:
    signal = random_tensor(0, 3, 201, complex_values=complex_values)
    call = {"n_fft": 48, "hop_length": 11, "pad_mode": mode, "normalized": True}
    window = torch.hann_window(48)
    close(stft_of(signal, window, **call), native_stft(signal, window=window, **call), 5e-6)


@pytest.mark.parametrize(
    "call",
    [
        {"n_fft": 31, "hop_length": 40, "center": False},
        {"n_fft": 32, "hop_length": 8, "onesided": False},
        {"n_fft": 32, "hop_length": 8, "win_length": 20},
        {"n_fft": 1, "hop_length": 1},
    ],
    ids=str,
)
def test_stft_with_other_arguments(call: dict[str, Any]) -> None:
    signal = random_tensor(1, 2, 150)
    window = torch.hamming_window(call.get("win_length", call["n_fft"]))
    close(stft_of(signal, window, **call), native_stft(signal, window=window, **call), 5e-6)


@pytest.mark.parametrize(
    "call",
    [
        {"n_fft": 32, "hop_length": 8},
        {"n_fft": 32, "hop_length": 9, "center": False, "normalized": True},
        {"n_fft": 32, "hop_length": 32},
        {"n_fft": 32, "hop_length": 1},
        {"n_fft": 31, "hop_length": 7, "length": 20},
    ],
    ids=str,
)
def test_istft(call: dict[str, Any]) -> None:
    spectrum = random_tensor(2, 3, call["n_fft"] // 2 + 1, 12, complex_values=True)
    window = torch.hamming_window(call["n_fft"])
    close(istft_of(spectrum, window, **call), native_istft(spectrum, window=window, **call), 5e-6)


def test_istft_of_complex_signals_and_of_two_sided_spectra() -> None:
    spectrum = random_tensor(3, 2, 24, 9, complex_values=True)
    window = torch.hamming_window(24)
    for as_complex in (True, False):
        call = {"n_fft": 24, "hop_length": 5, "onesided": False, "return_complex": as_complex}
        expected = native_istft(spectrum, window=window, **call)
        close(istft_of(spectrum, window, **call), expected, 5e-6)


def test_a_length_beyond_the_frames_is_filled_with_zeros() -> None:
    spectrum = random_tensor(4, 2, 17, 6, complex_values=True)
    window = torch.hamming_window(32)
    call = {"n_fft": 32, "hop_length": 8, "length": 100}
    got = istft_of(spectrum, window, **call)
    close(got, native_istft(spectrum, window=window, **call), 5e-6)
    assert not got[:, 32 + 5 * 8 - 16 :].any()


@pytest.mark.parametrize("mode", ["reflect", "constant", "replicate", "circular"])
@pytest.mark.parametrize("rows", [1, 2])
def test_stft_of_short_signals(mode: str, rows: int) -> None:
    """Frames that overhang the signal on both sides, by as much as the mode allows."""
    signal = random_tensor(6, rows, 17)
    call = {"n_fft": 32, "hop_length": 3, "pad_mode": mode}
    window = torch.hamming_window(32)
    close(stft_of(signal, window, **call), native_stft(signal, window=window, **call), 5e-6)


def test_stft_with_complex_windows_and_aligned_frames() -> None:
    signal = random_tensor(7, 2, 90)
    window = random_tensor(8, 20, complex_values=True)
    call: dict[str, Any] = {"n_fft": 20, "hop_length": 6}
    close(stft_of(signal, window, **call), native_stft(signal, window=window, **call), 5e-6)
    call = {"n_fft": 32, "hop_length": 6, "win_length": 20, "center": False}
    for align in (True, False):
        got = stft_of(signal, window.real, align_to_window=align, **call)
        expected = native_stft(signal, window=window.real, align_to_window=align, **call)
        close(got, expected, 5e-6)


@pytest.mark.parametrize("hop", [1, 5, 6, 7, 12])
@pytest.mark.parametrize("n_fft", [12, 13])
@pytest.mark.parametrize("frames", [1, 2, 15])
def test_istft_keeps_rows_apart(n_fft: int, hop: int, frames: int) -> None:
    """Rows are overlap-added as one long run of frames: nothing may spill over."""
    spectrum = random_tensor(9, 3, n_fft // 2 + 1, frames, complex_values=True)
    spectrum[1] *= 1000
    window = torch.hamming_window(n_fft)
    call = {"n_fft": n_fft, "hop_length": hop, "center": False}
    got = istft_of(spectrum, window, **call)
    expected = native_istft(spectrum.to(torch.complex128), window=window.double(), **call)
    for row in range(3):
        close(got[row], expected[row], 1e-5)
