"""The twiddle factors, against the definition in higher precision."""

from __future__ import annotations

import math

import numpy as np
import pytest

from torch_mlx_spectro.kernels.radices import list_analysis_plans
from torch_mlx_spectro.kernels.tables import make_table, twiddle_powers


@pytest.mark.parametrize("points", [1, 2, 7, 16, 60, 200, 441, 512, 3072, 4096])
def test_table_holds_the_factors_of_each_pass_in_order(points: int) -> None:
    plan = list_analysis_plans(points, 1)[0]
    table, split = make_table(plan)
    position, span = 0, plan.radices[0]
    for radix in plan.radices[1:]:
        for power in twiddle_powers(radix):
            for j in (0, 1, span // 2, span - 1):
                angle = -2 * math.pi * j * power / (span * radix)
                expected = complex(math.cos(angle), math.sin(angle))
                assert abs(table[position + j] - expected) < 6e-8
            position += span
        span *= radix
    assert split == position
    assert len(table) == position + points // 2 + 1
    for k in (0, points // 4, points // 2):
        angle = -math.pi * k / points
        assert abs(table[split + k] + 1j * complex(math.cos(angle), math.sin(angle))) < 6e-8


def test_quarters_are_exact() -> None:
    table, split = make_table(list_analysis_plans(512, 1)[0])
    assert table[split] == -1j
    assert table[split + 256] == -1
    assert table.dtype == np.complex64


@pytest.mark.parametrize(
    ("radix", "powers"), [(2, (1,)), (8, (1, 2, 4)), (16, (1, 2, 4, 8)), (5, (1, 2, 3, 4))]
)
def test_powers_that_a_radix_reads(radix: int, powers: tuple[int, ...]) -> None:
    assert twiddle_powers(radix) == powers
