"""Install both wheels as strangers do, each in an environment of its own, and run them.

python tests/wheels/run.py DIST

Everything that they depend on is installed by pip, PyTorch too; PIP_ARGS goes to it. The
environments are temporary. Exit codes: 0 when all ran, 1 when not, 2 for wrong usage.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUITE, PACKAGE = "stft_parity-*.whl", "torch_mlx_spectro-*.whl"
#: A candidate as its author would write it.
CANDIDATE = """import torch

stft, istft = torch.stft, torch.istft
"""
ABSENT = """import importlib.util as util
found = [name for name in ("mlx", "torch_mlx_spectro") if util.find_spec(name)]
assert not found, f"the parity suite has brought {found}"
"""
STRICT = """import torch
import torch_mlx_spectro as tms

with tms.patch("cpu", strict=True):
    torch.stft(torch.ones(64_000), 512, window=torch.ones(512), return_complex=True)
print(tms.stats())
assert tms.stats().accelerated == 1
"""


def find_wheel(dist: Path, pattern: str) -> Path:
    """Find the one wheel of this pattern.

    Raises:
        FileNotFoundError: there is none, or there are several.
    """
    found = list(dist.glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(f"{dist} has {len(found)} files {pattern}; run `make clean wheel`")
    return found[0].resolve()


def call(folder: Path, *command: str | Path) -> None:
    """Run a program of the environment in its folder.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "TORCH_MLX_SPECTRO_BACKEND")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    program, *arguments = map(str, command)
    print("+", program, *arguments, flush=True)
    program = str(folder / "bin" / program)
    subprocess.run([program, *arguments], cwd=folder, env=environment, check=True)


def install(folder: Path, *what: str | Path) -> None:
    """Install into the environment, with what it depends on."""
    options = ("--quiet", "--constraint", ROOT / "constraints.txt")
    given = os.environ.get("PIP_ARGS", "").split()
    call(folder, "python", "-m", "pip", "install", *options, *given, *what)


def run_suite(folder: Path, dist: Path) -> None:
    """Compare a candidate by the parity suite, without this package and without MLX."""
    install(folder, find_wheel(dist, SUITE))
    (folder / "mine.py").write_text(CANDIDATE, encoding="utf-8")
    call(folder, "python", "-c", ABSENT)
    call(folder, "stft-parity", "mine", "--select", "n_fft=15")


def run_package(folder: Path, dist: Path) -> None:
    """Run what this package installs; the parity suite comes from the folder of the wheels."""
    install(folder, "--find-links", dist.resolve(), find_wheel(dist, PACKAGE))
    call(folder, "python", "-c", STRICT)
    call(folder, "torch-mlx-spectro", "doctor")
    call(folder, "torch-mlx-spectro", "parity", "--backend", "cpu", "--select", "n_fft=15")
    # The same from the checkout, with no index that has the suite.
    call(folder, "python", "-m", "pip", "uninstall", "--yes", "--quiet", "stft-parity")
    install(folder, ROOT)
    call(folder, "stft-parity", "--help")


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    for step in (run_suite, run_package):
        with tempfile.TemporaryDirectory() as name:
            venv.create(name, with_pip=True)
            try:
                step(Path(name), Path(arguments[0]))
            except (FileNotFoundError, subprocess.CalledProcessError) as error:
                print(f"{step.__name__}: {error}", file=sys.stderr)
                return 1
    print("both wheels run")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
