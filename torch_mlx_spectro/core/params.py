"""torch's arguments, resolved once into frozen values.

``resolve_stft`` and ``resolve_istft`` know every default and every precondition of
``torch.stft`` and ``torch.istft``, as written in PyTorch's documentation of the two functions
and found by running them. They compute on Python ints alone. Arguments which torch rejects, or
whose kind only torch can judge, raise :class:`UnresolvedArguments`: the call is then torch's,
and so are its exception and its text.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UnresolvedArguments

#: torch.istft refuses an overlap-added squared window below this anywhere in the kept range.
NOLA_THRESHOLD = 1e-11

_TOO_LARGE = 1 << 63

#: More values than any machine holds (128 TiB of complex64): torch then says that it cannot
#: allocate them.
_MOST_VALUES = 1 << 44

PAD_MODES = ("reflect", "constant", "replicate", "circular")


@dataclass(frozen=True)
class Params:
    """What resolved calls of both functions have. Lengths count samples, frames or bins."""

    n_fft: int
    hop_length: int
    win_length: int
    scale: float
    onesided: bool
    return_complex: bool
    batched: bool
    rows: int
    frames: int
    bins: int

    @property
    def window_left(self) -> int:
        """Number of zeros that pad a short window on the left, to n_fft values."""
        return (self.n_fft - self.win_length) // 2


@dataclass(frozen=True)
class StftParams(Params):
    """One call of ``torch.stft``, resolved. Lengths count samples, frames or bins.

    Before framing, ``padding`` samples are added at each end by ``pad_mode``. ``padded`` says that
    torch runs its padding, even if it adds nothing. Frame ``t`` covers the samples ``t * hop_length
    ... t * hop_length + n_fft - 1`` of the padded signal.
    """

    padded: bool
    padding: int
    pad_mode: str
    complex_fft: bool
    samples: int


@dataclass(frozen=True)
class IstftParams(Params):
    """One call of ``torch.istft``, resolved. Lengths count samples, frames or bins.

    The overlap-added signal has ``covered`` samples; samples ``start ... start + kept - 1`` of it
    are returned, followed by ``zero_tail`` zeros. ``scale`` undoes ``normalized=True``.
    """

    covered: int
    start: int
    kept: int
    zero_tail: int

    @property
    def complex_fft(self) -> bool:
        """Whether frames are complex."""
        return self.return_complex

    @property
    def overlap(self) -> int:
        """Number of hops that one frame touches: ``ceil(n_fft / hop_length)``."""
        return -(-self.n_fft // self.hop_length)

    @property
    def geometry(self) -> tuple[tuple[int, ...], int]:
        """What decides, besides a window's values, whether its envelope vanishes.

        Returns:
            Sizes; and the number of samples that are left out at the end. An envelope that does not
            vanish does not do so either where more samples are left out. The number of frames only
            matters if no whole hop that all of them cover is kept, or no end.
        """
        tail = self.covered - self.start - self.kept
        is_long = self.frames > 2 * self.overlap and max(self.start, tail) <= self.n_fft
        frames = 0 if is_long else self.frames
        return (self.n_fft, self.hop_length, self.start, frames), tail

    @property
    def output_length(self) -> int:
        """Samples per row of the result."""
        return self.kept + self.zero_tail


@dataclass(frozen=True)
class TensorFacts:
    """The facts about a tensor that resolving a call needs."""

    shape: tuple[int, ...]
    is_complex: bool


def _integer(value: Any) -> int:
    """Return an int that torch's argument parser takes: 64-bit, Python's or NumPy's, no bool."""
    if type(value) is int and abs(value) < _TOO_LARGE:
        return value
    # torch refuses what has nothing but an ``__index__``, such as arrays without dimensions; of
    # tensors only torch knows whether it reads them.
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    _require(is_integer, "not a plain integer")
    _require(not isinstance(value, np.timedelta64), "a duration")
    number = operator.index(value)
    _require(abs(number) < _TOO_LARGE, "torch's integers have 64 bits")
    return number


def _optional_integer(value: Any, default: int) -> int:
    return default if value is None else _integer(value)


def _flag(value: Any) -> bool:
    _require(value is True or value is False, "not a bool")
    return bool(value)


def _optional_flag(value: Any) -> bool | None:
    return None if value is None else _flag(value)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise UnresolvedArguments(what)


def _check_centre_padding(mode: Any, padding: int, samples: int) -> None:
    """Check the preconditions of ``torch.nn.functional.pad`` for the four modes."""
    _require(type(mode) is str and mode in PAD_MODES, "pad_mode is one of the four")
    _require(mode == "constant" or samples > 0, "only constant padding takes an empty signal")
    _require(mode != "reflect" or padding < samples, "reflection needs more samples than it adds")
    _require(mode != "circular" or padding <= samples, "circular padding wraps around once")


def resolve_stft(
    signal: TensorFacts,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: TensorFacts | None = None,
    center: Any = True,
    pad_mode: Any = "reflect",
    normalized: Any = False,
    onesided: Any = None,
    return_complex: Any = None,
    align_to_window: Any = None,
) -> StftParams:
    """Resolve the arguments of ``torch.stft``.

    Args:
        signal: shape ``(samples,)`` or ``(rows, samples)`` and kind of the input.
        window: shape and kind of the window, or None.
        n_fft, hop_length, win_length, center, pad_mode, normalized, onesided, return_complex,
            align_to_window: as of ``torch.stft``, unconverted.

    Raises:
        UnresolvedArguments: torch rejects these arguments, or only torch can judge them.
    """
    n_fft = _integer(n_fft)
    hop = _optional_integer(hop_length, n_fft // 4)
    win = _optional_integer(win_length, n_fft)
    center, normalized = _flag(center), _flag(normalized)
    align, as_complex = _optional_flag(align_to_window), _optional_flag(return_complex)
    asked_onesided = _optional_flag(onesided)
    _require(len(signal.shape) in (1, 2), "input is 1-D or 2-D")
    _require(n_fft > 0 and hop > 0 and 0 < win <= n_fft, "sizes are positive, win <= n_fft")
    _require(hop <= _MOST_VALUES, "beyond, torch's own strides overflow, and it depends on them")
    _require(not (center and align is not None), "align_to_window needs center=False")
    _require(window is None or window.shape == (win,), "window is 1-D of win_length values")
    complex_fft = signal.is_complex or (window is not None and window.is_complex)
    _require(complex_fft or as_complex is not None, "return_complex is given for real inputs")
    _require(not (complex_fft and asked_onesided), "complex spectra are two-sided")
    rows, samples = signal.shape if len(signal.shape) == 2 else (1, signal.shape[0])
    _require(rows > 0, "whether an empty batch is allowed depends on torch's FFT library")
    padding, mode, span = 0, "constant", n_fft
    if center:
        padding, mode = n_fft // 2, pad_mode
        _check_centre_padding(mode, padding, samples)
    elif align:
        # Frame 0 starts where the window starts, so frames are counted by the window's length.
        padding, span = (n_fft - win) // 2, win
    padded = samples + 2 * padding
    frames = 1 + ((samples if align else padded) - span) // hop
    _require(padded >= n_fft and (samples >= n_fft or center), "n_fft fits in the signal")
    _require((frames - 1) * hop + n_fft <= padded, "the last frame lies inside the signal")
    is_onesided = not complex_fft if asked_onesided is None else asked_onesided
    bins = n_fft // 2 + 1 if is_onesided else n_fft
    _require(rows * max(padded, frames * bins) <= _MOST_VALUES, "the values fit in memory")
    return StftParams(
        n_fft=n_fft,
        hop_length=hop,
        win_length=win,
        padded=center or bool(align),
        padding=padding,
        pad_mode=mode,
        scale=1.0 / math.sqrt(n_fft) if normalized else 1.0,
        onesided=is_onesided,
        complex_fft=complex_fft,
        return_complex=complex_fft if as_complex is None else as_complex,
        batched=len(signal.shape) == 2,
        rows=rows,
        samples=samples,
        frames=frames,
        bins=bins,
    )


def resolve_istft(
    spectrum: TensorFacts,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: TensorFacts | None = None,
    center: Any = True,
    normalized: Any = False,
    onesided: Any = None,
    length: Any = None,
    return_complex: Any = False,
    *,
    with_gaps: bool = False,
) -> IstftParams:
    """Resolve the arguments of ``torch.istft``.

    Args:
        spectrum: shape ``(bins, frames)`` or ``(rows, bins, frames)`` and kind of the input.
        window: shape and kind of the window, or None.
        n_fft, hop_length, win_length, center, normalized, onesided, length, return_complex:
            as of ``torch.istft``, unconverted.
        with_gaps: take hops longer than the window, too, which leave samples that no frame covers.

    Raises:
        UnresolvedArguments: torch rejects these arguments, or only torch can judge them.
    """
    n_fft = _integer(n_fft)
    hop = _optional_integer(hop_length, n_fft // 4)
    win = _optional_integer(win_length, n_fft)
    center, normalized, as_complex = _flag(center), _flag(normalized), _flag(return_complex)
    asked_onesided = _optional_flag(onesided)
    _require(spectrum.is_complex and len(spectrum.shape) in (2, 3), "input is a complex spectrum")
    _require(0 not in spectrum.shape, "input is not empty")
    _require(0 < win <= n_fft and hop > 0, "0 < win <= n_fft, 0 < hop")
    _require(with_gaps or hop <= win, "hop <= win")
    _require(window is None or window.shape == (win,), "window is 1-D of win_length values")
    batched = len(spectrum.shape) == 3
    rows, bins, frames = spectrum.shape if batched else (1, *spectrum.shape)
    is_onesided = bins != n_fft if asked_onesided is None else asked_onesided
    _require(bins == (n_fft // 2 + 1 if is_onesided else n_fft), "bins agree with n_fft")
    _require(not (as_complex and is_onesided), "complex signals have two-sided spectra")
    complex_window = window is not None and window.is_complex
    _require(as_complex or not complex_window, "complex windows give complex signals")
    covered = n_fft + hop * (frames - 1)
    start = n_fft // 2 if center else 0
    if length is not None:
        end = start + _integer(length)
    else:
        # torch slices to ``-(n_fft // 2)``, which for n_fft = 1 means up to sample 0: nothing.
        _require(not center or n_fft > 1, "a centred signal of n_fft = 1 needs a length")
        end = covered - n_fft // 2 if center else covered
    kept = min(end, covered) - start
    _require(kept > 0, "some samples remain")
    _require(rows * (end - start) <= _MOST_VALUES, "the values fit in memory")
    return IstftParams(
        n_fft=n_fft,
        hop_length=hop,
        win_length=win,
        scale=math.sqrt(n_fft) if normalized else 1.0,
        onesided=is_onesided,
        return_complex=as_complex,
        batched=batched,
        rows=rows,
        frames=frames,
        bins=bins,
        covered=covered,
        start=start,
        kept=kept,
        zero_tail=max(0, end - covered),
    )
