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


def test_nothing_is_drawn_of_nothing() -> None:
    assert plots.measure_errors(report()) == plots.measure_errors(report(result())) == []
