"""How far values are from the truth, and whether that is admitted."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stft_parity.compare.tolerances import (
    LEAST_OWN_ROUNDINGS,
    OWN_ERROR,
    ROUNDINGS,
    bound_flushing,
    precision,
    share_of_peak,
)


@dataclass(frozen=True)
class Errors:
    """Errors against the truth, row by row: signals of a batch have nothing to do with each other.

    Attributes:
        own: largest error of the reference in each row.
        error: largest error of the candidate.
        peak: largest value of the truth.
        allowed: what is admitted of the candidate.
        elsewhere: positions at which the candidate alone is finite, or alone is not; a few.
        least: the smallest error of its own that the reference is taken to have in each row.
    """

    own: torch.Tensor
    error: torch.Tensor
    peak: torch.Tensor
    allowed: torch.Tensor
    elsewhere: list[list[int]]
    least: torch.Tensor

    @property
    def admitted(self) -> bool:
        return not self.elsewhere and bool((self.error <= self.allowed).all())

    @property
    def in_units(self) -> float:
        """The candidate's largest error in units of the reference's own, row by row."""
        units = self.error / torch.maximum(self.own, self.least)
        units = units[self.error > 0]
        return float(units.max()) if units.numel() else 0.0

    def with_rounding(self, moved: torch.Tensor) -> Errors:
        """The same errors where rounding the input once more would move each row so far."""
        allowed = self.allowed + ROUNDINGS * moved
        least = torch.maximum(self.least, moved)
        return Errors(self.own, self.error, self.peak, allowed, self.elsewhere, least)

    def complaint(self) -> str:
        """What is wrong; empty when nothing is."""
        if self.elsewhere:
            return f"the candidate is not finite elsewhere than the reference: {self.elsewhere}"
        if self.admitted:
            return ""
        row = int((self.error / self.allowed.clamp_min(1e-300)).argmax())
        place = f" in row {row}" if len(self.error) > 1 else ""
        return (
            f"values differ{place}: largest error {self.error[row]:.3e}, native's own "
            f"{self.own[row]:.3e}, largest value {self.peak[row]:.3e}, allowed "
            f"{self.allowed[row]:.3e}"
        )


def errors(
    truth: torch.Tensor,
    expected: torch.Tensor,
    actual: torch.Tensor,
    *,
    dtype: torch.dtype,
    terms: int,
    rows: int = 0,
) -> Errors:
    """Measure both sides against the truth.

    Args:
        truth: in double precision.
        expected: the reference's result, of the truth's shape.
        actual: the candidate's, of the same shape.
        dtype: of the reference's result: in its precision both are expected to be.
        terms: how many values a result is the sum of.
        rows: how many leading rows there are to measure each for itself; 0 for one.
    """
    flat = (max(1, rows), -1) if truth.numel() else (1, 0)
    exact, wanted, got = (wide(t.detach().cpu()).reshape(flat) for t in (truth, expected, actual))
    # What overflows in the reference's precision may do so in the candidate's, and need not.
    lost, ours = ~torch.isfinite(wanted), ~torch.isfinite(got)
    wrong = (lost != ours) & (lost == ~torch.isfinite(exact))
    kept = ~(lost | ours | ~torch.isfinite(exact))
    peak, own, error = (_largest(values, kept) for values in (exact, wanted - exact, got - exact))
    real = dtype.to_real()
    allowed = OWN_ERROR * own + share_of_peak(real) * peak + bound_flushing(real, terms)
    least = LEAST_OWN_ROUNDINGS * precision(real) * peak
    least = torch.maximum(least, torch.full_like(least, bound_flushing(real, 1)))
    where = wrong.reshape(truth.shape).nonzero()[:3].tolist() if wrong.any() else []
    return Errors(own, error, peak, allowed, where, least)


def _largest(values: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    if values.shape[-1] == 0:
        return torch.zeros(values.shape[0], dtype=torch.float64)
    return torch.where(kept, values.abs(), 0.0).amax(-1)


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers in double precision; a derivative passes through."""
    resolved = tensor.resolve_conj().resolve_neg()
    return resolved.to(torch.complex128 if resolved.is_complex() else torch.float64)
