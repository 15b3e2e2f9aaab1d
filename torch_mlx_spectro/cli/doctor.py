"""``doctor``: what is installed, what works, and what to do about what does not."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from ..environment import RECOGNISED, settings

HELP = "versions, backends and a self-check"
DESCRIPTION = (
    "Show versions, backends and settings, compute a small stft and istft by MLX and compare them"
    " with torch's. Exit code 0 only when MLX can be used and agrees."
)
#: How far the error against float64 may exceed torch's own; the tests demand 2, on more signals.
ERROR_RATIO = 4.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def command(options: argparse.Namespace) -> int:
    """Examine this installation, print what was found, and return 0 when all is well, else 1."""
    findings = examine()
    if options.json:
        print(json.dumps(findings, indent=2))
    else:
        _print(findings)
    return 0 if findings["ok"] else 1


def examine() -> dict[str, Any]:
    """Everything that ``doctor`` says, as a JSON object; raises nothing, whatever is broken."""
    import torch_mlx_spectro as tms

    backends = {
        name: {"available": found.available, "reason": found.reason}
        for name, found in tms.available_backends().items()
    }
    try:
        effective: dict[str, Any] = {"values": dataclasses.asdict(settings()), "error": ""}
    except ValueError as error:
        effective = {"values": {}, "error": str(error)}
    usable = bool(backends["mlx"]["available"])
    check = self_check() if usable else {"ok": False, "error": "not run: mlx is not available"}
    findings: dict[str, Any] = {
        "versions": _versions(tms.__version__),
        "package": str(Path(__file__).parents[1]),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "backends": backends,
        "variables": dict(RECOGNISED),
        "settings": effective,
        "self_check": check,
    }
    findings["ok"] = usable and bool(check["ok"]) and not effective["error"]
    findings["next"] = _next_steps(findings)
    return findings


def _versions(own: str) -> dict[str, str | None]:
    """Versions by package, None for one that is not installed; imports none of them."""
    versions: dict[str, str | None] = {
        "torch_mlx_spectro": own,
        "python": platform.python_version(),
    }
    for name in ("torch", "mlx", "numpy"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def self_check() -> dict[str, Any]:
    """Compare a small stft and istft by MLX with torch's own, both against float64.

    Returns:
        ``ok``, ``error`` (what was raised, or ""), and the largest absolute errors of both.
    """
    try:
        errors = _measure_errors()
    except Exception as error:  # whatever a broken MLX raises is what doctor is asked to tell
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}
    ok = all(found["mlx"] <= ERROR_RATIO * found["native"] for found in errors.values())
    text = "" if ok else f"errors above {ERROR_RATIO:g} times torch's own"
    return {"ok": ok, "error": text, "max_error": errors}


def _measure_errors() -> dict[str, dict[str, float]]:
    """Largest errors against float64 of both operations, by native torch and by MLX."""
    import torch

    import torch_mlx_spectro as tms

    n_fft, hop = 512, 128
    signal = torch.sin(torch.arange(16384, dtype=torch.float64) ** 2 / 16384)
    noise = torch.Generator().manual_seed(0)
    signal += 0.1 * torch.randn(16384, dtype=torch.float64, generator=noise)
    window = torch.hann_window(n_fft, dtype=torch.float64)

    def compute(backend: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        with tms.backend(backend, strict=backend == "mlx"):
            scaled = window.to(dtype)
            there = tms.stft(signal.to(dtype), n_fft, hop, window=scaled, return_complex=True)
            back = tms.istft(there, n_fft, hop, window=scaled, length=len(signal))
        return {"stft": there, "istft": back}

    exact = compute("native", torch.float64)
    results = {name: compute(name, torch.float32) for name in ("native", "mlx")}
    return {
        op: {name: float((got[op] - exact[op]).abs().max()) for name, got in results.items()}
        for op in exact
    }


def _next_steps(findings: dict[str, Any]) -> list[str]:
    """What the user should do next, most urgent first."""
    steps = []
    if findings["settings"]["error"]:
        steps.append(f"Correct or unset the environment variable: {findings['settings']['error']}.")
    if not findings["backends"]["mlx"]["available"]:
        package = "mlx[cpu]" if sys.platform == "linux" else "mlx"
        steps.append(
            f"Make MLX usable ({findings['backends']['mlx']['reason']}): install {package!r} 0.32.4"
            " or later with pip. Until then every call goes to native torch."
        )
    elif not findings["self_check"]["ok"]:
        steps.append(
            "Set TORCH_MLX_SPECTRO_BACKEND=native, which leaves every call to torch, and report"
            " the output of `torch-mlx-spectro doctor --json`."
        )
    if not steps:
        steps.append(
            "All is well. Call torch_mlx_spectro.patch() at the start of a program, or start it by"
            " `torch-mlx-spectro run --stats PROGRAM`; `torch-mlx-spectro demo` shows an example."
        )
    return steps


def _print(findings: dict[str, Any]) -> None:
    """Print the findings for a person."""
    from .terminal import console_on, table

    console = console_on(sys.stdout)

    def show(title: str, rows: dict[str, str]) -> None:
        shown = table(("", ""), title=title)
        for name, value in rows.items():
            shown.add_row(name, value)
        console.print(shown)

    versions = {name: found or "not installed" for name, found in findings["versions"].items()}
    machine = {"platform": findings["platform"], "CPUs": str(findings["cpu_count"])}
    show("Versions", versions | machine | {"installed in": findings["package"]})
    backends = {
        name: "available" if found["available"] else f"not available: {found['reason']}"
        for name, found in findings["backends"].items()
    }
    show("Backends", backends)
    show("Environment variables", findings["variables"])
    values = {name: str(value) for name, value in findings["settings"]["values"].items()}
    show("Settings in force", values or {"none": findings["settings"]["error"]})
    show("Self-check", _check_rows(findings["self_check"]))
    for step in findings["next"]:
        console.print(step, soft_wrap=True)


def _check_rows(check: dict[str, Any]) -> dict[str, str]:
    """The self-check, a row for each operation."""
    rows = {"result": "passed" if check["ok"] else f"FAILED: {check['error']}"}
    for op, found in check.get("max_error", {}).items():
        rows[op] = f"largest error: mlx {found['mlx']:.1e}, native {found['native']:.1e}"
    return rows
