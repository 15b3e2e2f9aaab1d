"""What this package keeps on disk: verdicts on routes, compiled kernels."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..backends.cuda import nvrtc as cubins
from ..emulator.compiler import default_cache_dir
from ..store import files as disk
from ..store import verdicts
from ..verify.ledger import QUARANTINED


def read_verdicts(store: verdicts.Store | None = None) -> dict[str, Any]:
    """The verdicts that hold for these versions; does not warn of a damaged file, but tells.

    Returns:
        ``path`` of the file, empty where none is kept; ``counts`` of verdicts by section;
        ``quarantined``: routes that were wrong, and what was told of each; ``warning``: why the
        file was ignored, empty otherwise.
    """
    path, sections = "", {}
    try:
        kept = verdicts.store() if store is None else store
    except ValueError as error:  # of a variable: a finding of its own
        warning = str(error)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            sections = kept.sections()
        path, warning = str(kept.path or ""), kept.warning
    return {
        "path": path,
        "counts": {name: len(entries) for name, entries in sections.items()},
        "quarantined": {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in sections.get(QUARANTINED, {}).items()
        },
        "warning": warning,
    }


def measure_folders() -> list[dict[str, Any]]:
    """How much is in every folder of compiled kernels that this package may have written to."""
    return [
        _measure("CUDA kernels", cubins.default_folder),
        _measure("emulated Metal kernels", default_cache_dir),
    ]


def _measure(name: str, find_folder: Callable[[], Path | None]) -> dict[str, Any]:
    """One folder.

    Returns:
        Its ``name``, ``path`` (empty where no folder is known), number of ``files``, ``bytes``, and
        ``problem``: why code in it is not run; empty otherwise.
    """
    try:
        path = find_folder()
    except ImportError:  # platformdirs, which comes with an extra
        path = None
    sizes = []
    for file in path.rglob("*") if path else ():
        try:
            if file.is_file():
                sizes.append(file.stat().st_size)
        except OSError:  # another process has removed it
            continue
    return {
        "name": name,
        "path": str(path or ""),
        "files": len(sizes),
        "bytes": sum(sizes),
        "problem": disk.explain_distrust(path) if path else "",
    }
