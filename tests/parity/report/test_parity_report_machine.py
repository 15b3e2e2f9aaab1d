from __future__ import annotations

import json
import math

from reports import mixed, report, result

from stft_parity.report.machine import to_json


def test_everything_is_there() -> None:
    made = mixed()
    told = json.loads(to_json(made))
    assert told["ok"] is False
    assert told["schema"] == 2
    assert told["exit_code"] == 1
    assert told["headline"].startswith("values: compared in 26 cases, wrong in 4;")
    assert told["failing"] == {
        "wrong values": 4,
        "raised": 1,
        "fell back": 1,
        "other conventions": 0,
    }
    assert {one["failing"] for one in told["results"]} == {
        "",
        "wrong values",
        "raised",
        "fell back",
    }
    assert told["counts"] == made.counts()
    assert len(told["results"]) == len(made.results)
    assert told["results"][20]["reproducer"].count("\n") == 4
    assert told["minimised"] == []


def test_numbers_that_json_does_not_have_are_text() -> None:
    found = [result(error=value) for value in (math.inf, math.nan, 1.5, None)]
    told = json.loads(to_json(report(*found)), parse_constant=lambda name: 1 / 0)
    assert [one["error"] for one in told["results"]] == ["inf", "nan", 1.5, None]


def test_the_smallest_cases_name_those_they_were_made_of() -> None:
    first, small = result("differs", seed=1), result("differs", seed=2)
    (told,) = json.loads(to_json(report(first), smaller={first.case: small}))["minimised"]
    assert told["of"] == first.case.reproducer()
    assert told["reproducer"] == small.case.reproducer()
