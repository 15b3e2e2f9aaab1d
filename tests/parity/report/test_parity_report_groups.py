"""Wrong candidates of which many cases fail: what is said of them, in which order, by aspect."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import faulty_candidates as wrong
import pytest
import torch
from faulty_candidates import Function, after, changed

from stft_parity import Report, Unsupported, run
from stft_parity.candidates import DEFAULTS, bound
from stft_parity.cases.grid import quick
from stft_parity.report import tables

QUICK = [case for case in quick() if case.op == "stft" and case.use == "plain"]
#: Calls of one row of arguments, and some that torch rejects for different reasons.
SMALL = [
    case for case in QUICK
    if not case.fault and case.label("dtype") == "float32"
    and case.label("samples") in ("some frames", "one frame more")
    and case.label("n_fft") in ("15", "16", "31", "64")
]  # fmt: skip
CALLS = [
    case for number, case in enumerate(SMALL)
    if number % 12 == 0 or case.label("pad_mode") == "replicate" or case.label("n_fft") != "16"
    or case.label("normalized") == "True"
]  # fmt: skip
REJECTED = [case for case in QUICK if case.fault][::3]


def where(holds: Callable[[dict[str, Any]], bool], function: Function) -> Function:
    """Native torch, and a wrong function for some calls."""

    def call(*args: Any, **kwargs: Any) -> Any:
        given = DEFAULTS["stft"] | bound("stft", args, kwargs)
        return (function if holds(given) else torch.stft)(*args, **kwargs)

    return call


def scaled(result: torch.Tensor) -> torch.Tensor:
    return result.mul_(1 + result.shape[-2])


def reworded(*args: Any, **kwargs: Any) -> Any:
    try:
        return torch.stft(*args, **kwargs)
    except Exception as error:
        raise type(error)(f"bad call with {len(kwargs)} names") from error


def nothing(*args: Any, **kwargs: Any) -> Any:
    raise Unsupported("nothing is offered")


def doubled_and_contiguous(result: torch.Tensor) -> torch.Tensor:
    return 2 * result.contiguous()


PADDED = where(lambda given: given["pad_mode"] == "replicate", after(torch.Tensor.neg))
USUAL = where(lambda given: given["n_fft"] == 16, after(torch.Tensor.neg))
RARE = where(lambda given: given["normalized"] is True, after(torch.Tensor.neg))


@dataclass(frozen=True)
class Seeded:
    """A wrong candidate, the calls, the exit code, and what is said of all and of a group."""

    name: str
    make: Function
    code: int
    headline: str
    failing: str
    said: str
    cases: tuple[Any, ...] = tuple(CALLS)
    aspects: tuple[str, ...] = ()


SEEDED = [
    Seeded("one padding", PADDED, 1, "wrong in ", "wrong values", "scaled by -1"),
    Seeded("the usual size", USUAL, 1, "wrong in ", "wrong values", "scaled by -1"),
    Seeded("contiguous", after(torch.Tensor.contiguous), 3, "wrong in 0; conventions: ",
           "other conventions", "the result is contiguous"),
    Seeded("another text", reworded, 3, "(error texts ", "other conventions",
           "the exception has another text", tuple(REJECTED)),
    Seeded("another type", wrong.retyping, 3, "(error types ", "other conventions",
           "the exception is of another type: ValueError instead of RuntimeError",
           tuple(REJECTED)),
    Seeded("no exception", where(lambda given: True, wrong.swallowing), 3, "missing errors ",
           "other conventions", "the exception is swallowed", tuple(REJECTED)),
    Seeded("refusing", wrong.refusing, 1, "values: compared in no case; raised in ", "raised",
           "the candidate rejects what the reference accepts: NotImplementedError"),
    Seeded("doubled in other strides", after(doubled_and_contiguous), 1, "; conventions: ",
           "wrong values", "the values are scaled by 2"),
    Seeded("half precision at the end", after(wrong.through_float16), 1, "wrong in ",
           "wrong values", "times the reference's own"),
    Seeded("a factor of the size", after(scaled), 1, "wrong in ", "wrong values", "scaled by "),
    Seeded("only magnitudes", after(torch.abs), 1, ", wrong in ", "wrong values",
           "only the magnitude is there", aspects=("values",)),
    Seeded("a rare fault among strides", where(lambda _: True, lambda *args, **kwargs:
           RARE(*args, **kwargs).contiguous()), 1, "; conventions: ", "wrong values",
           "scaled by -1"),
    Seeded("never centred", changed("stft", lambda _: {"center": False}), 1, "wrong in ",
           "wrong values", "the padding is missing: the signal is not centred",
           aspects=("exception", "shape", "values")),
]  # fmt: skip


def compared(function: Function, cases: Iterable[Any], **options: Any) -> Report:
    return run(function, cases=cases, gradients=False, **options)


@pytest.mark.parametrize("seeded", SEEDED, ids=lambda seeded: seeded.name)
def test_a_fault_is_found_by_its_own_headline(seeded: Seeded) -> None:
    options = {"aspects": seeded.aspects} if seeded.aspects else {}
    report = compared(seeded.make, seeded.cases, **options)
    groups = tables.groups(report)
    assert (report.exit_code, groups[0].failing) == (seeded.code, seeded.failing)
    said = [group.diagnosis for group in groups if group.failing == seeded.failing]
    assert any(seeded.said in diagnosis for diagnosis in said), said
    assert seeded.headline in tables.headline(report)
    if seeded.aspects and "only" not in seeded.name:
        assert {d.aspect for r in report.failures for d in r.differences} <= {*seeded.aspects}


@pytest.mark.parametrize(
    ("candidate", "value"), [(PADDED, "pad_mode=replicate"), (USUAL, "n_fft=16")]
)
def test_the_value_that_separates_is_told(candidate: Function, value: str) -> None:
    report = compared(candidate, CALLS)
    number = len(report.failures)
    assert number > 1
    assert any(
        said.startswith(f"torch.stft: values are wrong in {number} of the ")
        and f" cases with {value}, and in no other" in said
        for said in tables.list_separators(report)
    )


def test_wrong_values_come_before_more_frequent_conventions() -> None:
    report = compared(SEEDED[-2].make, CALLS)
    wrong_values, *others = tables.groups(report)
    assert len(wrong_values.results) < max(len(group.results) for group in others)
    assert {group.failing for group in others} == {"other conventions"}


def test_texts_of_exceptions_are_one_row_and_numbers_are_ranges() -> None:
    texts = tables.groups(compared(reworded, REJECTED))
    assert [len(group.results) for group in texts] == [len(REJECTED)]
    first, *_ = tables.groups(compared(after(scaled), CALLS))
    assert len(first.results) > 1
    assert " to " in first.diagnosis


def test_aspects_that_are_not_asked_for_are_not_told() -> None:
    contiguous = after(torch.Tensor.contiguous)
    assert compared(contiguous, CALLS, aspects=["values", "shape"]).exit_code == 0
    assert compared(contiguous, CALLS, aspects=["strides"]).exit_code == 3
    assert compared(nothing, CALLS, aspects=["strides"]).exit_code == 4
    with pytest.raises(ValueError, match="aspects are one or more of exception"):
        compared(contiguous, CALLS, aspects=["stride"])
