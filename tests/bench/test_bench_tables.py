from __future__ import annotations

import io
import struct

import pytest
from bench_reports import TINY_TABLES, report
from rich.console import Console

from torch_mlx_spectro.bench.cases import TABLES
from torch_mlx_spectro.bench.tables import ROW_INCHES, draw, print_report


def test_a_table_of_several_operations_fits_80_columns():
    made = report(1, tables={"backward": TABLES["backward"]})
    made["accuracy"] = []
    for timing in made["timings"][2::3]:
        timing["computed_by"] = ["native"]
    file = io.StringIO()
    print_report(made, Console(file=file, width=80))
    *lines, _machine = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "mean square of stft + backward, B=4 T=1300000 n_fft=1024 hop=256" in lines
    assert sum("native / it" in line for line in lines) == 1
    ours = [line.split() for line in lines if line.startswith(" auto")]
    assert len(ours) == 9
    assert {" ".join(words[:3]) for words in ours} == {"auto, by native"}


def test_picture_has_a_panel_for_each_table_and_one_of_speed_ups():
    data = draw(report(1), "png")
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (1210, pytest.approx(4 * ROW_INCHES * 110, abs=2))


@pytest.mark.parametrize(("kind", "head"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_other_kinds(kind, head):
    assert draw(report(1, tables=TINY_TABLES), kind).startswith(head)


def test_nothing_timed_is_said():
    empty = report(1)
    empty["timings"] = []
    assert draw(empty, "png")[:4] == b"\x89PNG"
