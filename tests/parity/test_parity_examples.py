"""librosa and SciPy: what they differ in is what their lists say, and what the page says."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator

import pytest
import torch
from checkout import ROOT as CHECKOUT

import stft_parity as parity
from stft_parity.known import Known, read

EXAMPLES = CHECKOUT / "examples"
NAMES = ("librosa", "scipy")


@pytest.fixture(scope="module", params=NAMES)
def compared(request: pytest.FixtureRequest) -> Iterator[tuple[str, parity.Report]]:
    """The name of an example, and the report of the quick cases with its list."""
    name = request.param
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        importlib.import_module(f"parity_{name}")
        known = EXAMPLES / f"parity_{name}.toml"
        yield name, parity.run(candidate=f"parity_{name}", known=known)
    torch.set_num_threads(threads)


def entries(name: str) -> tuple[Known, ...]:
    return read(EXAMPLES / f"parity_{name}.toml")


def test_it_differs_in_what_its_list_says(compared: tuple[str, parity.Report]) -> None:
    name, report = compared
    told = [(r.case.op, d.aspect, d.diagnosis) for r in report.failures for d in r.differences]
    assert told == []
    assert report.problems == ()
    assert report.ok
    # Something was compared, and the list did not swallow all that could be.
    assert report.counts()["known"] > 100
    assert all(result.accepted or not result.failed for result in report.results)
    assert (report.counts()["pass"] > 50) == (name == "librosa")


def test_every_value_that_the_list_names_has_a_case_that_differs(
    compared: tuple[str, parity.Report],
) -> None:
    name, report = compared
    for entry in entries(name):
        covered = [
            dict(result.case.labels)
            for result in report.results
            if entry.fits(result.case)
            and any(entry.covers(difference) for difference in result.differences)
        ]
        for argument, values in entry.where:
            assert set(values) == {labels[argument] for labels in covered}, str(entry)


def test_what_it_computes_is_right_where_no_list_speaks_of_values(
    compared: tuple[str, parity.Report],
) -> None:
    name, report = compared
    wrong = {
        result.case.op
        for result in report.results
        if any(difference.aspect == "values" for difference in result.differences)
    }
    assert wrong == {"librosa": {"stft"}, "scipy": {"istft"}}[name]
    measured = [r for r in report.results if r.error is not None and r.error < 10]
    assert len(measured) > 60


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_the_same_list(name: str) -> None:
    text = (CHECKOUT / "docs" / "parity.md").read_text()
    (section,) = re.findall(rf"^### {name}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    told = [
        (aspects, where, reason)
        for aspects, where, reason in re.findall(r"^\| (.*?) \| (.*?) \| (.*?) \|$", section, re.M)
        if aspects not in ("aspects", "---")
    ]
    assert told == [row(entry) for entry in entries(name)]


def row(entry: Known) -> tuple[str, str, str]:
    """A line of the page's table; of many values only their number is told."""
    where = [
        f"{argument} {', '.join(values)}" if len(values) <= 3 else f"{len(values)} {argument}s"
        for argument, values in entry.where
    ]
    return ", ".join(entry.aspects), "; ".join(where), entry.reason
