"""What is wrong or worth knowing about an installation, with the commands that mend it.

This includes releases of torch, MLX and macOS with known problems. Every entry of their table names
the threads that report it, and each thread was read before the entry was written. If a thread names
no release, the entry is placed by the releases between which the thread's change was merged.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..backends import registry
from ..errors import suggest
from ..mlx.runtime import MINIMUM_MLX, version_numbers
from ..settings import RECOGNISED

#: Packages whose versions are shown, in this order; the last two come with extras.
PACKAGES = ("torch", "mlx", "numpy", "rich", "platformdirs", "cuda-core", "ziglang")

#: The requirement on MLX in pip's words; on Linux its CPU build is an extra.
MLX = f"mlx{'[cpu]' if sys.platform == 'linux' else ''}>={'.'.join(map(str, MINIMUM_MLX))}"


@dataclass(frozen=True)
class KnownBad:
    """A known problem of some releases.

    Attributes:
        package: ``"torch"``, ``"mlx"`` or ``"macos"``.
        since: the first release that has the problem; () if all have it.
        before: the first release without it; () if there is none yet.
        level: ``"error"``, ``"warning"`` or ``"note"``, see :data:`LEVELS`.
        what: what happens.
        threads: where it was reported or mended, as ``owner/repository#number``.
        fix: commands that end it.
        on_mps: whether it matters only where torch has an MPS device.
    """

    package: str
    since: tuple[int, ...]
    before: tuple[int, ...]
    level: str
    what: str
    threads: tuple[str, ...]
    fix: tuple[str, ...] = ()
    on_mps: bool = True


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


def explain_torch(reason: str) -> Finding:
    """Explain that torch cannot be imported, and what there is without it."""
    is_here = importlib.util.find_spec("torch") is not None
    return Finding(
        "error",
        f"PyTorch {'cannot be imported' if is_here else 'is not installed'} ({reason}). Install"
        f" torch for this Python, {sys.executable}. Until then there are the transforms of MLX's"
        " own arrays alone.",
        (f"{shlex.quote(sys.executable)} -m pip install --upgrade torch",),
    )


def list_versions(own: str) -> dict[str, str | None]:
    """List versions by package, None for one that is not installed; imports none of them."""
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


def find_known_bad(versions: Mapping[str, str | None], mps: bool) -> tuple[KnownBad, ...]:
    """Find the known problems of these versions."""
    here = {name: version_numbers(version) for name, version in versions.items() if version}
    return tuple(
        bad
        for bad in KNOWN_BAD
        if bad.package in here and bad.since <= here[bad.package]
        if not bad.before or here[bad.package] < bad.before
        if mps or not bad.on_mps
    )


#: How bad a finding is: with an error something does not work; a warning costs speed or comfort; a
#: note costs nothing.
LEVELS = ("error", "warning", "note")

#: The next step where nothing is wrong.
NEXT = (
    "Call torch_mlx_spectro.patch() at the start of a program, or start it by"
    " `torch-mlx-spectro run --stats PROGRAM`; `torch-mlx-spectro demo` shows an example."
)


@dataclass(frozen=True)
class Finding:
    """One thing to know about an installation.

    Attributes:
        level: one of :data:`LEVELS`.
        text: what was found, and what follows from it.
        fix: commands that mend it, or that find out more.
        threads: where it is discussed, as ``owner/repository#number``.
    """

    level: str
    text: str
    fix: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()


#: Pairs of a condition and the finding that is reported if the condition is true.
Examined = Iterable[tuple[object, Finding]]


def gather_findings(found: Mapping[str, Any]) -> tuple[Finding, ...]:
    """List the findings on what ``examine`` found, the most urgent first."""
    examiners = (
        _examine_settings,
        _examine_backends,
        _examine_checks,
        _examine_versions,
        _examine_state,
    )
    examined = chain.from_iterable(examine(found) for examine in examiners)
    gathered = [finding for holds, finding in examined if holds]
    return tuple(sorted(gathered, key=lambda finding: LEVELS.index(finding.level)))


def _examine_settings(found: Mapping[str, Any]) -> Examined:
    error = found["settings"]["error"]
    named = [name for name in RECOGNISED if re.search(rf"\b{name}\b", error)]
    text = f"Correct or unset the environment variable: {error}."
    unread = "Nothing reads the environment variable"
    return [
        (error, Finding("error", text, tuple(f"unset {name}" for name in named))),
        *(
            (True, Finding("warning", f"{unread} {name}{like or '.'}", (f"unset {name}",)))
            for name in found["unread"]
            for like in (suggest(name, RECOGNISED),)
        ),
    ]


def _examine_backends(found: Mapping[str, Any]) -> Examined:
    backends, devices = found["backends"], found["devices"]
    on_a_mac, for_intel = found["system"] == "Darwin", found["machine"] == "x86_64"
    return [
        (
            not backends["mlx"]["available"],
            Finding(
                "warning",
                f"Make MLX usable ({backends['mlx']['reason']}): install {MLX!r} with pip. Until"
                " then there are no transforms of MLX's own arrays, and no backend 'mlx'.",
                (f"python -m pip install --upgrade '{MLX}'",),
            ),
        ),
        (
            on_a_mac and for_intel,
            Finding(
                "error",
                "This Python is built for Intel processors: MLX and MPS need one for arm64. On a"
                " Mac with Apple silicon, install that one and make the environment anew.",
                ("python -c 'import platform; print(platform.machine())'",),
            ),
        ),
        (
            on_a_mac and not for_intel and "mps" not in devices,
            Finding(
                "warning",
                "torch finds no MPS device: tensors can be on the CPU alone. In a virtual machine"
                " there may be none.",
                ("python -c 'import torch; print(torch.backends.mps.is_built())'",),
                ("actions/runner-images#9918",),
            ),
        ),
        (
            "cuda" in devices and not backends["cuda"]["available"],
            Finding(
                "warning",
                f"CUDA tensors go to native torch: {backends['cuda']['reason']}.",
                ("python -m pip install cuda-core",),
            ),
        ),
        *(
            (True, Finding("warning", f"This torch has no {name}: {follows}."))
            for name, follows in found["absent_names"].items()
        ),
    ]


def _examine_checks(found: Mapping[str, Any]) -> Examined:
    for check in found["self_checks"]:
        backend, device, error = check["backend"], check["device"], check["error"]
        more = f"torch-mlx-spectro parity --backend {backend} --device {device} --minimise"
        native_fails = Finding(
            "warning",
            f"Native torch fails on {device}: {error}. That is not this package's doing, and what"
            " falls back to native torch there is not to be trusted.",
            (more,),
        )
        ours_fails = Finding(
            "error",
            f"The self-check of {backend} on {device} failed ({error}). Set"
            " TORCH_MLX_SPECTRO_BACKEND=native, which leaves every call to torch, and report"
            " the output of `torch-mlx-spectro doctor --report`.",
            ("export TORCH_MLX_SPECTRO_BACKEND=native", "torch-mlx-spectro doctor --report", more),
        )
        yield not check["ok"], native_fails if backend == registry.NATIVE else ours_fails


def _examine_versions(found: Mapping[str, Any]) -> Examined:
    expected, seen = found["mps_storage"]["expected"], found["mps_storage"]["found"]
    return [
        *(
            (True, Finding(bad.level, f"{bad.package}: {bad.what}.", bad.fix, bad.threads))
            for bad in find_known_bad(found["versions"], "mps" in found["devices"])
        ),
        (
            seen not in ("shared", "copied", expected) and not seen.startswith("not tried"),
            Finding(
                "warning",
                f"How MPS tensors cross to MLX could not be found out: {seen}.",
                ("export TORCH_MLX_SPECTRO_BACKEND=native",),
            ),
        ),
        (
            (expected, seen) == ("shared", "copied"),
            Finding(
                "note",
                "MPS tensors are copied on their way to MLX, though this torch keeps them in memory"
                " that both could share: the `mlx` backend is slower for it.",
            ),
        ),
    ]


def _examine_state(found: Mapping[str, Any]) -> Examined:
    """Judge files on disk, this process, and the names that :func:`patch` leaves to torch."""
    kept = found["verdicts"]
    forget = (f"rm {shlex.quote(kept['path'])}",) if kept["path"] else ()
    return [
        (kept["warning"], Finding("warning", f"{kept['warning']}.")),
        (
            kept["quarantined"],
            Finding(
                "warning",
                f"{len(kept['quarantined'])} kinds of calls were computed wrongly here before: auto"
                " leaves them to native torch. Report them. They are tried again after an upgrade,"
                " or without the file of verdicts.",
                ("torch-mlx-spectro doctor --report", *forget),
            ),
        ),
        *(
            (
                folder["problem"],
                Finding(
                    "warning", f"{folder['problem']}.", (f"rm -r {shlex.quote(folder['path'])}",)
                ),
            )
            for folder in found["folders"]
        ),
        (
            found["processes"]["forked"],
            Finding(
                "warning",
                "This process was forked after MLX was loaded: it computes natively. Start workers"
                ' by multiprocessing.set_start_method("spawn").',
            ),
        ),
        (
            found["left"],
            Finding(
                "note",
                f"patch() leaves torch's own functions in {', '.join(found['left'])}. A program"
                " that does not keep them to compare with calls them stft and istft, or through"
                " torch.",
            ),
        ),
    ]
