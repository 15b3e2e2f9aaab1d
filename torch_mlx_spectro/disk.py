"""The package's folder for what it would have to find out again; files that are whole or absent."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def cache_folder() -> Path | None:
    """The folder by the platform's convention; None where the user has no home."""
    import platformdirs  # takes a millisecond that a program without accelerated calls need not pay

    try:
        folder = Path(platformdirs.user_cache_dir("torch_mlx_spectro", appauthor=False))
    except RuntimeError:  # as pathlib says it: in a container a user may have no home at all
        return None
    return folder if folder.is_absolute() else None  # older ones leave "~" where it is unknown


def write_whole(path: Path, data: bytes) -> bool:
    """Write a file whole or not at all; tells whether it was: not every folder allows it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
    except OSError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        return False
    return True
