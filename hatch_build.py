"""Where the parity suite comes from: `parity/` of a checkout, or an index.

The suite is a distribution of its own, which a release requires by name. In a checkout it lies
beside this file, and no index need have it: pip is told where it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hatchling.metadata.plugin.interface import MetadataHookInterface

PARITY = "stft-parity"


class Dependencies(MetadataHookInterface):
    """The dependencies that pyproject.toml lists, with the parity suite's place in a checkout."""

    def update(self, metadata: dict[str, Any]) -> None:
        lines = list(self.config["dependencies"])
        if _pip_has_checkout(root := Path(self.root)):
            lines = [line for line in lines if not line.startswith(PARITY)]
            # An editable installation has the suite's folder on its path: a copy would hide it.
            if not any(argument.endswith("_editable") for argument in sys.argv[1:2]):
                lines.append(f"{PARITY} @ {_find_commit(root) or (root / 'parity').as_uri()}")
        metadata["dependencies"] = lines


def _pip_has_checkout(root: Path) -> bool:
    """Whether pip, which sets these variables, builds this package from a checkout.

    What makes releases is not pip, so that none has a path; uv reads its own table.
    """
    by_pip = {"PIP_BUILD_TRACKER", "PIP_REQ_TRACKER"} & os.environ.keys()
    return bool(by_pip) and (root / "parity" / "pyproject.toml").is_file()


def _find_commit(root: Path) -> str | None:
    """Return the address of the suite in the repository that pip has cloned, or None.

    The clone is gone when pip ends, and pip may keep the wheel. An address with a secret in it is
    not written down.
    """
    if not any(part.startswith("pip-") for part in root.parts[-2:]):
        return None

    def ask(*question: str) -> str:
        command = ["git", "-C", str(root), *question]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        origin, commit = ask("remote", "get-url", "origin"), ask("rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return None
    parts = urlsplit(origin)
    if not parts.hostname or parts.password or parts.username not in (None, "git"):
        return None
    return f"git+{origin}@{commit}#subdirectory=parity"
