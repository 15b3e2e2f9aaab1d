"""The environment variables of the package, read here and nowhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass

BACKENDS = ("auto", "native", "mlx", "cuda")

#: Every variable that is read, and what it means; ``doctor`` prints this table.
RECOGNISED: dict[str, str] = {
    "TORCH_MLX_SPECTRO_BACKEND": (
        f"backend used where none is named: one of {', '.join(BACKENDS)} (default auto)"
    ),
}


@dataclass(frozen=True)
class Settings:
    """What the environment asks for."""

    backend: str


def check_backend(name: str, source: str) -> str:
    """Return ``name`` if it is a backend that can be asked for.

    Raises:
        ValueError: naming ``source`` (an argument or a variable) and the known backends.
    """
    if name not in BACKENDS:
        raise ValueError(f"{source} must be one of {', '.join(BACKENDS)}; got {name!r}")
    return name


def settings() -> Settings:
    """Read the environment.

    Raises:
        ValueError: a variable holds a value that is not known.
    """
    name = os.environ.get("TORCH_MLX_SPECTRO_BACKEND") or "auto"
    return Settings(backend=check_backend(name, "TORCH_MLX_SPECTRO_BACKEND"))
