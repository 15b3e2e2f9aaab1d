from __future__ import annotations

import struct

import numpy as np
import pytest

from torch_mlx_spectro.cli.demo import picture

RATE, N_FFT = 8000, 512


def describe(frames: int) -> dict:
    call = {"backend": "cpu", "native_seconds": 0.02, "patched_seconds": 0.01, "gain": 2.0}
    return {
        "rate": RATE,
        "samples": frames * N_FFT // 4,
        "calls": {"stft": call, "istft": call | {"backend": "native"}},
        "results": {side: {"separation_seconds": 1.0} for side in ("native", "patched")},
    }


def make_spectrum(frames: int, seed: int = 0) -> picture.Spectrum:
    noise = np.random.default_rng(seed).standard_normal((2, N_FFT // 2 + 1, frames))
    return (noise[0] + 1j * noise[1]).astype(np.complex64)


@pytest.mark.parametrize("changed", [0.0, 1e-7])
@pytest.mark.parametrize("frames", [3, 3000])
def test_picture_of_both_sides_is_written(frames, changed, tmp_path):
    spectrum = make_spectrum(frames)
    spectra = {"native": spectrum, "patched": spectrum * np.float32(1 + changed)}
    path = tmp_path / "a.png"
    picture.draw(path, spectra, describe(frames), N_FFT)
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 1000
    assert height > 1000


def test_silence_has_a_picture(tmp_path):
    silence = {side: np.zeros((257, 4), np.complex64) for side in ("native", "patched")}
    picture.draw(tmp_path / "a.png", silence, describe(4), N_FFT)
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_the_difference_is_told_in_decibels_of_the_loudest_bin():
    one, other = np.zeros((2, 4, 3), np.complex64)
    one[1, 1] = other[1, 1] = 10.0
    assert picture._describe_difference(one, other, 10.0).endswith("none, bit for bit")
    other[2, 2] = 1e-3
    assert "at most -80 dB" in picture._describe_difference(one, other, 10.0)


@pytest.mark.parametrize("frames", [1, 40, 4000])
def test_a_tone_is_in_the_row_of_its_frequency(frames):
    sizes = np.zeros((N_FFT // 2 + 1, frames), np.float32)
    sizes[64] = 1.0
    drawn, edges = picture.scale_logarithmically(sizes, RATE, N_FFT)
    assert drawn.shape == (picture.ROWS, min(frames, picture.MAX_COLUMNS))
    rows = np.flatnonzero(drawn[:, -1])
    hertz, width = 64 * RATE / N_FFT, RATE / N_FFT
    assert rows.size
    assert np.abs(edges[rows] - hertz).max() <= width
    assert drawn.max() == 1.0


def test_no_frame_and_no_bin_is_left_out():
    """A click of one frame and one bin is in the picture, however long the recording."""
    for at, bin_ in ((0, 3), (1, 256), (777, 100), (3999, 255)):
        sizes = np.zeros((N_FFT // 2 + 1, 4000), np.float32)
        sizes[bin_, at] = 1.0
        drawn, _ = picture.scale_logarithmically(sizes, RATE, N_FFT)
        assert drawn.max() == 1.0
