from __future__ import annotations

import struct
import sys

import numpy as np
import pytest

from torch_mlx_spectro.cli.demo import audio
from torch_mlx_spectro.cli.demo.audio import Recording, UnreadableAudio, read_wav, write_wav


def wav(raw: bytes, tag: int, bits: int, channels: int = 1, tail: bytes = b"") -> bytes:
    """A WAV file of these samples, with a chunk of odd size before them."""
    frame = channels * bits // 8
    layout = struct.pack("<HHIIHH", tag, channels, 8000, 8000 * frame, frame, bits) + tail
    chunks = [(b"LIST", b"odd"), (b"fmt ", layout), (b"data", raw)]
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


FLOATS = np.array([-1.0, -0.5, 0.0, 0.25])


@pytest.mark.parametrize(
    ("raw", "tag", "bits"),
    [
        (bytes([0, 64, 128, 160]), 1, 8),
        ((FLOATS * 2**15).astype("<i2").tobytes(), 1, 16),
        (bytes.fromhex("000080 0000c0 000000 000020"), 1, 24),
        ((FLOATS * 2**31).astype("<i4").tobytes(), 1, 32),
        (FLOATS.astype("<f4").tobytes(), 3, 32),
        (FLOATS.astype("<f8").tobytes(), 3, 64),
    ],
)
@pytest.mark.parametrize("extensible", [False, True])
def test_every_format_is_read(raw, tag, bits, extensible, tmp_path):
    tail = struct.pack("<HHIH", 22, bits, 0, tag) + bytes(14) if extensible else b""
    path = tmp_path / "a.wav"
    path.write_bytes(wav(raw, 0xFFFE if extensible else tag, bits, tail=tail))
    recording = read_wav(path)
    assert recording.rate == 8000
    assert recording.samples.dtype == np.float32
    np.testing.assert_array_equal(recording.samples, FLOATS[None])


def test_channels_come_apart_and_a_streamed_size_reaches_to_the_end(tmp_path):
    data = wav(np.arange(-6, 6, dtype="<i2").tobytes(), 1, 16, channels=2)
    size = data.index(b"data") + 4
    path = tmp_path / "a.wav"
    path.write_bytes(data[:size] + b"\xff\xff\xff\xff" + data[size + 4 :])
    expected = np.arange(-6, 6).reshape(6, 2).T / 2**15
    np.testing.assert_array_equal(read_wav(path).samples, expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a WAV file of 8, 16, 24 or 32-bit integers or 32 or 64-bit floats"),
        (b"ID3\4 this would be an mp3", "not a WAV file"),
        (wav(b"\0\0", 1, 12), "of format 1 with 12 bits"),
        (wav(b"\0", 7, 8), "of format 7 with 8 bits"),
        (wav(b"", 1, 16), "no samples"),
        (wav(b"\0\0", 1, 16, channels=0), "0 channels"),
        (wav(b"\0\0", 1, 16)[:40], "damaged"),
        (wav(np.array([np.nan], "<f4").tobytes(), 3, 32), "not a number"),
    ],
)
def test_unreadable_file_is_told(data, message, tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with pytest.raises(UnreadableAudio, match=message):
        read_wav(path)


def test_missing_file_is_told(tmp_path):
    with pytest.raises(UnreadableAudio, match="No such file"):
        read_wav(tmp_path / "a.wav")


def test_written_file_reads_back_within_half_a_step_and_clipped(tmp_path):
    samples = np.array([[0.1, -0.2, 1.5], [0.3, -1.5, 0.0]], np.float32)
    write_wav(tmp_path / "a.wav", Recording(samples, 44100))
    back = read_wav(tmp_path / "a.wav")
    assert back.rate == 44100
    # 32767 steps to full scale when written, 32768 when read
    np.testing.assert_allclose(back.samples, np.clip(samples, -1, 1), atol=1.5 / 32767)


def test_synthesised_clip_is_the_same_at_every_call():
    first, second = (audio.synthesise(1.0, 8000) for _ in range(2))
    for ours, again in zip(first, second, strict=True):
        assert ours.samples.shape == (2, 8000)
        np.testing.assert_array_equal(ours.samples, again.samples)
        assert np.abs(ours.samples).max() > 0.05
    mix = first[0].samples + first[1].samples
    assert np.abs(mix).max() == pytest.approx(0.8, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "error"), [("a.flac", 1e-4), ("a.ogg", 0.05), ("a.mp3", 0.05), ("a.wav", 1e-4)]
)
def test_other_formats_are_read_by_soundfile(name, error, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    time = np.arange(22050) / 22050
    tones = 0.5 * np.sin(2 * np.pi * np.array([[440.0], [880.0]]) * time)
    soundfile.write(tmp_path / name, tones.T, 22050)
    recording = audio.read(tmp_path / name)
    assert (recording.rate, recording.samples.dtype) == (22050, np.float32)
    assert recording.samples.flags.c_contiguous
    # MP3 has some samples more than were written.
    assert recording.samples.shape[0] == 2
    middle = slice(4000, 16000)
    loud = np.sqrt(np.mean(recording.samples[:, middle] ** 2, axis=1))
    np.testing.assert_allclose(loud, 0.5 / np.sqrt(2), rtol=error)


def test_without_soundfile_other_formats_are_told_with_what_reads_them(tmp_path, monkeypatch):
    path = tmp_path / "a.flac"
    path.write_bytes(b"fLaC" + bytes(100))
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(UnreadableAudio, match=r"FLAC, OGG and MP3, need soundfile: python -m pip"):
        audio.read(path)


@pytest.mark.parametrize("content", [b"", b"fLaC" + bytes(100), b"hello"])
def test_what_soundfile_cannot_read_is_told(content, tmp_path):
    pytest.importorskip("soundfile")
    path = tmp_path / "a.flac"
    path.write_bytes(content)
    with pytest.raises(UnreadableAudio, match=r"not a WAV file of .*, and soundfile says: "):
        audio.read(path)


def test_a_file_without_samples_is_told(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.aiff", np.zeros((0, 1)), 8000)
    with pytest.raises(UnreadableAudio, match="holds no samples"):
        audio.read(tmp_path / "a.aiff")
