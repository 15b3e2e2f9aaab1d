"""The environment variables of the package, read here and nowhere else."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

BACKEND_VARIABLE = "TORCH_MLX_SPECTRO_BACKEND"
CHILDREN_VARIABLE = "TORCH_MLX_SPECTRO_CHILDREN"
RESULT_MEMORY_VARIABLE = "TORCH_MLX_SPECTRO_RESULT_MEMORY"
DENORMALS_VARIABLE = "TORCH_MLX_SPECTRO_EMULATED_DENORMALS"
CONTRACTION_VARIABLE = "TORCH_MLX_SPECTRO_EMULATED_CONTRACTION"

#: Every variable that is read, and what it means; ``doctor`` prints this table.
RECOGNISED: Mapping[str, str] = MappingProxyType(
    {
        BACKEND_VARIABLE: "name of the backend that is used where none is named (default auto)",
        RESULT_MEMORY_VARIABLE: (
            "MiB of memory of large results on the CPU that are kept for later ones; 0: none"
            " (default 256, or a 32nd of the machine's memory if that is less)"
        ),
        CHILDREN_VARIABLE: (
            "written by run --children, for the processes that the program starts; empty: these are"
            " not patched"
        ),
        "MLX_OLA_FUSE_NORM": (
            "0: SpectralTransform.istft divides by the envelope in an operation of its own"
            " (default 1)"
        ),
        "SPEC_MLX_CACHE_STATS": "1: get_cache_debug_stats counts cache hits and misses (default 0)",
        "TORCH_MLX_SPECTRO_VERIFY": (
            "every Nth accelerated call of a kind is computed natively, too, and compared, where"
            " the program names no number (default 0: none)"
        ),
        "SPEC_MLX_AUTOTUNE": (
            "0: nothing is timed; auto chooses by a fixed table, kernels by their defaults"
            " (default 1)"
        ),
        "SPEC_MLX_AUTOTUNE_PERSIST": (
            "0: what was measured is neither read from disk nor written to it (default 1)"
        ),
        "SPEC_MLX_AUTOTUNE_CACHE_PATH": (
            "file of what was measured (default: verdicts.json in the user's folder of caches)"
        ),
        "PYTORCH_MPS_FAST_MATH": (
            "torch's own; 1: on macOS before 15, where kernels cannot refuse it, mps is not used"
        ),
        DENORMALS_VARIABLE: (
            "keep: the Metal emulator computes with denormal numbers; flush: it takes them for 0,"
            " as Metal does (default flush)"
        ),
        CONTRACTION_VARIABLE: (
            "0: the Metal emulator rounds a product before it is added; 1: it rounds once within an"
            " expression, as Metal does (default 1)"
        ),
        "SPEC_MLX_TGX": (
            "threads of a group, for every kernel (256) or by the kernel's name (analysis:256),"
            " separated by commas (default: measured)"
        ),
    }
)


def list_unread() -> list[str]:
    """List variables that are named like this package's and that nothing reads: misspelt ones."""
    return sorted(
        name
        for name in os.environ
        if name.startswith("TORCH_MLX_SPECTRO_") and name not in RECOGNISED
    )


#: In ``AutotuneSettings.threads``: every kernel that has no entry of its own.
ANY_KERNEL = "*"
#: Of a threadgroup, on any Metal or CUDA device.
MAX_THREADS = 1024

_ON = ("1", "true", "yes", "on")
_OFF = ("0", "false", "no", "off")


@dataclass(frozen=True)
class Settings:
    """What the environment asks for.

    Attributes:
        backend: the name as the variable has it.
        verify: every that-many-th accelerated call is compared with native; 0: none.
    """

    backend: str
    verify: int = 0


@dataclass(frozen=True)
class MlxSettings:
    """What the environment asks of the MLX API, by variables of mlx-spectro's names."""

    fuse_norm: bool
    cache_stats: bool


@dataclass(frozen=True)
class AutotuneSettings:
    """What the environment asks of measurements, by variables of mlx-spectro's names.

    Attributes:
        measure: calls and kernels may be timed.
        persist: what was measured is kept on disk.
        cache_path: the file of it; None for the usual one.
        threads: of a group, by kernel; those of ``ANY_KERNEL`` are for the kernels not named.
    """

    measure: bool
    persist: bool
    cache_path: str | None
    threads: Mapping[str, int]


@dataclass(frozen=True)
class EmulatedArithmetic:
    """How the Metal emulator computes where its program does not say.

    Attributes:
        contract: a product and a sum of one expression are rounded once.
        flush: denormal numbers in single precision are zeros.
    """

    contract: bool
    flush: bool


def check_verify(every: int, source: str) -> int:
    """Return ``every`` if it is a number of calls (one of as many is verified) or 0 for none.

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
    """Read the variable about verification alone.

    Raises:
        ValueError: the variable does not hold a number of calls.
    """
    text = os.environ.get("TORCH_MLX_SPECTRO_VERIFY") or "0"
    # Digits only: int() takes signs, blanks and underscores.
    number: Any = int(text) if text.isascii() and text.isdigit() else text
    return check_verify(number, "TORCH_MLX_SPECTRO_VERIFY")


def result_memory_setting() -> int | None:
    """Bytes of results that are kept for later ones; None where the environment does not say.

    Raises:
        ValueError: the variable does not hold a number.
    """
    text = os.environ.get(RESULT_MEMORY_VARIABLE, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{RESULT_MEMORY_VARIABLE} must be a number of MiB; got {text!r}")
    return int(text) << 20


def settings() -> Settings:
    """Read the environment.

    Raises:
        ValueError: a variable has an unknown value, one of :func:`autotune_settings` included: so
            ``patch`` reports it, and not a call in the midst of the program.
    """
    autotune_settings()
    result_memory_setting()
    return Settings(os.environ.get(BACKEND_VARIABLE) or "auto", verify_setting())


def mlx_settings() -> MlxSettings:
    """Read the variables of the MLX API.

    Raises:
        ValueError: a variable has an unknown value.
    """
    return MlxSettings(
        fuse_norm=_flag("MLX_OLA_FUSE_NORM", default=True),
        cache_stats=_flag("SPEC_MLX_CACHE_STATS", default=False),
    )


def asks_for_fast_math() -> bool:
    """Whether torch is to compile Metal kernels with fast mathematics."""
    return os.environ.get("PYTORCH_MPS_FAST_MATH") == "1"


def emulated_arithmetic() -> EmulatedArithmetic:
    """Read the variables about the emulator's arithmetic.

    Raises:
        ValueError: a variable has an unknown value.
    """
    denormals = os.environ.get(DENORMALS_VARIABLE) or "flush"
    if denormals not in ("flush", "keep"):
        raise ValueError(f"{DENORMALS_VARIABLE} must be flush or keep; got {denormals!r}")
    return EmulatedArithmetic(_flag(CONTRACTION_VARIABLE, default=True), denormals == "flush")


def autotune_settings() -> AutotuneSettings:
    """Read the variables about measurements.

    Raises:
        ValueError: a variable has an unknown value.
    """
    return AutotuneSettings(
        measure=_flag("SPEC_MLX_AUTOTUNE", default=True),
        persist=_flag("SPEC_MLX_AUTOTUNE_PERSIST", default=True),
        cache_path=os.environ.get("SPEC_MLX_AUTOTUNE_CACHE_PATH") or None,
        threads=_threads("SPEC_MLX_TGX"),
    )


def _threads(variable: str) -> Mapping[str, int]:
    found: dict[str, int] = {}
    text = os.environ.get(variable, "")
    for entry in text.split(",") if text else ():
        kernel, _, number = entry.rpartition(":")
        kernel = kernel.strip() if ":" in entry else ANY_KERNEL
        number = number.strip()
        # Digits only: int() takes signs and underscores.
        threads = int(number) if number.isascii() and number.isdigit() else 0
        if not kernel or kernel in found or not 1 <= threads <= MAX_THREADS:
            raise ValueError(
                f"{variable} must be a number of threads from 1 to {MAX_THREADS}, or kernel:number,"
                f" separated by commas, each kernel once; got {text!r}"
            )
        found[kernel] = threads
    return MappingProxyType(found)


def _flag(name: str, *, default: bool) -> bool:
    value = os.environ.get(name, "").lower()
    if value and value not in (*_ON, *_OFF):
        raise ValueError(f"{name} must be one of {', '.join((*_ON, *_OFF))}; got {value!r}")
    return value in _ON if value else default
