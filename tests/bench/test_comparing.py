"""A planted regression is flagged and noise is not; of one machine, and of several."""

from __future__ import annotations

import copy

import pytest
from bench_reports import report

from torch_mlx_spectro.bench.cases import PUBLISHED, Case
from torch_mlx_spectro.bench.comparing import compare, confirm, cut_tables, read_case

#: Comparisons of each kind: enough to tell 5 % of false ones from 40 %.
SEEDS = range(20)
QUIET = {"samples": 0.03, "passes": 0.01, "pauses": 0.0}


def test_noise_is_no_regression():
    false = sum(not compare(report(2 * seed), report(2 * seed + 1)).ok for seed in SEEDS)
    assert false <= 2


@pytest.mark.parametrize("noise", [{"samples": 0.15}, {"passes": 0.10}, {"counts": (3, 3)}])
def test_more_noise_is_no_regression_either(noise):
    false = sum(
        not compare(report(2 * seed, **noise), report(2 * seed + 1, **noise)).ok for seed in SEEDS
    )
    assert false <= 2


def test_planted_regression_of_20_percent_is_found_and_named():
    found = 0
    for seed in SEEDS:
        comparison = compare(report(2 * seed, **QUIET), report(2 * seed + 1, 0.2, **QUIET))
        first = read_case(report(0)["timings"][0]["case"])
        names = [
            (change.operation, change.case, change.backend) for change in comparison.regressions
        ]
        assert names in ([], [("stft", first, "mlx")])
        found += bool(names)
    assert found >= 0.9 * len(SEEDS)


def test_regression_of_everything_is_found_in_more_noise():
    many = {"slow_cells": 15}
    found = sum(
        len(compare(report(2 * seed), report(2 * seed + 1, 0.2, **many)).regressions) > 3
        for seed in SEEDS
    )
    assert found == len(SEEDS)


def test_5_percent_are_below_the_threshold_however_certain():
    silent = {"samples": 0.001, "passes": 0.001, "pauses": 0.0}
    comparison = compare(report(1, **silent), report(2, 0.05, **silent))
    assert comparison.ok
    assert {change.verdict for change in comparison.changes} == {"same"}


def test_improvement_is_no_regression():
    comparison = compare(report(1, 0.3, **QUIET), report(2, **QUIET))
    (change,) = (change for change in comparison.changes if change.verdict != "same")
    assert change.verdict == "improvement"
    assert change.slower == pytest.approx(-0.23, abs=0.05)
    assert change.new > change.old
    assert comparison.ok


def test_a_machine_that_is_slower_as_a_whole_is_none():
    old, new = report(1, **QUIET), report(2, **QUIET)
    for timing in new["timings"]:
        timing["passes"] = [[3 * taken for taken in times] for times in timing["passes"]]
    assert compare(old, new).ok


def test_pauses_in_single_samples_change_nothing():
    old, new = report(1, **QUIET), report(2, **QUIET)
    for timing in new["timings"]:
        for times in timing["passes"]:
            times[0] *= 10
    comparison = compare(old, new)
    assert {change.verdict for change in comparison.changes} == {"same"}


def test_grown_error_is_a_regression_and_a_moved_one_is_not():
    old, new = report(1, **QUIET), report(2, **QUIET)
    new["accuracy"][1]["istft"] *= 2
    new["accuracy"][2]["stft"] *= 1.2
    comparison = compare(old, new)
    (change,) = comparison.regressions
    assert (change.operation, change.backend) == ("error, istft", "mlx")
    new["accuracy"][1]["istft"] /= 4
    assert compare(old, new).ok
    assert "improvement" in {change.verdict for change in compare(old, new).changes}


def test_what_failed_now_is_not_well_and_what_is_not_measured_is_told():
    old, new = report(1, **QUIET), report(2, **QUIET)
    gone = new["timings"].pop(1)
    new["failures"] = [
        {key: gone[key] for key in ("table", "operation", "case", "backend")} | {"reason": "broke"}
    ]
    comparison = compare(old, new)
    words = "stft, B=1 T=16000 n_fft=512 hop=128, mlx"
    assert comparison.missing == (words,)
    assert comparison.broken == (f"{words}: broke",)
    assert not comparison.ok
    assert not comparison.regressions


def test_other_machines_and_versions_are_told():
    old, new = report(1), report(2)
    assert compare(old, new).machines == ()
    new["machine"] |= {"processor": "Another", "threads": 2, "system_release": "6.2", "load": 3.0}
    new["machine"]["versions"] = {"torch": "2.14.0", "mlx": "0.32.4", "python": "3.11.7"}
    comparison = compare(old, new)
    assert comparison.machines == (
        "processor: 'A processor' and 'Another'",
        "threads: 4 and 2",
    )
    assert comparison.versions == {"torch": ("2.13.0", "2.14.0")}


def test_regression_that_does_not_show_twice_is_unclear():
    first = compare(report(1, **QUIET), report(2, 0.3, **QUIET))
    assert not first.ok
    again = compare(report(1, **QUIET), report(3, 0.3, **QUIET))
    assert confirm(first, again).regressions == first.regressions
    quiet = compare(report(1, **QUIET), report(3, **QUIET))
    once = confirm(first, quiet)
    assert once.ok
    assert "unclear" in {change.verdict for change in once.changes}


def test_tables_are_cut_down_to_what_is_measured_again():
    first = compare(report(1, **QUIET), report(2, 0.3, **QUIET))
    cut = cut_tables(first.regressions, PUBLISHED)
    assert list(cut) == ["stft"]
    assert cut["stft"].cases == (Case(1, 16_000, 512, 128),)
    assert cut["stft"].operations == PUBLISHED["stft"].operations


def test_reports_are_not_changed():
    old, new = report(1), report(2, 0.2)
    before = copy.deepcopy((old, new))
    compare(old, new)
    assert (old, new) == before
