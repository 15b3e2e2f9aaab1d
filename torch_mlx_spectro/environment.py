"""The environment variables of the package, read here and nowhere else."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass
from typing import Any

BACKENDS = ("auto", "native", "mlx", "mps", "cuda")

#: Every variable that is read, and what it means; ``doctor`` prints this table.
RECOGNISED: dict[str, str] = {
    "TORCH_MLX_SPECTRO_BACKEND": (
        f"backend used where none is named: one of {', '.join(BACKENDS)} (default auto)"
    ),
    "MLX_OLA_FUSE_NORM": (
        "0: SpectralTransform.istft divides by the envelope in an operation of its own (default 1)"
    ),
    "SPEC_MLX_CACHE_STATS": "1: get_cache_debug_stats counts cache hits and misses (default 0)",
    "TORCH_MLX_SPECTRO_VERIFY": (
        "every Nth accelerated call of a kind is computed natively, too, and compared, where the"
        " program names no number (default 0: none)"
    ),
}

_ON = ("1", "true", "yes", "on")
_OFF = ("0", "false", "no", "off")


@dataclass(frozen=True)
class Settings:
    """What the environment asks for."""

    backend: str
    verify: int = 0


@dataclass(frozen=True)
class MlxSettings:
    """What the environment asks of the MLX API, by variables of mlx-spectro's names."""

    fuse_norm: bool
    cache_stats: bool


def check_backend(name: str, source: str) -> str:
    """Return ``name`` if it is a backend that can be asked for.

    Raises:
        ValueError: naming ``source`` (an argument or a variable) and the known backends.
    """
    if name not in BACKENDS:
        raise ValueError(f"{source} must be one of {', '.join(BACKENDS)}; got {name!r}")
    return name


def check_verify(every: int, source: str) -> int:
    """Return ``every`` if every that-many-th call can be verified; 0 stands for none.

    Raises:
        ValueError: naming ``source`` (an argument or a variable).
    """
    try:
        number = -1 if isinstance(every, bool) else operator.index(every)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(
            f"{source} must be 0 (verify nothing) or a positive integer N (every Nth accelerated "
            f"call); got {every!r}"
        )
    return number


def verify_setting() -> int:
    """What the environment says of verification alone.

    Raises:
        ValueError: the variable does not hold a number of calls.
    """
    text = os.environ.get("TORCH_MLX_SPECTRO_VERIFY") or "0"
    # Digits only: int() takes signs, blanks and underscores.
    number: Any = int(text) if text.isascii() and text.isdigit() else text
    return check_verify(number, "TORCH_MLX_SPECTRO_VERIFY")


def settings() -> Settings:
    """Read the environment.

    Raises:
        ValueError: a variable holds a value that is not known.
    """
    name = os.environ.get("TORCH_MLX_SPECTRO_BACKEND") or "auto"
    backend = check_backend(name, "TORCH_MLX_SPECTRO_BACKEND")
    return Settings(backend=backend, verify=verify_setting())


def mlx_settings() -> MlxSettings:
    """Read the variables of the MLX API.

    Raises:
        ValueError: a variable holds a value that is not known.
    """
    return MlxSettings(
        fuse_norm=_flag("MLX_OLA_FUSE_NORM", default=True),
        cache_stats=_flag("SPEC_MLX_CACHE_STATS", default=False),
    )


def _flag(name: str, *, default: bool) -> bool:
    value = os.environ.get(name, "").lower()
    if value and value not in (*_ON, *_OFF):
        raise ValueError(f"{name} must be one of {', '.join((*_ON, *_OFF))}; got {value!r}")
    return value in _ON if value else default
