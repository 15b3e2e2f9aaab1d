"""Run mlx-spectro's own tests, with its own Metal kernels, in the emulator.

python tests/peers/run_peers.py [SDIST] [--checked]

Its kernels have run on Macs: what fails here is a fault of the emulator, unless the list of known
failures says why not. Without SDIST pip downloads it. Exit codes: pytest's; 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
#: Arguments of pytest; its suite has settings of its own.
PYTEST = ("-p", "emulated_metal", "-p", "no:cacheprovider", "-q", "--tb=short", "-rfE")


def download(folder: Path) -> Path:
    """Have pip download the source distribution; the release and its hash are in a file."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", ":all:", "--no-build-isolation", "--dest", str(folder)]
    subprocess.run([*command, "-r", str(HERE / "requirements.txt")], check=True)
    (found,) = folder.glob("*.tar.gz")
    return found


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack an archive; returns the folder that is in it."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (found,) = (path for path in folder.iterdir() if path.is_dir())
    return found


def run(folder: Path, more: Sequence[str], variables: dict[str, str]) -> int:
    """Run the tests in ``folder``; returns pytest's exit code."""
    checkout = HERE.parents[1]
    paths = [folder / "src", HERE, checkout, *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        # It writes what its tuning found, and reads it in the next run.
        "SPEC_MLX_AUTOTUNE_CACHE_PATH": str(folder / "autotune.json"),
        "PYTHONDONTWRITEBYTECODE": "1",
        **variables,
    }
    command = [sys.executable, "-m", "pytest", *PYTEST, *more, "tests"]
    return subprocess.run(command, cwd=folder, env=env, check=False).returncode


def build_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="run_peers.py", description=(__doc__ or "").splitlines()[0])
    made.add_argument("sdist", nargs="?", type=Path, metavar="SDIST", help="instead of a download")
    made.add_argument("--checked", action="store_true", help="look at every access; much slower")
    made.add_argument("--known", type=Path, default=HERE / "known_failures.toml", metavar="FILE")
    made.add_argument(
        "--least", type=int, default=315, metavar="N", help="tests that have to pass (%(default)s)"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run and return the exit code; unknown arguments are pytest's."""
    options, more = build_parser().parse_known_args(argv)
    variables = {
        "PEERS_KNOWN": str(options.known.resolve()),
        "PEERS_LEAST": str(options.least),
        "PEERS_CHECKED": str(int(options.checked)),
    }
    with tempfile.TemporaryDirectory(prefix="peers-") as work:
        sdist = options.sdist or download(Path(work))
        if not sdist.is_file():
            print(f"run_peers.py: error: {sdist} is not a file", file=sys.stderr)
            return 2
        return run(unpack(sdist, Path(work)), more, variables)


if __name__ == "__main__":
    sys.exit(main())
