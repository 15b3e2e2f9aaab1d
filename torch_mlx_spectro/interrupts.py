"""What an interrupt (SIGINT, Ctrl-C) does to the command line.

While a command is being loaded there is nothing to lose, so an interrupt ends the process at once.
As an exception it would leave torch partly imported, and torch's own functions that run at exit
would crash or hang such a process.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

#: What shells report of a program that an interrupt has ended.
EXIT_CODE = 128 + signal.SIGINT


def end_at_once() -> None:
    """Let an interrupt end this process from now on, unless the process was told to ignore it."""
    _replace(signal.default_int_handler, _end)


def raise_again() -> None:
    """Let an interrupt raise KeyboardInterrupt, as Python does, after :func:`end_at_once`."""
    _replace(_end, signal.default_int_handler)


def _replace(old: Any, new: Any) -> None:
    # Python lets the main thread alone do it.
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is old:
        signal.signal(signal.SIGINT, new)


def _end(number: int, frame: Any) -> None:
    os._exit(EXIT_CODE)
