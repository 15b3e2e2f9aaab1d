"""What each process does that was started under ``run --children``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ...dispatch.run import counters
from ...patching import patch


def begin(asked: dict[str, Any]) -> None:
    """Patch this process as the first one was asked to.

    Args:
        asked: what :func:`parent.make_environment` wrote.
    """
    with warnings.catch_warnings():
        # That the backend is not here was said once, by the first process.
        warnings.filterwarnings("ignore", r"patch\(", RuntimeWarning)
        patch(asked["backend"], strict=asked["strict"])
    if asked["folder"] is not None:
        counters.record(Path(asked["folder"]))
