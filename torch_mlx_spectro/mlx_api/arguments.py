"""Arguments of the MLX API, resolved into the values that the maps take.

The rules are those of :mod:`.core.params`, with three differences. A signal that is shorter than a
frame is padded with zeros if it is not centred. The padding at the end may be the least that is
needed. What torch would refuse raises ValueError with the reason.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from ..core.params import (
    PAD_MODES,
    IstftParams,
    StftParams,
    TensorFacts,
    resolve_istft,
    resolve_stft,
)
from ..errors import UnresolvedArguments
from ..store.caches import cached

_LAYOUTS = ("bfn", "bnf")
_POLICIES = ("auto", "mlx_fft", "metal", "torch_fallback")
#: By argument, its accepted values.
CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "pad_mode": PAD_MODES,
        "center_tail_pad": ("symmetric", "minimal"),
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


@contextmanager
def _say_why(name: str, *arguments: Any) -> Iterator[None]:
    """Turn UnresolvedArguments within the context into a ValueError with the reason."""
    try:
        yield
    except UnresolvedArguments as refused:
        raise ValueError(f"{name} needs that {refused}; got {arguments}") from None


@cached(RESOLVED_CALLS)
def resolve_stft_call(sizes: Sizes, samples: int, is_complex: bool) -> StftParams:
    """Resolve the stft of one row of ``samples`` samples.

    Raises:
        ValueError: the signal is too short for its padding, or complex and onesided.
    """
    onesided = sizes.onesided and not is_complex
    short = not sizes.center and samples < sizes.n_fft
    with _say_why("stft", sizes, samples, is_complex):
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
    with _say_why("istft", sizes, frames, length, return_complex):
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
        )


def resolve_fft_params(
    n_fft: int, hop_length: int | None, win_length: int | None, pad: int
) -> tuple[int, int, int]:
    """Resolve sizes with torch's defaults: ``(n_fft + 2 * pad, hop_length, win_length)``.

    Args:
        n_fft: size of a frame before ``pad``.
        hop_length: ``n_fft // 4`` where None.
        win_length: ``n_fft`` where None.
        pad: samples by which a frame grows on either side.

    Raises:
        ValueError: a size is not a positive integer, or ``win_length`` exceeds the padded frame.
    """
    pad = read_integer("pad", pad)
    if pad < 0:
        raise ValueError(f"pad must be >= 0; got {pad}")
    n_fft, hop, win = _resolve_sizes(n_fft, hop_length, win_length, pad, "effective n_fft")
    return n_fft + 2 * pad, hop, win
