"""What may have gone wrong in either transform, as rows of tables: windows, their places, hops.

A cause is a sentence and a function of no arguments that gives the values which would come of it.
Which of them are a candidate's is found in ``explaining``; where two give the same, the order in
which they are listed is the order of preference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import pad

from stft_parity.diagnose.model import Analysis, Synthesis


@dataclass(frozen=True)
class Cause:
    """What is wrong, as a sentence, and the values that come of it."""

    sentence: str
    values: Callable[[], torch.Tensor]


#: Windows by which another one may have been replaced.
FAMILIES: dict[str, Callable[..., torch.Tensor]] = {
    "Hann": torch.hann_window,
    "Hamming": torch.hamming_window,
    "Blackman": torch.blackman_window,
    "Bartlett": torch.bartlett_window,
}
#: Equal windows: two float32 evaluations of one formula.
SAME_WINDOW = 1e-5

Transform = Analysis | Synthesis
Row = tuple[str, torch.Tensor]


def change(right: Transform, sentence: str, /, **changes: Any) -> Cause:
    """Make the cause that some fields of a transform are others."""
    return Cause(sentence, replace(right, **changes).result)


def list_common_causes(right: Transform) -> list[Cause]:
    """List other windows of ``win_length`` samples, and other places of the window in a frame."""
    short = "a window of win_length < n_fft"
    room = right.n_fft - right.window.shape[0]
    places = (
        (0, "begins with the frame instead of being centred in it"),
        (room, "ends with the frame instead of being centred in it"),
        (right.placed + 1, "lies one sample too late in the frame"),
        (right.placed - 1, "lies one sample too early in the frame"),
    )
    return [
        *(change(right, sentence, window=window) for sentence, window in _windows(right.window)),
        *(change(right, f"{short} {what}", placed=at) for at, what in places if room),
    ]


def _windows(window: torch.Tensor) -> list[Row]:
    off = "the window is off by one sample: it"
    late, early = "one sample later", "one sample earlier"
    return [
        ("the window is missing: frames are taken as they are", torch.ones_like(window)),
        *_symmetries(window),
        (f"{off} is rotated, {late}", window.roll(1)),
        (f"{off} is rotated, {early}", window.roll(-1)),
        (f"{off} lies {late}", pad(window[:-1], (1, 0))),
        (f"{off} lies {early}", pad(window[1:], (0, 1))),
        ("the window is rotated by half its length", window.roll(window.shape[0] // 2)),
        ("the window is applied twice (squared)", window * window),
        ("the square root of the window is applied", window.abs().sqrt()),
        ("the window is reversed in time", window.flip(0)),
        *([
            ("the window is conjugated", window.conj().resolve_conj()),
            ("the window's imaginary part is dropped", window.real + 0j),
            ("the window's magnitude is used", window.abs() + 0j),
        ] if window.is_complex() else []),
        ("the window's absolute value is used", window.abs()),
    ]  # fmt: skip


def _symmetries(window: torch.Tensor) -> list[Row]:
    """The window with the other symmetry, and windows of other families."""
    if window.is_complex() or window.shape[0] < 2:
        return []
    made = {
        (name, kind): family(window.shape[0], periodic=kind == "periodic", dtype=torch.float64)
        for name, family in FAMILIES.items()
        for kind in ("periodic", "symmetric")
    }
    same = (key for key, values in made.items()
            if torch.allclose(values, window, rtol=0.0, atol=SAME_WINDOW))  # fmt: skip
    own, passed = next(same, ("", ""))
    return [
        *((f"the {own} window is {kind} where a {passed} one was passed", values)
          for (name, kind), values in made.items() if name == own and kind != passed),
        *((f"a {kind} {name} window is used in place of the one passed", values)
          for (name, kind), values in made.items() if name != own),
    ]  # fmt: skip


def name_numbers(named: Iterable[tuple[int, str]], right: int, least: int) -> list[tuple[int, str]]:
    """Join the names of equal numbers, without the right one and those that are too small."""
    found: dict[int, list[str]] = {}
    for number, name in named:
        if number >= least and number != right:
            found.setdefault(number, []).append(name)
    return [(number, " = ".join(names)) for number, names in found.items()]


def list_hops(transform: Transform) -> list[tuple[str, int]]:
    """List other hops, most of them other defaults."""
    n_fft, win = transform.n_fft, transform.window.shape[0]
    named = (
        (n_fft // 4, "n_fft // 4"),
        (n_fft // 2, "n_fft // 2"),
        (win // 4, "win_length // 4"),
        (win // 2, "win_length // 2"),
        (n_fft, "n_fft"),
        (win, "win_length"),
        (transform.hop + 1, "one more"),
        (transform.hop - 1, "one less"),
    )
    return [
        (f"the hop is {hop} ({names}) instead of {transform.hop}", hop)
        for hop, names in name_numbers(named, transform.hop, 1)
    ]
