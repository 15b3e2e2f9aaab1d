from __future__ import annotations

import struct

import pytest
from bench_reports import TINY_TABLES, report

from torch_mlx_spectro.bench.tables import ROW_INCHES, draw


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
