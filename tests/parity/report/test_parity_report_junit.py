from __future__ import annotations

from xml.etree import ElementTree

import pytest
from reports import AWKWARD, mixed, report, result, well

from stft_parity import Report
from stft_parity.report.junit import TOLD, to_junit


def parsed(made: Report, **options: int) -> ElementTree.Element:
    return ElementTree.fromstring(to_junit(made, **options))  # type: ignore[arg-type]


def totals(root: ElementTree.Element) -> dict[str, int]:
    return {key: int(root.get(key, "-1")) for key in ("tests", "failures", "errors", "skipped")}


def test_each_case_is_a_test_of_its_own() -> None:
    root = parsed(mixed())
    assert totals(root) == {"tests": 29, "failures": 6, "errors": 1, "skipped": 1}
    tests = root.findall("*/testcase")
    assert len(tests) == 29
    for tag, number in (("failure", 6), ("error", 1), ("skipped", 1)):
        assert len(root.findall(f".//{tag}")) == number
    names = [(test.get("classname"), test.get("name")) for test in tests]
    assert len(set(names)) == len(names)
    assert float(root.get("time", "0")) == 2.5


def test_a_failure_tells_what_is_wrong_and_how_to_reproduce_it() -> None:
    failures = parsed(mixed()).findall(".//failure")
    told = failures[0].text or ""
    assert failures[0].get("type") == "wrong values"
    assert mixed().results[20].case.reproducer() in told
    assert "gradient of input: wrong" in told
    assert {failure.get("type") for failure in failures} == {
        "wrong values",
        "raised",
        "fell back",
    }


def test_what_xml_forbids_is_replaced_and_the_rest_is_kept() -> None:
    message = parsed(mixed()).findall(".//failure")[0].get("message")
    assert message == AWKWARD.replace("\0", "\ufffd").replace("\x1b", "\ufffd")


@pytest.mark.parametrize("verdict", ["known", "unsupported"])
def test_what_is_accepted_fails_nothing_and_is_said(verdict: str) -> None:
    root = parsed(report(result(verdict, reason="because"), result(seed=1)))
    assert totals(root)["failures"] == 0
    (test, _) = root.findall("*/testcase")
    skipped, output = test.find("skipped"), test.find("system-out")
    if verdict == "unsupported":
        assert skipped is not None
        assert skipped.get("message") == "unsupported: because"
    else:
        assert skipped is None
        assert output is not None
        assert output.text == "1 of 1: known: because"


def test_many_cases_are_grouped_and_each_is_in_one_group() -> None:
    root = parsed(well(), most_tests=10)
    names = [test.get("name") for test in root.findall("*/testcase")]
    assert names == [f"dtype any, n_fft {n}" for n in ("1", "2-3", "4-7", "8-15", "16-31", "32-63")]
    assert totals(root) == {"tests": 6, "failures": 0, "errors": 0, "skipped": 0}


def test_names_of_groups_do_not_depend_on_what_failed() -> None:
    def names(made: Report) -> set[str | None]:
        return {test.get("name") for test in parsed(made, most_tests=1).findall("*/testcase")}

    good = [result(n_fft=str(n), dtype="float32", seed=n) for n in range(1, 9)]
    bad = [result("differs", n_fft=str(n), dtype="float32", seed=n) for n in range(1, 9)]
    assert names(report(*good)) == names(report(*reversed(bad)))


def test_a_group_fails_by_its_failing_cases_and_tells_the_first_of_them() -> None:
    found = [result("differs", n_fft="5", seed=n) for n in range(TOLD + 2)]
    found += [result(n_fft="6", seed=n) for n in range(3)]
    (failure,) = parsed(report(*found), most_tests=1).findall(".//failure")
    assert failure.get("message") == "7 of 10 cases: the spectrum is conjugated"
    assert (failure.text or "").count("to reproduce:") == TOLD
    assert (failure.text or "").endswith("and 2 more")


def test_models_are_groups_of_their_own() -> None:
    found = [result(model="Demucs", n_fft="4096", seed=n) for n in range(2)]
    (test,) = parsed(report(*found), most_tests=1).findall("*/testcase")
    assert test.get("name") == "model Demucs"


def test_a_report_without_cases_is_xml_too() -> None:
    assert totals(parsed(report())) == {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
