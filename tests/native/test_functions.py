"""Warnings of calls that we compute: native's text, category, place and frequency."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_process import python

from torch_mlx_spectro.native import functions as native

STFT_CASES = [(True, False), (False, True), (True, True), (False, False)]


@pytest.fixture
def warn_always(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch repeats its warnings, and we have given none so far."""
    monkeypatch.setattr(native, "_given", set())
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


Heard = list[tuple[str, str, str]]


def heard(call: Callable[[], Any]) -> Heard:
    """Category, text and file of every warning of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [(item.category.__name__, str(item.message), item.filename) for item in caught]


@pytest.mark.usefixtures("warn_always")
@pytest.mark.parametrize(("windowless", "as_real"), STFT_CASES)
def test_stft_warns_as_native_does(windowless: bool, as_real: bool) -> None:
    window = None if windowless else torch.ones(16)
    expected = heard(
        lambda: native.stft(torch.ones(100), 16, window=window, return_complex=not as_real)
    )
    assert bool(expected) is (windowless or as_real)
    for _ in range(2):
        assert heard(lambda: native.warn_of_stft(windowless, as_real)) == expected


@pytest.mark.usefixtures("warn_always")
@pytest.mark.parametrize("windowless", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_istft_warns_as_native_does(windowless: bool, padded: bool) -> None:
    window = None if windowless else torch.ones(16)
    spectrum = torch.ones(9, 20, dtype=torch.complex64)
    length = 500 if padded else 50
    expected = heard(lambda: native.istft(spectrum, 16, window=window, length=length))
    assert len(expected) == windowless + padded
    for _ in range(2):
        got = heard(lambda: native.warn_of_istft(windowless, padded, sys._getframe()))
        assert got == expected


def inner(levels: int) -> int:
    """Warn for the frame so many levels up, and return the line that does."""
    native.warn_of_istft(True, True, sys._getframe(levels))
    return sys._getframe().f_lineno - 1


def outer(levels: int) -> tuple[int, int]:
    line = inner(levels)
    return line, sys._getframe().f_lineno - 1


@pytest.mark.usefixtures("warn_always")
@pytest.mark.parametrize("levels", [0, 1])
def test_istft_names_the_line_that_it_is_told_to(levels: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lines = outer(levels)
    assert len(caught) == 2
    for item in caught:
        assert (item.filename, item.lineno) == (__file__, lines[levels])


@pytest.mark.usefixtures("warn_always")
def test_a_filter_makes_exceptions_of_what_is_warned() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="A window was not provided"):
            native.warn_of_istft(True, False, sys._getframe())


# The same program, asking native itself or us: what is given once in a process needs one of its
# own, and filters that make exceptions of warnings decide whether "once" has happened.
PROGRAM = """\
import json, sys, warnings
import torch
from torch_mlx_spectro.native import functions as native

signal, window = torch.ones(100), torch.ones(16)
spectrum = torch.ones(9, 20, dtype=torch.complex64)

def stft(windowless, as_real):
    if sys.argv[1] == "ours":
        native.warn_of_stft(windowless, as_real)
    else:
        native.stft(signal, 16, window=None if windowless else window, return_complex=not as_real)

def istft(windowless, padded):
    if sys.argv[1] == "ours":
        native.warn_of_istft(windowless, padded, sys._getframe())
    else:
        length = 500 if padded else 50
        native.istft(spectrum, 16, window=None if windowless else window, length=length)

told = []
for action in ("error", "always", "always", "error", "warn always", "always"):
    if action == "warn always":
        torch.set_warn_always(True)
    for call in (stft, istft):
        for arguments in ((True, False), (False, True), (True, True), (False, False)):
            texts, raised = [], ""
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("error" if action == "error" else "always")
                try:
                    call(*arguments)
                except Warning as warning:
                    raised = repr(warning).partition(" (Triggered")[0]
                texts = [str(item.message).partition(" (Triggered")[0] for item in caught]
            told.append([action, call.__name__, arguments, texts, raised])
print(json.dumps(told))
"""


def test_once_only_and_error_filters_as_native(tmp_path: Path) -> None:
    outcomes = []
    for who in ("native", "ours"):
        finished = python("-c", PROGRAM, who, cwd=tmp_path)
        assert finished.returncode == 0, finished.stderr
        outcomes.append(json.loads(finished.stdout))
    expected, got = outcomes
    assert any(entry[4] for entry in expected)  # some warnings were made exceptions
    assert any(entry[3] for entry in expected)  # and some were given
    for wanted, told in zip(expected, got, strict=True):
        assert told == wanted


def test_torchs_own_functions_are_kept_from_before_any_patch() -> None:
    import torch_mlx_spectro as tms

    originals = (torch.stft, torch.istft)
    with tms.patch(backend="mlx"):
        assert torch.stft is not originals[0]
        assert (native.stft, native.istft) == originals
