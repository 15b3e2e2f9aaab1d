from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest

import torch_mlx_spectro as tms
from torch_mlx_spectro.cli import main as cli
from torch_mlx_spectro.cli.demo import audio
from torch_mlx_spectro.cli.demo import session as demo
from torch_mlx_spectro.dispatch import choice


@pytest.fixture
def clip(tmp_path):
    chords, drums = audio.synthesise(1.0, 22050)
    path = tmp_path / "clip.wav"
    audio.write_wav(path, audio.Recording(chords.samples + drums.samples, 22050))
    return path


@pytest.fixture
def long_clip(tmp_path, monkeypatch):
    """Long enough for ``auto``, which takes its fixed choice: ``cpu``."""
    monkeypatch.setattr(choice._default, "measures", False)
    chords, drums = audio.synthesise(3.0, 44100)
    path = tmp_path / "long.wav"
    audio.write_wav(path, audio.Recording(chords.samples + drums.samples, 44100))
    return path


def test_demo_compares_and_writes(long_clip, tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    code = cli.main(["demo", "--input", str(long_clip), "--output", str(folder), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert (code, report["ok"]) == (0, True)
    assert report["source"] == str(long_clip)
    assert report["results"]["patched"]["calls"] == {"stft/cpu": 1, "istft/cpu": 2}
    assert report["results"]["native"]["calls"] == {"stft/native": 1, "istft/native": 2}
    for call in report["calls"].values():
        assert call["backend"] == "cpu"
        assert call["gain"] > 0
        assert min(call["native_seconds"], call["patched_seconds"]) > 0
    assert 0 < report["max_difference"] < 1e-5
    assert not tms.is_patched()
    names = ["input.wav", "harmonic.wav", "percussive.wav", "separation.png"]
    assert report["files"] == [str(folder / name) for name in names]
    mix, harmonic, percussive = (audio.read_wav(folder / name).samples for name in names[:3])
    np.testing.assert_allclose(harmonic + percussive, mix, atol=2 / 32768)
    assert (folder / names[3]).stat().st_size > 10_000


def test_table_tells_who_computed_and_what_it_gains(long_clip, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["demo", "--input", str(long_clip), "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert f"Recording: {long_clip}\n" in printed.out
    assert "Measured in this run, on this machine, " in printed.out
    assert "cpu: torch's own FFT, in blocks that fit the processor's cache.\n" in printed.out
    assert "which is rounding." in printed.out
    assert f"wrote {tmp_path / 'separation.png'}\n" in printed.out
    rows = [" ".join(line.split()) for line in printed.out.splitlines()]
    row = next(row for row in rows if row.startswith("torch.istft"))
    assert re.fullmatch(r"torch.istft cpu [\d.]+ ms [\d.]+ ms [\d.]+x", row)
    assert any(row.startswith("whole separation cpu (3) ") for row in rows)
    assert "with patch()" in printed.err  # the progress bar


def test_what_is_left_to_torch_is_told_with_the_reason(clip, tmp_path, capsys):
    assert cli.main(["demo", "--input", str(clip), "--output", str(tmp_path)]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "torch.stft was left to torch: auto: too small to be faster on the CPU." in rows
    assert any(row.startswith("torch.stft torch itself ") for row in rows)


def test_difference_beyond_rounding_ends_with_1(clip, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "ERROR_RATIO", 1e-3)
    assert cli.main(["demo", "--input", str(clip), "--output", str(tmp_path)]) == 1
    assert "MORE THAN ROUNDING" in capsys.readouterr().out


def test_without_matplotlib_there_is_no_picture_and_all_is_well(
    clip, tmp_path, monkeypatch, capsys
):
    for name in ("matplotlib", "matplotlib.backends.backend_agg", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["demo", "--input", str(clip), "--output", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["files"]) == 3
    assert "pip install matplotlib" in report["notes"][0]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"OggS", "not a WAV file"), ("short", "too short")],
)
def test_bad_input_is_told_and_ends_with_2(content, message, tmp_path, capsys):
    path = tmp_path / "bad.wav"
    if content == "short":
        audio.write_wav(path, audio.Recording(np.zeros((1, demo.N_FFT), np.float32), 8000))
    elif content is not None:
        path.write_bytes(content)
    assert cli.main(["demo", "--input", str(path), "--output", str(tmp_path)]) == 2
    assert f"error: --input {path}: {message}" in capsys.readouterr().err


def test_output_that_cannot_be_a_folder_is_told(clip, capsys):
    assert cli.main(["demo", "--input", str(clip), "--output", str(clip)]) == 2
    assert f"error: --output {clip}: " in capsys.readouterr().err


def test_default_recording_is_said_to_be_synthesised():
    source, recording = demo._load(None)
    assert "synthesised" in source
    assert recording.samples.shape == (2, 441000)
    assert np.abs(recording.samples).max() == pytest.approx(0.8, rel=1e-5)
