"""Ways of changing a window's values that no version of it tells."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.dlpack import from_dlpack

Change = Callable[[torch.Tensor], None]


def by_data(window: torch.Tensor) -> None:
    window.data.mul_(1.5).add_(0.25)


def by_dlpack(window: torch.Tensor) -> None:
    from_dlpack(window.detach()).mul_(1.5)


def by_storage(window: torch.Tensor) -> None:
    storage = window.untyped_storage()
    values = torch.empty(0, dtype=window.dtype, device=window.device).set_(storage)
    storage.copy_((values.clone() * 1.5 + 0.25).untyped_storage(), non_blocking=False)


def by_another_tensor(window: torch.Tensor) -> None:
    """``set_`` on the storage."""
    alias = torch.empty(0, dtype=window.dtype, device=window.device)
    alias.set_(window.untyped_storage())
    alias.mul_(1.5).add_(0.25)


def by_numpy(window: torch.Tensor) -> None:
    window.detach().numpy()[...] *= 1.5


_SENDER = """
import sys, torch, torch.distributed as dist
dist.init_process_group("gloo", init_method=sys.argv[1], rank=1, world_size=2)
values = torch.rand(int(sys.argv[2])) + 0.75
dist.broadcast(values, 1)
dist.destroy_process_group()
"""


def by_broadcast(window: torch.Tensor) -> None:
    """From another process; for contiguous windows of the host."""
    received = torch.view_as_real(window).flatten() if window.is_complex() else window
    with tempfile.TemporaryDirectory() as folder:
        place = (Path(folder) / "meeting").as_uri()
        command = [sys.executable, "-c", _SENDER, place, str(received.numel())]
        with subprocess.Popen(command) as sender:
            dist.init_process_group("gloo", init_method=place, rank=0, world_size=2)
            try:
                dist.broadcast(received.data, 1)
            finally:
                dist.destroy_process_group()
            assert sender.wait(60) == 0


#: Of any device.
CHANGES: dict[str, Change] = {
    "data": by_data,
    "dlpack": by_dlpack,
    "storage": by_storage,
    "set_": by_another_tensor,
}
#: Of the host's tensors.
HOST_CHANGES: dict[str, Change] = {**CHANGES, "numpy": by_numpy}

#: Windows of so many values at most, as they lie in memory.
LAYOUTS: dict[str, Callable[[int, torch.device], torch.Tensor]] = {
    "whole": lambda n, device: torch.rand(n, device=device) + 0.5,
    "short": lambda n, device: torch.rand(n - 3, device=device) + 0.5,
    "strided": lambda n, device: (torch.rand(2 * n, device=device) + 0.5)[::2],
    "complex": lambda n, device: torch.complex(
        torch.rand(n, device=device) + 1.0, torch.rand(n, device=device) * 0.5
    ),
}
