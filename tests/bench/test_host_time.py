"""The host's time: what is timed, in which units, and that nothing is left of the stub."""

from __future__ import annotations

import copy
import io
import itertools
from dataclasses import replace

import metal
import pytest
import torch
from needs import needs_emulator
from rich.console import Console

import torch_mlx_spectro as tms
from torch_mlx_spectro.backends.mps.backend import MPS
from torch_mlx_spectro.bench import host, running, session, tables
from torch_mlx_spectro.bench.cases import HOST_TABLE, TABLES, UNIT
from torch_mlx_spectro.bench.comparing import compare
from torch_mlx_spectro.bench.measuring import Clock
from torch_mlx_spectro.bench.running import Settings
from torch_mlx_spectro.bench.schema import read_report, to_json
from torch_mlx_spectro.cli import main as cli
from torch_mlx_spectro.dispatch.plans import plans
from torch_mlx_spectro.native import functions as native

CUDA = tms.available_backends()["cuda"]
FEW = {"passes": 2, "samples": 1, "warm_up": 2}
SIGNAL, WINDOW = torch.ones(1, 400), torch.hann_window(64)


def transform():
    spectrum = tms.stft(SIGNAL, 64, 16, window=WINDOW, return_complex=True)
    return tms.istft(spectrum, 64, 16, window=WINDOW, length=400)


def ticking() -> Clock:
    ticks = itertools.count()
    return Clock(lambda: next(ticks) * 1e-3, lambda: None)


@pytest.fixture(scope="module")
def report():
    return host.measure_host(Settings("cpu", ("mlx", "auto"), **FEW), clock=ticking())


def test_every_call_is_timed_beside_one_allocation_by_the_mps_route(report):
    assert read_report(to_json(report)) == report
    assert report["failures"] == []
    seen = [(timing["operation"], timing["backend"]) for timing in report["timings"]]
    wanted = TABLES[HOST_TABLE].operations
    assert seen == [(operation, side) for operation in wanted for side in (UNIT, "mps")]
    assert {"stft, fresh window", "round trip + backward"} < set(wanted)
    for timing in report["timings"]:
        assert timing["computed_by"] == [timing["backend"]]
        assert (timing["ratio"] is None) == (timing["backend"] == UNIT)
    assert report["timings"][1]["ratio"]["n"] == 2 * host.MORE_SAMPLES


@pytest.mark.parametrize("raised", [None, RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_of_the_stub(raised):
    before = torch.mps.compile_shader
    plans.clear()
    try:
        with host.stub_metal():
            assert torch.mps.compile_shader is not before
            with tms.backend("mps", strict=True):
                for _ in range(2):
                    transform()
            assert len(plans) == 2
            assert MPS.checks._fine  # what the stub says of the window
            if raised is not None:
                raise raised
    except (RuntimeError, KeyboardInterrupt) as error:
        assert type(error) is raised  # noqa: PT017
    assert torch.mps.compile_shader is before
    assert len(plans) == len(MPS.checks._fine) == 0
    with tms.backend("mps"):
        route = tms.explain("stft", SIGNAL, 64, 16, window=WINDOW, return_complex=True)
    assert route.backend == "native"


def test_a_torch_without_shaders_has_none_afterwards(monkeypatch):
    monkeypatch.delattr(torch.mps, "compile_shader")
    with host.stub_metal():
        assert torch.mps.compile_shader.emulated
    assert not hasattr(torch.mps, "compile_shader")


@needs_emulator
def test_kernels_that_are_emulated_next_are_not_the_stubs(metal_cache):
    with host.stub_metal(), tms.backend("mps", strict=True):
        transform()
    with metal.emulated(metal_cache, backend="mps"):
        tms.reset_stats()
        result = transform()
    assert tms.stats().calls == {("stft", "mps"): 1, ("istft", "mps"): 1}
    torch.testing.assert_close(result, SIGNAL)


def test_a_device_is_timed_by_its_own_backend_and_native_as_they_are(monkeypatch):
    seen = []

    def measure(settings, chosen, progress, clock):
        seen.append((settings, list(chosen), torch.mps.compile_shader))

    monkeypatch.setattr(running, "measure", measure)
    for device, backends in (("mps", ("mlx", "mps", "auto")), ("cuda", ("cuda", "auto"))):
        host.measure_host(Settings(device, backends))
        settings, chosen, compile_shader = seen.pop()
        assert settings.backends == ("native", device)
        assert settings.computes  # a wrong result is no time
        assert chosen == [HOST_TABLE]
        assert compile_shader is torch.mps.compile_shader


@pytest.mark.skipif(not CUDA.available, reason=f"no CUDA kernels: {CUDA.reason}")
def test_a_cuda_device_is_timed():
    settings = Settings("cuda", running.find_backends("cuda")[0], **FEW)
    found = host.measure_host(settings)
    assert found["failures"] == []
    sides = {(one["backend"], *one["computed_by"]) for one in found["timings"]}
    assert sides == {(UNIT, UNIT), ("native", "native"), ("cuda", "cuda")}


def test_native_takes_part_as_a_side_of_its_own():
    settings = Settings("cpu", ("native",), **FEW)
    chosen = {HOST_TABLE: TABLES[HOST_TABLE]}
    found = running.measure(settings, chosen, clock=ticking())["timings"]
    assert {(one["backend"], *one["computed_by"]) for one in found[1::2]} == {("native", "native")}
    assert {one["backend"] for one in found[::2]} == {UNIT}


def test_more_time_of_the_host_is_a_regression(report):
    steady = copy.deepcopy(report)
    for timing in steady["timings"]:
        of = 1e-6 if timing["backend"] == UNIT else 5e-6
        timing["passes"] = [[of * (1 + 0.001 * n)] * 4 for n in range(5)]
    slower = copy.deepcopy(steady)
    slower["timings"][3]["passes"] = [[6.5e-6] * 4 for _ in range(5)]
    assert compare(steady, steady).ok
    (change,) = compare(steady, slower).regressions
    assert (change.table, change.operation, change.backend) == (HOST_TABLE, "istft", "mps")
    assert change.slower == pytest.approx(0.3, abs=0.01)


def test_a_regression_is_measured_again_by_the_same_clock(report, monkeypatch):
    slower = copy.deepcopy(report)
    monkeypatch.setattr(host, "measure_host", lambda settings, show: copy.deepcopy(slower))
    chosen = {name: TABLES[name] for name in ("stft", HOST_TABLE)}
    first = compare(report, report)
    first = replace(first, changes=(replace(first.changes[0], verdict="regression"),))
    again = session._measure_again(Settings("cpu", ("auto",), **FEW), chosen, report, first)
    assert [change.verdict for change in again.changes] == ["unclear"]


def test_the_table_fits_80_columns_and_tells_units(report):
    made = copy.deepcopy(report)
    for timing in made["timings"]:
        timing["seconds"] |= {"median": 1.1e-6 if timing["ratio"] is None else 255e-6}
        if timing["ratio"] is not None:
            timing["ratio"] = {"median": 1 / 232, "low": 1 / 250, "high": 1 / 200, "n": 100}
    file = io.StringIO()
    tables.print_report(made, Console(file=file, width=80))
    lines = file.getvalue().splitlines()
    assert any("one torch.empty_strided (1.1 us): medians" in line for line in lines)
    (row,) = (line for line in lines if "round trip" in line)
    assert row.split() == ["round", "trip", "+", "backward", "mps", "232", "200-250", "255", "10"]
    assert not any(UNIT in line for line in lines[2:])
    assert any("kernels of the mps backend that compute nothing" in line for line in lines)
    end = next(n for n, line in enumerate(lines) if line.startswith("Without a device"))
    assert max(map(len, lines[:end])) <= 80


def test_the_command_has_the_table(monkeypatch, capsys):
    few = Settings("cpu", (), **FEW)
    monkeypatch.setattr(
        running, "Settings", lambda device, backends: running.replace(few, backends=backends)
    )
    assert cli.main(["bench", "--device", "cpu", "--table", "host", "--json"]) == 0
    written = read_report(capsys.readouterr().out)
    assert written["settings"]["tables"] == [HOST_TABLE]
    assert {timing["table"] for timing in written["timings"]} == {HOST_TABLE}
    assert native.stft is torch.stft
