"""What may have gone wrong in an STFT before its result is arranged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from stft_parity.diagnose.causes import Cause, hops, placements, windows
from stft_parity.diagnose.model import PAD_MODES, Analysis

_EXTENSIONS = {
    "reflect": "reflect (without the edge sample)",
    "constant": "constant (zeros)",
    "replicate": "replicate (the edge sample)",
    "circular": "circular (the other end)",
    "symmetric": "symmetric: reflection that includes the edge sample",
    "odd": "odd: twice the edge sample less the reflection",
}


def of_analysis(right: Analysis) -> Iterator[Cause]:
    """All causes, each with the spectrum of shape ``(..., bins, frames)`` that it gives."""
    for sentence, window in windows(right):
        yield Cause(sentence, replace(right, window=window).result)
    for sentence, placed in placements(right):
        yield Cause(sentence, replace(right, placed=placed).result)
    yield from _of_extension(right)
    yield from _of_starts(right)
    for sentence, hop in hops(right):
        for n_frames in {right.n_frames, _count_frames(right, right.left + right.right, hop)}:
            yield Cause(sentence, replace(right, hop=hop, n_frames=n_frames).result)
    yield from _of_signal(right)


def _count_frames(right: Analysis, padding: int, hop: int) -> int:
    """Frames in the signal with so many samples added to it."""
    return 1 + max(0, right.signal.shape[-1] + padding - right.n_fft) // hop


def _of_signal(right: Analysis) -> Iterator[Cause]:
    """The samples themselves are others."""
    signal = right.signal
    changed = {"the signal is reversed in time": signal.flip(-1)}
    if signal.is_complex():
        changed |= {
            "the input is conjugated (its conjugate bit is ignored)": signal.conj().resolve_conj(),
            "the input's imaginary part is dropped": signal.real + 0j,
        }
    mean = signal.mean(-1, keepdim=True)
    changed["the signal's mean is subtracted first"] = signal - mean
    for sentence, samples in changed.items():
        yield Cause(sentence, replace(right, signal=samples).result)

    def without_means() -> torch.Tensor:
        frames = right.frames()
        return right.spectrum(frames - frames.mean(-1, keepdim=True))

    yield Cause("the mean of each frame is subtracted first", without_means)


def _of_extension(right: Analysis) -> Iterator[Cause]:
    """The signal is extended otherwise."""
    half = right.n_fft // 2
    if not right.left:
        for mode in PAD_MODES:
            centred = replace(
                right,
                left=half,
                right=half,
                pad_mode=mode,
                n_frames=_count_frames(right, 2 * half, right.hop),
            )
            said = f"the signal is centred, with {mode} padding, although center=False"
            yield Cause(said, centred.result)
        return
    asked = f"where pad_mode={right.pad_mode!r} was asked for"
    for mode in PAD_MODES:
        if mode != right.pad_mode:
            said = f"the padding is {_EXTENSIONS[mode]}, {asked}"
            yield Cause(said, replace(right, pad_mode=mode).result)
    missing = (
        "the padding is missing: the signal is not centred"
        if right.left == half
        else "align_to_window is ignored"
    )
    for n_frames in (_count_frames(right, 0, right.hop), right.n_frames):
        yield Cause(missing, replace(right, left=0, right=0, n_frames=n_frames).result)
    both = right.left + right.right
    yield Cause("all of the padding is at the end", replace(right, left=0, right=both).result)
    yield Cause("all of the padding is at the front", replace(right, left=both, right=0).result)
    yield from _of_padding(right)


def _of_padding(right: Analysis) -> Iterator[Cause]:
    """The signal is extended by more or less."""
    found: dict[int, list[str]] = {}
    for padding, what in (
        (right.window.shape[0] // 2, "win_length // 2"),
        ((right.n_fft - right.hop) // 2, "(n_fft - hop) // 2"),
        (right.n_fft, "n_fft"),
        (right.n_fft - 1, "n_fft - 1"),
        (right.left - 1, "one less"),
        (right.left + 1, "one more"),
    ):
        if padding >= 0 and padding != right.left:
            found.setdefault(padding, []).append(what)
    for padding, names in found.items():
        said = (
            f"the padding is {padding} samples ({' = '.join(names)}) on each side instead of "
            f"{right.left}"
        )
        for n_frames in {_count_frames(right, 2 * padding, right.hop), right.n_frames}:
            padded = replace(right, left=padding, right=padding, n_frames=n_frames)
            yield Cause(said, padded.result)


def _of_starts(right: Analysis) -> Iterator[Cause]:
    """The frames begin elsewhere, or there are more or fewer of them."""
    words = {1: "late", -1: "early"}
    for sign, word in words.items():
        yield Cause(f"the frames begin one sample too {word}", replace(right, first=sign).result)
        yield Cause(
            f"the frames are shifted by a frame: each is taken one hop too {word}",
            replace(right, first=sign * right.hop).result,
        )
    for sign, word in words.items():
        turned = replace(right, turned=sign)
        yield Cause(f"the frames are rotated: each is one place too {word}", turned.result)
    for shift in dict.fromkeys((2, 3, right.n_fft // 2)):
        for sign, word in words.items():
            moved = replace(right, first=sign * shift)
            yield Cause(f"the frames begin {shift} samples too {word}", moved.result)
    if right.n_frames > 1:
        fewer = replace(right, n_frames=right.n_frames - 1)
        yield Cause("the last frame is missing", fewer.result)
        yield Cause("the first frame is missing", replace(fewer, first=right.hop).result)
    yield Cause(
        "there is one frame too many, filled up with zeros",
        replace(right, n_frames=right.n_frames + 1).result,
    )
