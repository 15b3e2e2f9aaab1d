"""Features of spectra by torchaudio's definitions, on MLX arrays.

Arguments, defaults and formulas are those in the documentation of ``torchaudio.transforms``, except
that windows are given by name. Every transform works inside ``mx.grad``, ``mx.vmap`` and
``mx.compile``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..mlx.host import copy_to_mlx
from ..mlx.runtime import runtime
from ..terminal import Shown
from .arguments import check_array, check_choice, read_count, read_number
from .transform import SpectralTransform
from .windows import Values, WindowName

#: The least power of which torchaudio takes a logarithm.
POWER_FLOOR = 1e-10
#: What torchaudio adds to mel energies before their logarithm with ``log_mels=True``.
LOG_OFFSET = 1e-6
#: Keeps phases of empty bins finite (torchaudio's griffinlim).
PHASE_FLOOR = 1e-16
#: Slaney's scale ("Auditory toolbox", 1998): linear below 1 kHz, then 27 steps of a factor of 6.4.
SLANEY_STEP_HZ = 200.0 / 3
SLANEY_LINEAR_HZ = 1000.0
SLANEY_LINEAR_MELS = SLANEY_LINEAR_HZ / SLANEY_STEP_HZ
SLANEY_LOG_STEP = math.log(6.4) / 27.0


def _make_transform(
    n_fft: int, win_length: int | None, hop_length: int | None, window_fn: WindowName, **more: Any
) -> SpectralTransform:
    """Make a transform of signals [..., T], with torchaudio's default hop length."""
    n_fft = read_count("n_fft", n_fft)
    win = n_fft if win_length is None else read_count("win_length", win_length)
    hop = win // 2 if hop_length is None else hop_length
    return SpectralTransform(n_fft, hop, win, window_fn, leading="any", **more)


def _list_sizes(transform: SpectralTransform) -> dict[str, object]:
    """Return what a transform shows of itself, by torchaudio's names."""
    shown = transform._list_shown()
    hidden = ("leading", "normalized")  # as every feature has it, or shown by the feature itself
    return {name: value for name, value in shown.items() if name not in hidden}


class Spectrogram(Shown):
    """``|stft(x)| ** power``, shape [..., bins, frames] for [..., T].

    Args:
        n_fft: size of a frame's transform.
        win_length: ``n_fft`` where None.
        hop_length: ``win_length // 2`` where None.
        pad: zeros added at each end of the signal, before everything else.
        window_fn: name of the window, or name and parameters.
        power: exponent of the magnitude; None for the complex spectrum.
        normalized: True or ``"window"``: divided by the window's norm; ``"frame_length"``: by
            ``sqrt(n_fft)``; False.
        center: as of :class:`.SpectralTransform`.
        pad_mode: as of :class:`.SpectralTransform`.
        onesided: as of :class:`.SpectralTransform`.

    Shape:
        - input: [..., T], real MLX array
        - result: [..., n_fft // 2 + 1, frames]; all ``n_fft`` bins with ``onesided=False``

    Raises:
        ValueError: sizes, names or modes that do not fit.
    """

    def __init__(
        self,
        n_fft: int = 400,
        win_length: int | None = None,
        hop_length: int | None = None,
        pad: int = 0,
        window_fn: WindowName = "hann",
        power: float | None = 2.0,
        normalized: bool | str = False,
        center: bool = True,
        pad_mode: str = "reflect",
        onesided: bool = True,
    ) -> None:
        if normalized not in (True, False, "window", "frame_length"):
            raise ValueError(
                f"normalized must be a bool, 'window' or 'frame_length'; got {normalized!r}"
            )
        self.transform = _make_transform(
            n_fft,
            win_length,
            hop_length,
            window_fn,
            center=center,
            pad_mode=pad_mode,
            normalized=normalized == "frame_length",
            onesided=onesided,
        )
        self.pad = read_count("pad", pad, least=0)
        self.power = None if power is None else _read_power(power)
        self.normalized = normalized
        self._is_scaled = normalized in (True, "window")

    def _list_shown(self) -> Mapping[str, object]:
        others = (("pad", self.pad, 0), ("normalized", self.normalized, False))
        given = {name: value for name, value, default in others if value != default}
        return {**_list_sizes(self.transform), "power": self.power, **given}

    def __call__(self, x: Any) -> Any:
        """Compute the spectrogram of a signal, shape [..., T]."""
        mx = runtime().mx
        check_array("Spectrogram", x)
        if self.pad:
            x = mx.pad(x, [(0, 0)] * (x.ndim - 1) + [(self.pad, self.pad)])
        spectrum = self.transform.stft(x)
        if self._is_scaled:
            energy = float(np.sum(np.asarray(self.transform.window) ** 2.0))
            spectrum = spectrum * (1.0 / math.sqrt(energy))
        return spectrum if self.power is None else magnitude(spectrum, self.power)


def _read_power(power: Any) -> float:
    """Return the exponent of a magnitude.

    Raises:
        ValueError: it is not a positive number.
    """
    exponent = read_number("power", power)
    if exponent <= 0:
        raise ValueError(f"power must be positive; got {power!r}")
    return exponent


def magnitude(spectrum: Any, power: float) -> Any:
    """Compute ``|spectrum| ** power``; the square has a gradient at zero, too."""
    mx = runtime().mx
    if power == 2.0:
        return mx.square(mx.real(spectrum)) + mx.square(mx.imag(spectrum))
    size = mx.abs(spectrum)
    return size if power == 1.0 else mx.power(size, power)


class MelSpectrogram(Shown):
    """A spectrogram in ``n_mels`` triangular bands of the mel scale, shape [..., n_mels, frames].

    Args:
        sample_rate: samples of the signal in a second.
        n_fft: as of :class:`Spectrogram`.
        win_length: as of :class:`Spectrogram`.
        hop_length: as of :class:`Spectrogram`.
        f_min: where the bands begin, in Hz.
        f_max: where they end, in Hz; ``sample_rate // 2`` where None.
        pad: as of :class:`Spectrogram`.
        n_mels: bands.
        window_fn: as of :class:`Spectrogram`.
        power: as of :class:`Spectrogram`.
        normalized: as of :class:`Spectrogram`.
        center: as of :class:`Spectrogram`.
        pad_mode: as of :class:`Spectrogram`.
        norm: ``"slaney"``: bands of unit area; None.
        mel_scale: ``"htk"`` or ``"slaney"``.

    Shape:
        - input: [..., T], real MLX array
        - result: [..., n_mels, frames]

    Raises:
        ValueError: sizes, names or modes that do not fit.

    Warns:
        UserWarning: some bands have no bin.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 400,
        win_length: int | None = None,
        hop_length: int | None = None,
        f_min: float = 0.0,
        f_max: float | None = None,
        pad: int = 0,
        n_mels: int = 128,
        window_fn: WindowName = "hann",
        power: float = 2.0,
        normalized: bool | str = False,
        center: bool = True,
        pad_mode: str = "reflect",
        norm: str | None = None,
        mel_scale: str = "htk",
    ) -> None:
        self.spectrogram = Spectrogram(
            n_fft, win_length, hop_length, pad, window_fn, power, normalized, center, pad_mode
        )
        bins = self.spectrogram.transform.n_fft // 2 + 1
        self.n_mels = read_count("n_mels", n_mels)
        self.sample_rate = read_count("sample_rate", sample_rate)
        self.f_min = read_number("f_min", f_min)
        end = float(self.sample_rate // 2) if f_max is None else read_number("f_max", f_max)
        self.f_max, self.norm, self.mel_scale = end, norm, mel_scale
        filters = mel_filters(bins, self.f_min, end, self.n_mels, self.sample_rate, norm, mel_scale)
        self.filters = copy_to_mlx(runtime().mx, filters.T.astype(np.float32))

    def _list_shown(self) -> Mapping[str, object]:
        return {
            "sample_rate": self.sample_rate,
            **self.spectrogram._list_shown(),
            "n_mels": self.n_mels,
            "f_min": self.f_min,
            "f_max": self.f_max,
            "norm": self.norm,
            "mel_scale": self.mel_scale,
        }

    def __call__(self, x: Any) -> Any:
        """Compute the bands of a signal, shape [..., T]."""
        return runtime().mx.matmul(self.filters, self.spectrogram(x))


def decibels(power: Any, top_db: float | None = 80.0) -> Any:
    """Compute ``10 log10(power)``, with a floor.

    Args:
        power: shape [..., bands, frames].
        top_db: the floor is this far below the largest value of the last three dimensions; None
            for the fixed floor alone.
    """
    mx = runtime().mx
    found = 10.0 * mx.log10(mx.maximum(power, POWER_FLOOR))
    if top_db is None:
        return found
    axes = tuple(range(max(0, found.ndim - 3), found.ndim))
    return mx.maximum(found, mx.max(found, axis=axes, keepdims=True) - top_db)


class MFCC(Shown):
    """Cosine transform of mel energies in decibels, shape [..., n_mfcc, frames].

    Args:
        sample_rate: samples of the signal in a second.
        n_mfcc: coefficients; at most the bands.
        dct_type: 2 is the only one.
        norm: ``"ortho"`` or None.
        log_mels: take natural logarithms instead of decibels.
        melkwargs: arguments of :class:`MelSpectrogram`.

    Shape:
        - input: [..., T], real MLX array
        - result: [..., n_mfcc, frames]

    Raises:
        ValueError: there are more coefficients than bands, or the type or norm is not accepted.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        n_mfcc: int = 40,
        dct_type: int = 2,
        norm: str | None = "ortho",
        log_mels: bool = False,
        melkwargs: dict[str, Any] | None = None,
    ) -> None:
        if dct_type != 2:
            raise ValueError(f"dct_type must be 2; got {dct_type!r}")
        n_mfcc, given = read_count("n_mfcc", n_mfcc), {} if melkwargs is None else melkwargs
        if not isinstance(given, Mapping) or "sample_rate" in given:
            raise ValueError(
                "melkwargs must be a dict of MelSpectrogram's arguments without sample_rate; "
                f"got {given!r}"
            )
        self.mel = MelSpectrogram(sample_rate=sample_rate, **given)
        if n_mfcc > self.mel.n_mels:
            raise ValueError(f"n_mfcc ({n_mfcc}) must be <= n_mels ({self.mel.n_mels})")
        self.n_mfcc, self.norm, self.log_mels = n_mfcc, norm, log_mels
        matrix = dct_matrix(n_mfcc, self.mel.n_mels, norm)
        self.dct = copy_to_mlx(runtime().mx, matrix.astype(np.float32))

    def _list_shown(self) -> Mapping[str, object]:
        return {
            "n_mfcc": self.n_mfcc,
            "norm": self.norm,
            "log_mels": self.log_mels,
            "mel": self.mel,
        }

    def __call__(self, x: Any) -> Any:
        """Compute the coefficients of a signal, shape [..., T]."""
        mx = runtime().mx
        mel = self.mel(x)
        levels = mx.log(mel + LOG_OFFSET) if self.log_mels else decibels(mel)
        return mx.matmul(self.dct, levels)


class GriffinLim(Shown):
    """A signal whose spectrogram is the given one, by alternating projections with momentum.

    Griffin and Lim 1984; the momentum is that of Perraudin, Balazs and Søndergaard 2013, "A fast
    Griffin-Lim algorithm".

    Args:
        n_fft: as of :class:`Spectrogram`.
        n_iter: iterations.
        win_length: as of :class:`Spectrogram`.
        hop_length: as of :class:`Spectrogram`.
        window_fn: as of :class:`Spectrogram`.
        power: exponent of the magnitude that is given.
        momentum: from 0 to below 1.
        length: samples of the result.
        rand_init: begin with random phases, else with zeros.

    Shape:
        - input: [..., n_fft // 2 + 1, frames], real MLX array of magnitudes to the power
        - result: [..., length]; without ``length`` what the frames cover

    Raises:
        ValueError: the momentum, sizes or names do not fit.
    """

    def __init__(
        self,
        n_fft: int = 400,
        n_iter: int = 32,
        win_length: int | None = None,
        hop_length: int | None = None,
        window_fn: WindowName = "hann",
        power: float = 2.0,
        momentum: float = 0.99,
        length: int | None = None,
        rand_init: bool = True,
    ) -> None:
        momentum = read_number("momentum", momentum)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in range [0, 1); got {momentum}")
        self.transform = _make_transform(n_fft, win_length, hop_length, window_fn)
        self.n_iter, self.power = read_count("n_iter", n_iter, least=0), _read_power(power)
        self.length = None if length is None else read_count("length", length)
        self.rand_init, self.momentum = rand_init, momentum / (1 + momentum)
        self._given_momentum = momentum

    def _list_shown(self) -> Mapping[str, object]:
        return {
            **_list_sizes(self.transform),
            "n_iter": self.n_iter,
            "power": self.power,
            "momentum": self._given_momentum,
            "length": self.length,
            "rand_init": self.rand_init,
        }

    def __call__(self, specgram: Any, key: Any = None) -> Any:
        """Compute the signal.

        Args:
            specgram: magnitudes to the power, shape [..., bins, frames].
            key: key of ``mx.random`` for the first phases; None for MLX's global state.

        Returns:
            float32, shape [..., T].

        Raises:
            ValueError: the shape or dtype does not fit.
        """
        mx = runtime().mx
        check_array("GriffinLim", specgram)
        bins = self.transform.n_fft // 2 + 1
        if specgram.ndim < 2 or specgram.shape[-2] != bins or specgram.dtype == mx.complex64:
            raise ValueError(
                f"GriffinLim expects real magnitudes of shape [..., {bins}, frames]; got shape "
                f"{specgram.shape}, {str(specgram.dtype).removeprefix('mlx.core.')}"
            )
        size = mx.power(specgram, 1.0 / self.power)
        if self.rand_init:
            parts = mx.random.uniform(shape=(2, *size.shape), key=key)
            phases = parts[0] + 1j * parts[1]
        else:
            phases = mx.ones(size.shape, mx.complex64)
        before: Any = 0.0
        for _ in range(self.n_iter):
            rebuilt = self.transform.stft(self.transform.istft(size * phases, self.length))
            phases = rebuilt - before * self.momentum if self.momentum else rebuilt
            phases = phases / (mx.abs(phases) + PHASE_FLOOR)
            before = rebuilt
        return self.transform.istft(size * phases, self.length)


def _to_mels(hertz: float, scale: str) -> float:
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + hertz / 700.0)
    if hertz < SLANEY_LINEAR_HZ:
        return hertz / SLANEY_STEP_HZ
    return SLANEY_LINEAR_MELS + math.log(hertz / SLANEY_LINEAR_HZ) / SLANEY_LOG_STEP


def _to_hertz(mels: Any, scale: str) -> Any:
    if scale == "htk":
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    above = SLANEY_LINEAR_HZ * np.exp(SLANEY_LOG_STEP * (mels - SLANEY_LINEAR_MELS))
    return np.where(mels >= SLANEY_LINEAR_MELS, above, SLANEY_STEP_HZ * mels)


def mel_filters(
    bins: int,
    f_min: float,
    f_max: float,
    n_mels: int,
    sample_rate: int,
    norm: str | None,
    mel_scale: str,
) -> Values:
    """Make filters that are triangles of equal width on the mel scale, shape (bins, n_mels).

    Args:
        bins: bins of a onesided spectrum, from 0 to ``sample_rate // 2`` Hz.
        f_min, f_max: where the first band begins and the last one ends.
        norm: ``"slaney"``: bands of unit area; None.
        mel_scale: ``"htk"`` or ``"slaney"``.

    Raises:
        ValueError: the norm or the scale is not accepted, or ``f_min`` is above ``f_max``.
    """
    check_choice("norm", norm, (None, "slaney"))
    check_choice("mel_scale", mel_scale, ("htk", "slaney"))
    if f_min > f_max:
        raise ValueError(f"f_min ({f_min}) must be <= f_max ({f_max})")
    edges = _to_hertz(
        np.linspace(_to_mels(f_min, mel_scale), _to_mels(f_max, mel_scale), n_mels + 2), mel_scale
    )
    widths = np.diff(edges)
    slopes = edges[None, :] - np.linspace(0, sample_rate // 2, bins)[:, None]
    falling, rising = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    filters: Values = np.maximum(0.0, np.minimum(falling, rising))
    if norm == "slaney":
        filters *= 2.0 / (edges[2:] - edges[:-2])
    if not np.all(filters.max(axis=0)):
        warnings.warn(
            f"of {n_mels} mel bands some have no bin of {bins}: take less bands or a larger n_fft",
            UserWarning,
            stacklevel=3,
        )
    return filters


def dct_matrix(n_mfcc: int, n_mels: int, norm: str | None) -> Values:
    """Make the matrix of the cosine transform of type 2, shape (n_mfcc, n_mels).

    Raises:
        ValueError: ``norm`` is neither ``"ortho"`` nor None.
    """
    check_choice("norm", norm, (None, "ortho"))
    orders = np.arange(n_mfcc)[:, None]
    matrix: Values = 2.0 * np.cos(np.pi / n_mels * (np.arange(n_mels) + 0.5) * orders)
    if norm == "ortho":
        matrix[0] /= math.sqrt(2.0)
        matrix *= math.sqrt(0.5 / n_mels)
    return matrix
