"""What may have gone wrong in an inverse STFT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch.nn.functional import pad

from stft_parity.diagnose.causes import Cause, change, list_common_causes, list_hops
from stft_parity.diagnose.model import Synthesis

#: Numbers that programs add to an envelope, or do not let it fall below.
SMALL = (1e-8, 1e-5, 1e-4, 1e-3, 1e-2, 0.1)


def list_synthesis_causes(right: Synthesis) -> list[Cause]:
    """List all causes, each with the signal of shape ``(..., samples)`` that it gives."""
    return [
        *_list_divisions(right),
        *list_common_causes(right),
        *_list_edge_bins(right),
        *_list_spectra(right),
        *_list_starts(right),
        *_list_lengths(right),
        *(
            change(right, sentence, hop=hop, n_samples=n_samples)
            for sentence, hop in list_hops(right)
            for n_samples in {right.n_samples, replace(right, hop=hop).covered - 2 * right.start}
            if n_samples > 0
        ),
    ]


def _list_divisions(right: Synthesis) -> list[Cause]:
    """The synthesis window, and the division by the envelope."""
    squares = "the overlap-added frames are not divided by Σw²"
    unwindowed = "the synthesis window is missing: frames are overlap-added as they are and"
    undivided, power = replace(right, power=0).result, (right.window**2).sum()
    constant: tuple[tuple[str, Callable[[], torch.Tensor]], ...] = (
        ("its largest value", lambda: undivided() / right.envelope().abs().max()),
        ("its mean", lambda: undivided() / right.envelope().mean()),
        (
            "Σw² / hop, as if it were constant",
            lambda: undivided() / power * right.hop,
        ),
        ("Σw / hop, as if it were constant", lambda: undivided() / right.window.sum() * right.hop),
    )
    summed = "the envelope is the sum of the window (Σw) instead of its square (Σw²)"
    return [
        change(right, summed, power=1),
        change(right, f"the envelope is missing: {squares}", power=0),
        *(
            Cause(sentence, partial(_divide, right, applied, power))
            for applied, power, sentence in (
                (0, 2, f"{unwindowed} divided by Σw²"),
                (0, 1, f"{unwindowed} divided by Σw"),
                (0, 0, f"{unwindowed} not divided"),
                (2, 2, "the window is applied twice, but divided by Σw²"),
                (2, 4, "the window is applied twice, and divided by Σw⁴"),
            )
        ),
        *(
            Cause(f"the frames are divided not by the envelope but by {name}", values)
            for name, values in constant
        ),
        *(
            Cause(sentence, partial(_divide, right, least=least, added=added))
            for small in SMALL
            for sentence, least, added in (
                (f"the envelope is not let below {small:g}", small, 0.0),
                (f"{small:g} is added to the envelope", 0.0, small),
            )
        ),
    ]


def _divide(
    right: Synthesis, applied: int = 1, power: int = 2, least: float = 0.0, added: float = 0.0
) -> torch.Tensor:
    """Frames times a power of the window, divided by the envelope of a power of it.

    Args:
        right: the transform.
        applied: power with which the frames are multiplied.
        power: of the window in the envelope; 0 for no division.
        least: below which the envelope is not let.
        added: to the envelope.
    """
    signal = right.add_frames(right.frames() * right.framed_window() ** applied)
    if not power:
        return right.cut(signal)
    envelope = replace(right, power=power).envelope()
    return right.divide(signal, torch.where(envelope.abs() < least, least, envelope) + added)


def _list_edge_bins(right: Synthesis) -> list[Cause]:
    """The DC and Nyquist bins."""
    both, used = "imaginary parts of the DC and Nyquist bins are", "used, which torch ignores"
    kinds = (
        ("added", both),
        ("packed", both),
        ("zero", "imaginary part of the DC bin is"),
        ("nyquist", "imaginary part of the Nyquist bin is"),
    )
    spectrum, bins = right.spectrum, torch.arange(right.spectrum.shape[-2])[:, None]
    edges = {"Nyquist": right.n_fft // 2, "DC": 0} if right.n_fft % 2 == 0 else {"DC": 0}
    return [
        *(
            change(right, f"the {what} {used}", edge_imaginary=kind)
            for kind, what in kinds
            if not right.as_complex
        ),
        *(
            change(
                right,
                f"the {name} bin is missing (taken as zero)",
                spectrum=spectrum * (bins != at),
            )
            for name, at in edges.items()
        ),
    ]


def _list_spectra(right: Synthesis) -> list[Cause]:
    """The spectrum that the frames are made of is another."""
    spectrum = right.spectrum
    rows = (
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
    )
    whole = replace(right, as_complex=True)
    parts = (
        (right.as_complex, "the imaginary part of the signal is zero",
         lambda: right.result().real + 0j),
        (not right.as_complex and not right.onesided,
         "the two-sided spectrum is used in full, where torch uses its first half",
         lambda: whole.result().real),
    )  # fmt: skip
    return [
        *(change(right, sentence, spectrum=other) for sentence, other in rows),
        *(Cause(sentence, values) for possible, sentence, values in parts if possible),
    ]


def _list_starts(right: Synthesis) -> list[Cause]:
    """The signal begins elsewhere."""
    half, whole, asked = right.n_fft // 2, right.covered, right.n_samples
    said = "the signal is not trimmed: the half frame before the first centre is still there"
    start, lengths = 0, dict.fromkeys((asked, whole, whole - half))
    if not right.start:
        said = "n_fft // 2 samples are trimmed, although center=False"
        start = half
        lengths = dict.fromkeys((asked, whole - 2 * half) if whole > 2 * half else (asked,))
    return [
        *(change(right, said, start=start, n_samples=n_samples) for n_samples in lengths),
        *(
            change(right, f"the signal begins {what} too {word}", start=right.start + sign * shift)
            for sign, word in ((1, "late"), (-1, "early"))
            for shift, what in ((1, "one sample"), (right.hop, "one hop"))
        ),
    ]


def _list_lengths(right: Synthesis) -> list[Cause]:
    """The signal has another length, or has the right one at the wrong end."""
    natural = right.covered - 2 * right.start
    surplus, full = natural - right.n_samples, replace(right, n_samples=natural)
    if natural <= 0 or not surplus:
        return []
    ignored = Cause("length is ignored", full.result)
    met, end = "length is met by", "instead of at the end"
    if surplus > 0:
        halved = right.start + surplus // 2
        return [
            ignored,
            change(right, f"{met} cutting at the front {end}", start=right.start + surplus),
            change(right, f"{met} cutting equally at both ends {end}", start=halved),
        ]
    beyond = "there are zeros beyond the last centre, where the last frame still reaches"
    return [
        ignored,
        Cause(f"{met} zeros at the front {end}", lambda: pad(full.result(), (-surplus, 0))),
        Cause(beyond, lambda: pad(full.result(), (0, -surplus))),
    ]
