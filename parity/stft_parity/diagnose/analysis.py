"""What may have gone wrong in an STFT before its result is arranged."""

from __future__ import annotations

from functools import partial

import torch

from stft_parity.diagnose.causes import Cause, change, list_common_causes, list_hops, name_numbers
from stft_parity.diagnose.model import PAD_MODES, Analysis

_EXTENSIONS = {
    "reflect": "reflect (without the edge sample)",
    "constant": "constant (zeros)",
    "replicate": "replicate (the edge sample)",
    "circular": "circular (the other end)",
    "symmetric": "symmetric: reflection that includes the edge sample",
    "odd": "odd: twice the edge sample less the reflection",
}
_WORDS = ((1, "late"), (-1, "early"))


def list_analysis_causes(right: Analysis) -> list[Cause]:
    """List all causes, each with the spectrum of shape ``(..., bins, frames)`` that it gives."""
    return [
        *list_common_causes(right),
        *(_list_paddings(right) if right.left else _list_centred(right)),
        *_list_starts(right),
        *(
            change(right, sentence, hop=hop, n_frames=n_frames)
            for sentence, hop in list_hops(right)
            for n_frames in {right.n_frames, _count_frames(right, right.left + right.right, hop)}
        ),
        *_list_signals(right),
        Cause("the mean of each frame is subtracted first", partial(_without_means, right)),
    ]


def _count_frames(right: Analysis, padding: int, hop: int) -> int:
    """Frames in the signal with so many samples added to it."""
    return 1 + max(0, right.signal.shape[-1] + padding - right.n_fft) // hop


def _list_signals(right: Analysis) -> list[Cause]:
    """The samples themselves are others."""
    signal = right.signal
    conjugated = "the input is conjugated (its conjugate bit is ignored)"
    return [
        change(right, "the signal is reversed in time", signal=signal.flip(-1)),
        *([
            change(right, conjugated, signal=signal.conj().resolve_conj()),
            change(right, "the input's imaginary part is dropped", signal=signal.real + 0j),
        ] if signal.is_complex() else []),
        change(right, "the signal's mean is subtracted first",
               signal=signal - signal.mean(-1, keepdim=True)),
    ]  # fmt: skip


def _without_means(right: Analysis) -> torch.Tensor:
    frames = right.frames()
    return right.spectrum(frames - frames.mean(-1, keepdim=True))


def _list_centred(right: Analysis) -> list[Cause]:
    """The signal is extended, although it should not be."""
    half = right.n_fft // 2
    centred = {"left": half, "right": half, "n_frames": _count_frames(right, 2 * half, right.hop)}
    said = "the signal is centred, with {} padding, although center=False"
    return [change(right, said.format(mode), pad_mode=mode, **centred) for mode in PAD_MODES]


def _list_paddings(right: Analysis) -> list[Cause]:
    """The signal is extended otherwise, by more or by less."""
    asked, both = f"where pad_mode={right.pad_mode!r} was asked for", right.left + right.right
    missing = "the padding is missing: the signal is not centred"
    if right.left != right.n_fft // 2:
        missing = "align_to_window is ignored"
    named = (
        (right.window.shape[0] // 2, "win_length // 2"),
        ((right.n_fft - right.hop) // 2, "(n_fft - hop) // 2"),
        (right.n_fft, "n_fft"),
        (right.n_fft - 1, "n_fft - 1"),
        (right.left - 1, "one less"),
        (right.left + 1, "one more"),
    )
    sides = f"on each side instead of {right.left}"
    return [
        *(
            change(right, f"the padding is {_EXTENSIONS[mode]}, {asked}", pad_mode=mode)
            for mode in PAD_MODES
            if mode != right.pad_mode
        ),
        *(
            change(right, missing, left=0, right=0, n_frames=n_frames)
            for n_frames in (_count_frames(right, 0, right.hop), right.n_frames)
        ),
        change(right, "all of the padding is at the end", left=0, right=both),
        change(right, "all of the padding is at the front", left=both, right=0),
        *(
            change(
                right,
                f"the padding is {padding} samples ({names}) {sides}",
                left=padding,
                right=padding,
                n_frames=n_frames,
            )
            for padding, names in name_numbers(named, right.left, 0)
            for n_frames in {_count_frames(right, 2 * padding, right.hop), right.n_frames}
        ),
    ]


def _list_starts(right: Analysis) -> list[Cause]:
    """The frames begin elsewhere, or there are more or fewer of them."""
    hop, more, fewer = right.hop, right.n_frames + 1, right.n_frames - 1
    shifted = "the frames are shifted by a frame: each is taken one hop too"
    return [
        *(
            change(right, sentence, first=first)
            for sign, word in _WORDS
            for sentence, first in (
                (f"the frames begin one sample too {word}", sign),
                (f"{shifted} {word}", sign * hop),
            )
        ),
        *(
            change(right, f"the frames are rotated: each is one place too {word}", turned=sign)
            for sign, word in _WORDS
        ),
        *(
            change(right, f"the frames begin {shift} samples too {word}", first=sign * shift)
            for shift in dict.fromkeys((2, 3, right.n_fft // 2))
            for sign, word in _WORDS
        ),
        *([
            change(right, "the last frame is missing", n_frames=fewer),
            change(right, "the first frame is missing", n_frames=fewer, first=hop),
        ] if fewer else []),
        change(right, "there is one frame too many, filled up with zeros", n_frames=more),
    ]  # fmt: skip
