"""What the first process does: the environment of those that it starts, and the one report."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ...settings import CHILDREN_VARIABLE

SITE = Path(__file__).with_name("site")
PATH_VARIABLE = "PYTHONPATH"


def make_environment(backend: str, strict: bool, folder: Path | None) -> dict[str, str]:
    """Return the variables that make a Python process patch itself.

    Args:
        backend: who computes.
        strict: NotAccelerated is raised instead of falling back.
        folder: where each process writes its counts; None: nowhere.
    """
    asked = {
        "prefix": sys.prefix,
        "backend": backend,
        "strict": strict,
        "folder": None if folder is None else str(folder),
    }
    before = [path for path in os.environ.get(PATH_VARIABLE, "").split(os.pathsep) if path]
    paths = [str(SITE), *(path for path in before if path != str(SITE))]
    return {PATH_VARIABLE: os.pathsep.join(paths), CHILDREN_VARIABLE: json.dumps(asked)}


def print_environment(variables: Mapping[str, str]) -> None:
    """Print variables as commands of a POSIX shell, for ``eval``."""
    import shlex

    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
