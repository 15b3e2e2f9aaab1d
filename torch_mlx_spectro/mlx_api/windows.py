"""Analysis windows by name, computed in float64: those of ``torch.signal.windows`` and scipy's.

``periodic`` windows, what a Fourier transform of frames wants, are symmetric ones of one value more
without their last value. Sources of the formulas: Harris 1978, "On the use of windows for harmonic
analysis with the discrete Fourier transform"; Nuttall 1981, "Some windows with very good sidelobe
behavior"; Slepian 1978 (dpss); Kaiser and Schafer 1980; Doerry 2017 (taylor).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.envelope import padded_window
from ..mlx.host import copy_to_mlx
from ..mlx.runtime import runtime
from .dpss import dpss

Values = npt.NDArray[Any]
#: A window by name, or by name and parameters: ``"hann"``, ``("kaiser", 14.0)``.
WindowName = str | tuple[Any, ...]


def _positions(n: int) -> Values:
    """From -1 to 1, the ends included."""
    return np.linspace(-1.0, 1.0, n)


def _from_centre(n: int) -> Values:
    centred: Values = np.arange(n) - (n - 1) / 2
    return centred


def general_cosine(n: int, coefficients: Sequence[float]) -> Values:
    """``sum_k (-1)^k a_k cos(2 pi k m / (n - 1))``."""
    phase = 2 * np.pi * np.arange(n) / (n - 1)
    terms = [(-1) ** k * a * np.cos(k * phase) for k, a in enumerate(coefficients)]
    return np.asarray(sum(terms))


def general_hamming(n: int, alpha: float) -> Values:
    """``alpha - (1 - alpha) cos(2 pi m / (n - 1))``."""
    return general_cosine(n, (alpha, 1.0 - alpha))


def _barthann(n: int) -> Values:
    distance = np.abs(np.arange(n) / (n - 1) - 0.5)
    return 0.62 - 0.48 * distance + 0.38 * np.cos(2 * np.pi * distance)


def _bartlett(n: int) -> Values:
    return 1.0 - np.abs(_positions(n))


def _bohman(n: int) -> Values:
    distance = np.abs(_positions(n))
    values = (1 - distance) * np.cos(np.pi * distance) + np.sin(np.pi * distance) / np.pi
    values[[0, -1]] = 0.0
    return values


def _boxcar(n: int) -> Values:
    return np.ones(n)


def _chebwin(n: int, at: float) -> Values:
    """Dolph and Chebyshev's: sidelobes of ``at`` decibels, by the transform of its spectrum."""
    order = n - 1
    beta = math.cosh(math.acosh(10 ** (abs(at) / 20)) / order)
    x = beta * np.cos(np.pi * np.arange(n) / n)
    outside = np.abs(x) > 1
    bounded, large = np.clip(x, -1, 1), np.where(outside, np.abs(x), 1.0)
    sign = np.where(x < 0, (-1.0) ** order, 1.0)
    spectrum = np.where(
        outside, sign * np.cosh(order * np.arccosh(large)), np.cos(order * np.arccos(bounded))
    )
    if n % 2:
        half = np.fft.fft(spectrum).real[: (n + 1) // 2]
        values = np.concatenate([half[:0:-1], half])
    else:
        half = np.fft.fft(spectrum * np.exp(1j * np.pi / n * np.arange(n))).real[1 : n // 2 + 1]
        values = np.concatenate([half[::-1], half])
    return np.asarray(values / values.max())


def _cosine(n: int) -> Values:
    return np.asarray(np.sin(np.pi / n * (np.arange(n) + 0.5)))


def _exponential(n: int, centre: float | None = None, tau: float = 1.0) -> Values:
    middle = (n - 1) / 2 if centre is None else centre
    return np.asarray(np.exp(-np.abs(np.arange(n) - middle) / tau))


def _gaussian(n: int, std: float) -> Values:
    return np.exp(-0.5 * (_from_centre(n) / std) ** 2)


def _general_gaussian(n: int, p: float, sig: float) -> Values:
    return np.exp(-0.5 * np.abs(_from_centre(n) / sig) ** (2 * p))


def _kaiser(n: int, beta: float) -> Values:
    values: Values = np.i0(beta * np.sqrt(np.clip(1 - _positions(n) ** 2, 0, None))) / np.i0(beta)
    return values


def _kaiser_bessel_derived(n: int, beta: float) -> Values:
    if n % 2:
        raise ValueError(f"kaiser_bessel_derived windows have an even length; got {n}")
    sums = np.cumsum(_kaiser(n // 2 + 1, beta))
    half = np.sqrt(sums[:-1] / sums[-1])
    return np.concatenate([half, half[::-1]])


def _lanczos(n: int) -> Values:
    return np.sinc(_positions(n))


def _parzen(n: int) -> Values:
    distance = np.abs(_from_centre(n)) / (n / 2)
    outer = 2 * (1 - distance) ** 3
    inner = 1 - 6 * distance**2 * (1 - distance)
    return np.where(np.abs(_from_centre(n)) <= (n - 1) / 4, inner, outer)


def _taylor(n: int, nbar: int = 4, sll: float = 30.0, norm: bool = True) -> Values:
    """Sidelobes of ``sll`` decibels, of which the ``nbar - 1`` next to the main lobe are level."""
    a = math.acosh(10 ** (sll / 20)) / np.pi
    spread = nbar**2 / (a**2 + (nbar - 0.5) ** 2)
    orders = np.arange(1, nbar)
    coefficients = []
    for m in orders:
        zeros = 1 - m**2 / spread / (a**2 + (orders - 0.5) ** 2)
        others = 1 - m**2 / orders[orders != m] ** 2
        coefficients.append(-((-1.0) ** m) * np.prod(zeros) / (2 * np.prod(others)))

    def at(positions: Any) -> Any:
        phase = 2 * np.pi * np.outer(orders, (positions - n / 2 + 0.5) / n)
        return 1 + 2 * np.asarray(coefficients) @ np.cos(phase)

    values: Values = at(np.arange(n)) / (at(np.array([(n - 1) / 2])) if norm else 1.0)
    return values


def _triang(n: int) -> Values:
    return 1 - np.abs(_from_centre(n)) / ((n + 1) / 2 if n % 2 else n / 2)


def _tukey(n: int, alpha: float = 0.5) -> Values:
    if alpha <= 0:
        return np.ones(n)
    taper = np.clip((np.abs(_positions(n)) - 1) / min(alpha, 1.0) + 1, 0, 1)
    return np.asarray(0.5 * (1 + np.cos(np.pi * taper)))


@dataclass(frozen=True)
class _Family:
    """Windows of one name: their formula, and the parameters that have no default."""

    formula: Callable[..., Values]
    parameters: tuple[str, ...] = ()


_BLACKMAN = (0.42, 0.5, 0.08)
_BLACKMAN_HARRIS = (0.35875, 0.48829, 0.14128, 0.01168)
_FLATTOP = (0.21557895, 0.41663158, 0.277263158, 0.083578947, 0.006947368)
_NUTTALL = (0.3635819, 0.4891775, 0.1365995, 0.0106411)

WINDOWS: dict[str, _Family] = {
    "barthann": _Family(_barthann),
    "bartlett": _Family(_bartlett),
    "blackman": _Family(partial(general_cosine, coefficients=_BLACKMAN)),
    "blackmanharris": _Family(partial(general_cosine, coefficients=_BLACKMAN_HARRIS)),
    "bohman": _Family(_bohman),
    "boxcar": _Family(_boxcar),
    "chebwin": _Family(_chebwin, ("at",)),
    "cosine": _Family(_cosine),
    "dpss": _Family(dpss, ("nw",)),
    "exponential": _Family(_exponential),
    "flattop": _Family(partial(general_cosine, coefficients=_FLATTOP)),
    "gaussian": _Family(_gaussian, ("std",)),
    "general_cosine": _Family(general_cosine, ("a",)),
    "general_gaussian": _Family(_general_gaussian, ("p", "sig")),
    "general_hamming": _Family(general_hamming, ("alpha",)),
    "hamming": _Family(partial(general_hamming, alpha=0.54)),
    "hann": _Family(partial(general_hamming, alpha=0.5)),
    "kaiser": _Family(_kaiser, ("beta",)),
    "kaiser_bessel_derived": _Family(_kaiser_bessel_derived, ("beta",)),
    "lanczos": _Family(_lanczos),
    "nuttall": _Family(partial(general_cosine, coefficients=_NUTTALL)),
    "parzen": _Family(_parzen),
    "taylor": _Family(_taylor),
    "triang": _Family(_triang),
    "tukey": _Family(_tukey),
}
#: Other names of the same windows: mlx-spectro's and scipy's.
ALIASES = {"rect": "boxcar", "ones": "boxcar", "rectangular": "boxcar", "sinc": "lanczos"}


def window_values(window_fn: WindowName, win_length: int, periodic: bool = True) -> Values:
    """The values of a window in double precision.

    Args:
        window_fn: a name (``"hann"``), or a name and its parameters, as scipy spells it
            (``("kaiser", 14.0)``, ``("tukey", 0.25)``).
        win_length: number of values.
        periodic: for Fourier transforms; else symmetric.

    Raises:
        ValueError: the name is unknown (known ones are listed), parameters are missing or too many,
            or the length is not positive.
    """
    name, *parameters = (window_fn,) if isinstance(window_fn, str) else window_fn
    family = WINDOWS.get(ALIASES.get(name, name)) if isinstance(name, str) else None
    if family is None:
        known = ", ".join(sorted([*WINDOWS, *ALIASES]))
        raise ValueError(f"Unknown window_fn: {name!r}; known are {known}")
    if len(parameters) < len(family.parameters):
        wanted = ", ".join((repr(name), *family.parameters))
        raise ValueError(f"Unknown window_fn: {window_fn!r} lacks parameters; give ({wanted})")
    if win_length <= 0:
        raise ValueError(f"win_length must be positive; got {win_length}")
    if win_length == 1:
        return np.ones(1)
    if name == "kaiser_bessel_derived":  # has no periodic form: of an odd length there is none
        return family.formula(win_length, *parameters)
    try:
        values = family.formula(win_length + periodic, *parameters)
    except TypeError as error:
        raise ValueError(f"window_fn {window_fn!r}: {error}") from error
    return values[:win_length]


def make_window(
    window: Any, window_fn: WindowName, win_length: int, n_fft: int, periodic: bool
) -> Any:
    """A window of ``n_fft`` values as an MLX array, float32, zero-padded on both sides.

    Args:
        window: an MLX array to use, of ``win_length`` or ``n_fft`` values; None for one by name.
        window_fn: as of :func:`window_values`.
        win_length: values before padding.
        n_fft: values after padding.
        periodic: for Fourier transforms; else symmetric.

    Raises:
        ValueError: the window's shape does not fit, it is complex, or its name is unknown.
    """
    mx = runtime().mx
    if window is None:
        if win_length > n_fft:
            raise ValueError(f"win_length ({win_length}) must be <= n_fft ({n_fft})")
        values = padded_window(window_values(window_fn, win_length, periodic), win_length, n_fft)
        array = copy_to_mlx(mx, values.astype(np.float32))
        mx.eval(array)  # nothing lazy may cross to another thread
        return array
    if not isinstance(window, mx.array):
        window = copy_to_mlx(mx, np.asarray(window))
    if window.ndim != 1:
        raise ValueError(f"window must be 1D, got shape {window.shape}")
    if window.dtype == mx.complex64:
        raise ValueError("window must be real; got complex64")
    length = window.shape[0]
    if length not in (win_length, n_fft):
        raise ValueError(
            f"window length must be win_length ({win_length}) or n_fft ({n_fft}), got {length}"
        )
    left = (n_fft - length) // 2
    # A window may be traced or differentiated: the operations are MLX's.
    return mx.pad(window.astype(mx.float32), (left, n_fft - length - left))
