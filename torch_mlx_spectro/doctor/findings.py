"""What is wrong or worth knowing, from what was examined, with the commands that mend it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
    """Every finding on what ``examine`` found, most urgent first."""
    mps = "mps" in found["devices"]
    gathered = [
        *_of_settings(found),
        *_of_backends(found),
        *(
            Finding("warning", f"This torch has no {name}: {follows}.")
            for name, follows in found["absent_names"].items()
        ),
        *_of_checks(found["self_checks"]),
        *(
            Finding(bad.level, f"{bad.package}: {bad.what}.", bad.fix, bad.threads)
            for bad in known_bad(found["versions"], mps)
        ),
        *_of_storage(found["mps_storage"]),
        *_of_verdicts(found["verdicts"]),
        *_of_folders(found["folders"]),
        *_of_processes(found["processes"]),
        *_of_names(found["left"]),
    ]
    return tuple(sorted(gathered, key=lambda finding: LEVELS.index(finding.level)))


def _of_settings(found: Mapping[str, Any]) -> list[Finding]:
    error = found["settings"]["error"]
    if not error:
        return []
    named = [name for name in RECOGNISED if re.search(rf"\b{name}\b", error)]
    text = f"Correct or unset the environment variable: {error}."
    return [Finding("error", text, tuple(f"unset {name}" for name in named))]


def _of_backends(found: Mapping[str, Any]) -> list[Finding]:
    backends = found["backends"]
    accelerating = [
        spec.name for spec in registry.specs() if spec.in_auto and backends[spec.name]["available"]
    ]
    findings = []
    if not backends["mlx"]["available"]:
        level = "warning" if accelerating else "error"
        until = "CPU tensors go" if accelerating else "every call goes"
        text = (
            f"Make MLX usable ({backends['mlx']['reason']}): install {MLX!r} with pip. Until then"
            f" {until} to native torch."
        )
        findings.append(Finding(level, text, (f"python -m pip install --upgrade '{MLX}'",)))
    if found["system"] == "Darwin" and found["machine"] == "x86_64":
        text = (
            "This Python is built for Intel processors: MLX and MPS need one for arm64. On a Mac"
            " with Apple silicon, install that one and make the environment anew."
        )
        check = "python -c 'import platform; print(platform.machine())'"
        findings.append(Finding("error", text, (check,)))
    elif found["system"] == "Darwin" and "mps" not in found["devices"]:
        text = (
            "torch finds no MPS device: tensors can be on the CPU alone. In a virtual machine there"
            " may be none."
        )
        check = "python -c 'import torch; print(torch.backends.mps.is_built())'"
        threads = ("actions/runner-images#9918",)
        findings.append(Finding("warning", text, (check,), threads))
    if "cuda" in found["devices"] and not backends["cuda"]["available"]:
        text = f"CUDA tensors go to native torch: {backends['cuda']['reason']}."
        install = "python -m pip install 'torch-mlx-spectro[cuda]'"
        findings.append(Finding("warning", text, (install,)))
    return findings


def _of_checks(checks: list[dict[str, Any]]) -> list[Finding]:
    findings = []
    for check in checks:
        if check["ok"]:
            continue
        backend, device = check["backend"], check["device"]
        more = (f"torch-mlx-spectro parity --backend {backend} --device {device} --minimise",)
        if backend == "native":
            text = (
                f"Native torch fails on {device}: {check['error']}. That is not this package's"
                " doing, and what falls back to native torch there is not to be trusted."
            )
            findings.append(Finding("warning", text, more))
            continue
        text = (
            f"The self-check of {backend} on {device} failed ({check['error']}). Set"
            " TORCH_MLX_SPECTRO_BACKEND=native, which leaves every call to torch, and report"
            " the output of `torch-mlx-spectro doctor --report`."
        )
        fix = ("export TORCH_MLX_SPECTRO_BACKEND=native", "torch-mlx-spectro doctor --report")
        findings.append(Finding("error", text, (*fix, *more)))
    return findings


def _of_storage(storage: Mapping[str, str]) -> list[Finding]:
    found = storage["found"]
    if found not in ("shared", "copied"):
        if storage["expected"] == found or found.startswith("not tried"):
            return []
        text = f"How MPS tensors cross to MLX could not be found out: {found}."
        return [Finding("warning", text, ("export TORCH_MLX_SPECTRO_BACKEND=native",))]
    if found == storage["expected"] or found == "shared":
        return []
    text = "MPS tensors are copied on their way to MLX, though this torch keeps them in memory"
    return [Finding("note", f"{text} that both could share: the `mlx` backend is slower for it.")]


def _of_verdicts(kept: Mapping[str, Any]) -> list[Finding]:
    findings = [Finding("warning", f"{kept['warning']}.")] if kept["warning"] else []
    if kept["quarantined"]:
        text = (
            f"{len(kept['quarantined'])} kinds of calls were computed wrongly here before: auto"
            " leaves them to native torch. Report them. They are tried again after an upgrade, or"
            " without the file of verdicts."
        )
        forget = (f"rm {shlex.quote(kept['path'])}",) if kept["path"] else ()
        fix = ("torch-mlx-spectro doctor --report", *forget)
        findings.append(Finding("warning", text, fix))
    return findings


def _of_folders(folders: Iterable[Mapping[str, Any]]) -> list[Finding]:
    return [
        Finding("warning", f"{folder['problem']}.", (f"rm -r {shlex.quote(folder['path'])}",))
        for folder in folders
        if folder["problem"]
    ]


def _of_processes(processes: Mapping[str, Any]) -> list[Finding]:
    if not processes["forked"]:
        return []
    text = (
        "This process was forked after MLX was loaded: it computes natively. Start workers by"
        ' multiprocessing.set_start_method("spawn").'
    )
    return [Finding("warning", text)]


def _of_names(left: list[str]) -> list[Finding]:
    if not left:
        return []
    text = (
        f"patch() leaves torch's own functions in {', '.join(left)}. A program that does not keep"
        " them to compare with calls them stft and istft, or through torch."
    )
    return [Finding("note", text)]
