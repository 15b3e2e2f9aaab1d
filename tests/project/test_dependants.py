"""The run of other programs' tests: what it reads, and what it calls a problem."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT

FOLDER = ROOT / "tests" / "dependants"

REPORT = """\
<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_one"/>
<testcase classname="tests.test_a" name="test_two"><failure>no</failure></testcase>
<testcase classname="tests.test_b" name="test_three[1]"><error>no</error></testcase>
<testcase classname="tests.test_b" name="test_four"><skipped/></testcase>
<testcase classname="" name="tests.test_c"><error>cannot be imported</error></testcase>
</testsuite></testsuites>
"""


@pytest.fixture(scope="module")
def run() -> Any:
    spec = importlib.util.spec_from_file_location("dependants_run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def outcome(run: Any, tmp_path: Path) -> Any:
    path = tmp_path / "report.xml"
    path.write_text(REPORT)
    return run.read_outcome(path)


def test_a_report_is_read_test_by_test(outcome: Any) -> None:
    assert outcome.passed == ["tests.test_a::test_one"]
    assert outcome.failed == [
        "tests.test_a::test_two",
        "tests.test_b::test_three[1]",
        "tests.test_c",
    ]
    assert outcome.skipped == ["tests.test_b::test_four"]


LISTED = ("tests.test_a::test_two", "tests.test_b::*", "tests.test_c")


@pytest.mark.parametrize(
    ("patterns", "least", "problems"),
    [
        (LISTED, 1, []),
        (LISTED[:2], 1, ["tests.test_c: failed, and is not listed"]),
        ((*LISTED, "tests.test_d"), 1, ["tests.test_d: is listed, and no such test failed"]),
        (("tests.test_a::*", *LISTED[1:]), 1, ["tests.test_a::test_one: is listed, and passed"]),
        (LISTED, 2, ["1 passed; 2 have to"]),
    ],
)
def test_every_difference_from_the_list_is_a_problem(
    run: Any, outcome: Any, patterns: tuple[str, ...], least: int, problems: list[str]
) -> None:
    failures = tuple(run.Failure(pattern, "a reason") for pattern in patterns)
    for counts in ((least, 0), (0, least)):
        assert run.judge(run.Program("p", "1", *counts, failures), outcome) == problems


def test_what_fails_on_some_machines_may_pass(run: Any, outcome: Any) -> None:
    sometimes = run.Failure("tests.test_a::test_one", "depends", sometimes=True)
    listed = (*(run.Failure(pattern, "a reason") for pattern in LISTED), sometimes)
    assert run.judge(run.Program("p", "1", 0, 0, listed), outcome) == []


def test_the_list_that_is_kept_can_be_read_and_gives_reasons(run: Any, tmp_path: Path) -> None:
    programs = {program.name: program for program in run.read_known(run.KNOWN)}
    assert set(programs) == {"mlx-audio-separator", "demucs-mlx"}
    for program in programs.values():
        assert program.passed >= program.passed_by_mlx_spectro > 200
    wrong = tmp_path / "known.toml"
    for text in ("[[program]]\nname = 'a'\n", "program = 3\n", "[["):
        wrong.write_text(text)
        with pytest.raises(run.Misuse, match="--known"):
            run.read_known(wrong)


def test_wrong_usage_is_told(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["no-such-program"]) == 2
    assert "no-such-program is none of mlx-audio-separator, demucs-mlx" in capsys.readouterr().err
