"""Ways of changing a window's values that no version of it tells."""

from __future__ import annotations

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
    real = torch.view_as_real(window.detach()) if window.is_complex() else window.detach()
    from_dlpack(real).mul_(1.5)


def by_storage(window: torch.Tensor) -> None:
    storage = window.untyped_storage()
    values = torch.empty(0, dtype=window.dtype, device=window.device).set_(storage)
    other = (values.clone() * 1.5 + 0.25).untyped_storage()
    storage.copy_(other, non_blocking=False)


def by_another_tensor(window: torch.Tensor) -> None:
    """``set_`` on the storage."""
    alias = torch.empty(0, dtype=window.dtype, device=window.device)
    alias.set_(window.untyped_storage(), 0, (window.untyped_storage().nbytes() // alias.itemsize,))
    alias.mul_(1.5).add_(0.25)


def by_numpy(window: torch.Tensor) -> None:
    window.detach().numpy()[...] *= 1.5


def by_broadcast(window: torch.Tensor) -> None:
    """From a process group of one, which gets back what it sent: then by the tensor that it got."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(
            "gloo", init_method=(Path(folder) / "meeting").as_uri(), rank=0, world_size=1
        )
        try:
            received = window.detach().data
            received.mul_(1.5)
            dist.broadcast(received, 0)
        finally:
            dist.destroy_process_group()


#: Of any device.
CHANGES: dict[str, Change] = {
    "data": by_data,
    "dlpack": by_dlpack,
    "storage": by_storage,
    "set_": by_another_tensor,
}
#: Of the host's tensors besides.
HOST_CHANGES: dict[str, Change] = {**CHANGES, "numpy": by_numpy}

#: Windows of so many values, as they lie in memory.
LAYOUTS: dict[str, Callable[[int, torch.device], torch.Tensor]] = {
    "whole": lambda n, device: torch.rand(n, device=device) + 0.5,
    "short": lambda n, device: torch.rand(n - 3, device=device) + 0.5,
    "strided": lambda n, device: (torch.rand(2 * n, device=device) + 0.5)[::2],
    "complex": lambda n, device: torch.complex(
        torch.rand(n, device=device) + 1.0, torch.rand(n, device=device) * 0.5
    ),
}
