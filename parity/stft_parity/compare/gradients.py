"""Gradients of a call in its input and in its window, compared as values are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from stft_parity.adapting import Function
from stft_parity.cases import Case, Tensors
from stft_parity.cases.uses import FACTOR
from stft_parity.compare import oracle
from stft_parity.compare.measuring import Rounded, move_by_rounding
from stft_parity.compare.observing import error_text, find_strides
from stft_parity.compare.values import errors

#: How the aspect calls the tensors of a case.
OF = {"x": "gradient of input", "w": "gradient of window"}

#: Gradients of one graph that differ by less than this share of the largest value differ by
#: rounding; what goes wrong with a lazy bit is a sign.
ALIKE = 1e-3

Gradients = dict[str, torch.Tensor | None]


@dataclass(frozen=True)
class Wrong:
    """A gradient that is not the reference's: its aspect, what is wrong, and both sides."""

    aspect: str
    what: str
    expected: torch.Tensor | Exception | str | None
    actual: torch.Tensor | Exception | str | None


def backward(
    case: Case, tensors: Tensors, result: torch.Tensor, *, lazily: bool = False
) -> Gradients | Exception:
    """Gradients by name of the tensor; an exception when torch or the candidate raises one.

    Args:
        case: the call.
        tensors: that it was made on.
        result: of the call.
        lazily: whether the cotangent has its conjugate or negative bit set, as that of a result
            has which a program conjugates. Its values are the same.
    """
    leaves = [tensors[name] for name in case.differentiate]
    with oracle.silence_warnings():
        try:
            weight = case.cotangent(result)
            if lazily:
                lazy = weight.is_complex()
                weight = weight.conj_physical().conj() if lazy else torch._neg_view(-weight)
            # A graph that is kept can be asked again, as a program may.
            found = torch.autograd.grad(
                result, leaves, weight, allow_unused=True, retain_graph=True
            )
        except Exception as error:  # whatever backward raises is what it did
            return error
    return dict(zip(case.differentiate, found, strict=True))


def compare_gradients(
    case: Case,
    tensors: Tensors,
    expected: torch.Tensor,
    actual: torch.Tensor,
    reference: Function,
) -> list[Wrong]:
    """What is wrong with the gradients of ``actual``.

    Zeros are often no tensor at all: one side may have none where the other's are zeros.
    """
    wanted, got = (backward(case, tensors, result) for result in (expected, actual))
    first = OF[case.differentiate[0]]
    if isinstance(wanted, Exception) or isinstance(got, Exception):
        return _wrong_exception(first, wanted, got)
    cotangent = case.cotangent(expected)
    try:
        exact = oracle.true_gradients(case, tensors, cotangent, reference)
    except RuntimeError:
        # As in ``measure``: what torch accepts in half precision alone.
        return _list_other("the gradient is another one", wanted, got)

    def compute_rounded(name: str, noise: torch.Generator) -> torch.Tensor:
        again = {key: oracle.round_randomly(value, noise) for key, value in tensors.items()}
        weight = oracle.round_randomly(cotangent, noise)
        found = oracle.true_gradients(case, again, weight, reference)[name]
        assert found is not None
        return found

    said = {
        name: _wrong(case, wanted[name], got[name], exact[name], partial(compute_rounded, name))
        for name in case.differentiate
    }
    found = [Wrong(OF[name], what, wanted[name], got[name]) for name, what in said.items() if what]
    return found or [*_other_strides(wanted, got), *_wrong_again(case, tensors, actual, got)]


def _other_strides(expected: Gradients, actual: Gradients) -> list[Wrong]:
    """Gradients that lie otherwise in memory: a ``view`` of them works or fails by it."""
    both = ((OF[name], wanted, actual[name]) for name, wanted in expected.items())
    said = "{}: the strides are {} where the reference's are {}"
    return [
        Wrong("gradient strides", said.format(of, got.stride(), wanted.stride()), wanted, got)
        for of, wanted, got in both
        if wanted is not None and got is not None and find_strides(wanted) != find_strides(got)
    ]


def compare_changed(
    case: Case, candidate: Function, reference: Function, device: str
) -> list[Wrong]:
    """What is wrong with backward after an argument was changed in place.

    What a function keeps for it is a copy, and the gradient is what it would have been; or it is
    the argument itself, and torch raises.
    """
    sides = []
    for function in (reference, candidate):
        tensors = case.tensors(device)
        args, kwargs = case.bind(tensors, device)
        with oracle.silence_warnings():
            result = function(*args, **kwargs)
            tensors[case.how.changed].detach().mul_(FACTOR)
        sides.append(backward(case, tensors, result))
    wanted, got = sides
    aspect = "changed before backward"
    if isinstance(wanted, Exception) or isinstance(got, Exception):
        return _wrong_exception(aspect, wanted, got)
    return _list_other("the {} is another one than the reference's", wanted, got, aspect)


def _list_other(what: str, expected: Gradients, actual: Gradients, aspect: str = "") -> list[Wrong]:
    """The gradients that are not alike, with what is said of each."""
    return [
        Wrong(aspect or OF[name], what.format(OF[name]), wanted, actual[name])
        for name, wanted in expected.items()
        if not _alike(wanted, actual[name])
    ]


#: torch's own texts on what is no longer as it was name nodes and shapes: what was saved, and by
#: whom, is each function's own matter. Of views of complex tensors torch says it by an assertion.
_SAYS_CHANGED = ("has been modified by an inplace operation: ", "new_fn INTERNAL ASSERT FAILED")


def _wrong_exception(
    aspect: str, expected: Gradients | Exception, actual: Gradients | Exception
) -> list[Wrong]:
    """That backward raises on one side only, or something else."""
    wanted, got = (
        (type(side), _without_own_matter(error_text(side))) if isinstance(side, Exception) else None
        for side in (expected, actual)
    )
    if wanted == got:
        return []
    return [Wrong(aspect, "backward raises otherwise", _of_input(expected), _of_input(actual))]


def _without_own_matter(text: str) -> str:
    return "changed in place" if any(said in text for said in _SAYS_CHANGED) else text


def _wrong_again(
    case: Case, tensors: Tensors, result: torch.Tensor, first: Gradients
) -> list[Wrong]:
    """What is wrong with right gradients when they are asked for again, of a lazy cotangent."""
    again = backward(case, tensors, result, lazily=True)
    if isinstance(again, Exception):
        what = f"a second backward through a graph that is kept raises {again!r}"
        return [Wrong(OF[case.differentiate[0]], what, "the same gradient again", what)]
    what = "a cotangent whose conjugate or negative bit is set gives another gradient"
    return [
        Wrong(OF[name], what, "the same gradient again", what)
        for name, gradient in first.items()
        if not _alike(gradient, again[name])
    ]


def _alike(first: torch.Tensor | None, second: torch.Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    finite = first[torch.isfinite(first)]
    peak = finite.abs().max().item() if finite.numel() else 0.0
    return torch.allclose(first, second, rtol=0.0, atol=ALIKE * peak, equal_nan=True)


def _of_input(found: Gradients | Exception) -> torch.Tensor | Exception | None:
    return found if isinstance(found, Exception) else next(iter(found.values()))


_MISSING = "the gradient is missing (None): it does not reach this argument"


def can_compare(expected: object, actual: object) -> bool:
    """Whether two gradients are tensors of one shape, dtype and device."""
    kinds = [
        (one.shape, one.dtype, one.device)
        for one in (expected, actual)
        if isinstance(one, torch.Tensor)
    ]
    return len(kinds) == 2 and kinds[0] == kinds[1]


def _wrong(
    case: Case,
    expected: torch.Tensor | None,
    actual: torch.Tensor | None,
    exact: torch.Tensor | None,
    compute_rounded: Rounded,
) -> str:
    """What is wrong with one gradient; empty when nothing is."""
    if expected is None or actual is None or exact is None:
        given = actual if expected is None else expected
        if given is None or not given.any():
            return ""
        return _MISSING if actual is None else "there is a gradient where the reference has none"
    if not can_compare(expected, actual):
        told = (f"{tuple(one.shape)}, {one.dtype} on {one.device}" for one in (actual, expected))
        return f"the gradient is {' instead of '.join(told)}"
    terms = max(exact.shape, default=1)
    measured = errors(exact, expected, actual, dtype=expected.dtype, terms=terms)
    if not measured.admitted and not measured.elsewhere:
        measured = measured.with_rounding(move_by_rounding(case, compute_rounded, exact))
    return measured.complaint()
