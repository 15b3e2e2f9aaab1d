"""Analysis windows by name, computed in float64: those of ``torch.signal.windows`` and scipy's.

``periodic`` windows, which Fourier transforms of frames want, are symmetric windows of one more
value, without the last value. Sources of the formulas: Harris 1978, "On the use of windows for
harmonic analysis with the discrete Fourier transform"; Nuttall 1981, "Some windows with very good
sidelobe behavior"; Slepian 1978 (dpss); Kaiser and Schafer 1980; Doerry 2017 (taylor).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from types import MappingProxyType
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from ..core.envelope import pad_window
from ..mlx.host import copy_to_mlx
from ..mlx.runtime import runtime

Values = npt.NDArray[Any]
#: A window by name, or by name and parameters: ``"hann"``, ``("kaiser", 14.0)``.
WindowName = str | tuple[Any, ...]
WindowLike: TypeAlias = WindowName | Any | None
"""What is taken for a window: its name, an MLX array of its values (or what NumPy makes an array
of), or None for the default."""
#: Bisections that shrink any interval to the spacing of doubles.
BISECTIONS = 128
#: Inverse iterations; each divides the part of all other eigenvectors by millions.
ITERATIONS = 4


def _positions(n: int) -> Values:
    """Return ``n`` positions from -1 to 1, with both ends."""
    return np.linspace(-1.0, 1.0, n)


def _distances(n: int) -> Values:
    """Return the distance in samples of each of ``n`` values from the centre."""
    return np.asarray(np.abs(np.arange(n) - (n - 1) / 2))


def _sum_cosines(n: int, a: Sequence[float]) -> Values:
    """Compute ``sum_k (-1)^k a_k cos(2 pi k m / (n - 1))``."""
    phase = 2 * np.pi * np.arange(n) / (n - 1)
    return np.asarray(sum((-1) ** k * each * np.cos(k * phase) for k, each in enumerate(a)))


def _barthann(n: int) -> Values:
    distance = _distances(n) / (n - 1)
    return 0.62 - 0.48 * distance + 0.38 * np.cos(2 * np.pi * distance)


def _bohman(n: int) -> Values:
    distance = np.abs(_positions(n))
    values = (1 - distance) * np.cos(np.pi * distance) + np.sin(np.pi * distance) / np.pi
    values[[0, -1]] = 0.0
    return values


def _chebwin(n: int, at: float) -> Values:
    """Compute the Dolph-Chebyshev window, with sidelobes of ``at`` decibels, from its spectrum."""
    order, is_odd = n - 1, n % 2
    beta = math.cosh(math.acosh(10 ** (abs(at) / 20)) / order)
    points = beta * np.cos(np.pi * np.arange(n) / n)
    # Chebyshev's polynomial: the complex arc cosine covers points outside -1 ... 1, too.
    spectrum = np.cos(order * np.arccos(points.astype(complex))).real
    shift = 1.0 if is_odd else np.exp(1j * np.pi / n * np.arange(n))
    half = np.fft.fft(spectrum * shift).real[1 - is_odd : n // 2 + 1]
    values = np.concatenate([half[is_odd:][::-1], half])
    return np.asarray(values / values.max())


def _exponential(n: int, centre: float | None = None, tau: float = 1.0) -> Values:
    distance = _distances(n) if centre is None else np.abs(np.arange(n) - centre)
    return np.asarray(np.exp(-distance / tau))


def _general_gaussian(n: int, p: float, sig: float) -> Values:
    return np.exp(-0.5 * (_distances(n) / sig) ** (2 * p))


def _kaiser(n: int, beta: float) -> Values:
    root = np.sqrt(np.clip(1 - _positions(n) ** 2, 0, None))
    return np.asarray(np.i0(beta * root) / np.i0(beta))


def _kaiser_bessel_derived(n: int, beta: float) -> Values:
    if n % 2:
        raise ValueError(f"kaiser_bessel_derived windows have an even length; got {n}")
    sums = np.cumsum(_kaiser(n // 2 + 1, beta))
    half = np.sqrt(sums[:-1] / sums[-1])
    return np.concatenate([half, half[::-1]])


def _parzen(n: int) -> Values:
    distance = _distances(n) / (n / 2)
    inner = 1 - 6 * distance**2 * (1 - distance)
    return np.where(_distances(n) <= (n - 1) / 4, inner, 2 * (1 - distance) ** 3)


def _taylor(n: int, nbar: int = 4, sll: float = 30.0, norm: bool = True) -> Values:
    """Compute the Taylor window: ``nbar - 1`` level sidelobes of ``sll`` decibels on each side."""
    a = math.acosh(10 ** (sll / 20)) / np.pi
    spread = nbar**2 / (a**2 + (nbar - 0.5) ** 2)
    orders = np.arange(1, nbar)
    coefficients = []
    for m in orders:
        zeros = 1 - m**2 / spread / (a**2 + (orders - 0.5) ** 2)
        others = 1 - m**2 / orders[orders != m] ** 2
        coefficients.append(-((-1.0) ** m) * np.prod(zeros) / np.prod(others))
    phase = 2 * np.pi * np.outer(orders, (np.arange(n) - (n - 1) / 2) / n)
    largest = 1 + sum(coefficients) if norm else 1.0
    return np.asarray((1 + np.asarray(coefficients) @ np.cos(phase)) / largest)


def _tukey(n: int, alpha: float = 0.5) -> Values:
    if alpha <= 0:
        return np.ones(n)
    taper = np.clip((np.abs(_positions(n)) - 1) / min(alpha, 1.0) + 1, 0, 1)
    return np.asarray(0.5 * (1 + np.cos(np.pi * taper)))


def _dpss(n: int, nw: float) -> Values:
    """Compute the first discrete prolate spheroidal sequence: the most concentrated window.

    It has ``n`` values, of which the largest is 1, and time-half-bandwidth ``nw``. It is the
    eigenvector of the largest eigenvalue of a symmetric tridiagonal matrix (Slepian 1978, "Prolate
    spheroidal wave functions, Fourier analysis, and uncertainty V: the discrete case").

    For an even length scipy's convention holds: the interpolated value at the centre is 1.

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


def _top_eigenvector(diagonal: Values, beside: Values) -> Values:
    """Find the eigenvector of the largest eigenvalue of a symmetric tridiagonal matrix.

    The eigenvalue is found by bisection on whether any lies above a point, the eigenvector by
    inverse iteration.
    """
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
    """Yield the pivots of (matrix - shift), from the squares of its values beside the diagonal."""
    pivot = -1.0
    for entry, square in zip(diagonal, squares, strict=True):
        pivot = entry - shift - square / pivot
        yield pivot


def _solve(pivots: list[float], off: list[float], values: list[float]) -> Values:
    """Solve (matrix - shift) x = values from the pivots, without exchanging rows."""
    for index in range(1, len(pivots)):
        values[index] -= off[index] / pivots[index - 1] * values[index - 1]
    values[-1] /= pivots[-1]
    for index in range(len(pivots) - 2, -1, -1):
        values[index] = (values[index] - off[index + 1] * values[index + 1]) / pivots[index]
    return np.array(values)


#: The symmetric windows by name: functions of the number of values and of the name's parameters.
WINDOWS: Mapping[str, Callable[..., Values]] = MappingProxyType(
    {
        "barthann": _barthann,
        "bartlett": lambda n: 1.0 - np.abs(_positions(n)),
        "blackman": lambda n: _sum_cosines(n, (0.42, 0.5, 0.08)),
        "blackmanharris": lambda n: _sum_cosines(n, (0.35875, 0.48829, 0.14128, 0.01168)),
        "bohman": _bohman,
        "boxcar": lambda n: np.ones(n),
        "chebwin": _chebwin,
        "cosine": lambda n: np.sin(np.pi / n * (np.arange(n) + 0.5)),
        "dpss": _dpss,
        "exponential": _exponential,
        "flattop": lambda n: _sum_cosines(
            n, (0.21557895, 0.41663158, 0.277263158, 0.083578947, 0.006947368)
        ),
        "gaussian": lambda n, std: _general_gaussian(n, 1.0, std),
        "general_cosine": _sum_cosines,
        "general_gaussian": _general_gaussian,
        "general_hamming": lambda n, alpha: _sum_cosines(n, (alpha, 1.0 - alpha)),
        "hamming": lambda n: _sum_cosines(n, (0.54, 1.0 - 0.54)),
        "hann": lambda n: _sum_cosines(n, (0.5, 0.5)),
        "kaiser": _kaiser,
        "kaiser_bessel_derived": _kaiser_bessel_derived,
        "lanczos": lambda n: np.sinc(_positions(n)),
        "nuttall": lambda n: _sum_cosines(n, (0.3635819, 0.4891775, 0.1365995, 0.0106411)),
        "parzen": _parzen,
        "taylor": _taylor,
        "triang": lambda n: 1 - _distances(n) / ((n + n % 2) / 2),
        "tukey": _tukey,
    }
)
#: Other names of the same windows, mlx-spectro's and scipy's.
ALIASES: Mapping[str, str] = MappingProxyType(
    {"rect": "boxcar", "ones": "boxcar", "rectangular": "boxcar", "sinc": "lanczos"}
)


def window_values(window_fn: WindowName, win_length: int, periodic: bool = True) -> Values:
    """Compute the values of a window in double precision.

    Args:
        window_fn: a name (``"hann"``), or a name and its parameters, as scipy spells it
            (``("kaiser", 14.0)``, ``("tukey", 0.25)``).
        win_length: number of values.
        periodic: periodic, as Fourier transforms want it; else symmetric.

    Raises:
        ValueError: the name is unknown (known ones are listed), parameters are missing or too many,
            or the length is not positive.
    """
    parts = window_fn if isinstance(window_fn, (tuple, list)) else (window_fn,)
    name, *parameters = parts or ("",)
    formula = WINDOWS.get(ALIASES.get(name, name)) if isinstance(name, str) else None
    if formula is None:
        names = ", ".join(sorted([*WINDOWS, *ALIASES]))
        raise ValueError(f"Unknown window_fn: {name!r}; known are {names}")
    _, *takes = signature(formula).parameters.values()
    required = [each.name for each in takes if each.default is each.empty]
    if len(parameters) < len(required):
        wanted = ", ".join((repr(name), *required))
        raise ValueError(f"Unknown window_fn: {window_fn!r} lacks parameters; give ({wanted})")
    if len(parameters) > len(takes):
        raise ValueError(f"window_fn {window_fn!r}: takes at most {len(takes)} parameters")
    if win_length <= 0:
        raise ValueError(f"win_length must be positive; got {win_length}")
    if win_length == 1:
        return np.ones(1)
    # kaiser_bessel_derived windows have no periodic form, since they have no odd lengths.
    longer = periodic and name != "kaiser_bessel_derived"
    try:
        return formula(win_length + longer, *parameters)[:win_length]
    except TypeError as error:
        raise ValueError(f"window_fn {window_fn!r}: {error}") from error


def is_window_name(window: Any) -> TypeGuard[WindowName]:
    """Whether this is a name, or a name and parameters; not an array of values."""
    return isinstance(window, str) or (
        isinstance(window, tuple) and bool(window) and isinstance(window[0], str)
    )


def make_window(
    window: WindowLike, window_fn: WindowName, win_length: int, n_fft: int, periodic: bool
) -> Any:
    """Make a window of ``n_fft`` values as an MLX array, float32, zero-padded on both sides.

    Args:
        window: an MLX array to use, of ``win_length`` or ``n_fft`` values; a name, which takes the
            place of ``window_fn``; None for ``window_fn``.
        window_fn: name of the window, or name and parameters: ``"hann"``, ``("kaiser", 14.0)``.
        win_length: values before padding.
        n_fft: values after padding.
        periodic: periodic, as Fourier transforms want it; else symmetric.

    Returns:
        float32, shape [n_fft].

    Raises:
        ValueError: the window's shape does not fit, it is complex, or its name is unknown.
        TypeError: it is neither a name nor an array of numbers.
    """
    mx = runtime().mx
    given: Any = window
    if is_window_name(window):
        given, window_fn = None, window
    if given is None:
        if win_length > n_fft:
            raise ValueError(f"win_length ({win_length}) must be <= n_fft ({n_fft})")
        values = pad_window(window_values(window_fn, win_length, periodic), win_length, n_fft)
        return copy_to_mlx(mx, values.astype(np.float32))
    if not isinstance(given, mx.array):
        values = np.asarray(given)
        if values.dtype.kind not in "fiubc":
            raise TypeError(f"window must be a name or an array of numbers; got {given!r}")
        given = copy_to_mlx(mx, values)
    if given.ndim != 1:
        raise ValueError(f"window must be 1D, got shape {given.shape}")
    if given.dtype == mx.complex64:
        raise ValueError("window must be real; got complex64")
    length = given.shape[0]
    if length not in (win_length, n_fft):
        raise ValueError(
            f"window length must be win_length ({win_length}) or n_fft ({n_fft}), got {length}"
        )
    left = (n_fft - length) // 2
    # By MLX's operations, since the window may be traced or differentiated.
    return mx.pad(given.astype(mx.float32), (left, n_fft - length - left))
