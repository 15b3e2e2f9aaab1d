"""What this package keeps on disk: verdicts on routes, compiled kernels."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..backends.cuda import nvrtc as cubins
from ..emulator.compiler import default_cache_dir
from ..store import files as disk
from ..store import verdicts
from ..verify.ledger import QUARANTINED


@dataclass(frozen=True)
class Verdicts:
    """What is remembered of this machine.

    Attributes:
        path: of the file; empty where none is kept.
        counts: verdicts of these versions, by section.
        quarantined: routes that were wrong, and what was told of each.
        warning: why the file was ignored; empty otherwise.
    """

    path: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)
    warning: str = ""


@dataclass(frozen=True)
class Folder:
    """A folder of compiled kernels.

    Attributes:
        name: what is in it.
        path: empty where no folder is known.
        files, bytes: how much.
        problem: why code in it is not run; empty otherwise.
    """

    name: str
    path: str = ""
    files: int = 0
    bytes: int = 0
    problem: str = ""


def kept_verdicts(store: verdicts.Store | None = None) -> Verdicts:
    """The verdicts that hold for these versions; does not warn of a damaged file, but tells."""
    import warnings

    try:
        kept = verdicts.store() if store is None else store
    except ValueError as error:  # of a variable: a finding of its own
        return Verdicts(warning=str(error))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        sections = kept.sections()
    return Verdicts(
        str(kept.path or ""),
        {name: len(entries) for name, entries in sections.items()},
        {key: _told(value) for key, value in sections.get(QUARANTINED, {}).items()},
        kept.warning,
    )


def _told(value: Any) -> str:
    """A verdict as one line."""
    return value if isinstance(value, str) else json.dumps(value)


def folders() -> tuple[Folder, ...]:
    """Every folder of compiled kernels that this package may have written to."""
    return (
        _measured("CUDA kernels", cubins.default_folder),
        _measured("emulated Metal kernels", default_cache_dir),
    )


def _measured(name: str, folder: Callable[[], Path | None]) -> Folder:
    try:
        path = folder()
    except ImportError:  # platformdirs, which comes with an extra
        path = None
    if path is None:
        return Folder(name)
    sizes = []
    for file in path.rglob("*"):
        try:
            if file.is_file():
                sizes.append(file.stat().st_size)
        except OSError:  # another process has removed it
            continue
    return Folder(name, str(path), len(sizes), sum(sizes), disk.explain_distrust(path))
