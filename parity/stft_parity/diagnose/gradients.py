"""Which of the causes gives a gradient's values."""

from __future__ import annotations

from functools import partial
from itertools import chain

import torch

from stft_parity.compare import oracle
from stft_parity.compare.values import wide
from stft_parity.diagnose import placing, rearranged, rounding
from stft_parity.diagnose.causes import Cause
from stft_parity.diagnose.evidence import Evidence, explain
from stft_parity.diagnose.explaining import Setting, list_step_causes, of_factor
from stft_parity.diagnose.model import Synthesis, model


def of_gradient(
    at: Setting, leaf: str, expected: torch.Tensor, actual: torch.Tensor, result: torch.Tensor
) -> str:
    """What is wrong with the values of a gradient in ``leaf``; ``result`` is the reference's."""
    cotangent = at.case.cotangent(result)
    wanted = oracle.true_gradients(at.case, at.tensors, cotangent, at.native)[leaf]
    truth = wide(expected.detach().cpu()) if wanted is None else wide(wanted)
    evidence = Evidence(truth, wide(actual.detach().cpu()), actual.dtype)
    plain = chain(
        of_factor(evidence, at),
        rearranged.list_row_causes(truth, at.rows if leaf == "x" else 0),
        _list_arrangements(at, leaf, truth),
        rounding.list_result_causes(truth, rounding.formats_below(actual.dtype)),
    )
    said = explain(evidence, plain)
    if said:
        return f"gradient: {said}"
    said = explain(evidence, _list_transforms(at, leaf, cotangent))
    if said:
        return f"the gradient is that of another transform: {said}"
    kind = "stft" if truth.dim() > 1 and at.case.op == "istft" else "istft"
    rows = bool(at.rows) and leaf == "x"
    said = placing.unfinite(truth, evidence.actual, kind, rows=rows)
    return f"gradient: {said or placing.where(truth, evidence.actual, kind, rows=rows)}"


def _list_arrangements(at: Setting, leaf: str, truth: torch.Tensor) -> list[Cause]:
    """What may be wrong with a gradient as a spectrum or as a signal."""
    steps = at.steps
    if leaf == "x" and isinstance(steps, Synthesis) and truth.shape == steps.spectrum.shape:
        return rearranged.list_spectrum_causes(truth, steps.n_fft, steps.hop, steps.onesided)
    return rearranged.list_signal_causes(truth)


def _list_transforms(at: Setting, leaf: str, cotangent: torch.Tensor) -> list[Cause]:
    """Gradients of transforms that have one step otherwise."""
    if at.steps is None:
        return []
    tensor = at.tensors[leaf].detach().requires_grad_()
    return [
        Cause(cause.sentence, partial(_gradient, cause, at.case.op, tensor, cotangent))
        for cause in list_step_causes(model(at.case, {**at.tensors, leaf: tensor}))
    ]


def _gradient(cause: Cause, op: str, leaf: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
    """Of what a cause gives.

    Raises:
        RuntimeError: the result has another shape than the cotangent, or no graph to ``leaf``.
    """
    result = cause.values()
    if op == "stft" and not cotangent.is_complex():
        result = torch.view_as_real(result)
    weight = cotangent.detach().cpu().to(result.dtype)
    # Causes share steps, whose graph is still needed.
    return torch.autograd.grad(result, leaf, weight, retain_graph=True)[0]
