"""The list of known differences: what it covers, and that it is strict."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stft_parity import Candidate, Known, Misstated, run
from stft_parity.cases import Case
from stft_parity.cases.choices import complete_choice, plain
from stft_parity.cases.making import make_call
from stft_parity.known import apply_entries, problems, read
from stft_parity.results import Difference, Result
from torch_mlx_spectro.doctor.candidates import KNOWN_DIFFERENCES, list_known_differences

ENTRY = Known((("op", ("stft",)), ("n_fft", ("16", "15"))), ("strides",), "contiguous is enough")


def case(op: str = "stft", **values: str) -> Case:
    found = make_call(op, complete_choice(op, plain(op), values))
    assert found is not None
    return found


def result(of: Case, *aspects: str, verdict: str = "differs", diagnosis: str = "wrong") -> Result:
    found = tuple(Difference(aspect, diagnosis, "this", "that") for aspect in aspects)
    return Result(of, verdict, True, found)


def test_what_is_known_is_no_failure() -> None:
    known = apply_entries(result(case(), "strides"), [ENTRY])
    assert (known.verdict, known.reason) == ("known", "contiguous is enough")
    assert [difference.aspect for difference in known.differences] == ["strides"]


@pytest.mark.parametrize(
    "found",
    [
        result(case(), "strides", "values"),
        result(case(), "values"),
        result(case("istft"), "strides"),
        result(case(n_fft="31"), "strides"),
        result(case(), verdict="differs"),
    ],
)
def test_what_is_not_known_stays_a_failure(found: Result) -> None:
    assert apply_entries(found, [ENTRY]) is found


def test_several_entries_cover_together() -> None:
    other = Known((), ("values",), "it is only half as loud", "half")
    both = result(case(), "strides", "values")
    assert apply_entries(both, [ENTRY, other]).verdict == "differs"
    said = Result(both.case, "differs", True, (*both.differences[:1],
                  Difference("values", "scaled by half", "1", "0.5")))  # fmt: skip
    known = apply_entries(said, [ENTRY, other])
    assert (known.verdict, known.reason) == (
        "known",
        "contiguous is enough; it is only half as loud",
    )


def test_a_pass_stays_one() -> None:
    passed = result(case(), verdict="pass")
    assert apply_entries(passed, [ENTRY]) is passed


VOCABULARY = {"op": {"stft", "istft"}, "n_fft": {"15", "16", "31"}}


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (Known((("n_fft", ("17",)),), ("strides",), "why"), "there is no n_fft=17"),
        (Known((("nfft", ("16",)),), ("strides",), "why"), "there is no nfft=16"),
        (Known((), ("strides", "values"), "why"), "no values differs any more"),
        (Known((), ("strides",), "why", "half"), "no strides differs any more"),
    ],
)
def test_an_entry_that_says_nothing_is_a_problem(entry: Known, complaint: str) -> None:
    (found,) = problems([entry], [result(case(), "strides")], VOCABULARY)
    assert found.endswith(complaint)
    assert found.startswith("known difference ")


def test_an_entry_about_cases_that_were_not_run_is_none() -> None:
    elsewhere = Known((("op", ("istft",)),), ("strides",), "why")
    assert problems([elsewhere, ENTRY], [result(case(), "strides")], VOCABULARY) == ()


def written(folder: Path, text: str) -> Path:
    path = folder / "known.toml"
    path.write_text(text)
    return path


def test_a_list_is_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "[[difference]]\n"
        'where = { op = "stft", n_fft = ["16", "15"] }\n'
        'aspects = ["strides"]\n'
        'reason = "contiguous is enough"\n',
    )
    assert read(path) == read(str(path)) == (ENTRY,)
    assert read([ENTRY]) == (ENTRY,)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[difference]]\naspects = ["strides"]\n', "entry 1: there is no reason"),
        ('[[difference]]\naspects = ["strides"]\nreason = " "\n', "there is no reason"),
        ('[[difference]]\nreason = "why"\n', "aspects are one or more of exception, warnings"),
        ('[[difference]]\naspects = ["looks"]\nreason = "why"\n', "aspects are one or more of"),
        ('[[difference]]\naspect = "strides"\nreason = "why"\n', "unknown field aspect"),
        ('[[known]]\nreason = "why"\n', "only .*difference.* is known, not known"),
        ("[[difference", "known.toml: "),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(Misstated, match=complaint):
        read(written(tmp_path, text))


def test_the_list_of_the_package_is_one() -> None:
    assert {entry.aspects for entry in read(KNOWN_DIFFERENCES)} == {("route",)}


def contiguous(*args: object, **kwargs: object) -> torch.Tensor:
    return torch.stft(*args, **kwargs).contiguous()  # type: ignore[arg-type]


def test_a_run_with_a_list_is_well_and_strict() -> None:
    some = [case(), case(n_fft="15"), case("istft"), case(rows="no batch")]
    candidate = Candidate(contiguous, torch.istft, "contiguous")
    assert run(candidate=candidate, cases=some).counts()["differs"] == 3
    report = run(candidate=candidate, cases=some, known=[ENTRY])
    assert report.ok
    assert report.counts() == {"pass": 1, "known": 3, "unsupported": 0, "differs": 0,
                               "raised": 0, "fell back": 0}  # fmt: skip
    report = run(torch.stft, torch.istft, cases=some, known=[ENTRY])
    assert report.counts()["pass"] == 4
    assert not report.ok
    assert report.problems == (
        "known difference strides where op=stft, n_fft=16|15: no strides differs any more",
    )


def test_a_backend_that_computes_doubles_may_not_leave_them_to_torch() -> None:
    fell_back = Difference(
        "route", "dtype torch.float64 of input is not accelerated", "us", "torch"
    )
    doubled = Result(case(dtype="float64"), "fell back", True, (fell_back,))
    assert apply_entries(doubled, list_known_differences("mlx")).verdict == "known"
    assert apply_entries(doubled, list_known_differences("cpu")) is doubled
    half = Result(case(dtype="float16"), "fell back", True, (fell_back,))
    assert apply_entries(half, list_known_differences("cpu")).verdict == "known"
    assert list_known_differences("native") == ()
