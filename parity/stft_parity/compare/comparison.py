"""Whether a candidate's answer to a call can be told from the reference's.

Everything that a program can see is compared: exception, warnings, layout, values against the same
call in double precision, gradients, a second call, writing to the result, and what became of the
arguments. All differences are collected, not only the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from stft_parity.adapting import Function, takes_arrays
from stft_parity.candidates import FellBack, Unsupported
from stft_parity.cases import Case, Tensors
from stft_parity.compare.aftermath import LATER, alter_values
from stft_parity.compare.gradients import Wrong, compare_changed, compare_gradients
from stft_parity.compare.measuring import measure
from stft_parity.compare.observing import (
    Outcome,
    Snapshot,
    error_text,
    find_strides,
    find_written,
    observe,
    overlap,
    readable,
    same_bits,
    snapshot,
)
from stft_parity.compare.views import compare_views
from stft_parity.results import EXCEPTIONS, Difference, sort_differences

#: Names a difference's cause in one sentence: aspect, case, its tensors, what the reference gave,
#: what the candidate gave, the reference. For values and layout these are the results, for
#: exceptions and warnings the outcomes, for gradients the gradients, for repeatability and
#: aliasing two results of the candidate, else text.
Diagnose = Callable[[str, Case, Tensors, Any, Any, Function], str]


#: Below so many times the reference's own error, an error may be one of rounding: half precision
#: has 8192 times the rounding of single.
ROUNDED = 1e5


@dataclass
class Comparison:
    """What comparing one case found; ``compare_case`` fills it.

    Attributes:
        expected: what the reference did; of results that were compared nothing is left.
        actual: what the candidate did, the first time; likewise.
        differences: in the order of their aspects.
        error: the candidate's largest error in units of the reference's own; None where no values
            were compared.
        refused: why the candidate does not offer the call, or who else would compute it.
    """

    expected: Outcome
    actual: Outcome
    differences: tuple[Difference, ...] = ()
    error: float | None = None
    refused: Unsupported | FellBack | None = None


@dataclass
class _Findings:
    """Differences as they are found."""

    case: Case
    tensors: Tensors
    reference: Function
    diagnose: Diagnose | None
    differences: list[Difference] = field(default_factory=list)

    def add(
        self, aspect: str, what: str, expected: Any, actual: Any, *, kind: str = "", note: str = ""
    ) -> None:
        """Note a difference; ``what`` is said of it where nothing names its cause.

        ``note`` is added to what is said.
        """
        said = what
        if self.diagnose is not None:
            said = self.diagnose(aspect, self.case, self.tensors, expected, actual, self.reference)
        said = (said or what) + note
        if self.case.how.phrase:
            said = f"{self.case.how.phrase}: {said}"
        shown = _SHOWN.get(aspect, _show)
        self.differences.append(Difference(aspect, said, shown(expected), shown(actual), kind))

    def add_wrong(self, found: list[Wrong]) -> None:
        """Note differences that somebody else has found."""
        for wrong in found:
            self.add(wrong.aspect, wrong.what, wrong.expected, wrong.actual)


def compare_case(
    case: Case,
    candidate: Function,
    reference: Function,
    *,
    device: str = "cpu",
    gradients: bool = True,
    diagnose: Diagnose | None = None,
) -> Comparison:
    """Make the call with both and compare all that a program can see of it.

    Args:
        case: the call.
        candidate: takes torch's arguments.
        reference: torch's own function.
        device: where the call's tensors are.
        gradients: whether to compare gradients in the tensors that require one.
        diagnose: names the cause of a difference; without it the differences are only stated.
    """
    of_arrays = takes_arrays(candidate)
    if of_arrays and not case.how.arrays:
        refused = Unsupported(f"{case.use}: arrays have no such use")
        return Comparison(Outcome(None, None, ()), Outcome(None, refused, ()), refused=refused)
    candidate, reference = case.used(candidate), case.used(reference)
    tensors = case.tensors(device)
    args, kwargs = case.bind(tensors, device)
    expected = observe(reference, args, kwargs)
    before = snapshot(tensors)
    actual = observe(candidate, args, kwargs)
    found = Comparison(expected, actual)
    if isinstance(actual.error, (Unsupported, FellBack)):
        found.refused = actual.error
        return found
    findings = _Findings(case, tensors, reference, diagnose)
    _compare_arguments(findings, before, "the call has written to its argument")
    if expected.error is not None or actual.error is not None:
        _compare_errors(findings, expected, actual)
    # Where one call broke off, the warnings that are missing say nothing more.
    if (expected.error is None) == (actual.error is None):
        if actual.warned != expected.warned:
            findings.add("warnings", "warnings differ", expected, actual)
        elif actual.lines != expected.lines:
            findings.add("warning line", "warnings name other lines", expected, actual)
    if expected.error is None and actual.error is None:
        _compare_layout(findings, expected, actual)
        if readable(actual.result):
            found.error = _compare_results(findings, expected, actual, gradients)
            again = observe(candidate, args, kwargs)
            _compare_again(findings, before, expected, actual, again)
            if gradients and case.how.changed and expected.result.requires_grad:
                findings.add_wrong(compare_changed(case, candidate, reference, device))
            if case.seed % LATER == 0 and case.use == "plain":
                _compare_later(findings, actual, again, partial(candidate, *args, **kwargs),
                               partial(reference, *args, **kwargs))  # fmt: skip
            if not (of_arrays or case.how.vmapped):
                findings.add_wrong(compare_views(expected.result, actual.result))
    if actual.changed != expected.changed:
        what = ", ".join(actual.changed) or "nothing"
        findings.add("state", f"the call changes {what}", ", ".join(expected.changed), what)
    found.differences = sort_differences(findings.differences)
    return found


def _compare_errors(findings: _Findings, expected: Outcome, actual: Outcome) -> None:
    """The same type of exception and the same text, or none on both sides."""
    wanted, got = (
        None if e is None else (type(e), error_text(e)) for e in (expected.error, actual.error)
    )
    kind = "error texts"
    if wanted is None or got is None:
        kind = "refusals" if wanted is None else "missing errors"
    elif wanted[0] is not got[0]:
        kind = "error types"
    if wanted != got:
        findings.add("exception", EXCEPTIONS[kind], expected, actual, kind=kind)


_LAYOUT: tuple[tuple[str, str, Callable[[torch.Tensor], Any]], ...] = (
    ("shape", "shapes", lambda tensor: tuple(tensor.shape)),
    ("dtype", "dtypes", lambda tensor: tensor.dtype),
    ("device", "devices", lambda tensor: tensor.device),
    ("strides", "strides", lambda tensor: tensor.stride()),
    ("requires_grad", "requires_grad", lambda tensor: tensor.requires_grad),
    ("bits", "conjugate bits", torch.is_conj),
    ("bits", "negative bits", torch.is_neg),
    ("bits", "inference flags", torch.is_inference),
)


def _compare_layout(findings: _Findings, expected: Outcome, actual: Outcome) -> None:
    wanted, got = expected.result, actual.result
    if type(got) is not type(wanted):
        findings.add("type", "types differ", wanted, got)
        return
    if got.layout != wanted.layout or got.is_nested:
        findings.add("layout", "memory layouts differ", wanted, got)
        return
    for aspect, name, look in _LAYOUT:
        # Other shapes have other strides, of which nothing more is to be said.
        told = aspect == "strides" and wanted.shape != got.shape
        seen = find_strides if aspect == "strides" and findings.case.how.vmapped else look
        if not told and seen(wanted) != seen(got):
            findings.add(aspect, f"{name} differ", wanted, got)


def _compare_results(
    findings: _Findings, expected: Outcome, actual: Outcome, gradients: bool
) -> float | None:
    """Compare values and gradients; the error in units of the reference's own."""
    case, tensors, reference = findings.case, findings.tensors, findings.reference
    wanted, got = expected.result, actual.result
    # Of results that cannot be laid one upon the other, only the layout is told.
    if wanted.shape != got.shape or wanted.is_complex() != got.is_complex():
        return None
    measured = measure(case, tensors, wanted, got, reference)
    if not measured.admitted:
        units = measured.in_units
        note = f"; its error is {units:.3g} times the reference's own" if units < ROUNDED else ""
        findings.add("values", measured.complaint(), wanted, got, note=note)
    if case.differentiate and gradients and wanted.requires_grad and got.requires_grad:
        findings.add_wrong(compare_gradients(case, tensors, wanted, got, reference))
    return measured.in_units


def _compare_again(
    findings: _Findings, before: Snapshot, expected: Outcome, actual: Outcome, again: Outcome
) -> None:
    """The same call once more: the same bits, warnings of its own, memory of its own."""
    if again.error is not None or not readable(again.result):
        findings.add("repeatability", f"the second call raised {again.error!r}", actual, again)
        return
    if actual.warned == expected.warned != again.warned:
        findings.add("warnings", "warnings differ the second time", expected, again)
    first, second = actual.result, again.result
    if not same_bits(first, second):
        what = "a second call gives other values than the first"
        findings.add("repeatability", what, first, second)
    _compare_ownership(findings, before, expected.result, first, second)


def _compare_ownership(
    findings: _Findings,
    before: Snapshot,
    expected: torch.Tensor,
    result: torch.Tensor,
    other: torch.Tensor,
) -> None:
    """Writing to a result works and reaches neither the arguments nor another result."""
    tensors = findings.tensors
    for name in before:
        if overlap(result, tensors[name]) and not overlap(expected, tensors[name]):
            what = f"the result shares memory with its argument {name}"
            findings.add("aliasing", what, "memory of its own", what)
    if overlap(result, other):
        what = "writing to one result changes another: they share memory"
        findings.add("aliasing", what, result, other)
    wanted, got = _write_in_place(expected), _write_in_place(result)
    if wanted != got:
        findings.add("writability", f"the result cannot be written to: {got}", wanted, got)
    if not any(found.aspect == "arguments" for found in findings.differences):
        _compare_arguments(findings, before, "writing to the result has written to its argument")


def _compare_later(
    findings: _Findings, first: Outcome, second: Outcome, candidate: Function, reference: Function
) -> None:
    """A call without gradients on other values in the same memory, and what it does to results."""
    earlier = [outcome.result for outcome in (first, second) if readable(outcome.result)]
    copies = [result.detach().clone() for result in earlier]
    if not alter_values(findings.tensors):
        return
    with torch.no_grad():
        expected, actual = observe(reference, (), {}), observe(candidate, (), {})
    what = _wrong_later(findings, expected, actual)
    if what:
        findings.add("repeatability", what, "the reference's values", what)
    if not all(map(same_bits, earlier, copies)):
        what = "a later call writes to the result of an earlier one"
        findings.add("aliasing", what, "results of their own", what)


def _wrong_later(findings: _Findings, expected: Outcome, actual: Outcome) -> str:
    """What is wrong with a call on other values, where the first one was told apart by nothing."""
    wanted, got = expected.result, actual.result
    if expected.error is not None or findings.differences:
        return ""
    after = "after its arguments are changed in place"
    if actual.error is not None or not readable(got):
        return f"{after} the call fails: {actual.error!r}"
    if got.requires_grad:
        return "the result requires a gradient under torch.no_grad()"
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return f"{after} the call gives another shape or dtype"
    said = f"{after} the call gives wrong values, as if it had kept something of the first call"
    measured = measure(findings.case, findings.tensors, wanted, got, findings.reference)
    return "" if measured.admitted else said


def _write_in_place(result: torch.Tensor) -> str:
    """What multiplying a result in place does; it should be what it does to a copy."""
    half = result.detach().clone().mul_(0.5)
    try:
        result.mul_(0.5)
    except RuntimeError as error:
        return error_text(error)
    return "it works" if same_bits(result, half) else "it gives other values than in a copy"


def _compare_arguments(findings: _Findings, before: Snapshot, what: str) -> None:
    names = find_written(before, findings.tensors)
    if names:
        told = f"{what} {', '.join(names)}"
        findings.add("arguments", told, "arguments as they were", told)


_SHOWN: dict[str, Callable[[Any], str]] = {
    "warnings": lambda outcome: "; ".join(map(": ".join, outcome.warned)) or "no warning",
    "warning line": lambda outcome: "; ".join(outcome.lines),
}


def _show(value: Any) -> str:
    """A value in one line: of a tensor what can be told in a line."""
    if isinstance(value, Outcome):
        if value.error is not None:
            return f"{type(value.error).__name__}: {error_text(value.error)}"
        return _show(value.result)
    if isinstance(value, torch.Tensor) and not readable(value):
        with torch._C.DisableTorchFunctionSubclass():
            return f"{type(value).__name__}, {value.layout}, {value.dtype}, {value.device}"
    if isinstance(value, torch.Tensor):
        flags = {
            "requires_grad": value.requires_grad,
            "conjugate bit": value.is_conj(),
            "negative bit": value.is_neg(),
            "inference tensor": value.is_inference(),
            str(value.device): value.device.type != "cpu",
        }
        shown = ", ".join([str(value.dtype), *(name for name, given in flags.items() if given)])
        shape, strides = tuple(value.shape), value.stride()
        return f"{type(value).__name__} {shape}, strides {strides}, {shown}"
    return value if isinstance(value, str) else repr(value)
