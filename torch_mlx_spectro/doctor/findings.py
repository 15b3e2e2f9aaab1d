"""What is wrong or worth knowing, from what was examined, with the commands that mend it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..backends import registry
from ..settings import RECOGNISED
from .versions import MLX, known_bad

#: Of a finding: with an error not all is well; a warning costs speed or comfort; a note nothing.
LEVELS = ("error", "warning", "note")

WELL = (
    "All is well. Call torch_mlx_spectro.patch() at the start of a program, or start it by"
    " `torch-mlx-spectro run --stats PROGRAM`; `torch-mlx-spectro demo` shows an example."
)


@dataclass(frozen=True)
class Finding:
    """One thing to know.

    Attributes:
        level: one of :data:`LEVELS`.
        text: what is so, and what follows from it.
        fix: commands that end it, or that find out more.
        threads: where it is discussed, as ``owner/repository#number``.
    """

    level: str
    text: str
    fix: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()


def gather_findings(found: Mapping[str, Any]) -> tuple[Finding, ...]:
    """List the findings on what ``examine`` found, the most urgent first."""
    judges = (_judge_settings, _judge_backends, _judge_checks, _judge_versions, _judge_state)
    gathered = chain.from_iterable(judge(found) for judge in judges)
    return tuple(sorted(gathered, key=lambda finding: LEVELS.index(finding.level)))


def _judge_settings(found: Mapping[str, Any]) -> Iterator[Finding]:
    if error := found["settings"]["error"]:
        named = [name for name in RECOGNISED if re.search(rf"\b{name}\b", error)]
        yield Finding(
            "error",
            f"Correct or unset the environment variable: {error}.",
            tuple(f"unset {name}" for name in named),
        )


def _judge_backends(found: Mapping[str, Any]) -> Iterator[Finding]:
    backends, on_a_mac = found["backends"], found["system"] == "Darwin"
    if not backends["mlx"]["available"]:
        others = any(one.in_auto and backends[one.name]["available"] for one in registry.specs())
        yield Finding(
            "warning" if others else "error",
            f"Make MLX usable ({backends['mlx']['reason']}): install {MLX!r} with pip. Until then"
            f" {'CPU tensors go' if others else 'every call goes'} to native torch.",
            (f"python -m pip install --upgrade '{MLX}'",),
        )
    if on_a_mac and found["machine"] == "x86_64":
        yield Finding(
            "error",
            "This Python is built for Intel processors: MLX and MPS need one for arm64. On a Mac"
            " with Apple silicon, install that one and make the environment anew.",
            ("python -c 'import platform; print(platform.machine())'",),
        )
    elif on_a_mac and "mps" not in found["devices"]:
        yield Finding(
            "warning",
            "torch finds no MPS device: tensors can be on the CPU alone. In a virtual machine there"
            " may be none.",
            ("python -c 'import torch; print(torch.backends.mps.is_built())'",),
            ("actions/runner-images#9918",),
        )
    if "cuda" in found["devices"] and not backends["cuda"]["available"]:
        yield Finding(
            "warning",
            f"CUDA tensors go to native torch: {backends['cuda']['reason']}.",
            ("python -m pip install 'torch-mlx-spectro[cuda]'",),
        )
    for name, follows in found["absent_names"].items():
        yield Finding("warning", f"This torch has no {name}: {follows}.")


def _judge_checks(found: Mapping[str, Any]) -> Iterator[Finding]:
    for check in found["self_checks"]:
        backend, device = check["backend"], check["device"]
        more = f"torch-mlx-spectro parity --backend {backend} --device {device} --minimise"
        if check["ok"]:
            continue
        if backend == "native":
            yield Finding(
                "warning",
                f"Native torch fails on {device}: {check['error']}. That is not this package's"
                " doing, and what falls back to native torch there is not to be trusted.",
                (more,),
            )
        else:
            yield Finding(
                "error",
                f"The self-check of {backend} on {device} failed ({check['error']}). Set"
                " TORCH_MLX_SPECTRO_BACKEND=native, which leaves every call to torch, and report"
                " the output of `torch-mlx-spectro doctor --report`.",
                (
                    "export TORCH_MLX_SPECTRO_BACKEND=native",
                    "torch-mlx-spectro doctor --report",
                    more,
                ),
            )


def _judge_versions(found: Mapping[str, Any]) -> Iterator[Finding]:
    for bad in known_bad(found["versions"], "mps" in found["devices"]):
        yield Finding(bad.level, f"{bad.package}: {bad.what}.", bad.fix, bad.threads)
    expected, seen = found["mps_storage"]["expected"], found["mps_storage"]["found"]
    if seen not in ("shared", "copied", expected) and not seen.startswith("not tried"):
        yield Finding(
            "warning",
            f"How MPS tensors cross to MLX could not be found out: {seen}.",
            ("export TORCH_MLX_SPECTRO_BACKEND=native",),
        )
    elif (expected, seen) == ("shared", "copied"):
        yield Finding(
            "note",
            "MPS tensors are copied on their way to MLX, though this torch keeps them in memory"
            " that both could share: the `mlx` backend is slower for it.",
        )


def _judge_state(found: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge the files on disk, this process, and the names that :func:`patch` leaves to torch."""
    kept = found["verdicts"]
    if kept["warning"]:
        yield Finding("warning", f"{kept['warning']}.")
    if kept["quarantined"]:
        forget = (f"rm {shlex.quote(kept['path'])}",) if kept["path"] else ()
        yield Finding(
            "warning",
            f"{len(kept['quarantined'])} kinds of calls were computed wrongly here before: auto"
            " leaves them to native torch. Report them. They are tried again after an upgrade, or"
            " without the file of verdicts.",
            ("torch-mlx-spectro doctor --report", *forget),
        )
    for folder in found["folders"]:
        if folder["problem"]:
            fix = f"rm -r {shlex.quote(folder['path'])}"
            yield Finding("warning", f"{folder['problem']}.", (fix,))
    if found["processes"]["forked"]:
        yield Finding(
            "warning",
            "This process was forked after MLX was loaded: it computes natively. Start workers by"
            ' multiprocessing.set_start_method("spawn").',
        )
    if found["left"]:
        yield Finding(
            "note",
            f"patch() leaves torch's own functions in {', '.join(found['left'])}. A program that"
            " does not keep them to compare with calls them stft and istft, or through torch.",
        )
