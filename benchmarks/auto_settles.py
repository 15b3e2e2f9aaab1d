"""Whether small calls settle on ``cuda`` under ``auto``, in processes that know nothing yet.

python benchmarks/auto_settles.py [--processes 5] [--calls 100] [--backend cuda]

Each process has a file of verdicts of its own, which is empty, and calls both functions in a loop,
as a program does that waits for nothing. The exit code is 1 unless every one settles on it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS, SAMPLES, N_FFT, HOP = 1, 16000, 512, 128


def settle(calls: int) -> dict[str, Any]:
    """What a fresh process settles on, and what its calls took: to be run in one."""
    import torch

    import torch_mlx_spectro as tms
    from torch_mlx_spectro.store import verdicts

    signal = torch.randn(ROWS, SAMPLES, device="cuda")
    window = torch.hann_window(N_FFT, device="cuda")
    spectrum = torch.stft(signal, N_FFT, HOP, window=window, return_complex=True)
    found: dict[str, Any] = {}
    given = {"stft": (signal, {"return_complex": True}), "istft": (spectrum, {"length": SAMPLES})}
    for name, (tensor, more) in given.items():
        function, took = getattr(tms, name), []
        for _ in range(calls):
            begin = time.perf_counter()
            function(tensor, N_FFT, HOP, window=window, **more)
            took.append(round(1e6 * (time.perf_counter() - begin), 1))
        torch.cuda.synchronize()
        route = tms.explain(name, tensor, N_FFT, HOP, window=window, **more)
        found[name] = {
            "backend": route.backend,
            "reasons": route.reasons,
            "microseconds on the host": took,
        }
    found["stats"] = str(tms.stats())
    found["verdicts"] = verdicts.store().sections().get("routes", {})
    return found


def report(number: int, calls: int) -> dict[str, Any]:
    """What one fresh process settles on; printed."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "verdicts.json")
        environment = os.environ | {
            "SPEC_MLX_AUTOTUNE_CACHE_PATH": path,
            "TORCH_MLX_SPECTRO_BACKEND": "auto",
        }
        command = [sys.executable, __file__, "--calls", str(calls), "--one"]
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for name in ("stft", "istft"):
        one = found[name]
        print(f"process {number}, {name}: {one['backend']} ({'; '.join(one['reasons'])})")
        print("   ", *one["microseconds on the host"])
    print(found["stats"])
    for signature, outcome in found["verdicts"].items():
        print(f"    {signature}: {outcome['seconds']}")
    return found


def main() -> int:
    """Run the processes one after another."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--backend", default="cuda", help="that is expected")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(settle(given.calls)))
        return 0
    found = [report(number, given.calls) for number in range(given.processes)]
    settled = [one[name]["backend"] for one in found for name in ("stft", "istft")]
    wrong = sum(backend != given.backend for backend in settled)
    print(f"{len(settled) - wrong} of {len(settled)} settled on {given.backend}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
