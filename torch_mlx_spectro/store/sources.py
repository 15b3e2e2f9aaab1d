"""The text of the kernels, from the files of ``metal_src``.

An enumeration in a header names the integers of a launch. The header that reads them is the only
place that knows their order.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from .caches import cached

_PACKAGE = Path(__file__).resolve().parents[1]


def _folder() -> Path:
    """Return ``_metal_src`` of an installed package, or ``metal_src`` beside it in a checkout."""
    installed = _PACKAGE / "_metal_src"
    return installed if installed.is_dir() else _PACKAGE.parent / "metal_src"


def source(name: str) -> str:
    """Return the text of one file of ``metal_src``."""
    return (_folder() / name).read_text(encoding="utf-8")


def digest() -> str:
    """Return a digest of all files of ``metal_src``; it changes when a kernel changes."""
    content = hashlib.sha256()
    for path in sorted(_folder().iterdir()):
        content.update(f"{path.name}\n{path.read_text(encoding='utf-8')}\n".encode())
    return content.hexdigest()[:16]


@cached(16)
def integers(header_name: str, enumeration: str) -> tuple[str, ...]:
    """List the names of a launch's integers, in order, without their common prefix, in lower case.

    Raises:
        ValueError: the header has no such enumeration.
    """
    found = re.search(rf"enum {enumeration} {{(?P<names>[^}}]*)}}", source(header_name))
    if found is None:
        raise ValueError(f"{header_name} has no enumeration {enumeration}")
    names = [name.strip() for name in found["names"].split(",") if name.strip()]
    prefix = names[-1].removesuffix("PARAMETERS")
    return tuple(name.removeprefix(prefix).lower() for name in names[:-1])
