"""What the plots of a parity report show of its numbers."""

from __future__ import annotations

import math

import pytest
from reports import report, result

from stft_parity.report import plots


@pytest.mark.parametrize("worse", ["stft", "istft"])
def test_every_error_lies_within_its_panel(worse: str) -> None:
    found = [
        result(op=op, n_fft=str(n), seed=n, error=error * (22.0 if op == worse else 1.0))
        for op in ("stft", "istft")
        for n, error in ((4, 0.02), (64, 1.0))
    ]
    found += [result("differs", op=worse, n_fft="8", error=e) for e in (0.0, math.inf, math.nan)]
    panels = plots.measure_errors(report(*found))
    assert [panel.op for panel in panels] == ["stft", "istft"]
    for panel in panels:
        places = [
            *panel.failing,
            *(place for n, *ups in panel.passing for place in ((n, u) for u in ups)),
        ]
        assert all(0 <= n <= 1 and 0 <= up <= 1 for n, up in places)
        assert [text for _, text in panel.across][:: len(panel.across) - 1] == ["4", "64"]
    assert panels[0].lines == panels[1].lines  # one scale for both


def test_the_pair_that_tells_failing_cases_is_found_and_counted() -> None:
    found = [
        result(
            "differs" if (a, b) == ("x", "1") else "pass", left=a, right=b, other=str(n % 2), seed=n
        )
        for n, (a, b) in enumerate((a, b) for a in "xyz" for b in "1234" for _ in range(4))
    ]
    (pair,) = plots.find_pairs(report(*found))
    assert (pair.down, pair.across) == ("left", "right")
    assert pair.counts["x", "1"] == (4, 4)
    assert pair.counts["y", "1"] == (0, 4)
    assert set(pair.rows) == set("xyz")
    assert pair.left_out == 0


def test_a_long_pair_shows_the_values_that_fail() -> None:
    found = [
        result("differs" if n == 77 else "pass", left=f"n{n}", right=b, seed=3 * n + k)
        for n in (*range(20), 77) for b in "12" for k in range(2)
    ]  # fmt: skip
    (pair,) = plots.find_pairs(report(*found))
    assert "n77" in pair.rows
    assert len(pair.rows) == plots.MOST_SHOWN_VALUES
    assert pair.left_out == 21 - plots.MOST_SHOWN_VALUES


def test_nothing_is_drawn_of_nothing() -> None:
    assert plots.measure_errors(report()) == plots.find_pairs(report()) == []
    assert plots.find_pairs(report(result())) == []
