"""What is wrong or worth knowing, from what was examined, with the commands that mend it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
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


#: Whether something is so, and what to know then.
Judged = Iterable[tuple[object, Finding]]


def gather_findings(found: Mapping[str, Any]) -> tuple[Finding, ...]:
    """List the findings on what ``examine`` found, the most urgent first."""
    judges = (_judge_settings, _judge_backends, _judge_checks, _judge_versions, _judge_state)
    judged = chain.from_iterable(judge(found) for judge in judges)
    gathered = [finding for holds, finding in judged if holds]
    return tuple(sorted(gathered, key=lambda finding: LEVELS.index(finding.level)))


def _judge_settings(found: Mapping[str, Any]) -> Judged:
    error = found["settings"]["error"]
    named = [name for name in RECOGNISED if re.search(rf"\b{name}\b", error)]
    text = f"Correct or unset the environment variable: {error}."
    return [(error, Finding("error", text, tuple(f"unset {name}" for name in named)))]


def _judge_backends(found: Mapping[str, Any]) -> Judged:
    backends, devices = found["backends"], found["devices"]
    others = any(one.in_auto and backends[one.name]["available"] for one in registry.specs())
    on_a_mac, for_intel = found["system"] == "Darwin", found["machine"] == "x86_64"
    return [
        (
            not backends["mlx"]["available"],
            Finding(
                "warning" if others else "error",
                f"Make MLX usable ({backends['mlx']['reason']}): install {MLX!r} with pip. Until"
                f" then {'CPU tensors go' if others else 'every call goes'} to native torch.",
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
                ("python -m pip install 'torch-mlx-spectro[cuda]'",),
            ),
        ),
        *(
            (True, Finding("warning", f"This torch has no {name}: {follows}."))
            for name, follows in found["absent_names"].items()
        ),
    ]


def _judge_checks(found: Mapping[str, Any]) -> Judged:
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


def _judge_versions(found: Mapping[str, Any]) -> Judged:
    expected, seen = found["mps_storage"]["expected"], found["mps_storage"]["found"]
    return [
        *(
            (True, Finding(bad.level, f"{bad.package}: {bad.what}.", bad.fix, bad.threads))
            for bad in known_bad(found["versions"], "mps" in found["devices"])
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


def _judge_state(found: Mapping[str, Any]) -> Judged:
    """Judge the files on disk, this process, and the names that :func:`patch` leaves to torch."""
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
