"""Native torch's own functions, kept from before any patch, and their warnings.

torch warns about some calls that we compute. The same warning is produced by asking native the
same thing of one sample: its text and category are torch's, and so is the memory of which
once-only warnings this process has already had.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

stft: Callable[..., torch.Tensor] = torch.functional.stft
istft: Callable[..., torch.Tensor] = torch.functional.istft

Caught = tuple[str, type[Warning]]


class _Given:
    """Which once-only warnings this process has had through us; repeats are then skipped."""

    def __init__(self) -> None:
        self.stft: set[tuple[bool, bool]] = set()
        #: Of istft, by whether the window was missing (else: zeros were appended).
        self.istft: set[bool] = set()


_given = _Given()


def warn_of_stft(windowless: bool, as_real: bool) -> None:
    """Give native's warnings about a missing window and about ``return_complex=False``."""
    key = (windowless, as_real)
    if key in _given.stft and not torch.is_warn_always_enabled():
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
    _given.stft.add(key)


def warn_of_istft(windowless: bool, padded: bool, stacklevel: int) -> None:
    """Give native's warnings about a missing window and about a ``length`` that needs zeros.

    Native attributes them to its caller's line, so they are caught and given again there.

    Args:
        windowless: the call has no window.
        padded: the call's length exceeds what its frames cover.
        stacklevel: of the line to name, as ``warnings.warn`` would take it from our caller.
    """
    for key, due in ((True, windowless), (False, padded)):
        if not due or (key in _given.istft and not torch.is_warn_always_enabled()):
            continue
        caught = _caught(windowless=key)
        # Before it is given: one that a filter makes an exception counts as given, as in torch.
        _given.istft.add(key)
        if caught is not None:
            warnings.warn(*caught, stacklevel=stacklevel + 1)


def _caught(windowless: bool) -> Caught | None:
    """What native istft warns of for one frame, without a window or one sample too long."""
    window: Any = None if windowless else torch.ones(1, device="cpu")
    spectrum = torch.ones(1, 1, dtype=torch.complex64, device="cpu")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        istft(spectrum, 1, 1, 1, window, center=False, length=1 if windowless else 2)
    return (str(caught[0].message), caught[0].category) if caught else None
