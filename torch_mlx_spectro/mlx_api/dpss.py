"""The first discrete prolate spheroidal sequence: the window of greatest concentration.

It is the eigenvector of the largest eigenvalue of a symmetric tridiagonal matrix (Slepian 1978,
"Prolate spheroidal wave functions, Fourier analysis, and uncertainty V: the discrete case"), found
by bisection on the number of eigenvalues above a point and one step of inverse iteration repeated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

#: Bisections that bring an interval of any width down to the spacing of doubles.
BISECTIONS = 128
#: Inverse iterations: each divides what is left of other eigenvectors by millions.
ITERATIONS = 4


def dpss(n: int, nw: float) -> npt.NDArray[np.float64]:
    """The sequence of ``n`` values and time-half-bandwidth ``nw``; its largest value is 1.

    For an even length scipy's convention: scaled so that the interpolated centre is 1.

    Raises:
        ValueError: ``nw`` is not between 0 and ``n / 2``.
    """
    if not 0 < nw < n / 2:
        raise ValueError(f"dpss: nw must be above 0 and below {n / 2}; got {nw}")
    index = np.arange(n)
    diagonal = ((n - 1 - 2 * index) / 2) ** 2 * math.cos(2 * math.pi * nw / n)
    beside = index[1:] * (n - index[1:]) / 2
    vector = _top_eigenvector(diagonal, beside)
    vector = vector if vector.sum() > 0 else -vector
    vector /= vector.max()
    return vector if n % 2 else vector * (n**2 / (n**2 + nw))


def _top_eigenvector(
    diagonal: npt.NDArray[np.float64], beside: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    off = np.concatenate([[0.0], beside])
    low, high = float(diagonal.max()), float(diagonal.max() + 2 * beside.max())
    entries, squares = diagonal.tolist(), (off**2).tolist()
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        # No eigenvalue is at or above a point where all pivots are negative.
        if all(pivot < 0 for pivot in _eliminate(entries, squares, middle)):
            high = middle
        else:
            low = middle
    vector = np.ones(len(diagonal))
    pivots = list(_eliminate(entries, squares, high))
    for _ in range(ITERATIONS):
        vector = _solve(pivots, off.tolist(), vector.tolist())
        vector /= np.abs(vector).max()
    return vector


def _eliminate(diagonal: list[float], squares: list[float], shift: float) -> Iterator[float]:
    """The pivots of (matrix - shift), from the squares of its values beside the diagonal."""
    pivot = -1.0
    for entry, square in zip(diagonal, squares, strict=True):
        pivot = entry - shift - square / pivot
        yield pivot


def _solve(pivots: list[float], off: list[float], values: list[float]) -> npt.NDArray[np.float64]:
    """Solve (matrix - shift) x = values from the pivots: no rows are exchanged."""
    for index in range(1, len(pivots)):
        values[index] -= off[index] / pivots[index - 1] * values[index - 1]
    values[-1] /= pivots[-1]
    for index in range(len(pivots) - 2, -1, -1):
        values[index] = (values[index] - off[index + 1] * values[index + 1]) / pivots[index]
    return np.array(values)
