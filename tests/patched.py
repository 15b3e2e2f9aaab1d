"""A case under the patch: its answer is native's, and it was counted as accelerated."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import hypothesis
import torch
from discrepancy import compare
from reference import drawn
from strategies import istft_cases, stft_cases

import torch_mlx_spectro as tms
from stft_parity.adapting import adapter
from stft_parity.cases import Case
from torch_mlx_spectro.dispatch.run import counters

#: torch's own functions: patch() rebinds the globals of modules, but not what these refer to.
NATIVE: dict[str, Callable[..., Any]] = {"stft": torch.stft, "istft": torch.istft}


def accelerated_calls() -> int:
    """Calls counted so far, none of which may have gone to native."""
    stats = counters.snapshot()  # not stats(): under a patch that reads all modules for names left
    assert stats.native == 0, stats.as_dict()
    assert not stats.fallbacks, stats.as_dict()
    return stats.accelerated


def verify_drawn(op: str, examples: int, use: Callable[[Case, Callable[..., Any]], object]) -> int:
    """Use the patched function, strict and verified, in drawn cases that native accepts.

    Over everything the parity tests draw: infinities, denormals, cancellation, views.

    Returns:
        How many there were.
    """
    used = 0

    @drawn(examples)
    @hypothesis.given({"stft": stft_cases, "istft": istft_cases}[op]())
    def check(case: Case) -> None:
        nonlocal used
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                case.call(NATIVE[op])
            except Exception:
                return
            with tms.patch("mlx", strict=True, verify=1):
                use(case, getattr(torch, op))
        used += 1

    check()
    return used


def check_patched(case: Case) -> bool:
    """Compare the patched function with native; tell whether native accepts the call."""
    answered = 0

    def patched(*args: Any, **kwargs: Any) -> Any:
        nonlocal answered
        result = getattr(torch, case.op)(*args, **kwargs)
        answered += 1
        return result

    before = accelerated_calls()
    outcome = compare(case, adapter(patched, NATIVE[case.op]), NATIVE[case.op])
    # A rejected call answers nothing and is not counted: it is torch's exception that counts.
    assert accelerated_calls() == before + answered, case.reproducer()
    assert (answered == 0) == (outcome.error is not None)
    return outcome.error is None
