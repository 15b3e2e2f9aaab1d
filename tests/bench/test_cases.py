"""The calls that are timed are those that their names say, and wrong results are seen."""

from __future__ import annotations

import types

import pytest
import torch
from bench_reports import TINY

import torch_mlx_spectro as tms
from torch_mlx_spectro.bench import cases
from torch_mlx_spectro.bench.cases import Workload, describe_disagreement
from torch_mlx_spectro.native import functions as native


@pytest.fixture(scope="module")
def workload():
    return Workload(TINY, "cpu")


def test_inputs_are_the_same_on_every_run(workload):
    again = Workload(TINY, "cpu")
    assert torch.equal(workload.signals[0], again.signals[0])
    assert workload.signals[0].shape == (2, 1600)
    assert workload.spectra[0].shape == (2, 33, 101)
    assert float(workload.signals[0].var()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("operation", cases.OPERATIONS)
def test_operation_calls_what_its_name_says(operation, workload):
    called, layouts = [], []

    def recorded(name):
        def call(tensor, *args, **kwargs):
            called.append(name)
            layouts.append(tensor.stride(-1) == 1)
            return getattr(native, name)(tensor, *args, **kwargs)

        return call

    namespace = types.SimpleNamespace(stft=recorded("stft"), istft=recorded("istft"))
    result = workload.call(operation, namespace)(0)
    functions = [name for name in ("stft", "istft") if name in operation.replace(",", "").split()]
    assert called == (["stft", "istft"] if operation == cases.ROUND_TRIP else functions[-1:])
    backward = "backward" in operation
    of_spectrum = operation in (cases.STFT, cases.STFT_FRESH, cases.ISTFT_BACKWARD)
    assert result.is_complex() == of_spectrum
    if operation == cases.ISTFT_BINS:
        assert layouts == [True]
    if operation == cases.ISTFT:
        assert layouts == [False]
    assert not result.requires_grad
    if backward:
        leaf = workload.spectra[0] if of_spectrum else workload.signals[0]
        assert result.shape == leaf.shape


def test_a_fresh_window_is_made_by_each_call(workload):
    windows = []

    def noted(name):
        return lambda x, **more: windows.append(more["window"]) or getattr(native, name)(x, **more)

    namespace = types.SimpleNamespace(stft=noted("stft"), istft=noted("istft"))
    for operation in (cases.STFT_FRESH, cases.ISTFT_FRESH):
        call = workload.call(operation, namespace)
        call(0)
        call(0)
    assert len({id(window) for window in windows}) == 4
    assert all(torch.equal(window, workload.window) for window in windows)


def test_the_unit_is_one_spectrum_in_natives_memory_order(workload):
    unit = workload.make_allocation()(0)
    spectrum = workload.spectra[0]
    assert (unit.shape, unit.stride()) == (spectrum.shape, spectrum.stride())
    assert (unit.dtype, unit.device) == (spectrum.dtype, spectrum.device)


def test_gradient_of_the_round_trip_is_that_of_the_identity(workload):
    gradient = workload.call(cases.ROUND_TRIP, native)(0)
    torch.testing.assert_close(gradient, workload.signals[0], atol=1e-4, rtol=1e-4)


def test_sets_rotate_through_more_than_a_gpus_cache(monkeypatch):
    # Where tensors are is not asked: the CPU stands in for the device.
    monkeypatch.setattr(cases, "ROTATED_BYTES", 10 * TINY.nbytes - 1)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *args: self)
    made = Workload(TINY, "cuda")
    assert made.sets == 10
    assert len({tensor.data_ptr() for tensor in (*made.signals, *made.spectra)}) == 20
    seen = []
    namespace = types.SimpleNamespace(
        stft=lambda signal, **more: seen.append(signal.data_ptr()), istft=native.istft
    )
    call = made.call(cases.STFT, namespace)
    for number in range(11):
        call(number)
    assert seen == [*(signal.data_ptr() for signal in made.signals), seen[0]]


def test_errors_are_against_the_signal_and_float64(workload):
    found = workload.measure_errors(native, "native")
    assert found["case"] == {"rows": 2, "samples": 1600, "n_fft": 64, "hop_length": 16}
    for kind in ("round_trip", "stft", "istft"):
        assert 0 < found[kind] < 1e-5
    wrong = types.SimpleNamespace(
        stft=lambda *a, **k: native.stft(*a, **k) * 1.5,
        istft=lambda *a, **k: native.istft(*a, **k),
    )
    found = workload.measure_errors(wrong, "wrong")
    assert found["stft"] == pytest.approx(float(workload.spectra[0].abs().max()) / 2, rel=1e-5)
    assert found["round_trip"] == pytest.approx(
        float(workload.signals[0].abs().max()) / 2, rel=1e-5
    )
    assert found["istft"] < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x + 1e-6, ""),
        (lambda x: x + 0.1, "differs from native by 0.1"),
        (lambda x: x[:, 1:], "for torch.float32"),
        (lambda x: x.double(), "torch.float64"),
        (lambda x: x * torch.nan, "differs from native by nan"),
    ],
)
def test_disagreement_is_told(change, message):
    expected = torch.linspace(-1, 1, 64).reshape(2, 32)
    told = describe_disagreement(expected, change(expected))
    assert (told == "") == (message == "")
    assert message in told


def test_published_cases_are_those_of_the_reference():
    published = {name: table.cases for name, table in cases.PUBLISHED.items()}
    assert [str(case) for case in published["stft"]] == [
        "B=1 T=16000 n_fft=512 hop=128",
        "B=4 T=160000 n_fft=1024 hop=256",
        "B=8 T=160000 n_fft=1024 hop=256",
        "B=4 T=1320000 n_fft=1024 hop=256",
        "B=8 T=480000 n_fft=1024 hop=256",
    ]
    assert published["istft"] == published["stft"]
    sizes = [(case.rows, case.samples, case.n_fft) for case in published["roundtrip"]]
    assert sizes == [
        (4, 160_000, 1024),
        (8, 160_000, 1024),
        (4, 480_000, 1024),
        (4, 1_320_000, 1024),
        (1, 1_320_000, 1024),
    ]
    sizes = [(case.rows, case.samples, case.n_fft) for case in published["accuracy"]]
    assert sizes == [(1, 16_000, 512), (4, 160_000, 2048), (8, 480_000, 1024)]
    every = [case for table in cases.PUBLISHED.values() for case in table.cases]
    assert all(case.hop_length * 4 == case.n_fft for case in every)


def test_the_package_is_a_namespace(workload):
    with tms.backend("native"):
        assert torch.equal(workload.call(cases.STFT, tms)(0), workload.call(cases.STFT, native)(0))
