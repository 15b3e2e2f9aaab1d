"""Every backend that can compute the host's tensors here, as an object.

Each as it is where it takes them, with its Metal kernels emulated where it has some, and that of
CUDA by the stand-in of a device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from cuda_stand_in import Emulated, standing_in
from needs import needs_emulator, needs_mlx

import torch_mlx_spectro as tms
from torch_mlx_spectro import emulator
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.backends.base import Backend

EMULATED, STAND_IN = "emulated", "stand-in"


@dataclass(frozen=True)
class Computing:
    """A backend that computes host tensors.

    Attributes:
        name: in the registry.
        backend: itself.
        launches: of its emulated kernels; None where it launches none.
    """

    name: str
    backend: Backend
    launches: Sequence[Any] | None = None

    def call(self, op: str, tensor: torch.Tensor, window: Any, **given: Any) -> torch.Tensor:
        """A call that autograd may differentiate, by this backend or by nobody."""
        before = 0 if self.launches is None else len(self.launches)
        tms.reset_stats()
        with tms.backend(self.name, strict=True):
            result: torch.Tensor = getattr(tms, op)(tensor, window=window, **given)
        assert tms.stats().calls == {(op, self.name): 1}
        assert self.launches is None or len(self.launches) > before
        return result


def routes() -> Iterator[Any]:
    """A parameter of tests for each."""
    for spec in registry.specs():
        if "cpu" in spec.device_types:
            marks = [needs_mlx] if spec.loads_library else []
            yield pytest.param((spec.name, ""), id=spec.name, marks=marks)
        if spec.has_metal_kernels:
            how = (spec.name, EMULATED)
            yield pytest.param(how, id=f"{spec.name}-emulated", marks=needs_emulator)
        if "cuda" in spec.device_types:
            how = (spec.name, STAND_IN)
            yield pytest.param(how, id=f"{spec.name}-stand-in", marks=needs_emulator)


ROUTES = list(routes())


@contextmanager
def computing_by(route: tuple[str, str], folder: Path) -> Iterator[Computing]:
    """The backend of a route, able to compute until the context ends.

    Args:
        folder: of compiled kernels.
    """
    name, how = route
    if how == EMULATED:
        with emulator.Machine(cache_dir=folder).installed() as machine:
            yield Computing(name, registry.load(name), machine.launches)
    elif how == STAND_IN:
        kernels = Emulated(folder)
        with standing_in(kernels) as backend:
            yield Computing(name, backend, kernels.machine.launches)
    else:
        yield Computing(name, registry.load(name))
