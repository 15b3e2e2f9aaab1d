"""What the commands raise when they cannot go on for a reason that the user can act on."""

from __future__ import annotations


class Problem(Exception):
    """A message for the user, without a traceback.

    Attributes:
        exit_code: 2 for wrong usage and unreadable input, 1 for a check that failed.
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code
