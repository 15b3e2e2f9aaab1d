"""The devices of torch here, what takes their tensors, and where MPS tensors lie."""

from __future__ import annotations

import multiprocessing
from typing import Any

import torch

from ..backends import registry
from ..backends.mlx import bridge
from ..mlx import runtime
from ..mlx.runtime import version_numbers

#: The first release that allocates all MPS tensors in memory that the CPU sees, too
#: (pytorch/pytorch#175818).
SHARED_SINCE = (2, 12)


def has_mps() -> bool:
    """Whether torch says that it has an MPS device; a virtual machine may refuse it all the same.

    GitHub documents that its macOS runners do not support MPS; torch.backends.mps.is_available()
    is true on some of them (pytorch/pytorch#125197, actions/runner-images#9918).
    """
    return bool(torch.backends.mps.is_available())


def present() -> tuple[str, ...]:
    """The device types that tensors can be made on."""
    return tuple(filter(is_present, registry.device_types()))


def absent() -> tuple[str, ...]:
    """The device types that are not here."""
    return tuple(name for name in registry.device_types() if not is_present(name))


def is_present(device_type: str) -> bool:
    """Whether torch has a device of this type."""
    if device_type == "mps":
        return has_mps()
    return device_type == "cpu" or bool(getattr(torch, device_type).is_available())


def processes() -> dict[str, Any]:
    """Whether this process was forked, how it starts others, and on how many threads it computes.

    A child that is forked after MLX was loaded computes natively.
    """
    chosen = multiprocessing.get_start_method(allow_none=True)
    return {
        "forked": runtime.unavailable_reason() == runtime.FORKED,
        "start_method": chosen or multiprocessing.get_all_start_methods()[0],
        "torch_threads": torch.get_num_threads(),
        "cpus": runtime.usable_cpus(),
    }


def mps_storage() -> dict[str, str]:
    """Whether torch and MLX share the memory of MPS tensors: what the release says, what is so.

    Returns:
        ``expected`` and ``found``: ``"shared"``, ``"copied"``, or why it is not known.
    """
    if not has_mps():
        return {"expected": "no MPS device", "found": "no MPS device"}
    shared = version_numbers(torch.__version__) >= SHARED_SINCE
    expected = "shared" if shared else "copied"
    reason = runtime.unavailable_reason()
    if reason is not None:
        return {"expected": expected, "found": f"not tried: {reason}"}
    if not runtime.has_gpu():
        return {"expected": expected, "found": "not tried: this MLX has no GPU"}
    try:
        return {"expected": expected, "found": _probe(runtime.runtime().mx)}
    except Exception as error:  # whatever a broken driver raises is what doctor is asked to tell
        return {"expected": expected, "found": f"{type(error).__name__}: {error}"}


def _probe(mx: Any, device: str = "mps") -> str:
    """Import a tensor into MLX, then write to it by torch: does MLX's array change?

    Half of the tensor is imported, since slices have been exported without their offset
    (pytorch/pytorch#169272).
    """
    tensor = torch.zeros(8192, device=device)
    borrowed = bridge.to_mlx(mx, tensor[4096:])
    mx.eval(borrowed.array)
    tensor[4096:] = 1
    if device == "mps":
        torch.mps.synchronize()
    # A sum would be computed on the GPU; the array's own memory is what is asked about.
    seen = memoryview(borrowed.array).tolist()
    if all(value == 1 for value in seen):
        return "shared"
    return "copied" if not any(seen) else "neither: MLX sees other memory than torch wrote"
