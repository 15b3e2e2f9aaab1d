"""What is told of devices, and where MPS tensors lie: of stand-ins, for there is no MPS here."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch

from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.doctor import state
from torch_mlx_spectro.mlx import runtime


@pytest.fixture
def with_mps(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.mps, "is_available", lambda: True)
    return monkeypatch


def test_devices_are_those_of_torch(with_mps):
    assert registry.list_present_devices()[:2] == ("cpu", "mps")
    with_mps.setattr(torch.mps, "is_available", lambda: False)
    with_mps.setattr(torch.cuda, "is_available", lambda: True)
    assert registry.list_present_devices() == ("cpu", "cuda")


def test_each_device_has_the_backends_that_take_its_tensors():
    assert registry.list_backends("cpu") == ("cpu", "mlx")
    assert set(registry.list_backends("mps")) == {"mlx", "mps"}
    assert registry.list_backends("cuda") == ("cuda",)


def test_without_mps_nothing_is_said_of_storage(monkeypatch):
    monkeypatch.setattr(torch.mps, "is_available", lambda: False)
    assert state.examine_mps_storage() == {"expected": "no MPS device", "found": "no MPS device"}


@pytest.mark.parametrize(
    ("version", "expected"), [("2.11.0", "copied"), ("2.12.0", "shared"), ("2.13.0+cpu", "shared")]
)
def test_storage_is_expected_by_release_and_told_as_it_is(version, expected, with_mps):
    with_mps.setattr(torch, "__version__", version)
    with_mps.setattr(runtime, "has_gpu", lambda: True)
    with_mps.setattr(state, "_probe", lambda mx: "copied")
    assert state.examine_mps_storage() == {"expected": expected, "found": "copied"}


def test_without_a_gpu_of_mlx_nothing_is_tried(with_mps):
    with_mps.setattr(state, "_probe", lambda mx: pytest.fail("tried"))
    assert state.examine_mps_storage()["found"] == "not tried: this MLX has no GPU"
    with_mps.setattr(runtime, "unavailable_reason", lambda: "it is missing")
    assert state.examine_mps_storage()["found"] == "not tried: it is missing"


def test_a_driver_that_refuses_is_told(with_mps):
    def refuse(mx):
        raise RuntimeError("MPS backend out of memory")

    with_mps.setattr(runtime, "has_gpu", lambda: True)
    with_mps.setattr(state, "_probe", refuse)
    assert state.examine_mps_storage()["found"] == "RuntimeError: MPS backend out of memory"


class Importer:
    """A stand-in for ``mlx.core``: an import that shares, copies or misplaces memory."""

    def __init__(self, how: str) -> None:
        self.how = how

    def from_dlpack(self, tensor: torch.Tensor) -> np.ndarray:
        if self.how == "neither":
            half = tensor.numel() // 2
            whole = tensor.as_strided((2 * half,), (1,), tensor.storage_offset() - half)
            return whole.numpy()
        array = tensor.numpy()
        return array.copy() if self.how == "copied" else array

    def eval(self, array: np.ndarray) -> None:
        pass


@pytest.mark.parametrize("how", ["shared", "copied", "neither"])
def test_the_probe_tells_shared_from_copied_from_misplaced(how):
    assert state._probe(Importer(how), "cpu").partition(":")[0] == how


def test_the_probe_works_on_mlx():
    assert state._probe(runtime.runtime().mx, "cpu") == "copied"  # as MLX does on Linux


def test_processes_are_told(monkeypatch):
    found = state.describe_process()
    assert not found["forked"]
    assert found["start_method"] in multiprocessing.get_all_start_methods()
    assert found["torch_threads"] == torch.get_num_threads()
    monkeypatch.setattr(state, "find_mkl", lambda: None)
    monkeypatch.setattr(state, "find_team", lambda: None)
    told = state.describe_process()
    assert (told["transforms"], told["sharing"]) == ("torch.fft", "each operation")
    monkeypatch.setattr(runtime, "unavailable_reason", lambda: runtime.FORKED)
    assert state.describe_process()["forked"]
