"""Bits of fixed launches: the file is the emulator's, and what agrees with it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from needs import needs_emulator

from torch_mlx_spectro import emulator
from torch_mlx_spectro.doctor import golden, show
from torch_mlx_spectro.doctor.golden import MODES, judge, list_probes, read_golden


def test_the_file_has_every_probe_in_every_mode() -> None:
    content = read_golden()
    assert content["format"] == golden.FORMAT
    assert list(content["modes"]) == list(MODES)
    for found in content["modes"].values():
        assert list(found) == list(list_probes())
    assert (
        content["texts"] == golden.digest_texts()
    )  # else: python -m torch_mlx_spectro.doctor.golden


def test_inputs_are_the_same_on_every_machine() -> None:
    """Integers over powers of two, as few bits as a float32 holds."""
    for name, probe in list_probes().items():
        first = probe.first.view(np.float32) if np.iscomplexobj(probe.first) else probe.first
        scale = 2.0**130 if "subnormal" in name else 1.0
        for values in (first.astype(np.float64) * scale * (1 << 15), probe.window * 256.0):
            assert np.all(values == np.round(values))
            assert np.abs(values).max() > 0


@needs_emulator
def test_both_backends_agree_with_the_file(metal_cache: Path) -> None:
    for name, options in MODES.items():
        machine = emulator.Machine(cache_dir=metal_cache, orders=("ascending",), **options)
        with machine.installed():
            found = golden.compare()
        assert [one["backend"] for one in found] == ["mlx", "mps"]
        for one in found:
            assert name in one["agrees"], one
            assert one["note"] == ""
            assert all(name in modes for modes in one["probes"].values())


@needs_emulator
@pytest.mark.parametrize(
    ("old", "new", "differ"),
    [
        ("sum = fma(piece.x, value.x, sum.x);", "sum.x += piece.x * value.x;", 0),
        ("multiplied_added(value, value, zero)", "(value * value * 1.0000001f)", 1),
    ],
)
def test_other_arithmetic_is_noticed(metal_cache: Path, old: str, new: str, differ: int) -> None:
    seen = []

    def transform(text: str) -> str:
        seen.append(text.count(old))
        return text.replace(old, new)

    machine = emulator.Machine(cache_dir=metal_cache, orders=("ascending",), transform=transform)
    with machine.installed():
        (_, found) = golden.compare()
    assert (found["agrees"] == []) == (max(seen) > 0) == bool(differ)


def test_a_verdict_names_modes_and_errors() -> None:
    modes = {"a": {"one": "1", "two": "2"}, "b": {"one": "1", "two": "3"}}
    assert judge({"one": "1", "two": "3"}, modes) == {
        "agrees": ["b"],
        "probes": {"one": ["a", "b"], "two": ["b"]},
    }
    error = "KernelRefused: not so many threads"
    assert judge({"one": "4", "two": error}, modes) == {
        "agrees": [],
        "probes": {"one": [], "two": [error]},
    }


def test_without_metal_nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    if mx.metal.is_available():
        pytest.skip("there is Metal")
    monkeypatch.setattr(golden, "read_golden", lambda: json.loads("not read"))
    assert golden.compare() == []


def test_what_agrees_is_shown() -> None:
    found: dict[str, Any] = {"backend": "mps", "agrees": [], "note": "other factors"}
    row = show._bits(found | {"probes": {"one": ["a"], "two": []}})
    assert row == ("mps", "in no mode with all of them (other factors)", "one: a; two: none")
    row = show._bits(found | {"agrees": ["a"], "note": "", "probes": {"one": ["a"]}})
    assert row == ("mps", "a", "")
