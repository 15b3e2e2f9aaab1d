"""Run Python in a process of its own, plainly or under ``torch-mlx-spectro run``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch_mlx_spectro

CLI = ("-m", "torch_mlx_spectro")
RUN = (*CLI, "run")


def python(
    *arguments: str, cwd: Path, stdin: str = "", variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run this Python with the package under test importable from any folder."""
    env = {
        key: value for key, value in os.environ.items() if not key.startswith("TORCH_MLX_SPECTRO_")
    }
    paths = [str(Path(torch_mlx_spectro.__file__).parents[1]), env.get("PYTHONPATH", "")]
    env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        input=stdin,
        env=env | (variables or {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
