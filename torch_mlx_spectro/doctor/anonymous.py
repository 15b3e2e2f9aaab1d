"""Removes from a JSON value what says whose it is: paths, and names of users and hosts.

A submission has none of these (:func:`anonymise`). A report that its author reads before showing it
keeps the last part of each path, by which a file can be recognised (:func:`cut_paths`).
"""

from __future__ import annotations

import getpass
import platform
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

#: An absolute path of two parts or more, of POSIX or of Windows, or one below a home folder.
_PATH = re.compile(
    r"(?<![\w.:/\\<>-])(?:~?(?:/[\w.+@%~-]+){2,}/?|[A-Za-z]:\\[^\s'\"]+|~/[^\s'\"]+)"
)
#: An absolute path, or one from the home folder; all of it but its last part is left out.
_FOLDERS = re.compile(
    r"(?:file://|(?<![\w.:/)\]]))(?:[A-Za-z]:\\|~[\w.-]*[/\\]|/)(?:[^\s'\"`:,;()<>|]*[/\\])?"
)
#: Shorter names are left, since they are parts of ordinary words.
LEAST_NAME = 3
#: Names of users and hosts that identify nobody, and that are words of reports.
COMMON = frozenset({"root", "user", "localhost", "runner", "admin", "mac", "linux", "ubuntu"})


def list_own_names() -> tuple[str, ...]:
    """List the names by which this user and this machine could be recognised."""
    found = [platform.node(), platform.node().partition(".")[0], Path.home().name]
    with suppress(OSError, KeyError, ImportError):  # no such entry where accounts are
        found.append(getpass.getuser())
    return tuple(
        sorted(
            {name for name in found if len(name) >= LEAST_NAME and name.lower() not in COMMON},
            key=len,
            reverse=True,
        )
    )


def anonymise(value: Any, names: tuple[str, ...] | None = None) -> Any:
    """Copy a JSON value with ``<path>`` and ``<name>`` in place of paths and names.

    Args:
        value: a value of JSON's types.
        names: the names to replace; those of this user and machine by default.
    """
    hidden = list_own_names() if names is None else names
    if isinstance(value, dict):
        return {_clean(key, hidden): anonymise(item, hidden) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [anonymise(item, hidden) for item in value]
    return _clean(value, hidden) if isinstance(value, str) else value


def cut_paths(text: str) -> str:
    """Cut every absolute path in a text down to its last part."""
    # The home folder first, since its name may contain blanks.
    return _FOLDERS.sub("…/", text.replace(str(Path.home()), "~"))


def find_revealing(text: str, names: tuple[str, ...] | None = None) -> list[str]:
    """Find the paths and names in a text; it may be shown if there are none."""
    hidden = list_own_names() if names is None else names
    found = [match.group() for match in _PATH.finditer(text)]
    return found + [name for name in hidden if _match_name(name).search(text)]


def _clean(text: str, names: tuple[str, ...]) -> str:
    text = _PATH.sub("<path>", text)
    for name in names:
        text = _match_name(name).sub("<name>", text)
    return text


def _match_name(name: str) -> re.Pattern[str]:
    """Make a pattern that matches the name as a word of its own."""
    return re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
