"""Releases of torch, MLX and macOS with known problems, and the releases that mended them.

Every entry names the threads that it was learned from; each was read before it was written here.
A thread that says no release is placed by the releases between which it was merged.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from ..mlx.runtime import MINIMUM_MLX, version_numbers

#: What is shown, in this order; the last two come with extras.
PACKAGES = ("torch", "mlx", "numpy", "rich", "platformdirs", "cuda-core", "ziglang")

#: The requirement on MLX, as pip takes it; on Linux its CPU build is an extra.
MLX = f"mlx{'[cpu]' if sys.platform == 'linux' else ''}>={'.'.join(map(str, MINIMUM_MLX))}"


@dataclass(frozen=True)
class KnownBad:
    """What is wrong with some releases.

    Attributes:
        package: ``"torch"``, ``"mlx"`` or ``"macos"``.
        since: the first release that has it; () for all.
        before: the first release without it; () where there is none.
        level: ``"error"``, ``"warning"`` or ``"note"``, as of findings.
        what: what happens.
        threads: where it was reported or mended, as ``owner/repository#number``.
        fix: commands that end it.
        on_mps: it matters only where torch has an MPS device.
    """

    package: str
    since: tuple[int, ...]
    before: tuple[int, ...]
    level: str
    what: str
    threads: tuple[str, ...]
    fix: tuple[str, ...] = ()
    on_mps: bool = True

    def holds(self, versions: Mapping[str, str | None], mps: bool) -> bool:
        """Whether an installation has it."""
        version = versions.get(self.package)
        if not version or (self.on_mps and not mps):
            return False
        numbers = version_numbers(version)
        return self.since <= numbers and (not self.before or numbers < self.before)


_UPGRADE_MLX = (f"python -m pip install --upgrade '{MLX}'",)

KNOWN_BAD = (
    KnownBad(
        "mlx",
        (),
        MINIMUM_MLX,
        "error",
        "importing MPS tensors with a copy can hang for ever: MLX waits for the GPU while it holds "
        "Python's lock. This package does not use such a release",
        ("ml-explore/mlx#4497",),
        _UPGRADE_MLX,
        on_mps=False,
    ),
    KnownBad(
        "mlx",
        (),
        (0, 32, 1),
        "error",
        "FFTs longer than 2**20 are wrong on Metal, without an error, or end the process",
        ("ml-explore/mlx#4013", "ml-explore/mlx#1800"),
        _UPGRADE_MLX,
    ),
    KnownBad(
        "mlx",
        (0, 31, 2),
        (0, 32, 0),
        "error",
        "a stream can be used by the thread that made it alone, and there is no other kind",
        ("ml-explore/mlx#3727", "ml-explore/mlx#3578"),
        _UPGRADE_MLX,
        on_mps=False,
    ),
    KnownBad(
        "torch",
        (),
        (2, 10),
        "error",
        "sliced MPS tensors cross to MLX without their offset, as other samples",
        ("pytorch/pytorch#169272",),
        ("python -m pip install --upgrade 'torch>=2.10'",),
    ),
    KnownBad(
        "torch",
        (),
        (2, 12),
        "warning",
        "MPS tensors lie in private storage, so that each crossing to MLX copies them",
        ("pytorch/pytorch#175818", "ml-explore/mlx#3531"),
        ("python -m pip install --upgrade 'torch>=2.12'",),
    ),
    KnownBad(
        "torch",
        (),
        (2, 13),
        "warning",
        'native stft and istft on MPS warn that "an output with one or more elements was resized"',
        ("pytorch/pytorch#174003", "pytorch/pytorch#183061"),
        ("python -m pip install --upgrade 'torch>=2.13'",),
    ),
    KnownBad(
        "torch",
        (),
        (),
        "note",
        "native torch.fft.irfft of odd lengths on MPS was reported wrong, and the report was open "
        "when this was written: native istft of an odd n_fft may be",
        ("pytorch/pytorch#126649",),
        ("torch-mlx-spectro parity --backend native --device mps --select n_fft=15",),
    ),
    KnownBad(
        "macos",
        (26,),
        (),
        "note",
        "native torch on MPS was reported to compute something else than on macOS 15, with every "
        "release of torch that was tried (a segmentation model, no STFT): where it and this "
        "package differ, either may be wrong",
        ("actions/runner-images#14380",),
        ("torch-mlx-spectro parity --backend native --device mps",),
    ),
)


def list_versions(own: str) -> dict[str, str | None]:
    """Versions by package, None for one that is not installed; imports none of them."""
    versions: dict[str, str | None] = {
        "torch_mlx_spectro": own,
        "python": platform.python_version(),
        "macos": platform.mac_ver()[0] or None,
    }
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def known_bad(versions: Mapping[str, str | None], mps: bool) -> tuple[KnownBad, ...]:
    """The entries that hold for these versions."""
    return tuple(entry for entry in KNOWN_BAD if entry.holds(versions, mps))
