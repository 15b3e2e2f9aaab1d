"""Every number that decides whether values are equal, with its reason.

The rule: a candidate's error against the oracle, in double precision, may be twice the reference's
own, so that neither a lucky nor an unlucky draw decides. The other numbers are for calls in which
the reference's own error says nothing.
"""

from __future__ import annotations

import torch

#: How many times the reference's own error the candidate's may be.
OWN_ERROR = 2.0

#: Admitted in any case, as a share of the largest value of a row in single precision: some
#: seventeen roundings, for calls that the reference computes exactly by luck or by few operations.
SHARE_OF_PEAK = 2e-6

#: Admitted where terms cancel: what as many roundings of the input do to the result.
ROUNDINGS = 30

#: Random roundings tried, for results of so few samples that a single one may do little by chance.
ROUNDING_TRIALS = 5

#: Admitted in any case, in smallest normal numbers for each value: whether anything below them is
#: kept or flushed to zero is up to the device and ``torch.set_flush_denormal``. A sum of n_fft
#: terms may lose as many, and a window or an envelope may scale what is lost.
FLUSHED_PER_TERM = 4.0

#: Errors are reported in units of the reference's own, which is taken to be at least this share of
#: the largest value of the row, in roundings: one half, as no result in the dtype has less.
LEAST_OWN_ROUNDINGS = 0.5


def precision(dtype: torch.dtype) -> float:
    """The rounding unit of a dtype: the distance from one to the next number."""
    return float(torch.finfo(dtype).eps)


def share_of_peak(dtype: torch.dtype) -> float:
    """``SHARE_OF_PEAK`` in the precision of a result of this dtype."""
    return SHARE_OF_PEAK * precision(dtype) / precision(torch.float32)


def bound_flushing(dtype: torch.dtype, terms: int) -> float:
    """What a sum of so many terms may lose when numbers below the normal ones are flushed."""
    return FLUSHED_PER_TERM * max(1, terms) * float(torch.finfo(dtype).tiny)
