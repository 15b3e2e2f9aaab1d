from __future__ import annotations

import struct

import numpy as np
import pytest

from torch_mlx_spectro.cli.demo import session as plot


@pytest.mark.parametrize("n_samples", [1500, 44100])
def test_picture_of_every_part_is_written(n_samples, tmp_path):
    noise = np.random.default_rng(0).standard_normal((2, n_samples)).astype(np.float32) / 8
    path = tmp_path / "a.png"
    plot.draw(path, {"input": noise, "harmonic": noise / 2, "silence": 0 * noise}, 8000)
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 1000
    assert height > 800


def test_long_recordings_get_no_more_columns_than_are_drawn():
    noise = np.ones((1, 1_000_000), np.float32)
    bins, frames = plot._magnitude(noise).shape
    assert bins == 1025
    assert plot.MAX_COLUMNS // 2 < frames <= plot.MAX_COLUMNS + 1
