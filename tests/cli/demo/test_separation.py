from __future__ import annotations

import numpy as np
import pytest
import torch

from torch_mlx_spectro.cli.demo import audio, separation
from torch_mlx_spectro.cli.demo.separation import separate


@pytest.fixture(scope="module")
def clip() -> tuple[torch.Tensor, torch.Tensor]:
    chords, drums = audio.synthesise(2.0, 22050)
    return torch.from_numpy(chords.samples), torch.from_numpy(drums.samples)


def similarity(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


def test_chords_and_drums_come_apart(clip):
    chords, drums = clip
    harmonic, percussive = separate(chords + drums)
    assert similarity(harmonic, chords) > 0.97 > 0.95 > similarity(chords + drums, chords)
    assert similarity(percussive, drums) > 0.8 > 0.4 > similarity(chords + drums, drums)


def test_parts_add_up_to_the_input(clip):
    mix = clip[0] + clip[1]
    harmonic, percussive = separate(mix)
    assert harmonic.shape == percussive.shape == mix.shape
    torch.testing.assert_close(harmonic + percussive, mix, rtol=0, atol=2e-6)


def test_silence_stays_silence():
    for part in separate(torch.zeros(1, 4096)):
        assert torch.equal(part, torch.zeros(1, 4096))


def test_chunks_change_nothing_and_progress_ends_at_1(clip, monkeypatch):
    mix = clip[0] + clip[1]
    whole = separate(mix)
    monkeypatch.setattr(separation, "CHUNK", 50_000)
    progress: list[float] = []
    parts = separate(mix, on_progress=progress.append)
    assert torch.equal(torch.stack(parts), torch.stack(whole))
    assert len(progress) > 10
    assert progress == sorted(progress)
    assert progress[-1] == 1


def test_running_median_is_numpy_s():
    values = torch.rand(2, 3, 11, generator=torch.Generator().manual_seed(1))
    got = separation._median_along_last(values, 5, lambda fraction: None)
    padded = np.pad(values.numpy(), ((0, 0), (0, 0), (2, 2)), mode="edge")
    expected = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5, axis=-1), axis=-1)
    np.testing.assert_array_equal(got.numpy(), expected)
