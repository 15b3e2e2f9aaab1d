"""What is wrong with a call besides values: a sentence for each of the other aspects."""

from __future__ import annotations

import traceback
from collections import Counter
from typing import Any

import torch

from stft_parity.cases import Case
from stft_parity.compare.observing import Outcome, error_text, readable
from stft_parity.diagnose import placing
from stft_parity.diagnose.model import wide

#: Characters of a quoted text: so many of its beginning and of its end. torch's messages begin
#: with the call and end with what is wrong with it.
QUOTED = (120, 160)


def quote(text: str) -> str:
    """A text in quotes, in one line, cut where it is long."""
    line = " ".join(text.split())
    front, back = QUOTED
    return f'"{line}"' if len(line) <= front + back else f'"{line[:front]} ... {line[-back:]}"'


def _kind(error: Exception) -> str:
    return type(error).__name__


def of_exceptions(expected: Outcome, actual: Outcome) -> str:
    """Another exception, or one on one side only."""
    wanted, got = expected.error, actual.error
    if wanted is not None and got is None:
        return (
            f"the exception is swallowed: the candidate accepts what the reference rejects with "
            f"{_kind(wanted)} {quote(error_text(wanted))}"
        )
    if got is not None and wanted is None:
        frames = traceback.extract_tb(got.__traceback__)
        where = f", raised in {frames[-1].name}" if frames else ""
        return (
            f"the candidate rejects what the reference accepts: {_kind(got)} "
            f"{quote(error_text(got))}{where}"
        )
    if wanted is None or got is None:
        return ""
    if type(wanted) is not type(got):
        same = error_text(wanted) == error_text(got)
        text = "the same text" if same else f"the text {quote(error_text(got))}"
        kinds = f"{_kind(got)} instead of {_kind(wanted)}"
        return f"the exception is of another type: {kinds}, with {text}"
    return (
        f"the exception has another text: {quote(error_text(got))} instead of "
        f"{quote(error_text(wanted))}"
    )


def of_warnings(expected: Outcome, actual: Outcome) -> str:
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


def of_lines(expected: Outcome, actual: Outcome) -> str:
    """Warnings that name another line than the reference's do."""
    for (category, text), wanted, got in zip(
        actual.warned, expected.lines, actual.lines, strict=True
    ):
        if wanted != got:
            said = f"the warning names {got} where the reference's names {wanted}"
            return f"{said}: {category} {quote(text)}"
    return ""


def of_backward(expected: Any, actual: Any) -> str:
    """Backward raises, or accepts what the reference's does not."""
    if isinstance(actual, Exception):
        return f"backward raises {_kind(actual)} {quote(error_text(actual))}"
    text = quote(error_text(expected))
    return f"backward accepts what the reference's rejects with {_kind(expected)} {text}"


def of_change(case: Case, expected: Any, actual: Any) -> str:
    """What backward makes of an argument that was changed in place after the call."""
    argument = {"x": "input", "w": "window"}.get(case.how.changed, "argument")
    said = f"after the {argument} is changed in place, "
    if isinstance(expected, Exception) or isinstance(actual, Exception):
        return said + of_backward(expected, actual)
    return f"{said}the gradient is another one than the reference's"


def of_strides(
    case: Case, expected: torch.Tensor, actual: torch.Tensor, *, gradient: bool = False
) -> str:
    """What another order in memory means, of a result or of a gradient in its input."""
    spectrum = (case.op == "stft") != gradient
    pairs = case.op == "stft" and not gradient and not expected.is_complex()
    axes = ["bin", "frame"] if spectrum and expected.dim() > 1 else ["sample"]
    names = [*axes, *["part"] * pairs]
    names = [*["row"] * (expected.dim() - len(names)), *names]
    wanted, got = (_order(tensor, names) for tensor in (expected, actual))
    whose = "the gradient's strides" if gradient else "the strides"
    said = f"{whose} are {actual.stride()} where the reference's are {expected.stride()}"
    if wanted != got and actual.is_contiguous():
        it = "it" if gradient else "the result"
        return (
            f"{said}: {it} is contiguous: {_words(got)} lie in memory where the reference's "
            f"{_words(wanted)} do"
        )
    if wanted != got:
        return f"{said}: {_words(got)} lie in memory where the reference has {_words(wanted)}"
    if 0 in actual.stride():
        return f"{said}: the result is expanded, its elements share memory"
    return f"{said}: the order is right, but there are gaps between the elements, or none"


def _order(tensor: torch.Tensor, names: list[str]) -> list[str]:
    """Names of the axes, slowest in memory first; those of one element are left out."""
    axes = [dim for dim in range(tensor.dim()) if tensor.shape[dim] > 1]
    strides = tensor.stride()
    axes.sort(key=lambda dim: (-strides[dim], dim))
    return [names[dim] for dim in axes]


def _words(order: list[str]) -> str:
    return "(" + ", ".join(f"{name}s" for name in order) + ")"


def of_dtype(expected: torch.Tensor, actual: torch.Tensor, right: bool) -> str:
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


def of_type(expected: Any, actual: Any) -> str:
    """Another class of result."""
    if actual is None:
        return "the candidate returns nothing (None)"
    if isinstance(actual, torch.Tensor):
        return (
            f"the result is a {type(actual).__name__}, a subclass, where the reference gives a "
            f"{type(expected).__name__}"
        )
    module = type(actual).__module__.partition(".")[0]
    return f"the result is no tensor, but a {type(actual).__name__} of {module}"


def of_device(expected: torch.Tensor, actual: torch.Tensor) -> str:
    """A result that is not where the input is."""
    return f"the result is on {actual.device} where the reference's is on {expected.device}"


def of_layout(expected: torch.Tensor, actual: torch.Tensor) -> str:
    """A sparse result, say."""
    return f"the result is of layout {actual.layout} where the reference gives {expected.layout}"


def of_requires_grad(expected: torch.Tensor, actual: torch.Tensor) -> str:
    """A graph on one side only."""
    if expected.requires_grad:
        return (
            "requires_grad is lost: the result is cut off from the graph, and no gradient reaches "
            "the arguments"
        )
    return "the result requires a gradient, although no argument does, or gradients are disabled"


def of_bits(expected: torch.Tensor, actual: torch.Tensor) -> str:
    """Bits that stand for an operation not yet done, and the inference flag."""
    said = []
    for name, look in (
        ("conjugate bit", torch.is_conj),
        ("negative bit", torch.is_neg),
        ("inference flag", torch.is_inference),
    ):
        if look(actual) != look(expected):
            has, word = look(actual), "has a" if look(actual) else "lacks the"
            lazily = ", its values are only conjugated or negated when read" if has else ""
            said.append(f"the result {word} {name}{lazily if 'bit' in name else ''}")
    return "; ".join(said)


def of_repetition(first: Any, second: Any, op: str) -> str:
    """How two answers to the same call differ; text of the second is what is wrong with it."""
    if isinstance(second, str):
        return second
    if isinstance(second, Outcome):
        if second.error is None:
            return f"the second call returns a {type(second.result).__name__}"
        error = second.error
        return f"the second call raises {_kind(error)} {quote(error_text(error))}"
    if first.shape != second.shape or first.dtype != second.dtype:
        return (
            f"nondeterministic: the second call gives {tuple(second.shape)} {_name(second.dtype)} "
            f"after {tuple(first.shape)} {_name(first.dtype)}"
        )
    a, b = (wide(tensor.detach().cpu()) for tensor in (first, second))
    unequal = (a != b) & ~(a.isnan() & b.isnan())
    if not unequal.any():
        return "nondeterministic: two runs differ in the sign of zeros or in the bits of NaN"
    size = (a - b).abs()
    size = size[torch.isfinite(size)]
    finite = a[torch.isfinite(a)].abs()
    peak = float(finite.max()) if finite.numel() else 0.0
    most = float(size.max()) if size.numel() else 0.0
    share = f" ({most / peak:.1e} of the largest value)" if peak else ""
    known = op == "stft" and a.is_complex()
    count = int(unequal.sum())
    rows = a.dim() == (3 if op == "stft" else 2)
    where = placing.region(unequal, "stft" if known else "istft", rows=rows)
    return (
        f"nondeterministic: two runs differ by up to {most:.2e}{share} in {count} of {a.numel()} "
        f"values: {where}"
    )


def of_aliasing(expected: Any, actual: Any) -> str:
    """Memory that is shared where it should not be."""
    if isinstance(actual, str):
        return f"aliasing: {actual}"
    return (
        "aliasing: the result shares memory with a previous result, so writing to one changes the "
        "other"
    )


def of_writing(expected: Any, actual: Any) -> str:
    """Writing to the result in place does something else."""
    return f"the result is read-only or not its own: {actual}"


def of_state(expected: Any, actual: Any) -> str:
    """State of the program that a call has changed."""
    return f"the call changes what is not its own: {actual}"


def of_arguments(actual: Any) -> str:
    """Arguments that are not as they were."""
    return f"the candidate modifies its arguments: {actual}"
