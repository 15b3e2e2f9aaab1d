from __future__ import annotations

import io
import struct

import pytest
from bench_reports import TINY_TABLES, report
from rich.console import Console

from torch_mlx_spectro.bench import tables
from torch_mlx_spectro.bench.cases import TABLES
from torch_mlx_spectro.bench.tables import draw, print_report


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


def test_picture_has_a_row_for_each_operation_and_size_below_its_table():
    made = report(1)
    rows = tables._list_rows(made)
    headings = [words for words, sides in rows if not sides]
    assert headings == [TABLES[name].title for name in ("stft", "istft", "roundtrip")]
    timed = {(timing["operation"], str(timing["case"])) for timing in made["timings"]}
    assert len(rows) == len(headings) + len(timed)
    assert all(set(sides) == {"mlx", "auto"} for _, sides in rows if sides)
    data = draw(made, "png")
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width == 150 * tables.INCHES
    assert height == pytest.approx(
        150 * (tables.MARGIN_INCHES + len(rows) * tables.ROW_INCHES), abs=2
    )


def test_picture_has_dots_with_intervals_and_a_line_at_1x():
    made = report(1, tables=TINY_TABLES)
    for timing in made["timings"]:
        if timing["ratio"] is not None:
            timing["ratio"] = {"median": 0.5, "low": 0.4, "high": 0.8, "n": 20}
    with_lines = draw(made, "svg").decode()
    assert "<!-- 0.5x -->" in with_lines
    assert "<!-- 1x -->" in with_lines  # in the picture though all ratios are below
    assert "<!-- mlx -->" in with_lines
    assert "<!-- auto -->" in with_lines
    assert "<!-- native -->" not in with_lines


@pytest.mark.parametrize(("kind", "head"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_other_kinds(kind, head):
    assert draw(report(1, tables=TINY_TABLES), kind).startswith(head)


def test_nothing_timed_is_said():
    empty = report(1)
    empty["timings"] = []
    assert draw(empty, "png")[:4] == b"\x89PNG"
