"""What the commands print where there is no terminal."""

from __future__ import annotations

import io

import pytest

from torch_mlx_spectro import terminal
from torch_mlx_spectro.bench import session as bench


def test_a_log_has_a_line_now_and_then() -> None:
    log, now = io.StringIO(), 100.0
    show = terminal.lines_of_progress("measuring", log, lambda: now)
    for done in range(8):
        show(done, 8, f"case {done}")
        now += 10
    assert log.getvalue() == "measuring: 3 of 8, case 3\nmeasuring: 6 of 8, case 6\n"


def test_a_bench_without_a_terminal_tells_its_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with bench.progress("measuring") as show:
        show(1, 6, "HTDemucs")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(terminal, "BETWEEN_LINES", 0.0)
    with bench.progress("measuring") as show:
        show(2, 6, "HTDemucs")
    assert capsys.readouterr().err == "measuring: 2 of 6, HTDemucs\n"
