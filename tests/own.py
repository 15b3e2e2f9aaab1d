"""The package's own functions as a candidate of the parity suite, strict: MLX or it fell back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import stft_parity as parity
import torch_mlx_spectro as tms
from torch_mlx_spectro import cli

#: In what they are known to differ from torch's.
KNOWN = Path(cli.__file__).with_name("known_differences.toml")


def candidate() -> parity.Candidate:
    return parity.Candidate(_strict(tms.stft), _strict(tms.istft), "mlx, strict", route=_route)


def _strict(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        tms.reset_stats()
        try:
            with tms.backend("mlx", strict=True):
                return function(*args, **kwargs)
        except tms.NotAccelerated as refused:
            raise parity.FellBack("; ".join(refused.reasons)) from refused

    return call


def _route() -> str:
    """Who computed the last call, as it was counted."""
    return ", ".join(backend for _, backend in tms.stats().calls)


def _louder(*args: Any, **kwargs: Any) -> Any:
    return native["stft"](*args, **kwargs) * 1.25


native = {"stft": torch.stft, "istft": torch.istft}
#: Wrong in stft, right in istft.
LOUDER = parity.Candidate(_louder, native["istft"], "louder")
