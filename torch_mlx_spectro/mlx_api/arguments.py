"""Arguments of the MLX API, resolved into the values that the maps take.

The rules are those of :mod:`.core.params`, with three differences. A signal that is shorter than a
frame is padded with zeros if it is not centred. The padding at the end may be the least that is
needed. What torch would refuse raises ValueError with the reason.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

from ..core.params import (
    PAD_MODES,
    IstftParams,
    StftParams,
    TensorFacts,
    resolve_istft,
    resolve_stft,
)
from ..errors import UnresolvedArguments
from ..mlx.runtime import runtime
from ..store.caches import cached

# mlx-spectro's names of the values that some arguments take.
STFTOutputLayout: TypeAlias = Literal["bfn", "bnf"]
"""Layouts of spectra: (batch, bins, frames) or (batch, frames, bins)."""
ISTFTBackendPolicy: TypeAlias = Literal["auto", "mlx_fft", "metal", "torch_fallback"]
"""Policies of ``istft``: ``"metal"`` raises where no kernel computes; the others are equal."""
CenterPadMode: TypeAlias = Literal["constant", "reflect", "replicate", "circular"]
"""What lies beyond the ends of a centred signal."""
CenterTailPad: TypeAlias = Literal["symmetric", "minimal"]
"""Padding at the end: as at the beginning, or enough for ``ceil(samples / hop_length)`` frames."""
_LAYOUTS, _POLICIES = get_args(STFTOutputLayout), get_args(ISTFTBackendPolicy)
#: By argument, its accepted values.
CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "pad_mode": PAD_MODES,
        "center_tail_pad": get_args(CenterTailPad),
        # The dimensions of a signal before its last one: one batch, as in mlx-spectro, or any.
        "leading": ("batch", "any"),
        "input_layout": _LAYOUTS,
        "output_layout": _LAYOUTS,
        "istft_backend_policy": _POLICIES,
        "backend_policy": _POLICIES,
        "safety": ("off", "auto", "always"),
        "long_mode_strategy": ("native", "numpy_fallback", "torch_fallback"),
    }
)
RESOLVED_CALLS = 1024


def check_choices(**given: Any) -> None:
    """Check arguments of :data:`CHOICES`.

    Raises:
        ValueError: a value is not accepted; names its argument and the accepted values.
    """
    for name, value in given.items():
        check_choice(name, value, CHOICES[name])


def check_choice(name: str, value: Any, accepted: tuple[str | None, ...]) -> None:
    """Check one argument.

    Raises:
        ValueError: the value is not accepted; names the argument and the accepted values.
    """
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}; got {value!r}")


def check_array(entry: str, value: Any) -> None:
    """Check that a method was given an MLX array.

    Args:
        entry: the name of the method: ``"stft"``, ``"istft_stream"``.

    Raises:
        TypeError: it is none; names what it is, and which function takes it or how to convert it.
    """
    if isinstance(value, runtime().mx.array):
        return
    library, kind = type(value).__module__.partition(".")[0], type(value).__qualname__
    found = kind if library == "builtins" else f"{library}.{kind}"
    advice = "mx.array(...) makes one"
    if library == "torch":
        door = entry.partition("_")[0]
        advice = (
            f"torch_mlx_spectro.{door} takes tensors"
            if door in ("stft", "istft")
            else "mx.array(...) of its numpy() makes one"
        )
    elif value is None:
        found, advice = "None", "the first argument is missing"
    raise TypeError(f"{entry} expects an MLX array (mlx.core.array); got {found}: {advice}")


def read_number(name: str, value: Any) -> float:
    """Return a number as a float.

    Raises:
        ValueError: the value is not a finite number; names the argument.
    """
    try:
        number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a number; got {value!r}")
    return number


def read_count(name: str, value: Any, least: int = 1) -> int:
    """Return an integer that is at least ``least``.

    Raises:
        ValueError: it is none; names the argument.
    """
    count = read_integer(name, value)
    if count < least:
        raise ValueError(f"{name} must be at least {least}; got {count}")
    return count


def read_integer(name: str, value: Any) -> int:
    """Return a size as an int; like mlx-spectro, take ``512.0`` for one, too.

    Raises:
        ValueError: the value is not an integer; names the argument.
    """
    number = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(number, float) and number.is_integer():
        return int(number)
    if not isinstance(number, bool) and hasattr(number, "__index__"):
        return operator.index(number)
    raise ValueError(f"{name} must be an integer; got {value!r}")


def _resolve_sizes(
    n_fft: Any, hop_length: Any, win_length: Any, pad: int = 0, longest: str = "n_fft"
) -> tuple[int, int, int]:
    """Resolve sizes with torch's defaults; ``longest`` names ``n_fft + 2 * pad`` in errors."""
    n_fft = read_integer("n_fft", n_fft)
    hop = n_fft // 4 if hop_length is None else read_integer("hop_length", hop_length)
    win = n_fft if win_length is None else read_integer("win_length", win_length)
    for name, size in (("n_fft", n_fft), ("hop_length", hop), ("win_length", win)):
        if size <= 0:
            raise ValueError(f"{name} must be positive; got {size}")
    if win > n_fft + 2 * pad:
        raise ValueError(f"win_length ({win}) must be <= {longest} ({n_fft + 2 * pad})")
    return n_fft, hop, win


@dataclass(frozen=True)
class Sizes:
    """The sizes and modes that all calls of a transform share."""

    n_fft: int
    hop_length: int
    win_length: int
    center: bool
    pad_mode: str
    tail_pad: str
    normalized: bool
    onesided: bool

    @classmethod
    def resolve(
        cls,
        n_fft: int,
        hop_length: int | None,
        win_length: int | None,
        *,
        center: bool,
        pad_mode: str,
        tail_pad: str,
        normalized: bool,
        onesided: bool,
    ) -> Sizes:
        """Check what can be checked without a signal.

        Raises:
            ValueError: a size is not a positive integer, ``win_length`` exceeds ``n_fft``, a mode
                is unknown, or a minimal tail is asked for with a padding that has none.
        """
        n_fft, hop, win = _resolve_sizes(n_fft, hop_length, win_length)
        check_choices(pad_mode=pad_mode, center_tail_pad=tail_pad)
        if tail_pad == "minimal" and center and pad_mode != "constant":
            raise ValueError(
                f"center_tail_pad='minimal' needs constant padding; center_pad_mode is {pad_mode!r}"
            )
        return cls(
            n_fft, hop, win, bool(center), pad_mode, tail_pad, bool(normalized), bool(onesided)
        )


def _check_samples(sizes: Sizes, samples: int) -> None:
    """Check that a signal is long enough for its padding.

    Raises:
        ValueError: it is not; names the padding, what it needs and how long the signal is.
    """
    if not sizes.center or sizes.pad_mode == "constant":
        return
    mode, half = sizes.pad_mode, sizes.n_fft // 2
    least = {"reflect": half + 1, "replicate": 1, "circular": half}[mode]
    if samples < max(1, least):
        raise ValueError(
            f"stft: {mode} padding of n_fft={sizes.n_fft} needs at least {max(1, least)} samples; "
            f"got {samples} (pad_mode='constant' takes any number)"
        )


@cached(RESOLVED_CALLS)
def resolve_stft_call(sizes: Sizes, samples: int, is_complex: bool) -> StftParams:
    """Resolve the stft of one row of ``samples`` samples.

    Raises:
        ValueError: the signal is too short for its padding, or complex and onesided.
    """
    onesided = sizes.onesided and not is_complex
    short = not sizes.center and samples < sizes.n_fft
    _check_samples(sizes, samples)
    try:
        params = resolve_stft(
            TensorFacts((1, sizes.n_fft if short else samples), is_complex),
            sizes.n_fft,
            sizes.hop_length,
            sizes.win_length,
            center=sizes.center,
            pad_mode=sizes.pad_mode,
            normalized=sizes.normalized,
            onesided=onesided,
            return_complex=True,
        )
    except UnresolvedArguments as refused:
        raise ValueError(f"stft of {samples} samples needs that {refused}") from None
    if short:  # padded at its end with zeros
        return replace(params, samples=samples)
    if sizes.center and sizes.tail_pad == "minimal":
        return replace(params, frames=max(1, math.ceil(samples / sizes.hop_length)))
    return params


@cached(RESOLVED_CALLS)
def resolve_istft_call(
    sizes: Sizes, frames: int, length: int | None, return_complex: bool
) -> IstftParams:
    """Resolve the istft of one row of ``frames`` frames; for real signals it reads half the bins.

    Raises:
        ValueError: there are no frames, or nothing remains of the signal.
    """
    if sizes.center and sizes.tail_pad == "minimal" and length is None:
        raise ValueError("length is required when center_tail_pad='minimal' for istft")
    bins = sizes.n_fft if return_complex else sizes.n_fft // 2 + 1
    if frames == 0:
        raise ValueError("istft expects at least one frame; the spectrum has none")
    if length is not None and length <= 0:
        raise ValueError(f"length must be positive; got {length}")
    try:
        return resolve_istft(
            TensorFacts((1, bins, frames), True),
            sizes.n_fft,
            sizes.hop_length,
            sizes.win_length,
            center=sizes.center,
            normalized=sizes.normalized,
            onesided=not return_complex,
            length=length,
            return_complex=return_complex,
            with_gaps=True,
        )
    except UnresolvedArguments as refused:
        given = f"{frames} frames of n_fft={sizes.n_fft}, hop_length={sizes.hop_length}"
        raise ValueError(
            f"istft of {given} and length={length} needs that {refused}; "
            "a centred signal begins and ends half a frame later than its frames"
        ) from None


def resolve_fft_params(
    n_fft: int, hop_length: int | None, win_length: int | None, pad: int
) -> tuple[int, int, int]:
    """Resolve sizes with torch's defaults: ``(n_fft + 2 * pad, hop_length, win_length)``.

    Args:
        n_fft: size of a frame before ``pad``.
        hop_length: ``n_fft // 4`` where None.
        win_length: ``n_fft`` where None.
        pad: samples by which a frame grows on either side.

    Returns:
        The three sizes, in samples.

    Raises:
        ValueError: a size is not a positive integer, or ``win_length`` exceeds the padded frame.
    """
    pad = read_integer("pad", pad)
    if pad < 0:
        raise ValueError(f"pad must be >= 0; got {pad}")
    n_fft, hop, win = _resolve_sizes(n_fft, hop_length, win_length, pad, "effective n_fft")
    return n_fft + 2 * pad, hop, win
