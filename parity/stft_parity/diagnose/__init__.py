"""Names the cause of a difference: one sentence, as specific as the evidence allows.

Causes are tried, not guessed: the reference is computed again in double precision with one thing
changed, and a cause is named when what comes of it is what the candidate has given. Where nothing
explains the values, the sentence says where the error sits.
"""

from __future__ import annotations

from typing import Any

import torch

from stft_parity.adapting import Function
from stft_parity.cases import Case, Tensors
from stft_parity.compare import oracle
from stft_parity.compare.gradients import can_compare
from stft_parity.compare.observing import readable
from stft_parity.diagnose import behaviour, explaining, gradients

__all__ = ["diagnose"]


def diagnose(
    aspect: str, case: Case, tensors: Tensors, expected: Any, actual: Any, native: Function
) -> str:
    """Say in one sentence what is wrong; this never raises.

    Args:
        aspect: one of ``results.ASPECTS``.
        case: the call.
        tensors: that it was made on.
        expected: what the reference gave: for exceptions and warnings the outcome, for gradients
            the gradient, for repeatability the candidate's first result, else the result.
        actual: what the candidate gave, likewise.
        native: the reference's function.
    """
    try:
        with oracle.silence_warnings():
            return _diagnose(aspect, case, tensors, expected, actual, native)
    except Exception as error:  # whatever a result is made of: the difference itself is still told
        return f"{aspect} differs (and the search for the cause failed: {error!r})"


def _diagnose(
    aspect: str, case: Case, tensors: Tensors, expected: Any, actual: Any, native: Function
) -> str:
    if aspect in ("values", "shape"):
        if not readable(actual):
            return ""  # the dtype says what is wrong
        return explaining.of_result(
            explaining.read_setting(case, tensors, native), expected, actual
        )
    if aspect.startswith("gradient of"):
        return _of_gradient(aspect, case, tensors, expected, actual, native)
    if aspect == "dtype":
        return _of_dtype(explaining.read_setting(case, tensors, native), expected, actual)
    sentence = behaviour.SENTENCES.get(aspect)
    return sentence(case, expected, actual) if sentence else ""


def _of_dtype(at: explaining.Setting, expected: torch.Tensor, actual: torch.Tensor) -> str:
    """Another dtype, and with complex for real values also what these are."""
    if not readable(actual):
        return behaviour.describe_dtype(expected, actual, False)
    said = behaviour.describe_dtype(expected, actual, explaining.right_values(at, expected, actual))
    if actual.is_complex() != expected.is_complex() and actual.shape == expected.shape:
        return f"{said}: {explaining.of_result(at, expected, actual)}"
    return said


def _of_gradient(
    aspect: str, case: Case, tensors: Tensors, expected: Any, actual: Any, native: Function
) -> str:
    """What is wrong with a gradient, its values or that it is there."""
    if isinstance(actual, Exception) or isinstance(expected, Exception):
        return behaviour.describe_backward(expected, actual)
    if not can_compare(expected, actual):
        return ""  # then what is wrong is said already
    at = explaining.read_setting(case, tensors, native)
    args, kwargs = case.bind(oracle.bring_here(tensors))
    leaf = "x" if aspect.endswith("input") else "w"
    result = native(*args, **kwargs)
    return gradients.of_gradient(at, leaf, expected, actual, result)
