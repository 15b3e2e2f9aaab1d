"""Shares of a model that needs no audio-separator; the real ones run in tests/pipelines."""

from __future__ import annotations

import importlib.util
import itertools
import json

import pytest
import torch
from needs import needs_mlx

from torch_mlx_spectro.bench import pipeline
from torch_mlx_spectro.bench.measuring import Clock
from torch_mlx_spectro.bench.pipeline import Component, measure_component, record_calls
from torch_mlx_spectro.bench.schema import to_json


class Time:
    """Moves on by a second when a transform is called, and by ``model`` when a model is."""

    def __init__(self) -> None:
        self.time = 0.0

    def clock(self) -> Clock:
        return Clock(lambda: self.time, lambda: None)


def component(clock: Time) -> Component:
    """Three transforms of a second each, and seven seconds of model."""
    window = torch.hann_window(64)

    def model(mix):
        clock.time += 7
        for channel in (0, 1):
            spectrum = torch.stft(mix[0, channel], 64, window=window, return_complex=True)
        return torch.istft(spectrum, 64, window=window)

    return Component("model", 1600, lambda device: model)


@pytest.fixture
def clock(monkeypatch):
    """Native's functions, and the package's, each take a second of it."""
    clock = Time()

    def slow(function):
        def call(*args, **kwargs):
            clock.time += 1
            return function(*args, **kwargs)

        return call

    real = pipeline.record_calls

    def counted(clock):
        # Under the timers, above whoever computes.
        for name in ("stft", "istft"):
            monkeypatch.setattr(torch, name, slow(getattr(torch, name)))
        return real(clock)

    yield clock, counted
    monkeypatch.undo()


def test_share_is_of_the_pass_in_which_calls_were_timed(clock, monkeypatch):
    clock, counted = clock
    monkeypatch.setattr(pipeline, "record_calls", counted)
    (parts,) = measure_component(component(clock), "cpu", (), rounds=2, clock=clock.clock())
    assert json.loads(to_json(parts)) == parts
    assert set(parts) == {
        *("model", "backend", "seconds", "timed", "stft", "istft", "calls", "share", "ratio"),
        "computed_by",
    }
    assert parts["calls"] == 3
    assert (parts["stft"], parts["istft"], parts["timed"]) == (2.0, 1.0, 10.0)
    assert parts["share"] == pytest.approx(0.3)
    assert parts["ratio"] is None
    assert parts["seconds"]["n"] == 2


@needs_mlx
def test_backends_compute_what_is_counted_for_them_and_nothing_stays_patched():
    clock = Time()
    originals = torch.stft, torch.istft
    found = measure_component(component(clock), "cpu", ("mlx", "auto"), 1, clock.clock())
    assert [parts["backend"] for parts in found] == ["native", "mlx", "auto"]
    assert [parts["computed_by"] for parts in found] == [["native"], ["mlx"], ["native"]]
    assert [parts["ratio"] for parts in found] == [None, 1.0, 1.0]
    assert (torch.stft, torch.istft) == originals


def test_timers_wait_for_the_device_on_both_sides():
    log = []
    ticks = itertools.count()
    clock = Clock(lambda: log.append("look") or next(ticks), lambda: log.append("wait"))
    before = torch.stft
    with record_calls(clock) as taken:
        torch.stft(torch.ones(64), 16, window=torch.ones(16), return_complex=True)
    assert log == ["wait", "look", "wait", "look"]
    assert taken == {"stft": [1], "istft": []}
    assert torch.stft is before


def test_an_exception_leaves_torchs_own_functions():
    before = torch.stft
    with pytest.raises(RuntimeError), record_calls(Time().clock()):
        torch.stft(torch.ones(2, 2, 2), 16, window=torch.ones(16), return_complex=True)
    assert torch.stft is before


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert pipeline.list_missing() == list(pipeline.NEEDED)


@pytest.mark.parametrize("small", [False, True])
def test_every_architecture_is_there_in_both_sizes(small):
    found = pipeline.list_components(small)
    assert [each.name for each in found] == [
        "MDX-Net, transforms only",
        "MDX23C",
        "HTDemucs",
        "HDemucs",
        "BS-RoFormer",
        "Mel-Band RoFormer",
    ]
    assert all(each.samples >= 31 * 1024 for each in found)
