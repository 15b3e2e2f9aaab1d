"""What may have gone wrong in an inverse STFT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch.nn.functional import pad

from stft_parity.diagnose.causes import Cause, hops, placements, windows
from stft_parity.diagnose.model import Synthesis

#: Numbers that programs add to an envelope, or do not let it fall below.
SMALL = (1e-8, 1e-5, 1e-4, 1e-3, 1e-2, 0.1)


def of_synthesis(right: Synthesis) -> Iterator[Cause]:
    """All causes, each with the signal of shape ``(..., samples)`` that it gives."""
    yield from _of_division(right)
    for sentence, window in windows(right):
        yield Cause(sentence, replace(right, window=window).result)
    for sentence, placed in placements(right):
        yield Cause(sentence, replace(right, placed=placed).result)
    yield from _of_edge_bins(right)
    yield from _of_bins(right)
    yield from _of_trimming(right)
    yield from _of_length(right)
    for sentence, hop in hops(right):
        natural = replace(right, hop=hop).covered - 2 * right.start
        for n_samples in {right.n_samples, natural}:
            if n_samples > 0:
                yield Cause(sentence, replace(right, hop=hop, n_samples=n_samples).result)


def _of_division(right: Synthesis) -> Iterator[Cause]:
    """The synthesis window, and the division by the envelope."""
    squares = "the overlap-added frames are not divided by Σw²"
    yield Cause(
        "the envelope is the sum of the window (Σw) instead of its square (Σw²)",
        replace(right, power=1).result,
    )
    yield Cause(f"the envelope is missing: {squares}", replace(right, power=0).result)
    for power, over in ((2, "divided by Σw²"), (1, "divided by Σw"), (0, "not divided")):
        yield Cause(
            f"the synthesis window is missing: frames are overlap-added as they are and {over}",
            partial(_divide, right, 0, power),
        )
    yield Cause("the window is applied twice, but divided by Σw²", partial(_divide, right, 2, 2))
    yield Cause("the window is applied twice, and divided by Σw⁴", partial(_divide, right, 2, 4))
    for name, level in (
        ("its largest value", lambda: right.envelope().abs().max()),
        ("its mean", lambda: right.envelope().mean()),
        ("Σw² / hop, as if it were constant", lambda: (right.window**2).sum() / right.hop),
        ("Σw / hop, as if it were constant", lambda: right.window.sum() / right.hop),
    ):
        yield Cause(
            f"the frames are divided not by the envelope but by {name}",
            partial(_by_level, right, level),
        )
    for small in SMALL:
        yield Cause(f"the envelope is not let below {small:g}", partial(_clamp, right, small))
        yield Cause(f"{small:g} is added to the envelope", partial(_raise_envelope, right, small))


def _divide(right: Synthesis, applied: int, power: int) -> torch.Tensor:
    """Frames times a power of the window, divided by the envelope of a power of it."""
    signal = right.add_frames(right.frames() * right.framed_window() ** applied)
    if not power:
        return right.cut(signal)
    return right.divide(signal, replace(right, power=power).envelope())


def _by_level(right: Synthesis, level: Callable[[], torch.Tensor]) -> torch.Tensor:
    return replace(right, power=0).result() / level()


def _clamp(right: Synthesis, least: float) -> torch.Tensor:
    envelope = right.envelope()
    signal = right.add_frames(right.frames() * right.framed_window())
    return right.divide(signal, torch.where(envelope.abs() < least, least, envelope))


def _raise_envelope(right: Synthesis, by: float) -> torch.Tensor:
    signal = right.add_frames(right.frames() * right.framed_window())
    return right.divide(signal, right.envelope() + by)


def _of_edge_bins(right: Synthesis) -> Iterator[Cause]:
    """The DC and Nyquist bins."""
    if not right.as_complex:
        used = "used, which torch ignores"
        for how, what in (
            ("added", "imaginary parts of the DC and Nyquist bins are"),
            ("packed", "imaginary parts of the DC and Nyquist bins are"),
            ("zero", "imaginary part of the DC bin is"),
            ("nyquist", "imaginary part of the Nyquist bin is"),
        ):
            yield Cause(f"the {what} {used}", replace(right, edge_imaginary=how).result)
    edges = {"DC": 0}
    if right.n_fft % 2 == 0:
        edges = {"Nyquist": right.n_fft // 2, "DC": 0}
    for name, at in edges.items():
        yield Cause(f"the {name} bin is missing (taken as zero)", partial(_without_bin, right, at))


def _without_bin(right: Synthesis, at: int) -> torch.Tensor:
    keep = torch.arange(right.spectrum.shape[-2])[:, None] != at
    return replace(right, spectrum=right.spectrum * keep).result()


def _of_bins(right: Synthesis) -> Iterator[Cause]:
    """The spectrum that the frames are made of is another."""
    spectrum = right.spectrum
    for sentence, other in (
        (
            "the spectrum is conjugated (a conjugate bit is ignored, or the transform is the "
            "forward one)",
            spectrum.conj().resolve_conj(),
        ),
        ("real and imaginary parts are exchanged", torch.complex(spectrum.imag, spectrum.real)),
        ("the bins are reversed", spectrum.flip(-2)),
        ("only the real part of the spectrum is used", spectrum.real + 0j),
        ("the frames are rotated: each is one place too late", spectrum.roll(1, -1)),
        ("the frames are rotated: each is one place too early", spectrum.roll(-1, -1)),
        ("the frames are taken in reverse order", spectrum.flip(-1)),
    ):
        yield Cause(sentence, replace(right, spectrum=other).result)
    if right.as_complex:
        yield Cause("the imaginary part of the signal is zero", lambda: right.result().real + 0j)
    elif not right.onesided:
        whole = replace(right, as_complex=True)
        yield Cause(
            "the two-sided spectrum is used in full, where torch uses its first half",
            lambda: whole.result().real,
        )


def _of_trimming(right: Synthesis) -> Iterator[Cause]:
    """The signal begins elsewhere."""
    half, whole = right.n_fft // 2, right.covered
    if right.start:
        said = "the signal is not trimmed: the half frame before the first centre is still there"
        for n_samples in dict.fromkeys((right.n_samples, whole, whole - half)):
            yield Cause(said, replace(right, start=0, n_samples=n_samples).result)
    else:
        trimmed = replace(right, start=half)
        said = "n_fft // 2 samples are trimmed, although center=False"
        yield Cause(said, trimmed.result)
        if whole > 2 * half:
            yield Cause(said, replace(trimmed, n_samples=whole - 2 * half).result)
    for sign, word in ((1, "late"), (-1, "early")):
        for shift, what in ((1, "one sample"), (right.hop, "one hop")):
            moved = replace(right, start=right.start + sign * shift)
            yield Cause(f"the signal begins {what} too {word}", moved.result)


def _of_length(right: Synthesis) -> Iterator[Cause]:
    """The signal has another length, or has the right one at the wrong end."""
    natural = right.covered - 2 * right.start
    surplus = natural - right.n_samples
    if natural <= 0 or not surplus:
        return
    full = replace(right, n_samples=natural)
    yield Cause("length is ignored", full.result)
    if surplus > 0:
        yield Cause(
            "length is met by cutting at the front instead of at the end",
            replace(right, start=right.start + surplus).result,
        )
        yield Cause(
            "length is met by cutting equally at both ends instead of at the end",
            replace(right, start=right.start + surplus // 2).result,
        )
        return
    yield Cause(
        "length is met by zeros at the front instead of at the end",
        lambda: pad(full.result(), (-surplus, 0)),
    )
    yield Cause(
        "there are zeros beyond the last centre, where the last frame still reaches",
        lambda: pad(full.result(), (0, -surplus)),
    )
