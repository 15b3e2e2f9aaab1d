"""A failing case is made as small as what it shows allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_calls import istft_case, stft_case

from stft_parity import Candidate, Judge, Result, minimise
from stft_parity.cases import Case
from stft_parity.cases.choices import complete_choice, plain
from stft_parity.cases.draws import draws
from stft_parity.cases.making import make_call
from stft_parity.cases.models import models


def case(op: str, **values: str) -> Case:
    found = make_call(op, complete_choice(op, plain(op), {key.replace("_of_", " "): value
                 for key, value in values.items()}))  # fmt: skip
    assert found is not None
    return found


def loud_when_normalized(*args: Any, **kwargs: Any) -> torch.Tensor:
    """Wrong for normalized spectra alone."""
    return torch.stft(*args, **kwargs) * (1.01 if kwargs.get("normalized") else 1.0)


def contiguous_when_odd(signal: torch.Tensor, n_fft: int, *args: Any, **kwargs: Any) -> Any:
    result = torch.stft(signal, n_fft, *args, **kwargs)
    return result.contiguous() if n_fft % 2 and n_fft > 4 else result


def wrong_beyond_the_frames(*args: Any, **kwargs: Any) -> torch.Tensor:
    """Does not warn of a length that is beyond the frames."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The length of signal is shorter")
        return torch.istft(*args, **kwargs)


def minimised(of: Case, candidate: Candidate) -> tuple[Result, Result]:
    judge = Judge(candidate, diagnosed=0)
    before = judge(of)
    assert before.verdict == "differs"
    after = minimise(before, judge)
    assert after.verdict == "differs"
    assert after.differences[0].aspect == before.differences[0].aspect
    return before, after


def test_arguments_that_do_not_matter_go() -> None:
    busy = case(
        "stft", n_fft="100", hop="n_fft/3+1", window="signed", window_of_layout="strided",
        normalized="True", pad_mode="circular", rows="5", layout="every second", passed="some by "
        "position", samples="many frames", integers="numpy.int64", win_length="n_fft/2",
    )  # fmt: skip
    _, small = minimised(busy, Candidate(loud_when_normalized, None, "loud"))
    names = {name for name, _ in small.case.arguments}
    assert names <= {"input", "n_fft", "hop_length", "window", "return_complex", "normalized"}
    assert dict(small.case.arguments)["n_fft"] == "1"
    assert small.case.label("rows") == "no batch"
    assert small.case.label("layout") == "contiguous"
    assert small.case.positional == 0


def test_sizes_shrink_as_far_as_they_may() -> None:
    before, small = minimised(
        case("stft", n_fft="509", rows="5", samples="many frames"),
        Candidate(contiguous_when_odd, None, "contiguous"),
    )
    assert small.case.label("n_fft") == "5"
    assert small.differences[0].aspect == "strides"
    assert small.case.tensors()["x"].numel() <= 4 < before.case.tensors()["x"].numel()


def test_what_shows_it_stays() -> None:
    _, small = minimised(
        case("istft", length="too long", frames="many", rows="3", signal="of a sine"),
        Candidate(None, wrong_beyond_the_frames, "silent"),
    )
    assert small.case.label("length") == "too long"
    assert small.case.label("signal") == "noise"
    assert small.differences[0].aspect == "warnings"


@pytest.mark.parametrize("index", range(3))
def test_drawn_cases_shrink_by_their_values_too(index: int) -> None:
    found = [
        c for c in draws(3, 400)
        if c.op == "stft" and not c.fault and int(c.label("n_fft")) % 2
        and int(c.label("n_fft")) > 30 and c.label("rows") in ("2", "3", "5")
    ]  # fmt: skip
    judge = Judge(Candidate(contiguous_when_odd, None, "contiguous"), diagnosed=0)
    failing = [c for c in found if judge(c).verdict == "differs"]
    small = minimise(judge(failing[index]), judge)
    assert small.case.label("n_fft") == "5"


@pytest.mark.parametrize(
    "of",
    [
        stft_case(normalized="True", pad_mode="'constant'", onesided="True"),
        replace(stft_case(normalized="True"), positional=9, differentiate=("x", "w")),
        next(c for c in models() if c.label("model") == "DeepFilterNet" and c.op == "stft"),
    ],
    ids=["by hand", "differentiated", "of a model"],
)
def test_cases_without_a_choice_lose_arguments_and_samples(of: Case) -> None:
    _, small = minimised(of, Candidate(loud_when_normalized, None, "loud"))
    names = {name for name, _ in small.case.arguments}
    assert "normalized" in names
    assert not names & {"pad_mode", "onesided", "window"}
    assert small.case.differentiate == ()
    assert small.case.positional == 0
    assert small.case.tensors()["x"].numel() < of.tensors()["x"].numel()


def test_a_case_that_passes_is_left_alone() -> None:
    judge = Judge(Candidate(torch.stft, torch.istft, "torch"))
    passed = judge(istft_case())
    assert passed.verdict == "pass"
    assert minimise(passed, judge) is passed
