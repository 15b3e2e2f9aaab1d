"""The matrix tells what then happens."""

from __future__ import annotations

import pytest
import torch

import torch_mlx_spectro as tms
from torch_mlx_spectro import emulator
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.doctor import checks as matrix
from torch_mlx_spectro.doctor import command as doctor
from torch_mlx_spectro.doctor.checks import KINDS, Kind


def test_every_kind_of_call_on_every_device_by_every_backend_for_it():
    cells = matrix.matrix()
    assert {cell["device"] for cell in cells} >= {"cpu"}
    on_cpu = {
        (cell["kind"], cell["op"], cell["asked"]) for cell in cells if cell["device"] == "cpu"
    }
    assert on_cpu == {
        (kind.name, op, asked)
        for kind in KINDS
        for op in ("stft", "istft")
        for asked in ("auto", *registry.list_backends("cpu"))
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_it_tells_who_then_computes(kind: Kind, monkeypatch):
    monkeypatch.setattr(matrix, "KINDS", (kind,))
    told = {(cell["op"], cell["asked"]): cell["backend"] for cell in matrix.matrix()}
    for op, arguments in (("stft", matrix._stft), ("istft", matrix._istft)):
        (tensor, *rest), keywords = arguments(kind, "cpu")
        # Of the same kind, but shorter, and of numbers.
        part = tensor.detach()[:1].narrow(-1, 0, 8192 if op == "stft" else 8)
        call = (torch.ones_like(part).requires_grad_(kind.gradient), *rest)
        tms.reset_stats()
        with tms.backend("mlx"):
            getattr(tms, op)(*call, **keywords)
        assert set(tms.stats().calls) == {(op, told[op, "mlx"])}


def test_emulated_kernels_are_told_by_name():
    with emulator.Machine().installed():
        cells = matrix.matrix()
    kernels = {
        (cell["op"], cell["kind"]): cell["kernel"] for cell in cells if cell["asked"] == "mlx"
    }
    assert kernels["stft", "n_fft 1024"] == "metal analysis"
    assert kernels["istft", "n_fft 960"] == "metal synthesis"
    assert kernels["stft", "n_fft 1021, a prime"] == "metal cut_frames + mlx fft"


def test_float64_is_cpus_or_native_which_says_why():
    cells = [cell for cell in matrix.matrix() if cell["kind"].endswith("float64")]
    assert cells
    for cell in cells:
        if cell["asked"] == "cpu":
            assert cell["backend"] == "cpu"
        elif cell["asked"] != "auto":
            assert cell["backend"] == "native"
            assert "is not accelerated" in " ".join(cell["reasons"])


def test_nothing_is_computed():
    tms.reset_stats()
    matrix.matrix()
    assert tms.stats().calls == {}


def test_a_broken_backend_is_a_cell(monkeypatch):
    def explain(*args, **kwargs):
        raise RuntimeError("no such device")

    monkeypatch.setattr(tms, "explain", explain)
    cells = matrix.matrix()
    assert {cell["reasons"] for cell in cells} == {("RuntimeError: no such device",)}
    assert {cell["backend"] for cell in cells} == {"none"}


def test_a_device_that_refuses_memory_is_a_cell(monkeypatch):
    def empty(*args, **kwargs):
        raise RuntimeError("MPS backend out of memory")

    monkeypatch.setattr(torch, "empty", empty)
    cells = matrix.matrix()
    assert {(cell["asked"], cell["backend"]) for cell in cells} == {("any", "none")}
    assert {cell["reasons"] for cell in cells} == {("RuntimeError: MPS backend out of memory",)}


def test_absent_devices_are_named(monkeypatch):
    monkeypatch.setattr(registry, "is_present", lambda name: name == "cpu")
    found = doctor.examine(self_check=False)
    assert (found["devices"], found["absent"]) == (["cpu"], ["mps", "cuda"])
