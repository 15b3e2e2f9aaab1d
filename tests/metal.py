"""The Metal emulator as the tests use it: one cache of compiled kernels for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch_mlx_spectro as tms
from torch_mlx_spectro import emulator

#: Launches by kernel, of every test, for the report at the end.
LAUNCHES: Counter[str] = Counter()


@contextmanager
def emulated(
    folder: Path,
    *,
    checked: bool = True,
    transform: Callable[[str], str] | None = None,
    **more: Any,
) -> Iterator[emulator.Machine]:
    """torch's functions patched, strict, and computed by Metal kernels on the CPU."""
    machine = emulator.Machine(checked=checked, cache_dir=folder, transform=transform, **more)
    with machine.installed(), tms.patch(backend="mlx", strict=True):
        yield machine
    LAUNCHES.update(launch.kernel for launch in machine.launches)
