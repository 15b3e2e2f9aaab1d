"""What is wrong with a call besides values: a sentence for each of the other aspects."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from stft_parity.cases import Case
from stft_parity.compare.observing import Outcome, error_text, readable
from stft_parity.compare.values import wide
from stft_parity.diagnose import placing
from stft_parity.diagnose.evidence import largest
from stft_parity.results import EXCEPTIONS

#: Characters of a quoted text: so many of its beginning and of its end. torch's messages begin
#: with the call and end with what is wrong with it.
QUOTED = (120, 160)


def quote(text: str) -> str:
    """A text in quotes, in one line, cut where it is long."""
    line = " ".join(text.split())
    front, back = QUOTED
    return f'"{line}"' if len(line) <= front + back else f'"{line[:front]} ... {line[-back:]}"'


def _name_error(error: Exception | None) -> str:
    return f"{type(error).__name__} {quote(error_text(error))}" if error else ""


def describe_exceptions(expected: Outcome, actual: Outcome) -> str:
    """Another exception, or one on one side only."""
    wanted, got = expected.error, actual.error
    if got is None:
        return (
            f"the exception is swallowed: {EXCEPTIONS['missing errors']} with {_name_error(wanted)}"
        )
    if wanted is None:
        frames = traceback.extract_tb(got.__traceback__)
        where = f", raised in {frames[-1].name}" if frames else ""
        return f"{EXCEPTIONS['refusals']}: {_name_error(got)}{where}"
    same, texts = type(wanted) is type(got), (quote(error_text(got)), quote(error_text(wanted)))
    if same:
        return f"{EXCEPTIONS['error texts']}: {texts[0]} instead of {texts[1]}"
    text = "the same text" if texts[0] == texts[1] else f"the text {texts[0]}"
    kinds = f"{type(got).__name__} instead of {type(wanted).__name__}"
    return f"{EXCEPTIONS['error types']}: {kinds}, with {text}"


def describe_warnings(expected: Outcome, actual: Outcome) -> str:
    """Warnings that are missing, too many, of another category or in another order."""
    wanted, got = Counter(expected.warned), Counter(actual.warned)
    missing, extra = list((wanted - got).elements()), list((got - wanted).elements())
    if not missing and not extra:
        return "the warnings come in another order"
    for category, text in missing:
        for other, same in extra:
            if text == same:
                return f"the warning {quote(text)} is a {other} instead of a {category}"
    if missing and extra:
        return (
            f"the warning has another text: {quote(extra[0][1])} instead of {quote(missing[0][1])}"
        )
    if missing:
        again = " the second time" if missing[0] in got else ""
        return f"a warning is missing{again}: {_list_warnings(missing)}"
    repeated = " (it comes twice)" if extra[0] in wanted else ""
    return f"there is a warning too many{repeated}: {_list_warnings(extra)}"


def _list_warnings(warned: list[tuple[str, str]]) -> str:
    return "; ".join(f"{category} {quote(text)}" for category, text in warned)


def describe_lines(expected: Outcome, actual: Outcome) -> str:
    """Warnings that name another line than the reference's do."""
    lines = zip(actual.warned, expected.lines, actual.lines, strict=True)
    told = (
        f"the warning names {got} where the reference's names {wanted}: {category} {quote(text)}"
        for (category, text), wanted, got in lines
        if wanted != got
    )
    return next(told, "")


def describe_backward(expected: Any, actual: Any) -> str:
    """Backward raises, or accepts what the reference's does not."""
    if isinstance(actual, Exception):
        return f"backward raises {_name_error(actual)}"
    return f"backward accepts what the reference's rejects with {_name_error(expected)}"


def describe_change(case: Case, expected: Any, actual: Any) -> str:
    """What backward makes of an argument that was changed in place after the call."""
    argument = {"x": "input", "w": "window"}.get(case.how.changed, "argument")
    raised = isinstance(expected, Exception) or isinstance(actual, Exception)
    other = "the gradient is another one than the reference's"
    said = describe_backward(expected, actual) if raised else other
    return f"after the {argument} is changed in place, {said}"


def describe_strides(
    case: Case, expected: torch.Tensor, actual: torch.Tensor, *, gradient: bool = False
) -> str:
    """What another order in memory means, of a result or of a gradient in its input."""
    spectrum = (case.op == "stft") != gradient
    pairs = case.op == "stft" and not gradient and not expected.is_complex()
    axes = ["bin", "frame"] if spectrum and expected.dim() > 1 else ["sample"]
    names = [*axes, *["part"] * pairs]
    names = [*["row"] * (expected.dim() - len(names)), *names]
    wanted, got = (_order(tensor, names) for tensor in (expected, actual))
    whose, it = ("the gradient's strides", "it") if gradient else ("the strides", "the result")
    said = f"{whose} are {actual.stride()} where the reference's are {expected.stride()}"
    lie = f"{_words(got)} lie in memory where the reference"
    if wanted != got:
        contiguous = f"{it} is contiguous: {lie}'s {_words(wanted)} do"
        return f"{said}: {contiguous if actual.is_contiguous() else f'{lie} has {_words(wanted)}'}"
    gaps = "the order is right, but there are gaps between the elements, or none"
    shared = "the result is expanded, its elements share memory"
    return f"{said}: {shared if 0 in actual.stride() else gaps}"


def _order(tensor: torch.Tensor, names: list[str]) -> list[str]:
    """Names of the axes, slowest in memory first; those of one element are left out."""
    axes = [dim for dim in range(tensor.dim()) if tensor.shape[dim] > 1]
    strides = tensor.stride()
    axes.sort(key=lambda dim: (-strides[dim], dim))
    return [names[dim] for dim in axes]


def _words(order: list[str]) -> str:
    return "(" + ", ".join(f"{name}s" for name in order) + ")"


def describe_dtype(expected: torch.Tensor, actual: torch.Tensor, right: bool) -> str:
    """Another dtype; ``right`` says whether the values are."""
    said = f"the result is {_name(actual.dtype)} where the reference gives {_name(expected.dtype)}"
    if not (actual.dtype.is_floating_point or actual.dtype.is_complex):
        return f"{said}: it is not a floating-point number at all"
    if actual.is_complex() != expected.is_complex() or not readable(actual):
        return said
    wanted, got = (torch.finfo(dtype).bits for dtype in (expected.dtype, actual.dtype))
    if got < wanted:
        return f"{said}: it is returned in lower precision"
    narrowed = actual.detach().to(expected.dtype).to(actual.dtype)
    finite = torch.isfinite(actual)
    if torch.equal(narrowed[finite], actual.detach()[finite]):
        return f"{said}: it was computed in the right precision and converted at the end"
    values = "" if right else ", and the values are wrong, too"
    return f"{said}: it is computed and returned in double precision{values}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def describe_type(expected: Any, actual: Any) -> str:
    """Another class of result."""
    if isinstance(actual, torch.Tensor):
        reference = f"where the reference gives a {type(expected).__name__}"
        return f"the result is a {type(actual).__name__}, a subclass, {reference}"
    module = type(actual).__module__.partition(".")[0]
    other = f"the result is no tensor, but a {type(actual).__name__} of {module}"
    return "the candidate returns nothing (None)" if actual is None else other


def describe_bits(expected: torch.Tensor, actual: torch.Tensor) -> str:
    """Bits that stand for an operation not yet done, and the inference flag."""
    lazily = ", its values are only conjugated or negated when read"
    flags = (
        ("conjugate bit", torch.is_conj),
        ("negative bit", torch.is_neg),
        ("inference flag", torch.is_inference),
    )
    return "; ".join(
        f"the result {'has a' if look(actual) else 'lacks the'} {name}"
        + (lazily if look(actual) and "bit" in name else "")
        for name, look in flags
        if look(actual) != look(expected)
    )


def describe_repetition(first: Any, second: Any, op: str) -> str:
    """How two answers to the same call differ; text of the second is what is wrong with it."""
    if isinstance(second, str):
        return second
    if isinstance(second, Outcome):
        kind = type(second.result).__name__
        did = f"raises {_name_error(second.error)}" if second.error else f"returns a {kind}"
        return f"the second call {did}"
    if first.shape != second.shape or first.dtype != second.dtype:
        shown = (f"{tuple(tensor.shape)} {_name(tensor.dtype)}" for tensor in (second, first))
        return f"nondeterministic: the second call gives {' after '.join(shown)}"
    a, b = (wide(tensor.detach().cpu()) for tensor in (first, second))
    unequal = (a != b) & ~(a.isnan() & b.isnan())
    if not unequal.any():
        return "nondeterministic: two runs differ in the sign of zeros or in the bits of NaN"
    most, peak = (largest(z[torch.isfinite(z)]) for z in ((a - b).abs(), a))
    share = f" ({most / peak:.1e} of the largest value)" if peak else ""
    known = op == "stft" and a.is_complex()
    count = int(unequal.sum())
    rows = a.dim() == (3 if op == "stft" else 2)
    where = placing.region(unequal, "stft" if known else "istft", rows=rows)
    return (
        f"nondeterministic: two runs differ by up to {most:.2e}{share} in {count} of {a.numel()} "
        f"values: {where}"
    )


def _fill(text: str, case: Case, expected: Any, actual: Any) -> str:
    return text.format(expected=expected, actual=actual)


#: What is said of an aspect, filled with what the reference gave and what the candidate gave.
TEXTS = {
    "device": "the result is on {actual.device} where the reference's is on {expected.device}",
    "layout": "the result is of layout {actual.layout} where the reference gives {expected.layout}",
    "writability": "the result is read-only or not its own: {actual}",
    "state": "the call changes what is not its own: {actual}",
    "arguments": "the candidate modifies its arguments: {actual}",
}
SHARED = "the result shares memory with a previous result, so writing to one changes the other"
CUT_OFF = (
    "requires_grad is lost: the result is cut off from the graph, and no gradient reaches the "
    "arguments"
)
NEEDLESS = "the result requires a gradient, although no argument does, or gradients are disabled"
#: A sentence for an aspect: of the case, what the reference gave and what the candidate gave.
SENTENCES: dict[str, Callable[[Case, Any, Any], str]] = {
    **{aspect: partial(_fill, text) for aspect, text in TEXTS.items()},
    "exception": lambda _, expected, actual: describe_exceptions(expected, actual),
    "warnings": lambda _, expected, actual: describe_warnings(expected, actual),
    "warning line": lambda _, expected, actual: describe_lines(expected, actual),
    "type": lambda _, expected, actual: describe_type(expected, actual),
    "bits": lambda _, expected, actual: describe_bits(expected, actual),
    "requires_grad": lambda _, expected, actual: CUT_OFF if expected.requires_grad else NEEDLESS,
    "aliasing": lambda _, expected, actual: (
        f"aliasing: {actual if isinstance(actual, str) else SHARED}"
    ),
    "repeatability": lambda case, expected, actual: describe_repetition(expected, actual, case.op),
    "changed before backward": describe_change,
    "strides": lambda case, expected, actual: describe_strides(
        case, expected, actual, gradient=case.use == "vmap of gradients"
    ),
    "gradient strides": partial(describe_strides, gradient=True),
}
