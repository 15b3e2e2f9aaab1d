"""What may be wrong with a result that was computed right: its arrangement, or its scale.

They need no model of the call: only the true result, in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch.nn.functional import pad

from stft_parity.diagnose.causes import Cause

#: A common factor is one when it leaves this share of the values' norm at most.
FACTOR_RESIDUAL = 1e-3
#: Names of one factor that a sentence has.
NAMED = 3
#: A factor is told by what it differs from one.
NEAR_ONE = 1e-3
#: Two factors are the same.
SAME_FACTOR = 1e-4


Values = Callable[[], torch.Tensor]


def list_spectrum_causes(truth: torch.Tensor, n_fft: int, hop: int, onesided: bool) -> list[Cause]:
    """List what may be wrong with a spectrum of shape ``(..., bins, frames)``."""
    exchanged = "time axis and bin axis are exchanged"
    return [
        Cause("the spectrum is conjugated", lambda: truth.conj().resolve_conj()),
        _exchange_parts(truth),
        *_list_edge_bins(truth, n_fft),
        *_list_sides(truth, n_fft, onesided),
        Cause("the bins are reversed", lambda: truth.flip(-2)),
        Cause("the bins are rotated by one", lambda: truth.roll(1, -2)),
        Cause("bin 0 is in the middle, as after fftshift", lambda: torch.fft.fftshift(truth, -2)),
        Cause(exchanged, lambda: truth.transpose(-1, -2)),
        Cause(
            f"{exchanged}: values of (frames, bins) were given the shape (bins, frames)",
            lambda: truth.transpose(-1, -2).reshape(truth.shape),
        ),
        Cause("the frames are in reverse order", lambda: truth.flip(-1)),
        Cause("only the magnitude is there", lambda: truth.abs() + 0j),
        Cause("only the power is there", lambda: truth.abs() ** 2 + 0j),
        Cause("the imaginary part is missing (zero)", lambda: truth.real + 0j),
        Cause("the real part is missing (zero)", lambda: 1j * truth.imag),
        *_list_phases(truth, n_fft, hop),
    ]


def _exchange_parts(truth: torch.Tensor) -> Cause:
    said = "real and imaginary parts are exchanged"
    return Cause(said, lambda: torch.complex(truth.imag, truth.real))


def _list_edge_bins(truth: torch.Tensor, n_fft: int) -> list[Cause]:
    """The bins that have no negative counterpart, or the last one."""
    n_bins, nyquist = truth.shape[-2], n_fft // 2
    at = torch.arange(n_bins)[:, None]
    even = n_fft % 2 == 0 and 0 < nyquist < n_bins
    special = {"Nyquist": nyquist, "DC": 0} if even else {"last": n_bins - 1, "DC": 0}
    edges = (at == 0) | ((at == nyquist) & (n_fft % 2 == 0))
    factors = ((2.0, "doubled"), (0.5, "halved"), (math.sqrt(2), "scaled by √2"))
    return [
        *(
            cause
            for name, edge in special.items()
            for cause in (
                _set(f"the {name} bin is zero", at == edge, truth,
                     partial(torch.zeros_like, truth)),
                Cause(f"the {name} bin is missing",
                      partial(truth.index_select, -2, (at[:, 0] != edge).nonzero()[:, 0])),
                _set(f"the imaginary part of the {name} bin is dropped", at == edge, truth,
                     lambda: truth.real + 0j),
            )
        ),
        *(
            cause
            for factor, word in factors
            for scaled in [partial(torch.mul, truth, factor)]
            for cause in (
                _set(f"all bins but DC and Nyquist are {word}", ~edges, truth, scaled),
                _set(f"the DC and Nyquist bins are {word}", edges, truth, scaled),
            )
        ),
    ]  # fmt: skip


def _set(sentence: str, mask: torch.Tensor, values: torch.Tensor, there: Values) -> Cause:
    """The values, and others where the mask is set."""
    return Cause(sentence, lambda: torch.where(mask, there(), values))


def _list_sides(truth: torch.Tensor, n_fft: int, onesided: bool) -> list[Cause]:
    """The spectrum has one side where it should have two, or the reverse."""
    half = n_fft // 2 + 1
    if onesided:
        beyond = n_fft - torch.arange(half, n_fft)
        whole = "the spectrum is two-sided where a onesided one was asked for"
        mirror = truth[..., beyond, :].conj().resolve_conj()
        return [Cause(whole, lambda: torch.cat((truth, mirror), dim=-2))]
    negative = torch.arange(n_fft)[:, None] >= half
    mirrored = truth[..., (n_fft - torch.arange(n_fft)) % n_fft, :]
    one, frequencies = "the spectrum is onesided where", "the negative frequencies are"
    return [
        Cause(f"{one} a two-sided one was asked for", lambda: truth[..., :half, :]),
        _set(f"{frequencies} zero", negative, truth, lambda: torch.zeros_like(truth)),
        _set(f"{frequencies} mirrored without conjugation", negative, truth, lambda: mirrored),
        _set(f"{frequencies} the conjugates of the positive ones", negative, truth,
             lambda: mirrored.conj().resolve_conj()),
        Cause("the bins run the other way round: bin k holds bin -k", lambda: mirrored),
    ]  # fmt: skip


def _list_phases(truth: torch.Tensor, n_fft: int, hop: int) -> list[Cause]:
    """The phase is right, but counted from somewhere else."""
    begin = torch.arange(truth.shape[-1], dtype=torch.float64) * hop
    one, half = torch.ones(()), n_fft // 2
    counted, frame = "phases are counted from the", "not of the frame"
    rows = (
        (f"{counted} middle of the frame, not from its start", half * one),
        *(
            row
            for sign in (-1, 1)
            for row in (
                (f"{counted} start of the padded signal, {frame}", sign * begin),
                (f"{counted} start of the signal, {frame}", sign * (begin - half)),
                ("phases are off by one sample", sign * one),
            )
        ),
    )
    return [Cause(said, partial(_shift_frames, truth, n_fft, samples)) for said, samples in rows]


def _shift_frames(truth: torch.Tensor, n_fft: int, samples: torch.Tensor) -> torch.Tensor:
    """The spectrum of the same frames, so many samples earlier in them."""
    bins = torch.arange(truth.shape[-2], dtype=torch.float64)[:, None]
    # The product is reduced modulo n before it becomes an angle: exact for any size.
    angle = 2 * math.pi * ((bins * samples) % n_fft) / n_fft
    return truth * torch.polar(torch.ones_like(angle), angle)


def list_signal_causes(truth: torch.Tensor) -> list[Cause]:
    """List what may be wrong with a signal of shape ``(..., samples)``."""
    conjugated = Cause("the signal is conjugated", lambda: truth.conj().resolve_conj())
    rotated = "the signal is rotated: each sample is one place too"
    return [
        Cause("the signal is reversed in time", lambda: truth.flip(-1)),
        *((conjugated, _exchange_parts(truth)) if truth.is_complex() else ()),
        Cause(f"{rotated} late", lambda: truth.roll(1, -1)),
        Cause(f"{rotated} early", lambda: truth.roll(-1, -1)),
        *((
            Cause("the last sample is missing", lambda: truth[..., :-1]),
            Cause("the first sample is missing", lambda: truth[..., 1:]),
            Cause("the last sample is zero", lambda: pad(truth[..., :-1], (0, 1))),
        ) if truth.shape[-1] > 1 else ()),
        Cause("there is one sample too many, a zero at the end", lambda: pad(truth, (0, 1))),
    ]  # fmt: skip


def list_row_causes(truth: torch.Tensor, rows: int) -> list[Cause]:
    """List what may be wrong with the batch; ``rows`` is 0 without one."""
    zero = Cause("all values are zero", lambda: torch.zeros_like(truth))
    added = Cause("there is a batch dimension, although the input has none", lambda: truth[None])
    missing = Cause("the batch dimension is missing", lambda: truth[0])
    if rows < 2:
        return [zero, missing if rows else added]
    one, exchanged = (
        "every row of the batch is computed from the",
        "the rows of the batch are exchanged",
    )
    first = "only the first row of the batch is"
    blank = f"{first} computed, the others are zero"
    return [
        zero,
        Cause(f"{one} first one", lambda: truth[:1].expand(truth.shape)),
        Cause(f"{one} last one", lambda: truth[-1:].expand(truth.shape)),
        Cause(f"{exchanged} (in reverse order)", lambda: truth.flip(0)),
        Cause(f"{exchanged} (rotated by one)", lambda: truth.roll(1, 0)),
        Cause(f"{exchanged} (rotated by one)", lambda: truth.roll(-1, 0)),
        Cause(blank, lambda: torch.cat((truth[:1], torch.zeros_like(truth[1:])))),
        Cause(f"{first} returned", lambda: truth[0]),
        Cause(f"{first} returned", lambda: truth[:1]),
    ]


def factor(truth: torch.Tensor, actual: torch.Tensor) -> complex | None:
    """The number by which ``actual`` is ``truth`` multiplied, by least squares; None for none."""
    a, b = (values.flatten().to(torch.complex128) for values in (truth, actual))
    norm = torch.vdot(a, a).real
    if not norm > 0:
        return None
    found = torch.vdot(a, b) / norm
    left = torch.linalg.vector_norm(b - found * a) / norm.sqrt()
    if not left <= FACTOR_RESIDUAL * found.abs():
        return None
    return complex(found.item())


def factor_name(found: complex, names: dict[str, float]) -> str:
    """The factor in words: its number, and what it is where that is known."""
    if abs(found.imag) > SAME_FACTOR * abs(found):
        if abs(found - 1j) < SAME_FACTOR:
            return "i"
        if abs(found + 1j) < SAME_FACTOR:
            return "-i"
        return f"{found:.6g}"
    value = found.real
    same = [
        name
        for name, known in names.items()
        if math.isfinite(known) and abs(value - known) <= SAME_FACTOR * abs(known)
    ]
    if same:
        return f"{value:.6g} ({' = '.join(same[:NAMED])})"
    beyond = value - 1
    if abs(beyond) < NEAR_ONE:
        return f"1 {'-' if beyond < 0 else '+'} {abs(beyond):.2g}"
    return f"{value:.6g}"


def list_factors(n_fft: int, hop: int, win: int, window: torch.Tensor) -> dict[str, float]:
    """Factors that mean something, and their inverses."""
    total, power = abs(complex(window.sum())), float((window.abs() ** 2).sum())
    known = {
        "√n_fft": math.sqrt(n_fft),
        "n_fft": float(n_fft),
        "n_fft / 2": n_fft / 2,
        "n_fft // 2 + 1": float(n_fft // 2 + 1),
        "Σw": total,
        "Σw / 2": total / 2,
        "√Σw²": math.sqrt(power),
        "Σw²": power,
        "Σw² / hop": power / hop,
        "Σw / hop": total / hop,
        "n_fft / hop": n_fft / hop,
        "hop": float(hop),
        **({} if win == n_fft else {"win_length": float(win), "√win_length": math.sqrt(win)}),
        "√2": math.sqrt(2),
        "32768, as of 16-bit samples": 32768.0,
    }
    known = {name: value for name, value in known.items() if value not in (0.0, 1.0)}
    return {**known, **{f"1/({n})" if " " in n else f"1/{n}": 1 / v for n, v in known.items()}}
