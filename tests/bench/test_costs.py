"""Costs: what is measured is what the words say; how much is the machine's affair."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import torch_mlx_spectro as tms
from torch_mlx_spectro.bench import costs
from torch_mlx_spectro.bench.cases import ISTFT, STFT, Case
from torch_mlx_spectro.bench.schema import Cost, check

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")


def test_overhead_is_of_patched_calls_that_native_computes():
    found = list(costs.measure_overhead(rounds=2))
    for cost in found:
        check(cost, Cost, "cost")
    assert len({cost["what"] for cost in found}) == 6
    assert not tms.is_patched()
    calls = tms.stats().calls
    assert {backend for _, backend in calls} == {"native"}
    assert {op for op, _ in calls} == {"stft", "istft"}


def test_difference_takes_both_in_turn():
    log = []
    plain, more = costs.measure_difference(lambda: log.append("a"), lambda: log.append("b"), 2, 2)
    assert "".join(log) == "bbaaaabb"
    assert plain > 0
    assert isinstance(more, float)


@linux
def test_peak_memory_is_that_of_the_call():
    grown, result = costs.measure_peak(lambda: torch.ones(2**24))
    assert result.nbytes == 2**26
    assert 2**26 <= grown + 2**20 < 2**26 + 2**24


@linux
@pytest.mark.parametrize("operation", [STFT, ISTFT])
def test_memory_is_beyond_the_output(operation, monkeypatch, capsys):
    monkeypatch.setattr(costs, "LARGEST", Case(2, 400_000, 1024, 256))
    costs.print_memory(operation, "native", str(torch.get_num_threads()))
    native = json.loads(capsys.readouterr().out)
    frames_mib = 2 * 1563 * 1024 * 4 / 2**20
    assert native < 6 * frames_mib


def test_import_is_timed_in_processes_of_their_own(monkeypatch):
    commands = []
    seconds = iter(["0.3", "0.1", "0.2"])

    def run(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, stdout=next(seconds))

    monkeypatch.setattr(subprocess, "run", run)
    assert costs.measure_import_time(repeats=3) == pytest.approx(200)
    assert all(command[:2] == [sys.executable, "-c"] for command in commands)
    compile(commands[0][2], "the program", "exec")
