"""The ``mps`` backend: a resolved call on MPS tensors, by the project's own kernels."""

from __future__ import annotations

import torch

from . import torch_state


def unavailable_reason() -> str | None:
    """Why MPS tensors cannot be computed here without MLX; None where they can."""
    if torch_state.mps_is_emulated():
        return None
    if not torch.backends.mps.is_built():
        return "this torch is built without MPS"
    if not torch.backends.mps.is_available():
        return "torch finds no MPS device"
    if not hasattr(torch.mps, "compile_shader"):
        return f"torch {torch.__version__} compiles no Metal kernels (torch.mps.compile_shader)"
    return None
