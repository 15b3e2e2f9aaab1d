"""The statistics against SciPy's, and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from torch_mlx_spectro.bench import comparing
from torch_mlx_spectro.bench.comparing import (
    apply_holm,
    compute_student_tail,
    estimate_chances,
    estimate_usual_variance,
)


@pytest.mark.parametrize("degrees", [1.0, 1.3, 3.0, 6.0, 57.5, 1e4])
@pytest.mark.parametrize("t", [-3.0, 0.0, 0.7, 2.5, 6.0])
def test_students_tail_is_scipys(t, degrees):
    assert compute_student_tail(t, degrees) == pytest.approx(
        stats.t.sf(t, degrees), rel=2e-3, abs=1e-12
    )


def test_holm_by_hand():
    # 0.011 <= 0.05 / 4, 0.02 > 0.05 / 3: there it ends, whatever comes after.
    assert apply_holm([0.02, 0.011, 0.9, 0.0249], 0.05) == [False, True, False, False]
    # 0.01 <= 0.05 / 3, 0.02 <= 0.05 / 2: Bonferroni would stop at the second one.
    assert apply_holm([0.02, 0.01, 0.9], 0.05) == [True, True, False]
    assert apply_holm([], 0.05) == []
    assert apply_holm([0.05], 0.05) == [True]


def test_usual_variance_of_cells_that_are_alike_is_theirs():
    draw = np.random.default_rng(0)
    found = (0.04 * draw.chisquare(8, 400) / 8).tolist()
    usual, degrees = estimate_usual_variance(found, [8] * 400)
    assert usual == pytest.approx(0.04, rel=0.1)
    assert degrees > 50


def test_usual_variance_of_cells_that_differ_counts_as_much_as_they_are_alike():
    draw = np.random.default_rng(1)
    own = 0.04 * 6 / draw.chisquare(6, 2000)  # 6 degrees of freedom, as the model has it
    found = (own * draw.chisquare(8, 2000) / 8).tolist()
    usual, degrees = estimate_usual_variance(found, [8] * 2000)
    assert degrees == pytest.approx(6, rel=0.25)
    assert usual == pytest.approx(0.04, rel=0.1)


def test_too_few_cells_tell_nothing_of_others():
    assert estimate_usual_variance([0.1, 0.2], [8, 8]) == (0.0, 0.0)
    assert estimate_usual_variance([0.0] * 10, [8] * 10) == (0.0, 0.0)


def test_one_cell_without_an_assumed_deviation_is_students_test(monkeypatch):
    monkeypatch.setattr(comparing, "RUN_DEVIATION", 0.0)
    first, second = [1.1, 1.3, 0.9, 1.2], [0.7, 1.0, 0.8, 0.6]
    (chance,) = estimate_chances([(first, second)])
    wanted = stats.ttest_ind(first, second, alternative="greater").pvalue
    assert chance == pytest.approx(wanted, rel=1e-4)


def test_what_does_not_vary_is_certain_only_beyond_the_assumed_deviation():
    (near,) = estimate_chances([([0.01] * 4, [0.0] * 4)])
    (far,) = estimate_chances([([0.3] * 4, [0.0] * 4)])
    assert 0.2 < near < 0.5
    assert far < 1e-6


def test_a_single_pass_tells_nothing():
    assert estimate_chances([([1.0], [0.0, 0.1])]) == [0.5]


def test_chances_of_noise_are_uniform():
    draw = np.random.default_rng(2)
    sides = draw.normal(0, 0.3, (500, 2, 5))
    found = estimate_chances([(a.tolist(), b.tolist()) for a, b in sides])
    assert stats.kstest(found, "uniform").pvalue > 0.01
