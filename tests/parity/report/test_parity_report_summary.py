from __future__ import annotations

import io

import pytest
from reports import AWKWARD, mixed, report, result, well
from rich.console import Console

from stft_parity import Report
from stft_parity.report.summary import print_summary


def printed(made: Report, width: int = 200, **options: object) -> str:
    out = io.StringIO()
    print_summary(made, Console(file=out, width=width), **options)  # type: ignore[arg-type]
    return out.getvalue()


def test_counts_table_causes_reproducers_and_problems_are_printed() -> None:
    text = printed(mixed())
    assert "NOT as the reference; 28 cases in 2.5 s" in text
    assert "20 pass, 1 known, 1 unsupported, 4 differs, 1 raised, 1 fell back" in text
    assert "unsupported, 1 case: pad_mode='circular'" in text
    assert "known, 1 case: contiguous is enough" in text
    assert "computed by blocks: 20 cases" in text
    assert "no values differs any more" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["replicate", "4", "differs"] in rows
    assert ["(2", "more)"] in rows  # no more of their cases fail than of others
    first = mixed().results[20]
    for line in first.case.reproducer().splitlines():
        assert f"    {line}\n" in text


def test_text_of_candidates_is_no_markup() -> None:
    assert "[bold]&" in printed(mixed())
    # Nor does it get at the terminal.
    assert AWKWARD.replace("\0", "\ufffd").replace("\x1b", "\ufffd") in printed(mixed())


def test_a_good_run_is_short() -> None:
    text = printed(well())
    assert "as the reference; 59 cases" in text
    assert "NOT" not in text
    assert "cases fail no more than others with any value of n_fft, rows" in text
    assert "to reproduce" not in text


def test_a_run_without_cases_does_not_claim_anything() -> None:
    assert "nothing was compared" in printed(report())
    assert "nothing was compared" in printed(report(result("unsupported")))


def test_what_is_left_out_is_said() -> None:
    found = [result("differs", diagnosis=f"cause {chr(97 + n)}", seed=n) for n in range(5)]
    text = printed(report(*found), groups=2)
    assert "3 more kinds of failing cases" in text
    assert "cause b" in text
    assert "cause c" not in text


def test_the_smallest_case_is_printed_in_place_of_the_first() -> None:
    first, small = result("differs", seed=111), result("differs", seed=222)
    text = printed(report(first), smaller={first.case: small})
    assert "manual_seed(222)" in text
    assert "manual_seed(111)" not in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_counts_by_argument_are_readable_in_every_terminal(width: int) -> None:
    told = printed(mixed(), width).partition("By argument")[2]
    lines = told.partition("unsupported, 1 case")[0].splitlines()
    assert max(map(len, lines)) <= width
    words = {word.strip(":,") for line in lines for word in line.split()}
    assert words >= {"pad_mode", "replicate", "circular", "n_fft", "differs", "unsupported"}
    numbers = [line for line in lines if "replicate" in line]
    assert len(numbers) == 1
    assert "4" in numbers[0]
