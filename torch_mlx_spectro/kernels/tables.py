"""Twiddle factors of the kernels, computed in float64.

Pass ``p`` with span ``s`` and radix ``R`` multiplies input ``r`` of butterfly ``j < s`` by
``exp(-2 pi i j r / (s R))``. Powers of two need the factors of r = 1, 2, 4, 8 only (radix.h).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..store.caches import cached
from .radices import FftPlan

Table = npt.NDArray[np.complex64]


def _unit(numerator: npt.NDArray[np.int64], denominator: int) -> npt.NDArray[np.complex128]:
    """exp(-2 pi i numerator / denominator), exact at the quarters."""
    turns = np.asarray(numerator % denominator, np.float64) / denominator
    values = np.exp(-2j * np.pi * turns)
    quarter = (4 * numerator) % denominator == 0
    exact = np.array([1, -1j, -1, 1j])[(4 * numerator // denominator) % 4]
    return np.where(quarter, exact, values)


def twiddle_powers(radix: int) -> tuple[int, ...]:
    """List the powers of a butterfly's factor that its radix reads (factors_of in radix.h)."""
    if radix & (radix - 1) == 0:
        return tuple(1 << exponent for exponent in range(radix.bit_length() - 1))
    return tuple(range(1, radix))


@cached(128)
def make_table(plan: FftPlan) -> tuple[Table, int]:
    """Make the table of a plan.

    Returns:
        complex64 values: the factors of each pass but the first; then, for packed real signals,
        ``-i exp(-2 pi i k / (2 points))`` for k = 0 ... points / 2. And the index where these
        begin.
    """
    pieces: list[Any] = []
    span = plan.radices[0]
    for radix in plan.radices[1:]:
        for power in twiddle_powers(radix):
            pieces.append(_unit(power * np.arange(span, dtype=np.int64), span * radix))
        span *= radix
    begin = sum(len(piece) for piece in pieces)
    split = np.arange(plan.points // 2 + 1, dtype=np.int64)
    pieces.append(-1j * _unit(split, 2 * plan.points))
    return np.concatenate(pieces).astype(np.complex64), begin
