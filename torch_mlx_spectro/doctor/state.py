"""The state of this process: threads, memory of MPS tensors, and the caches on disk."""

from __future__ import annotations

import json
import multiprocessing
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..backends import registry
from ..backends.cpu.mkl import find_mkl
from ..backends.cpu.threads import find_team
from ..backends.cuda import nvrtc as cubins
from ..backends.mlx import bridge
from ..emulator.compiler import default_cache_dir
from ..mlx import runtime
from ..store import files as disk
from ..store import verdicts
from ..verify.ledger import QUARANTINED

#: The first release that allocates all MPS tensors in memory that the CPU shares
#: (pytorch/pytorch#175818).
SHARED_SINCE = (2, 12)


def describe_process() -> dict[str, Any]:
    """Describe this process: whether it was forked, how it starts others, how many threads it has.

    A child that was forked after MLX was loaded computes natively. ``transforms`` and ``sharing``
    tell how the ``cpu`` backend computes: by what, and how threads share long calls.
    """
    chosen = multiprocessing.get_start_method(allow_none=True)
    return {
        "forked": runtime.unavailable_reason() == runtime.FORKED,
        "start_method": chosen or multiprocessing.get_all_start_methods()[0],
        "torch_threads": torch.get_num_threads(),
        "cpus": runtime.usable_cpus(),
        "transforms": "MKL, with plans that are kept" if find_mkl() else "torch.fft",
        "sharing": "whole blocks" if find_team() else "each operation",
    }


def examine_mps_storage() -> dict[str, str]:
    """Find out whether torch and MLX share the memory of MPS tensors.

    Returns:
        ``expected`` from torch's release, and ``found`` by a test: ``"shared"``, ``"copied"``, or
        why that is not known.
    """
    if not registry.is_present("mps"):
        return {"expected": "no MPS device", "found": "no MPS device"}
    reason = runtime.unavailable_reason()
    reason = reason or (None if runtime.has_gpu() else "this MLX has no GPU")
    try:
        found = f"not tried: {reason}" if reason else _probe(runtime.runtime().mx)
    except Exception as error:  # doctor reports whatever a broken driver raises
        found = f"{type(error).__name__}: {error}"
    shared = runtime.version_numbers(torch.__version__) >= SHARED_SINCE
    return {"expected": "shared" if shared else "copied", "found": found}


def _probe(mx: Any, device: str = "mps") -> str:
    """Import a tensor into MLX, write to it by torch, and see whether MLX's array changes.

    Half of the tensor is imported, since torch has exported slices without their offset
    (pytorch/pytorch#169272).
    """
    tensor = torch.zeros(8192, device=device)
    borrowed = bridge.to_mlx(mx, tensor[4096:])
    mx.eval(borrowed.array)
    tensor[4096:] = 1
    if device == "mps":
        torch.mps.synchronize()
    # Not by a sum, which the GPU would compute: the array's own memory is in question.
    seen = memoryview(borrowed.array).tolist()
    if all(value == 1 for value in seen):
        return "shared"
    return "copied" if not any(seen) else "neither: MLX sees other memory than torch wrote"


def read_verdicts(store: verdicts.Store | None = None) -> dict[str, Any]:
    """Read the verdicts that hold for these versions; a damaged file is reported, not warned of.

    Returns:
        ``path`` of the file, empty where none is kept; ``counts`` of verdicts by section;
        ``quarantined``: what was found wrong, by route; ``warning``: why the file was ignored,
        empty otherwise.
    """
    path, sections = "", {}
    try:
        kept = verdicts.store() if store is None else store
    except ValueError as error:  # a variable's value is invalid, which is a finding of its own
        warning = str(error)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            sections = kept.sections()
        path, warning = str(kept.path or ""), kept.warning
    return {
        "path": path,
        "counts": {name: len(entries) for name, entries in sections.items()},
        "quarantined": {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in sections.get(QUARANTINED, {}).items()
        },
        "warning": warning,
    }


def measure_folders() -> list[dict[str, Any]]:
    """Measure every folder of compiled kernels that this package may have written to."""
    return [
        _measure_folder("CUDA kernels", cubins.default_folder()),
        _measure_folder("emulated Metal kernels", default_cache_dir()),
    ]


def _measure_folder(name: str, path: Path | None) -> dict[str, Any]:
    """Measure one folder.

    Returns:
        Its ``name``, ``path`` (empty where no folder is known), number of ``files``, ``bytes``, and
        ``problem``: why code in it is not run; empty otherwise.
    """
    sizes = []
    for file in path.rglob("*") if path else ():
        with suppress(OSError):  # another process may have removed it
            if file.is_file():
                sizes.append(file.stat().st_size)
    return {
        "name": name,
        "path": str(path or ""),
        "files": len(sizes),
        "bytes": sum(sizes),
        "problem": disk.explain_distrust(path) if path else "",
    }
