"""Parts of training programs: they call torch's names, and each side computes them by its own."""

from __future__ import annotations

import importlib.machinery
import itertools
import sys
import types

import pytest
import torch
from needs import needs_mlx

import torch_mlx_spectro as tms
from torch_mlx_spectro.bench import programs, running, session
from torch_mlx_spectro.bench.cases import TABLES, Case, Table, Workload, describe_disagreement
from torch_mlx_spectro.bench.measuring import Clock
from torch_mlx_spectro.bench.programs import LOSS, STEPS

CUDA = tms.available_backends()["cuda"]
SMALL = Case(2, 600, 64, 16)


class Loss(torch.nn.Module):
    """As auraloss's: of (rows, channels, samples), by torch's own names."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(estimate.shape))
        window = torch.hann_window(64, device=estimate.device)
        ours, theirs = (
            torch.stft(x.flatten(0, 1), 64, 16, window=window, return_complex=True).abs()
            for x in (estimate, target)
        )
        return (ours - theirs).square().mean()


@pytest.fixture
def auraloss(monkeypatch):
    """A small one in auraloss's place; what it was called with."""
    package, freq = types.ModuleType("auraloss"), types.ModuleType("auraloss.freq")
    package.__spec__ = importlib.machinery.ModuleSpec("auraloss", None)
    made = Loss()
    freq.MultiResolutionSTFTLoss = lambda: made
    package.freq = freq
    monkeypatch.setitem(sys.modules, "auraloss", package)
    monkeypatch.setitem(sys.modules, "auraloss.freq", freq)
    return made


@pytest.fixture
def no_auraloss(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "auraloss" else find(name)
    )


def test_training_learns_and_begins_anew_each_time(monkeypatch):
    monkeypatch.setattr(programs, "N_STEPS", 20)
    call = Workload(SMALL, "cpu").call(STEPS, torch)
    losses, again = call(0), call(1)
    assert losses.shape == (20,)
    assert losses[-1] < 0.95 * losses[0]
    assert torch.equal(losses, again)
    assert not losses.requires_grad


@needs_mlx
@pytest.mark.parametrize("operation", [LOSS, STEPS])
def test_a_side_computes_torchs_own_names(operation, auraloss, monkeypatch):
    monkeypatch.setattr(programs, "N_STEPS", 3)
    workload = Workload(SMALL, "cpu")
    expected = running.make_side("native", workload, operation).call(0)
    assert not tms.is_patched()
    side = running.make_side("mlx", workload, operation)
    tms.reset_stats()
    with side.context():
        assert tms.is_patched()
        found = side.call(0)
    assert not tms.is_patched()
    assert describe_disagreement(expected, found) == ""
    steps = {("stft", "mlx"): 3, ("istft", "mlx"): 3}
    assert tms.stats().calls == (steps if operation == STEPS else {("stft", "mlx"): 2})


def test_auraloss_is_given_signals_with_a_channel(auraloss):
    loss = Workload(SMALL, "cpu").call(LOSS, torch)(0)
    assert loss.shape == ()
    assert not loss.requires_grad
    assert auraloss.shapes == [(2, 1, 600)]
    assert programs.explain_absence(TABLES) == {}


def test_its_table_is_measured_where_it_is_here(auraloss):
    ticks = itertools.count()
    settings = running.Settings("cpu", ("auto",), passes=1, samples=1, warm_up=1)
    chosen = {"auraloss": Table("small", (LOSS,), (SMALL,))}
    clock = Clock(lambda: next(ticks) * 1e-3, lambda: None)
    report = running.measure(settings, chosen, clock=clock)
    assert report["failures"] == []
    assert [timing["backend"] for timing in report["timings"]] == ["native", "auto"]
    assert report["timings"][1]["computed_by"] == ["native"]  # far below what auto measures


def test_what_is_not_installed_has_its_reason_in_the_report(no_auraloss, monkeypatch):
    monkeypatch.setattr(running, "find_backends", lambda device: (("auto",), {"mps": "no"}))
    chosen = {name: TABLES[name] for name in ("auraloss", "training")}
    seen = []

    def measure(settings, tables, progress):
        seen.extend(tables)
        return {"timings": [], "failures": []}

    monkeypatch.setattr(running, "measure", measure)
    options = types.SimpleNamespace(table="auraloss,training")
    report = session._measure(options, running.Settings("cpu", ("auto",)), chosen)
    assert seen == ["training"]
    assert report["unavailable"] == {
        "mps": "no",
        "auraloss": "it is not installed: pip install auraloss",
    }


@pytest.mark.skipif(not CUDA.available, reason=f"no CUDA kernels: {CUDA.reason}")
def test_programs_and_ways_back_are_timed_on_a_cuda_device(auraloss, monkeypatch):
    monkeypatch.setattr(programs, "N_STEPS", 3)
    settings = running.Settings(
        "cuda", ("cuda", "auto"), passes=2, samples=1, warm_up=1, seconds_per_case=5.0
    )
    operations = (*TABLES["backward"].operations, LOSS, STEPS)
    report = running.measure(settings, {"backward": Table("small", operations, (SMALL,))})
    assert report["failures"] == []
    by = [timing["computed_by"] for timing in report["timings"] if timing["backend"] == "cuda"]
    assert by == [["cuda"]] * len(operations)
