"""What may have gone wrong in either transform: other windows, places of the window, and hops.

A cause is a sentence and a function of no arguments that gives the values which would come of it.
Which of them are a candidate's is found in ``explaining``; where two give the same, the order in
which they are listed is the order of preference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

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


def windows(transform: Transform) -> Iterator[tuple[str, torch.Tensor]]:
    """Other windows of ``win_length`` samples that a candidate may have used."""
    window = transform.window
    yield "the window is missing: frames are taken as they are", torch.ones_like(window)
    yield from _symmetries(window)
    for shift, word in ((1, "later"), (-1, "earlier")):
        yield (
            f"the window is off by one sample: it is rotated, one sample {word}",
            window.roll(shift),
        )
    for shift, word in ((1, "later"), (-1, "earlier")):
        moved = torch.zeros_like(window)
        if shift > 0:
            moved[1:] = window[:-1]
        else:
            moved[:-1] = window[1:]
        yield f"the window is off by one sample: it lies one sample {word}", moved
    half = window.shape[0] // 2
    yield "the window is rotated by half its length", window.roll(half)
    yield "the window is applied twice (squared)", window * window
    yield "the square root of the window is applied", window.abs().sqrt()
    yield "the window is reversed in time", window.flip(0)
    if window.is_complex():
        yield "the window is conjugated", window.conj().resolve_conj()
        yield "the window's imaginary part is dropped", window.real + 0j
        yield "the window's magnitude is used", window.abs() + 0j
    yield "the window's absolute value is used", window.abs()


def _symmetries(window: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The window with the other symmetry, and windows of other families."""
    if window.is_complex() or window.shape[0] < 2:
        return
    size, given = window.shape[0], None
    made = {
        (name, periodic): family(size, periodic=periodic, dtype=torch.float64)
        for name, family in FAMILIES.items()
        for periodic in (True, False)
    }
    for key, values in made.items():
        if torch.allclose(values, window, rtol=0.0, atol=SAME_WINDOW):
            given = key
            break
    kinds = {True: "periodic", False: "symmetric"}
    if given is not None:
        name, periodic = given
        yield (
            f"the {name} window is {kinds[not periodic]} where a {kinds[periodic]} one was passed",
            made[name, not periodic],
        )
    for (name, periodic), values in made.items():
        if given is None or name != given[0]:
            yield (f"a {kinds[periodic]} {name} window is used in place of the one passed", values)


def placements(transform: Transform) -> Iterator[tuple[str, int]]:
    """Other places of the window in a frame."""
    room = transform.n_fft - transform.window.shape[0]
    if not room:
        return
    yield "a window of win_length < n_fft begins with the frame instead of being centred in it", 0
    yield "a window of win_length < n_fft ends with the frame instead of being centred in it", room
    yield (
        "a window of win_length < n_fft lies one sample too late in the frame",
        transform.placed + 1,
    )
    yield (
        "a window of win_length < n_fft lies one sample too early in the frame",
        transform.placed - 1,
    )


def hops(transform: Transform) -> Iterator[tuple[str, int]]:
    """Other hops, most of them other defaults."""
    n_fft, win = transform.n_fft, transform.window.shape[0]
    found: dict[int, list[str]] = {}
    for hop, what in (
        (n_fft // 4, "n_fft // 4"),
        (n_fft // 2, "n_fft // 2"),
        (win // 4, "win_length // 4"),
        (win // 2, "win_length // 2"),
        (n_fft, "n_fft"),
        (win, "win_length"),
        (transform.hop + 1, "one more"),
        (transform.hop - 1, "one less"),
    ):
        if hop > 0 and hop != transform.hop:
            found.setdefault(hop, []).append(what)
    for hop, names in found.items():
        yield f"the hop is {hop} ({' = '.join(names)}) instead of {transform.hop}", hop
