"""The self-check: it is computed by the backend that it names, and notices what is wrong."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from torch_mlx_spectro import emulator
from torch_mlx_spectro.backends.mlx.backend import MLX
from torch_mlx_spectro.doctor import checks


def test_it_is_computed_by_the_backend():
    found = checks.check("mlx", "cpu")
    assert found.ok
    assert found.error == ""
    # Native in single and in double precision; mlx computes the gradient where its calls were.
    assert found.calls == {"stft/mlx": 1, "istft/mlx": 1, "stft/native": 2, "istft/native": 2}
    assert set(found.max_error) == {"stft", "istft", "gradient"}
    for errors in found.max_error.values():
        assert 0 < errors["mlx"] <= 2 * errors["native"] + 1e-7


def test_metal_kernels_pass_it_in_the_emulator(metal_cache):
    machine = emulator.Machine(checked=False, cache_dir=metal_cache)
    with machine.installed():
        found = checks.check("mlx", "cpu")
    assert found.ok
    # The signal's own, its way back, and the two of the gradient.
    assert len(machine.launches) >= 4


def test_native_is_checked_on_devices_by_a_name_of_its_own():
    found = checks.check("native", "cpu")
    assert found.ok
    assert all(set(errors) == {"native", "native on cpu"} for errors in found.max_error.values())


#: What computes each function.
METHODS = {"stft": "analyse", "istft": "synthesise"}


@pytest.mark.parametrize("op", METHODS)
@pytest.mark.parametrize("factor", [1.001, float("nan")])
def test_a_wrong_result_is_noticed(op, factor, monkeypatch):
    right = getattr(MLX, METHODS[op])
    monkeypatch.setattr(MLX, METHODS[op], lambda *args: right(*args).mul_(factor))
    found = checks.check("mlx", "cpu")
    assert not found.ok
    assert op in found.error


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda signal: signal.half().float(), id="half precision inside"),
        pytest.param(
            lambda signal: signal.as_strided(signal.shape, signal.stride(), 0), id="lost offset"
        ),
    ],
)
def test_a_wrong_input_is_noticed(wrong, monkeypatch):
    right = MLX.analyse
    monkeypatch.setattr(
        MLX,
        "analyse",
        lambda params, signal, *rest, **more: right(params, wrong(signal), *rest, **more),
    )
    found = checks.check("mlx", "cpu")
    assert not found.ok
    assert found.error.startswith("errors of stft, istft")


def test_what_is_raised_is_told(monkeypatch):
    def broken(*args):
        raise ValueError("no such kernel")

    monkeypatch.setattr(MLX, "synthesise", broken)
    found = checks.check("mlx", "cpu")
    assert (found.ok, found.error) == (False, "ValueError: no such kernel")


def test_a_backend_that_falls_back_fails():
    """Strict: a self-check that native torch answered would show nothing."""
    found = checks.check("cuda", "cpu")
    assert not found.ok
    assert found.error.startswith("NotAccelerated")


def test_it_does_not_depend_on_the_environment(monkeypatch):
    monkeypatch.setenv("TORCH_MLX_SPECTRO_VERIFY", "odd")
    monkeypatch.setenv("TORCH_MLX_SPECTRO_BACKEND", "odd")
    assert checks.check("mlx", "cpu").ok


def test_random_numbers_of_the_program_are_left_alone():
    state = torch.random.get_rng_state()
    checks.check("mlx", "cpu")
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("devices", "available", "gpu", "expected"),
    [
        (("cpu",), {"mlx"}, False, {("mlx", "cpu")}),
        (("cpu",), set(), False, set()),
        (
            ("cpu", "mps"),
            {"mlx", "mps"},
            True,
            {("mlx", "cpu"), ("mlx", "mps"), ("mps", "mps"), ("native", "mps")},
        ),
        (("cpu", "mps"), {"mlx"}, False, {("mlx", "cpu"), ("native", "mps")}),
        (("cpu", "cuda"), {"cuda"}, False, {("cuda", "cuda"), ("native", "cuda")}),
    ],
)
def test_every_backend_is_checked_on_every_device_that_it_takes(
    devices, available, gpu, expected, monkeypatch
):
    def load(name):
        def explain_absence(device):
            is_here = name in available and (gpu or (name, device) != ("mlx", "mps"))
            return None if is_here else "it is not here"

        return SimpleNamespace(explain_absence=explain_absence)

    monkeypatch.setattr(checks, "load", load)
    monkeypatch.setattr(checks, "list_present_devices", lambda: devices)
    assert set(checks.list_pairs()) == expected


def test_no_result_shares_its_memory_with_a_later_one(monkeypatch):
    assert checks.find_disturbed("mlx", "cpu") == []
    right, memory = MLX.analyse, {}

    def recycled(*args, **more):
        result = right(*args, **more)
        return memory.setdefault(result.shape, result).copy_(result)[:]  # it is shaped in place

    monkeypatch.setattr(MLX, "analyse", recycled)
    assert checks.find_disturbed("mlx", "cpu") == ["kept"]


@pytest.mark.parametrize(("backend", "ok"), [("mlx", False), ("native", True)])
def test_a_backend_whose_results_are_disturbed_fails(backend, ok, monkeypatch):
    monkeypatch.setattr(checks, "find_disturbed", lambda *_: ["kept", "changed in place"])
    found = checks.check(backend, "cpu")
    assert found.ok == ok
    assert found.error == ("" if ok else "memory was used again of results kept, changed in place")


@pytest.mark.parametrize(
    ("late", "expected"), [("abs", "read after it was released"), ("mul_", "changed in place")]
)
def test_commands_that_run_late_on_recycled_memory_are_noticed(late, expected, monkeypatch):
    """What a command of a GPU's queue reads is what is in the memory when it runs."""
    right, calls = getattr(torch.Tensor, late), []

    def run_late(tensor, *args):
        calls.append(late)
        return right(tensor.zero_() if len(calls) == 5 else tensor, *args)

    monkeypatch.setattr(torch.Tensor, late, run_late)
    assert expected in checks.find_disturbed("mlx", "cpu")
