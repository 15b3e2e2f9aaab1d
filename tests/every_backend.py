"""Calls of one size by each of our backends, for what has to be so whoever computes.

Host tensors stand for a device's: what is emulated, and what stands in, is said in metal.py and
cuda_stand_in.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import metal
import pytest
import torch
from cuda_stand_in import Emulated, standing_in
from reference import istft_params, random_tensor, stft_params

import torch_mlx_spectro as tms
from torch_mlx_spectro import emulator
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.calls import operation as calls
from torch_mlx_spectro.native import functions as native
from torch_mlx_spectro.native.strides import with_view

Call = Callable[..., torch.Tensor]
WINDOW = torch.hann_window(16) + 0.1
SHORT = torch.hann_window(12) + 0.1


def natively(op: str, tensor: torch.Tensor, **given: Any) -> torch.Tensor:
    result: torch.Tensor = getattr(native, op)(tensor, **_all(op, given))
    return result


def patched(op: str, tensor: torch.Tensor, **given: Any) -> torch.Tensor:
    result: torch.Tensor = getattr(torch, op)(tensor, **_all(op, given))
    return result


def _all(op: str, given: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments: those that are given, sizes, a window, and complex values."""
    of_op = {"return_complex": True} if op == "stft" else {}
    return {"n_fft": 16, "hop_length": 4, "window": WINDOW, **of_op, **given}


def _resolved(op: str, tensor: torch.Tensor, arguments: dict[str, Any]) -> Any:
    others = {name: value for name, value in arguments.items() if name != "window"}
    resolve: Any = stft_params if op == "stft" else istft_params
    return resolve(tensor, arguments["window"], **others)


def by_prepared_launch(op: str, tensor: torch.Tensor, **given: Any) -> torch.Tensor:
    """As a CUDA call that comes again; nothing is computed."""
    arguments = _all(op, given)
    call = calls.Call(_resolved(op, tensor, arguments), tensor, arguments["window"])
    prepared = registry.load("cuda").prepare(call, natively(op, tensor, **given))
    assert prepared is not None
    return with_view(call.params, prepared)(tensor, arguments["window"])


ROUTES = ["blocks", "cpu", "kernels", "mps", "cuda"]


@pytest.fixture(params=ROUTES)
def ours(request: pytest.FixtureRequest) -> Iterator[Call]:
    """A call by one of the backends; it must have computed something at the end."""
    if request.param in ("blocks", "cpu"):
        backend = "mlx" if request.param == "blocks" else "cpu"
        with tms.patch(backend, strict=True):
            yield patched
        _check_all_accelerated(backend)
        return
    if (reason := emulator.available()) is not None:
        pytest.skip(reason)
    folder: Path = request.getfixturevalue("metal_cache")
    if request.param == "cuda":
        kernels = Emulated(folder)
        with standing_in(kernels), tms.patch("cuda", strict=True):
            yield patched
        assert kernels.machine.launches
        _check_all_accelerated("cuda")
        return
    backend = "mlx" if request.param == "kernels" else "mps"
    with metal.emulated(folder, backend=backend, checked=False) as machine:
        yield patched
    assert machine.launches
    _check_all_accelerated(backend)


def _check_all_accelerated(backend: str) -> None:
    stats = tms.stats()
    assert {of for _, of in stats.calls} == {backend}
    assert not stats.fallbacks


def given_tensor(op: str, rows: int | None, bins: int = 9) -> torch.Tensor:
    shape = (100,) if op == "stft" else (bins, 20)
    if rows is not None:
        shape = (rows, *shape)
    return random_tensor(0, *shape, complex_values=op == "istft")


#: Calls that native shapes in different ways.
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("stft", {}),
    ("stft", {"return_complex": False}),
    ("stft", {"center": False}),
    ("istft", {}),
    ("istft", {"length": 60}),
    ("istft", {"length": 120}),
    ("istft", {"onesided": False, "return_complex": True}),
]
