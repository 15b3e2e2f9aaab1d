"""The exceptions of the package."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import MappingProxyType


class NotAccelerated(RuntimeError):
    """Raised in strict mode for a call that would otherwise be answered by native torch.

    Attributes:
        op: ``"stft"`` or ``"istft"``.
        reasons: every reason why the call was not accelerated, one sentence each.
    """

    def __init__(self, op: str, reasons: tuple[str, ...]) -> None:
        # Both values go to ``args`` so that the exception survives pickling (worker processes).
        super().__init__(op, reasons)
        self.op = op
        self.reasons = reasons

    def __str__(self) -> str:
        return f"{self.op} was not accelerated (strict mode): {'; '.join(self.reasons)}"


class KernelRefused(RuntimeError):
    """Internal: a device does not compile or run a kernel, for the reason in the text."""


class UnresolvedArguments(Exception):
    """Internal: only torch can check these arguments; it raises its own exception for them."""


class Problem(Exception):
    """The message for a command's user when it cannot go on, shown without a traceback.

    Attributes:
        exit_code: 2 for wrong usage and unreadable input, 1 for a check that failed.
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


#: What else people call a backend; a word that resembles none of our names needs no guess.
_SYNONYMS = MappingProxyType(
    {"metal": "mps", "gpu": "mps" if sys.platform == "darwin" else "cuda", "torch": "native"}
)


def suggest(name: object, known: Iterable[str]) -> str:
    """Return a question after the known name that a mistyped one resembles, or ``""``."""
    import difflib  # when something is mistyped

    plain = {one.lower().lstrip("-"): one for one in known}
    plain = {word: meant for word, meant in _SYNONYMS.items() if meant in plain} | plain
    found = difflib.get_close_matches(str(name).lower().lstrip("-"), plain, n=1)
    return f"; did you mean {plain[found[0]]!r}?" if found else ""


def find_error_line(problem: Exception, mark: str) -> str:
    """Return the first line of a compiler's message that has a mark, or its first line."""
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    return next((line for line in lines if mark in line), lines[0])
