"""Whether torch and MLX can compute on this Mac's GPU; exit code 0 when both can.

``torch.backends.mps.is_available()`` is true on virtual machines on which every allocation fails,
so this computes something. Run by itself: a driver that aborts ends this process alone.
"""

from __future__ import annotations

import platform
import sys

N = 1 << 16


def main() -> int:
    """Compute a sum by each, and tell what came of it."""
    import torch

    system = platform.mac_ver()[0] or "(none)"
    print(f"macOS {system}, {platform.machine()}, torch {torch.__version__}")
    if not torch.backends.mps.is_available():
        print("torch finds no MPS device")
        return 1
    total = float(torch.ones(N, device="mps").sum())
    print(f"torch: {N} ones on MPS add up to {total:g}")
    if total != N:
        return 1

    import mlx.core as mx

    print(f"mlx {mx.__version__}, Metal: {mx.metal.is_available()}")
    if not mx.metal.is_available():
        return 1
    total = mx.sum(mx.ones(N), stream=mx.gpu).item()
    print(f"mlx: {N} ones on the GPU add up to {total:g}")
    return 0 if total == N else 1


if __name__ == "__main__":
    sys.exit(main())
