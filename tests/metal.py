"""The Metal emulator as the tests use it: one cache of compiled kernels for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import torch_mlx_spectro as tms
from torch_mlx_spectro import emulator
from torch_mlx_spectro.kernels import describe, walks
from torch_mlx_spectro.kernels.walks import WalkPlan

#: Launches by kernel, of every test, for the report at the end.
LAUNCHES: Counter[str] = Counter()


@contextmanager
def emulated(
    folder: Path,
    *,
    backend: str = "mlx",
    checked: bool = True,
    transform: Callable[[str], str] | None = None,
    **more: Any,
) -> Iterator[emulator.Machine]:
    """torch's functions patched, strict, and computed by Metal kernels on the CPU."""
    machine = emulator.Machine(checked=checked, cache_dir=folder, transform=transform, **more)
    with machine.installed(), tms.patch(backend=backend, strict=True):
        yield machine
    LAUNCHES.update(launch.kernel for launch in machine.launches)


@pytest.fixture
def several_rounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs of three rounds at least, as large inputs have them, for small sizes, too."""

    def run_hops(
        plan: WalkPlan, hops: int, rows: int, frames_fastest: bool, cores: int | None
    ) -> int:
        rounds = -(-plan.overlap // plan.fft.frames) + 2
        return rounds * plan.fft.frames - (plan.overlap - 1)

    monkeypatch.setattr(WalkPlan, "run_hops", run_hops)
    monkeypatch.setattr(walks, "LEAST_WALK_POINTS", 32)
    describe.list_syntheses.cache_clear()
    yield
    describe.list_syntheses.cache_clear()
