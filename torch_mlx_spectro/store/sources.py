"""The files of the kernels' text, in ``metal_src``.

The integers of a launch are named by an enumeration in the header that
reads them, which is the only place that knows their order.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from .caches import cached

_PACKAGE = Path(__file__).resolve().parents[1]


def _folder() -> Path:
    """``_metal_src`` of an installed package, ``metal_src`` beside the package in a checkout."""
    installed = _PACKAGE / "_metal_src"
    return installed if installed.is_dir() else _PACKAGE.parent / "metal_src"


def source(name: str) -> str:
    """The text of one file of ``metal_src``."""
    return (_folder() / name).read_text(encoding="utf-8")


def digest() -> str:
    """Of every file of ``metal_src``: another one means other kernels."""
    content = hashlib.sha256()
    for path in sorted(_folder().iterdir()):
        content.update(f"{path.name}\n{path.read_text(encoding='utf-8')}\n".encode())
    return content.hexdigest()[:16]


@cached(16)
def integers(header_name: str, enumeration: str) -> tuple[str, ...]:
    """Names of a launch's integers, in order, without their common prefix, in lower case.

    Raises:
        ValueError: the header has no such enumeration.
    """
    found = re.search(rf"enum {enumeration} {{(?P<names>[^}}]*)}}", source(header_name))
    if found is None:
        raise ValueError(f"{header_name} has no enumeration {enumeration}")
    names = [name.strip() for name in found["names"].split(",") if name.strip()]
    prefix = names[-1].removesuffix("PARAMETERS")
    return tuple(name.removeprefix(prefix).lower() for name in names[:-1])
