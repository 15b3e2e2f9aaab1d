"""Native torch's own functions, kept from before any patch, and their warnings.

torch warns about some calls that we compute. The same warning is produced by asking native the
same thing of one sample: its text and category are torch's, and so is the memory of which
once-only warnings this process has already had.

istft is a builtin: what it warns of names the Python frame that called it. Called from a frame of
ours, its warnings would name our lines, so it is called from frames that stand where the program
does.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType, FunctionType
from typing import Any

import torch

stft: Callable[..., torch.Tensor] = torch.functional.stft
istft: Callable[..., torch.Tensor] = torch.functional.istft

#: Positions among istft's arguments.
_WINDOW, _LENGTH = 4, 8
_PACKAGE = __name__.partition(".")[0]
#: Folders of it that are programs: what they call stands on lines of their own.
_PROGRAMS = ("bench", "cli", "doctor", "emulator")


#: Which once-only warnings this process has had through us; repeats are then skipped. Of stft by
#: what they are about, of istft ``"windowless"`` and ``"padded"``.
_given: set[tuple[bool, bool] | str] = set()


def warn_of_stft(windowless: bool, as_real: bool) -> None:
    """Give native's warnings about a missing window and about ``return_complex=False``."""
    key = (windowless, as_real)
    if key in _given and not torch.is_warn_always_enabled():
        return
    stft(
        torch.zeros(1, device="cpu"),
        1,
        hop_length=1,
        window=None if windowless else torch.ones(1, device="cpu"),
        center=False,
        return_complex=not as_real,
    )
    # Not reached when a filter turns the warning into an exception; torch, too, then warns again.
    _given.add(key)


def warn_of_istft(windowless: bool, padded: bool, caller: FrameType) -> None:
    """Give native's warnings about a missing window and about a ``length`` that needs zeros.

    Args:
        windowless: the call has no window.
        padded: the call's length exceeds what its frames cover.
        caller: where the call was made, as :func:`call_at_line` takes it.
    """
    wanted = {name for name, is_so in (("windowless", windowless), ("padded", padded)) if is_so}
    if wanted <= _given and not torch.is_warn_always_enabled():
        return
    # Before they are given: one that a filter makes an exception counts as given, as in torch.
    _given.update(wanted)
    window = None if windowless else torch.ones(1, device="cpu")
    spectrum = torch.ones(1, 1, dtype=torch.complex64, device="cpu")
    call_at_line(
        caller,
        istft,
        (spectrum, 1, 1, 1, window),
        {"center": False, "length": 2 if padded else 1},
    )


def may_warn_of_istft(args: Any, kwargs: Any) -> bool:
    """Whether native istft may warn of a call: of no window, or of zeros appended for ``length``.

    Answered within a tenth of a microsecond.
    """
    given = len(args)
    return (args[_WINDOW] if given > _WINDOW else kwargs.get("window")) is None or (
        args[_LENGTH] if given > _LENGTH else kwargs.get("length")
    ) is not None


def is_inner_frame(frame: FrameType) -> bool:
    """Whether a call only passes through this frame, on its way from a program to torch."""
    package, _, folder = (frame.f_globals.get("__package__") or "").partition(".")
    return package == _PACKAGE and folder.partition(".")[0] not in _PROGRAMS


def call_at_line(
    caller: FrameType, builtin: Callable[..., torch.Tensor], args: Any, kwargs: Any
) -> torch.Tensor:
    """Call a builtin so that its warnings name the line of ``caller``, as if that had called it.

    Python looks in the frame that calls for the file, the line, and which warnings were given
    there, so the builtin is called in a frame that has the caller's. Frames of this package stand
    for those that called them.
    """
    while caller.f_back is not None and is_inner_frame(caller):
        caller = caller.f_back
    code = _call.__code__.replace(
        co_filename=caller.f_code.co_filename,
        co_name=caller.f_code.co_name,
        co_firstlineno=caller.f_lineno - 1,  # the call is on the line below
    )
    result: torch.Tensor = FunctionType(code, caller.f_globals)(builtin, args, kwargs)
    return result


def _call(builtin: Callable[..., torch.Tensor], args: Any, kwargs: Any) -> torch.Tensor:
    return builtin(*args, **kwargs)
