"""Candidates that are installed with the tests: their lists and docs/field.md say what they do."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from checkout import ROOT as CHECKOUT

import stft_parity as parity
from stft_parity.known import Known, read

EXAMPLES = CHECKOUT / "examples" / "parity"
sys.path.insert(0, str(EXAMPLES))
field = importlib.import_module("field")
sys.path.remove(str(EXAMPLES))
NAMES = ("librosa", "scipy", "mlx_fft")


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
    assert (report.counts()["pass"] > 50) == (name != "scipy")


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
    assert wrong == {"librosa": {"stft"}, "scipy": {"istft"}, "mlx_fft": {"istft"}}[name]
    measured = [r for r in report.results if r.error is not None and r.error < 10]
    assert len(measured) > 60


def test_the_table_of_the_field_has_what_it_does(compared: tuple[str, parity.Report]) -> None:
    name, report = compared
    written = json.loads(field.TABLE.read_text())["columns"][name]
    assert field.list_changes(written, field.describe(name, report)) == []


def test_a_cell_that_changed_is_listed() -> None:
    written = json.loads(field.TABLE.read_text())["columns"]["onnxruntime"]
    row = "stft: `n_fft`: 100, 210, 400, 1000"
    assert "inexact" in written["cells"][row]
    for cell, changes in (("\N{CHECK MARK}", 1), (written["cells"][row].replace("6", "7"), 0)):
        now = {**written, "cells": {**written["cells"], row: cell}}
        assert len(field.list_changes(written, now)) == changes


def test_the_page_is_what_the_table_gives() -> None:
    table, page = json.loads(field.TABLE.read_text()), field.PAGE.read_text()
    assert set(table["columns"]) == set(field.COLUMNS)
    assert field.put(page, field.render(table)) == page


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("parity_*.toml")), ids=lambda path: str(path.stem)
)
def test_every_candidate_has_its_list_and_every_list_its_candidate(path: Path) -> None:
    assert path.with_suffix(".py").exists()
    assert path.stem.removeprefix("parity_") in field.COLUMNS
    assert read(path)
