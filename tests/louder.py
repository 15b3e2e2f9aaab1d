"""A candidate that other processes find by its import path: wrong in stft, right in istft."""

from __future__ import annotations

from typing import Any

from stft_parity import Candidate, native

TORCH = native()


def stft(*args: Any, **kwargs: Any) -> Any:
    assert TORCH.stft is not None
    return TORCH.stft(*args, **kwargs) * 1.25


LOUDER = Candidate(stft, TORCH.istft, "louder")
