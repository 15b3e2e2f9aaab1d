"""What may be wrong with a result that was computed right: its arrangement, or its scale.

They need no model of the call: only the true result, in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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


def of_spectrum(truth: torch.Tensor, n_fft: int, hop: int, onesided: bool) -> Iterator[Cause]:
    """What may be wrong with a spectrum of shape ``(..., bins, frames)``."""
    yield Cause("the spectrum is conjugated", lambda: truth.conj().resolve_conj())
    yield Cause(
        "real and imaginary parts are exchanged", lambda: torch.complex(truth.imag, truth.real)
    )
    yield from _of_edge_bins(truth, n_fft)
    yield from _of_sides(truth, n_fft, onesided)
    yield Cause("the bins are reversed", lambda: truth.flip(-2))
    yield Cause("the bins are rotated by one", lambda: truth.roll(1, -2))
    yield Cause(
        "bin 0 is in the middle, as after fftshift", lambda: torch.fft.fftshift(truth, dim=-2)
    )
    yield Cause("time axis and bin axis are exchanged", lambda: truth.transpose(-1, -2))
    yield Cause(
        "time axis and bin axis are exchanged: values of (frames, bins) were given the shape "
        "(bins, frames)",
        lambda: truth.transpose(-1, -2).reshape(truth.shape),
    )
    yield Cause("the frames are in reverse order", lambda: truth.flip(-1))
    yield Cause("only the magnitude is there", lambda: truth.abs() + 0j)
    yield Cause("only the power is there", lambda: truth.abs() ** 2 + 0j)
    yield Cause("the imaginary part is missing (zero)", lambda: truth.real + 0j)
    yield Cause("the real part is missing (zero)", lambda: 1j * truth.imag)
    yield from _of_phases(truth, n_fft, hop)


def _of_edge_bins(truth: torch.Tensor, n_fft: int) -> Iterator[Cause]:
    """The bins that have no negative counterpart, or the last one."""
    n_bins, nyquist = truth.shape[-2], n_fft // 2
    at = torch.arange(n_bins)[:, None]
    special = {"last": n_bins - 1, "DC": 0}
    if n_fft % 2 == 0 and 0 < nyquist < n_bins:
        special = {"Nyquist": nyquist, "DC": 0}
    for name, edge in special.items():
        yield Cause(f"the {name} bin is zero", partial(_where, at == edge, truth, 0.0))
        yield Cause(f"the {name} bin is missing", partial(_without, truth, edge))
        yield Cause(
            f"the imaginary part of the {name} bin is dropped",
            partial(_where, at == edge, truth, truth.real + 0j),
        )
    edges = (at == 0) | ((at == nyquist) & (n_fft % 2 == 0))
    for factor, word in ((2.0, "doubled"), (0.5, "halved"), (math.sqrt(2), "scaled by √2")):
        scaled = factor * truth
        yield Cause(
            f"all bins but DC and Nyquist are {word}", partial(_where, ~edges, truth, scaled)
        )
        yield Cause(f"the DC and Nyquist bins are {word}", partial(_where, edges, truth, scaled))


def _where(mask: torch.Tensor, values: torch.Tensor, there: torch.Tensor | float) -> torch.Tensor:
    """``values``, and others where the mask is set."""
    return torch.where(mask, there, values)


def _without(truth: torch.Tensor, left_out: int) -> torch.Tensor:
    return truth[..., torch.arange(truth.shape[-2]) != left_out, :]


def _of_sides(truth: torch.Tensor, n_fft: int, onesided: bool) -> Iterator[Cause]:
    """The spectrum has one side where it should have two, or the reverse."""
    half = n_fft // 2 + 1
    if onesided:
        beyond = n_fft - torch.arange(half, n_fft)

        def both() -> torch.Tensor:
            return torch.cat((truth, truth[..., beyond, :].conj().resolve_conj()), dim=-2)

        yield Cause("the spectrum is two-sided where a onesided one was asked for", both)
        return
    negative = torch.arange(n_fft)[:, None] >= half
    mirrored = truth[..., (n_fft - torch.arange(n_fft)) % n_fft, :]
    conjugates = mirrored.conj().resolve_conj()
    yield Cause(
        "the spectrum is onesided where a two-sided one was asked for",
        lambda: truth[..., :half, :],
    )
    for sentence, values in (
        ("the negative frequencies are zero", 0.0),
        ("the negative frequencies are mirrored without conjugation", mirrored),
        ("the negative frequencies are the conjugates of the positive ones", conjugates),
    ):
        yield Cause(sentence, partial(_where, negative, truth, values))
    yield Cause("the bins run the other way round: bin k holds bin -k", lambda: mirrored)


def _of_phases(truth: torch.Tensor, n_fft: int, hop: int) -> Iterator[Cause]:
    """The phase is right, but counted from somewhere else."""
    begin = torch.arange(truth.shape[-1], dtype=torch.float64) * hop
    one, half = torch.ones(()), n_fft // 2
    not_of_frame = "not of the frame"
    yield Cause(
        "phases are counted from the middle of the frame, not from its start",
        partial(_shift_frames, truth, n_fft, half * one),
    )
    for sign in (-1, 1):
        yield Cause(
            f"phases are counted from the start of the padded signal, {not_of_frame}",
            partial(_shift_frames, truth, n_fft, sign * begin),
        )
        yield Cause(
            f"phases are counted from the start of the signal, {not_of_frame}",
            partial(_shift_frames, truth, n_fft, sign * (begin - half)),
        )
        yield Cause(
            "phases are off by one sample", partial(_shift_frames, truth, n_fft, sign * one)
        )


def _shift_frames(truth: torch.Tensor, n_fft: int, samples: torch.Tensor) -> torch.Tensor:
    """The spectrum of the same frames, so many samples earlier in them."""
    bins = torch.arange(truth.shape[-2], dtype=torch.float64)[:, None]
    # The product is reduced modulo n before it becomes an angle: exact for any size.
    angle = 2 * math.pi * ((bins * samples) % n_fft) / n_fft
    return truth * torch.polar(torch.ones_like(angle), angle)


def of_signal(truth: torch.Tensor) -> Iterator[Cause]:
    """What may be wrong with a signal of shape ``(..., samples)``."""
    yield Cause("the signal is reversed in time", lambda: truth.flip(-1))
    if truth.is_complex():
        yield Cause("the signal is conjugated", lambda: truth.conj().resolve_conj())
        yield Cause(
            "real and imaginary parts are exchanged", lambda: torch.complex(truth.imag, truth.real)
        )
    for sign, word in ((1, "late"), (-1, "early")):
        yield Cause(
            f"the signal is rotated: each sample is one place too {word}",
            partial(torch.roll, truth, sign, -1),
        )
    if truth.shape[-1] > 1:
        yield Cause("the last sample is missing", lambda: truth[..., :-1])
        yield Cause("the first sample is missing", lambda: truth[..., 1:])
        yield Cause("the last sample is zero", lambda: pad(truth[..., :-1], (0, 1)))
    yield Cause("there is one sample too many, a zero at the end", lambda: pad(truth, (0, 1)))


def of_rows(truth: torch.Tensor, rows: int) -> Iterator[Cause]:
    """What may be wrong with the batch; ``rows`` is 0 without one."""
    yield Cause("all values are zero", lambda: torch.zeros_like(truth))
    if not rows:
        yield Cause("there is a batch dimension, although the input has none", lambda: truth[None])
        return
    if rows == 1:
        yield Cause("the batch dimension is missing", lambda: truth[0])
        return
    of_one = "every row of the batch is computed from the"
    yield Cause(f"{of_one} first one", lambda: truth[:1].expand(truth.shape))
    yield Cause(f"{of_one} last one", lambda: truth[-1:].expand(truth.shape))
    exchanged = "the rows of the batch are exchanged"
    yield Cause(f"{exchanged} (in reverse order)", lambda: truth.flip(0))
    for shift in (1, -1):
        yield Cause(f"{exchanged} (rotated by one)", partial(torch.roll, truth, shift, 0))
    first = "only the first row of the batch is"
    yield Cause(
        f"{first} computed, the others are zero",
        lambda: torch.cat((truth[:1], torch.zeros_like(truth[1:]))),
    )
    yield Cause(f"{first} returned", lambda: truth[0])
    yield Cause(f"{first} returned", lambda: truth[:1])


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
