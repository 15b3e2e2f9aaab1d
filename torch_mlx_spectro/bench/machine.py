"""What numbers are measured on, without the names of hosts, users or folders."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import torch

from ..doctor.versions import list_versions
from ..version import __version__
from .schema import Machine

#: What has to be the same for times of two reports to be compared.
SAME = ("processor", "cpus", "threads", "device", "device_name", "system")
_PACKAGES = ("python", "torch", "mlx", "numpy", "cuda-core")


def machine(device: str) -> Machine:
    """This machine, with tensors on ``device``."""
    found = list_versions(__version__)
    versions = {name: found[name] or "not installed" for name in _PACKAGES}
    # Of torch its own word: the local part says which build it is.
    versions["torch"] = torch.__version__
    processor = _processor()
    return {
        "processor": processor,
        "cpus": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else processor,
        "system": f"{platform.system()} {platform.machine()}",
        "system_release": platform.mac_ver()[0] or platform.release(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": versions,
    }


def differences(old: Machine, new: Machine) -> list[str]:
    """List how two machines differ, as far as times depend on it."""
    before, now = dict(old), dict(new)
    return [f"{key}: {before[key]!r} and {now[key]!r}" for key in SAME if before[key] != now[key]]


def _processor() -> str:
    """The processor's name; on Linux and macOS that of the model."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name[^:\n]*:(.*)", text, re.MULTILINE):
            return found[1].strip()
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        if name := told.stdout.strip():
            return name
    return platform.processor() or platform.machine()
