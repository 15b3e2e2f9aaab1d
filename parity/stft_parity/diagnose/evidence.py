"""Whether a cause gives the candidate's values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch

from stft_parity.compare.tolerances import precision
from stft_parity.diagnose.causes import Cause

#: A cause explains values which it leaves this many roundings of the largest one away, at most.
ROUNDINGS_LEFT = 200
#: And at most this share of the deviation that is to be explained.
SHARE_LEFT = 0.1
#: Share of the values of which a cause may say nothing.
UNDEFINED = 0.25
#: Causes that leave as much as the best one, times this, are as good.
AS_GOOD = 4.0
#: Alternatives that a sentence names, where a case does not tell causes apart.
NAMED = 3
#: Values computed for one diagnosis, all causes together: some seconds. Of a result of a million
#: values only the first thirty causes are tried; a smaller case shows the same, as a rule.
MOST_VALUES = 2**25


@dataclass(frozen=True)
class Evidence:
    """What is to be explained.

    Attributes:
        truth: the right values, in double precision.
        actual: the candidate's, of any shape.
        dtype: in which the candidate computes, as far as its result shows.
    """

    truth: torch.Tensor
    actual: torch.Tensor
    dtype: torch.dtype

    def measure_rest(self, values: torch.Tensor) -> float:
        """How far ``values`` are from the candidate's; infinite where that has no meaning."""
        if values.shape != self.actual.shape:
            return math.inf
        left = largest(values - self.actual)
        return left if math.isfinite(left) else self._measure_finite_rest(values)

    def _measure_finite_rest(self, values: torch.Tensor) -> float:
        """The same where something is not finite."""
        finite, defined = torch.isfinite(values), torch.tensor(True)
        if self.truth.shape == values.shape:
            # Where a cause divides zero by zero it says nothing of what a candidate does then.
            defined = finite | ~torch.isfinite(self.truth)
        if (~defined).sum() > UNDEFINED * values.numel():
            return math.inf
        if ((finite != torch.isfinite(self.actual)) & defined).any():
            return math.inf
        return largest((values - self.actual)[finite])

    @cached_property
    def deviation(self) -> float:
        """How far the candidate's values are from the right ones."""
        return self.measure_rest(self.truth)

    def floor(self, values: torch.Tensor) -> float:
        """What rounding may leave of ``values``."""
        return ROUNDINGS_LEFT * precision(self.dtype) * largest(values[torch.isfinite(values)])

    def explains(self, values: torch.Tensor, left: float) -> bool:
        """Whether a cause with these values, so far from the candidate's, explains them."""
        return left <= SHARE_LEFT * self.deviation and left <= self.floor(values)

    @property
    def right(self) -> bool:
        """Whether there is nothing to explain."""
        return self.deviation <= self.floor(self.truth)


def largest(values: torch.Tensor) -> float:
    """The largest absolute value; 0 of none."""
    return float(values.abs().max()) if values.numel() else 0.0


def explain(evidence: Evidence, suspects: Iterable[Cause]) -> str:
    """The causes that explain the evidence, in one sentence; empty when none does."""
    found: list[tuple[float, str]] = []
    computed = 0
    for cause in suspects:
        try:
            values = cause.values().detach()
        except RuntimeError:  # torch rejects what is so changed: a signal too short, say
            continue
        left = evidence.measure_rest(values)
        if math.isfinite(left) and evidence.explains(values, left):
            found.append((left, cause.sentence))
        computed += values.numel()
        if computed > MOST_VALUES:
            break
    if not found:
        return ""
    admitted = AS_GOOD * min(left for left, _ in found) + precision(torch.float64)
    sentences = list(dict.fromkeys(said for left, said in found if left <= admitted))
    others = "; or ".join(sentences[1 : 1 + NAMED])
    return sentences[0] + (f" (this case does not tell it from this: {others})" if others else "")
