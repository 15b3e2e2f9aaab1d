"""Whether ratios of two runs differ by more than noise.

A cell has a few passes in each run, too few to tell its own noise well. The noise of all cells
together tells what is usual, and each cell's is taken for something between its own and that, by
how alike the cells turn out to be: a moderated t-test.

Source: G. K. Smyth, "Linear models and empirical Bayes methods for assessing differential
expression in microarray experiments", 2004, section 4 and 6.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance

import numpy as np
import torch

#: Relative deviation of a ratio from run to run that no pass of one run shows: where memory came
#: to lie, what the allocators and thread pools of this process are like. Assumed, not estimated.
RUN_DEVIATION = 0.02
#: Cells from which it can be said how alike their noise is.
LEAST_CELLS = 4
#: More degrees of freedom make no difference to any chance that matters.
_MOST_DEGREES = 1e4

Pair = tuple[Sequence[float], Sequence[float]]


def chances(pairs: Sequence[Pair]) -> list[float]:
    """For each pair, how likely noise alone puts the first mean so far above the second.

    Args:
        pairs: logarithms of ratios of the passes of two runs; 0.5 comes of a pair with fewer than
            two on a side, of which nothing can be said.
    """
    known = [pair for pair in pairs if min(map(len, pair)) > 1]
    degrees = [len(a) + len(b) - 2 for a, b in known]
    variances = [
        ((len(a) - 1) * variance(a) + (len(b) - 1) * variance(b)) / free
        for (a, b), free in zip(known, degrees, strict=True)
    ]
    usual, weight = usual_variance(variances, degrees)
    own = iter(zip(variances, degrees, strict=True))
    return [
        _chance(pair, *next(own), usual, weight) if min(map(len, pair)) > 1 else 0.5
        for pair in pairs
    ]


def _chance(pair: Pair, own: float, free: int, usual: float, weight: float) -> float:
    first, second = pair
    moderated = (weight * usual + free * own) / (weight + free)
    seen = moderated * (1 / len(first) + 1 / len(second))
    squared = seen + 2 * RUN_DEVIATION**2
    # Of the sum: the assumed part is known.
    degrees = (weight + free) * (squared / max(seen, 1e-30)) ** 2
    t = (fmean(first) - fmean(second)) / math.sqrt(squared)
    return student_tail(t, min(degrees, _MOST_DEGREES))


def usual_variance(variances: Sequence[float], degrees: Sequence[int]) -> tuple[float, float]:
    """The variance that cells share, and how many degrees of freedom that knowledge is worth.

    The logarithm of a variance estimated with d degrees of freedom varies by trigamma(d / 2) when
    all are alike; what it varies beyond that is how much they differ.

    Args:
        variances: of each cell.
        degrees: of freedom, of each.

    Returns:
        Both; 0 degrees where nothing is known.
    """
    given = [(s, d) for s, d in zip(variances, degrees, strict=True) if s > 0]
    if len(given) < LEAST_CELLS:
        return 0.0, 0.0
    halves = torch.tensor([d / 2 for _, d in given], dtype=torch.float64)
    logs = torch.tensor([math.log(s) for s, _ in given], dtype=torch.float64)
    centred = logs - torch.special.digamma(halves) + halves.log()
    # Trigamma falls from infinity to 0: where it is no more than that, to a part in 4,000.
    grid = torch.logspace(-6, math.log10(_MOST_DEGREES / 2), 100_000, dtype=torch.float64)
    beyond = centred.var() - torch.special.polygamma(1, halves).mean()
    place = torch.searchsorted(-torch.special.polygamma(1, grid), -beyond)
    half = grid[place.clamp(max=len(grid) - 1)]
    shift = torch.special.digamma(half) - half.log()
    return math.exp(centred.mean() + shift), 2 * float(half)


def holm(chances: Sequence[float], level: float) -> list[bool]:
    """Which of several tests hold, so that the chance of any false one is at most ``level``.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = sorted(range(len(chances)), key=chances.__getitem__)
    holds = [False] * len(chances)
    for rank, index in enumerate(order):
        if chances[index] > level / (len(chances) - rank):
            break
        holds[index] = True
    return holds


def student_tail(t: float, degrees: float) -> float:
    """Probability of more than ``t`` in Student's distribution.

    By the substitution x = sqrt(degrees) tan(angle), the density becomes cos(angle) to the power
    of degrees - 1, over a finite range; by Simpson's rule.
    """
    start = math.atan(t / math.sqrt(degrees))
    angles = np.linspace(start, math.pi / 2, 2001)
    density = np.cos(angles).clip(0) ** (degrees - 1)
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2))
    weights = np.full(len(angles), 2.0)
    weights[1::2], weights[[0, -1]] = 4.0, 1.0
    area = float(weights @ density) * (math.pi / 2 - start) / (len(angles) - 1) / 3
    return min(1.0, scale / math.sqrt(math.pi) * area)
