"""What the plots of a parity report show of its numbers."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure
from reports import report, result

from stft_parity.report import plots


@pytest.mark.parametrize("worse", ["stft", "istft"])
def test_every_error_lies_within_its_axes(worse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []

    def kept(figure: Figure, *texts: Any) -> Any:
        drawn.append(figure)
        return picture(figure, *texts)

    picture = plots.picture
    monkeypatch.setattr(plots, "picture", kept)
    found = [
        result(op=op, n_fft=str(n), seed=n, error=error * (22.0 if op == worse else 1.0))
        for op in ("stft", "istft")
        for n, error in ((4, 0.02), (64, 1.0))
    ]
    assert plots.error_by_size(report(*found)) is not None
    (figure,) = drawn
    for panel in figure.axes:
        low, high = panel.get_ylim()
        assert low < 0.02
        assert high > 22.0
