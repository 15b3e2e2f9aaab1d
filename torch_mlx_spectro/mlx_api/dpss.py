"""The first discrete prolate spheroidal sequence: the window of greatest concentration.

It is the eigenvector of the largest eigenvalue of a symmetric tridiagonal matrix (Slepian 1978,
"Prolate spheroidal wave functions, Fourier analysis, and uncertainty V: the discrete case"), found
by bisection on the number of eigenvalues above a point and one step of inverse iteration repeated.
"""

from __future__ import annotations

import math

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
    radius = np.abs(off) + np.append(np.abs(beside), 0.0)
    low, high = float(diagonal.max()), float((diagonal + radius).max())
    entries, squares = diagonal.tolist(), (off**2).tolist()
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _is_above_all(entries, squares, middle):
            high = middle
        else:
            low = middle
    vector = np.ones(len(diagonal))
    for _ in range(ITERATIONS):
        vector = _solve(entries, off.tolist(), high, vector.tolist())
        vector /= np.abs(vector).max()
    return vector


def _is_above_all(diagonal: list[float], squares: list[float], point: float) -> bool:
    """Whether no eigenvalue is at or above ``point``: all pivots of the shifted matrix negative."""
    pivot = -1.0
    for entry, square in zip(diagonal, squares, strict=True):
        pivot = entry - point - square / pivot
        if pivot >= 0:
            return False
    return True


def _solve(
    diagonal: list[float], off: list[float], shift: float, right: list[float]
) -> npt.NDArray[np.float64]:
    """Solve (matrix - shift) x = right by elimination, without pivots: all have one sign."""
    n = len(diagonal)
    pivots, values = [diagonal[0] - shift], [right[0]]
    for index in range(1, n):
        factor = off[index] / pivots[-1]
        pivots.append(diagonal[index] - shift - factor * off[index])
        values.append(right[index] - factor * values[-1])
    found = np.empty(n)
    found[-1] = values[-1] / pivots[-1]
    for index in range(n - 2, -1, -1):
        found[index] = (values[index] - off[index + 1] * found[index + 1]) / pivots[index]
    return found
