"""The table of MLX arrays: what is timed beside what, and that a wrong result is no time."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from bench_reports import TINY
from rich.console import Console

from torch_mlx_spectro.bench import cases, mlx_arrays, running, session, tables
from torch_mlx_spectro.bench.cases import MLX_TABLE, OURS, OWN, TABLES
from torch_mlx_spectro.bench.measuring import Clock
from torch_mlx_spectro.bench.running import Settings
from torch_mlx_spectro.bench.schema import read_report, to_json
from torch_mlx_spectro.cli import main as cli

mx = pytest.importorskip("mlx.core")
pytestmark = pytest.mark.skipif(
    not hasattr(mx.fft, "stft"), reason="mx.fft.stft came with MLX 0.32"
)

FEW = {"passes": 2, "samples": 2, "warm_up": 1}
TINY_TABLE = {MLX_TABLE: replace(TABLES[MLX_TABLE], cases=(TINY,))}


def measure() -> running.Report:
    ticks = itertools.count()
    clock = Clock(lambda: next(ticks) * 1e-3, lambda: None)
    return running.measure(Settings("cpu", (OURS,), **FEW), TINY_TABLE, clock=clock)


def test_each_operation_is_timed_on_both_sides():
    report = measure()
    assert read_report(to_json(report)) == report
    assert report["failures"] == []
    seen = [(timing["operation"], timing["backend"]) for timing in report["timings"]]
    wanted = TABLES[MLX_TABLE].operations
    assert seen == [(operation, side) for operation in wanted for side in (OWN, OURS)]
    assert [error["backend"] for error in report["accuracy"]] == [OWN, OURS]
    for error in report["accuracy"]:
        assert 0.0 < max(error[name] for name in ("stft", "istft", "round_trip")) < 1e-4
    for timing in report["timings"]:
        assert timing["computed_by"] == [timing["backend"]]
        assert (timing["ratio"] is None) == (timing["backend"] == OWN)


@pytest.mark.parametrize("operation", TABLES[MLX_TABLE].operations)
def test_sides_call_what_their_names_say(operation, monkeypatch):
    called = []

    def recorded(name, function):
        def call(*args, **kwargs):
            called.append(name)
            return function(*args, **kwargs)

        return call

    signal = np.random.default_rng(0).standard_normal((2, 1600)).astype(np.float32)
    kind = mlx_arrays.tms.SpectralTransform
    for name in ("stft", "istft"):
        monkeypatch.setattr(kind, name, recorded(f"{OURS}.{name}", getattr(kind, name)))
        monkeypatch.setattr(mx.fft, name, recorded(f"{OWN}.{name}", getattr(mx.fft, name)))
    wanted = {cases.ISTFT: ["istft"], cases.THERE_AND_BACK: ["stft", "istft"]}
    results = []
    for side in (OURS, OWN):
        call = mlx_arrays.make_call(side, operation, TINY, signal)
        called.clear()
        results.append(np.array(call(0)))
        assert called == [f"{side}.{name}" for name in wanted.get(operation, ["stft"])]
    assert np.abs(results[0] - results[1]).max() < 1e-5 * np.abs(results[1]).max()


def test_a_wrong_result_is_a_failure_and_no_time(monkeypatch):
    kind = mlx_arrays.tms.SpectralTransform
    right = kind.stft
    monkeypatch.setattr(kind, "stft", lambda self, x: right(self, x) * 1.01)
    report = measure()
    failed = {failure["operation"] for failure in report["failures"]}
    assert failed == {cases.STFT, cases.THERE_AND_BACK, cases.MEAN_SQUARE}
    assert {one["operation"] for one in report["timings"] if one["backend"] == OURS} == {"istft"}


def test_the_command_has_the_table(monkeypatch, capsys):
    few = Settings("cpu", (), **FEW)
    monkeypatch.setattr(
        running, "Settings", lambda device, backends: replace(few, backends=backends)
    )
    monkeypatch.setattr(cases, "TABLES", {**TABLES, **TINY_TABLE})
    assert cli.main(["bench", "--device", "cpu", "--table", "mlx", "--json"]) == 0
    written = read_report(capsys.readouterr().out)
    assert written["settings"]["tables"] == [MLX_TABLE]
    assert {timing["backend"] for timing in written["timings"]} == {OWN, OURS}


def test_without_mlx_the_table_is_absent_with_its_reason(monkeypatch, capsys):
    monkeypatch.setattr(mlx_arrays, "unavailable_reason", lambda: "mlx is not here")
    assert cli.main(["bench", "--device", "cpu", "--table", "mlx", "--json"]) == 0
    written = read_report(capsys.readouterr().out)
    assert written["unavailable"][MLX_TABLE] == "mlx is not here"
    assert written["timings"] == []


def test_the_printed_table_names_what_it_is_beside():
    file = io.StringIO()
    tables.print_report(measure(), Console(file=file, width=100))
    assert f"{OWN} / it" in file.getvalue()
    assert f"{OURS}, by" not in file.getvalue()


def test_the_table_has_sides_of_its_own_beside_others(monkeypatch):
    seen, report = [], measure()

    def note(settings, chosen, show):
        seen.append((settings.backends, list(chosen)))
        return report

    monkeypatch.setattr(running, "measure", note)
    chosen = {"stft": TABLES["stft"], **TINY_TABLE}
    session._measure_tables(Settings("cpu", ("auto",)), chosen, lambda *_: None)
    assert seen == [(("auto",), ["stft"]), ((OURS,), [MLX_TABLE])]
