"""Errors of a call's result, with what is admitted where terms cancel."""

from __future__ import annotations

from collections.abc import Callable

import torch

from stft_parity.adapting import Function
from stft_parity.cases import Case, Tensors
from stft_parity.compare import oracle
from stft_parity.compare.tolerances import ROUNDING_TRIALS
from stft_parity.compare.values import Errors, errors


def measure(
    case: Case,
    tensors: Tensors,
    expected: torch.Tensor,
    actual: torch.Tensor,
    reference: Function,
) -> Errors:
    """Errors of both results against the oracle, and what is admitted."""
    alone = False
    try:
        truth = oracle.truth(case, tensors, reference)
    except RuntimeError:
        # In half precision torch's least envelope is zero: it accepts what it rejects in double.
        alone, truth = True, expected.detach()
    exact, wanted, got = (oracle.numbers(case, result) for result in (truth, expected, actual))
    batched = tensors["x"].dim() == (2 if case.op == "stft" else 3)
    rows = len(truth) if batched else 0
    terms = truth.shape[-2] if case.op == "stft" and truth.dim() > 1 else tensors["x"].shape[-2]
    measured = errors(exact, wanted, got, terms=terms, rows=rows, dtype=expected.dtype)
    if not (measured.admitted or measured.elsewhere or alone):

        def compute_rounded(noise: torch.Generator) -> torch.Tensor:
            again = {**tensors, "x": oracle.round_randomly(tensors["x"], noise)}
            return oracle.numbers(case, oracle.truth(case, again, reference))

        measured = measured.with_rounding(move_by_rounding(case, compute_rounded, exact, rows))
    return measured


#: What comes of arguments that are rounded by a generator.
Rounded = Callable[[torch.Generator], torch.Tensor]


def move_by_rounding(
    case: Case, compute_rounded: Rounded, exact: torch.Tensor, rows: int = 0
) -> torch.Tensor:
    """How far each row of the truth moves when arguments are rounded a few times more.

    Where large terms cancel (a spectrum of equal bins is zero at all samples but one, a gradient of
    few values is a sum of many) the reference may be right to the last digit by the order of its
    additions alone; nothing that rounds the terms is. What rounding the arguments does to the
    result is then the measure.
    """
    noise = torch.Generator().manual_seed(case.seed)
    moved: list[torch.Tensor] = []
    for _ in range(ROUNDING_TRIALS):
        difference = (compute_rounded(noise) - exact).abs()
        difference = torch.where(difference.isfinite(), difference, 0.0)
        moved.append(difference.reshape(max(1, rows), -1).amax(-1))
    return torch.stack(moved).amax(0)
