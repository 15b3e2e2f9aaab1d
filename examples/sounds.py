"""Sounds that the examples make up, always the same ones, and WAV files of them.

Nothing here was recorded: a singing voice, plucked strings, drums and noise from sines and random
numbers. What the examples write of them may be used under the licence of this project.
"""

from __future__ import annotations

import math
import wave
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

RATE = 16_000
#: Notes a second, and their pitches in semitones above A3 = 220 Hz.
TEMPO = 2
SONG = (3, 7, 10, 7, 12, 10, 7, 5, 3, 5, 7, 3, 8, 7, 5, 2)
#: Seconds after which the song begins anew.
REPEAT = 8.0
#: The first three formants, in Hz, of the vowels that the voice sings in turn: a, e, i, o, u.
VOWELS = (
    (800, 1150, 2900),
    (500, 1800, 2500),
    (300, 2300, 3000),
    (500, 850, 2600),
    (350, 650, 2500),
)


def hertz(semitones: float) -> float:
    """The pitch so many semitones above A3."""
    return 220.0 * 2 ** (semitones / 12)


def clock(seconds: float) -> torch.Tensor:
    """The time of each sample, in seconds."""
    return torch.arange(int(seconds * RATE), dtype=torch.float64) / RATE


def sing(seconds: float, song: Sequence[int] = SONG) -> torch.Tensor:
    """A voice that sings vowels: (samples,)."""
    result = torch.zeros(int(min(seconds, REPEAT) * RATE), dtype=torch.float64)
    time = clock(1 / TEMPO)
    for note in range(math.ceil(len(result) / RATE * TEMPO)):
        vibrato = 1 + 0.006 * torch.sin(2 * torch.pi * 5.5 * time)
        pitch = hertz(song[note % len(song)])
        turns = torch.cumsum(pitch * vibrato, 0) / RATE
        vowel = VOWELS[note % len(VOWELS)]
        sound = torch.zeros_like(time)
        for harmonic in range(1, int(0.45 * RATE / pitch)):
            near = ((harmonic * pitch - formant) / 180 for formant in vowel)
            loud = sum(math.exp(-(distance**2)) / (1 + at) for at, distance in enumerate(near))
            sound += (0.05 + loud) / harmonic**0.5 * torch.sin(2 * torch.pi * harmonic * turns)
        add(result, fade(sound, 0.04), note / TEMPO)
    return finish(result, seconds)


def pluck(seconds: float, song: Sequence[int] = SONG, every: float = 0.25) -> torch.Tensor:
    """Strings that are plucked one after the other and die away: (samples,)."""
    result = torch.zeros(int(min(seconds, REPEAT) * RATE), dtype=torch.float64)
    for note in range(math.ceil(len(result) / RATE / every)):
        add(result, strike(song[note % len(song)] - 12), note * every)
    return finish(result, seconds)


@cache
def strike(semitones: float) -> torch.Tensor:
    """One string that dies away within a second."""
    time, pitch = clock(1.0), hertz(semitones)
    sound = torch.zeros_like(time)
    for partial in range(1, min(24, int(0.45 * RATE / pitch))):
        dying = torch.exp(-time * (2 + 0.7 * partial))
        sound += dying * torch.sin(2 * torch.pi * partial * pitch * time) / partial
    return fade(sound, 0.004)


def drum(seconds: float) -> torch.Tensor:
    """A kick on each beat and a hi-hat between: (samples,)."""
    result = torch.zeros(int(min(seconds, REPEAT) * RATE), dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    time = clock(0.25)
    falling = 50 * time + 4 * (1 - torch.exp(-time / 0.03))
    kick = torch.sin(2 * torch.pi * falling) * torch.exp(-time / 0.08)
    for beat in range(math.ceil(len(result) / RATE * TEMPO * 2)):
        hat = torch.randn(len(time), generator=generator, dtype=torch.float64)
        sound = 0.5 * hat * torch.exp(-time / 0.02) if beat % 2 else kick
        add(result, sound, beat / (2 * TEMPO))
    return finish(result, seconds)


def finish(phrase: torch.Tensor, seconds: float) -> torch.Tensor:
    """Play a phrase again and again for so many seconds, at an even loudness."""
    samples = int(seconds * RATE)
    times = -(-samples // len(phrase))
    return (0.3 * phrase / phrase.abs().max()).float().repeat(times)[:samples]


def hiss(samples: int, loudness: float, seed: int = 0) -> torch.Tensor:
    """White noise and the hum of the mains: (samples,)."""
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    time = torch.arange(samples) / RATE
    hum = sum(torch.sin(2 * torch.pi * 50 * k * time) / k for k in (1, 2, 3))
    return loudness * (noise + hum)


def fade(sound: torch.Tensor, seconds: float) -> torch.Tensor:
    """Fade a sound in and out."""
    from_ends = torch.minimum(torch.arange(len(sound)), torch.arange(len(sound)).flip(0))
    return sound * (from_ends / (seconds * RATE)).clamp(max=1)


def add(whole: torch.Tensor, sound: torch.Tensor, begin: float) -> None:
    """Add a sound to a longer one, from a second on."""
    start = int(begin * RATE)
    part = whole[start : start + len(sound)]
    part += sound[: len(part)]


def decibels(wanted: torch.Tensor, got: torch.Tensor) -> float:
    """How far the power of what is wanted lies above that of the error."""
    error = (wanted - got).square().sum()
    return float(10 * torch.log10(wanted.square().sum() / error.clamp(min=1e-30)))


def read(path: Path) -> torch.Tensor:
    """Read what :func:`write` wrote: (channels, samples)."""
    with wave.open(str(path), "rb") as file:
        frames = file.readframes(file.getnframes())
        integers = torch.frombuffer(bytearray(frames), dtype=torch.int16)
        return integers.reshape(-1, file.getnchannels()).T / 32_767


def write(path: Path, sound: torch.Tensor) -> None:
    """Write a sound (samples,) or (channels, samples), 1 at full scale, as a WAV file."""
    channels = sound.detach().reshape(-1, sound.shape[-1])
    integers = (channels.T.clamp(-1, 1) * 32_767).round().to(torch.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((len(channels), 2, RATE, 0, "NONE", ""))
        file.writeframes(integers.contiguous().numpy().tobytes())
