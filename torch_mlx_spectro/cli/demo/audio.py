"""Recordings: WAV files, those that soundfile reads, and the one that the demo makes up."""

from __future__ import annotations

import importlib
import struct
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

READABLE = "a WAV file of 8, 16, 24 or 32-bit integers or 32 or 64-bit floats"
_INTEGER, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE  # wFormatTag


class UnreadableAudio(ValueError):
    """The file is missing, or is not of a kind that ``READABLE`` names; the message says which."""


@dataclass(frozen=True)
class Recording:
    """Sound.

    Attributes:
        samples: float32, (channels, samples), full scale is 1.
        rate: samples per second.
    """

    samples: Samples
    rate: int


def read(path: Path) -> Recording:
    """Read a recording: WAV, and with the package soundfile whatever it reads, FLAC, OGG and MP3.

    Raises:
        UnreadableAudio: the file is missing, or of another kind.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(12)
    except OSError as error:
        raise UnreadableAudio(error.strerror or str(error)) from None
    if begin[:4] == b"RIFF" and begin[8:] == b"WAVE":
        return read_wav(path)
    try:
        soundfile = importlib.import_module("soundfile")
    except (ImportError, OSError):  # OSError: libsndfile, which it loads, is missing
        raise UnreadableAudio(
            f"not {READABLE}; others, FLAC, OGG and MP3, need soundfile:"
            " python -m pip install soundfile"
        ) from None
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise UnreadableAudio(f"not {READABLE}, and soundfile says: {error}") from None
    return _check_samples(np.ascontiguousarray(samples.T), rate)


def _check_samples(samples: Samples, rate: int) -> Recording:
    """Make a recording of samples (channels, samples) that can be heard."""
    if not samples.size:
        raise UnreadableAudio("holds no samples")
    if not np.isfinite(samples).all():
        raise UnreadableAudio("holds samples which are infinite or not a number")
    return Recording(samples, rate)


def read_wav(path: Path) -> Recording:
    """Read a WAV file of any number of channels.

    The standard library's ``wave`` reads no floats and, before Python 3.12, no WAVE_EXTENSIBLE.

    Raises:
        UnreadableAudio: the file is missing, or of another kind.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableAudio(error.strerror or str(error)) from None
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise UnreadableAudio(f"not {READABLE}")
    chunks = dict(_chunks(data))
    layout = chunks.get(b"fmt ", b"")
    if len(layout) < 16 or b"data" not in chunks:
        raise UnreadableAudio("damaged: its format or its samples are missing")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", layout)
    if tag == _EXTENSIBLE and len(layout) >= 26:
        (tag,) = struct.unpack_from("<H", layout, 24)
    if channels == 0 or rate == 0:
        raise UnreadableAudio("damaged: it says 0 channels or 0 samples per second")
    flat = _decode(chunks[b"data"], tag, bits)
    flat = flat[: len(flat) // channels * channels]
    return _check_samples(np.ascontiguousarray(flat.reshape(-1, channels).T), rate)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """List the chunks of a RIFF file; one that claims to be longer than the file ends with it."""
    position = 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        yield name, data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2


def _decode(raw: bytes, tag: int, bits: int) -> Samples:
    """Decode samples in the file's order, scaled to full scale 1."""
    width = bits // 8
    if (tag, bits) not in {(_INTEGER, b) for b in (8, 16, 24, 32)} | {(_FLOAT, 32), (_FLOAT, 64)}:
        raise UnreadableAudio(f"not {READABLE}, but of format {tag} with {bits} bits")
    raw = raw[: len(raw) // width * width]
    if tag == _FLOAT:
        return np.frombuffer(raw, f"<f{width}").astype(np.float32)
    # Samples of any width become the upper bytes of 32 bits. Those of 8 bits, the only unsigned
    # ones, become signed when their first bit is flipped.
    padded = np.zeros((len(raw) // width, 4), np.uint8)
    padded[:, 4 - width :] = np.frombuffer(raw, np.uint8).reshape(-1, width)
    padded[:, 3] ^= 0x80 if bits == 8 else 0
    integers = padded.view("<i4")[:, 0]
    return (integers / 2.0**31).astype(np.float32)


def write_wav(path: Path, recording: Recording) -> None:
    """Write a WAV file of 16-bit integers; samples beyond full scale are clipped."""
    scaled = np.rint(np.clip(recording.samples.T, -1, 1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((scaled.shape[1], 2, recording.rate, len(scaled), "NONE", ""))
        file.writeframes(scaled.tobytes())


def synthesise(seconds: float = 10.0, rate: int = 44100) -> tuple[Recording, Recording]:
    """Make up a chord progression and a drum pattern, stereo, the same at every call.

    Returns:
        The chords and the drums, which add up to the demo's recording; its peak is 0.8.
    """
    n_samples = round(seconds * rate)
    chords = np.zeros((2, n_samples))
    drums = np.zeros((2, n_samples))
    beat = rate // 2  # 120 beats a minute
    progression = ((220.0, 261.63, 329.63), (174.61, 220.0, 261.63), (196.0, 246.94, 293.66))
    for index, start in enumerate(range(0, n_samples, 4 * beat)):
        for voice, pitch in enumerate(progression[index % len(progression)]):
            _add(chords, _tone(pitch, 4 * beat, rate), start, pan=0.2 + 0.3 * voice)
    noise = np.random.default_rng(2024).standard_normal(beat)
    for index, start in enumerate(range(0, n_samples, beat // 2)):
        _add(drums, 0.8 * _stroke(noise, rate, decay=0.02), start, pan=0.7)
        if index % 4 == 0:
            _add(drums, 3.0 * _kick(beat, rate), start, pan=0.5)
        elif index % 4 == 2:
            _add(drums, 2.5 * _stroke(noise, rate, decay=0.04), start, pan=0.4)
    scale = 0.8 / np.abs(chords + drums).max()
    parts = (chords, drums)
    first, second = (Recording((scale * part).astype(np.float32), rate) for part in parts)
    return first, second


def _tone(pitch: float, n_samples: int, rate: int) -> npt.NDArray[np.float64]:
    """Make a sustained tone of 24 partials, faded in and out over 50 ms."""
    time = np.arange(n_samples) / rate
    tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 25))
    fade = np.minimum(1.0, np.minimum(time, time[-1] - time) / 0.05)
    return np.asarray(tone * fade)


def _kick(n_samples: int, rate: int) -> npt.NDArray[np.float64]:
    """Make a sine that falls from 180 to 50 Hz and dies away."""
    time = np.arange(n_samples) / rate
    phase = 2 * np.pi * (50 * time - 130 * 0.03 * np.exp(-time / 0.03))
    return np.asarray(np.sin(phase) * np.exp(-time / 0.08))


def _stroke(noise: npt.NDArray[np.float64], rate: int, decay: float) -> npt.NDArray[np.float64]:
    """Let noise die away by a factor e in ``decay`` seconds."""
    return np.asarray(noise * np.exp(-np.arange(len(noise)) / rate / decay))


def _add(
    mix: npt.NDArray[np.float64], sound: npt.NDArray[np.float64], start: int, pan: float
) -> None:
    """Add ``sound`` from sample ``start`` on; ``pan`` is 0 for left, 1 for right."""
    sound = sound[: mix.shape[1] - start]
    mix[:, start : start + len(sound)] += np.outer([1 - pan, pan], sound)
