"""``bench --pipeline`` builds audio-separator's models, and finds their transforms."""

from __future__ import annotations

import pytest

import torch_mlx_spectro as tms
from torch_mlx_spectro.bench.pipeline import (
    Component,
    list_components,
    list_missing,
    measure_component,
)


def test_nothing_is_missing_here() -> None:
    assert list_missing() == []


@pytest.mark.parametrize("component", list_components(small=True), ids=lambda each: each.name)
def test_model_has_both_transforms_and_they_are_accelerated(component: Component) -> None:
    native, ours = measure_component(component, "cpu", ("mlx",), rounds=1)
    assert (native["computed_by"], ours["computed_by"]) == (["native"], ["mlx"])
    assert (native["calls"], ours["calls"]) == (2, 2)
    assert 0 < ours["stft"] + ours["istft"] < ours["timed"]
    assert not tms.is_patched()
