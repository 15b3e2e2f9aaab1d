"""Native torch's own functions, kept from before any patch, and their warnings.

torch warns about some calls that we compute. The same warning is given by asking native the same
thing of one sample: then text and category are torch's, and torch remembers which once-only
warnings this process has had.

istft is a builtin, whose warnings name the Python frame that called it. Called from a frame of ours
they would name our lines. So it is called from a frame that stands for the program's line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, FunctionType, ModuleType
from typing import Any

import torch

stft: Callable[..., torch.Tensor] = torch.functional.stft
istft: Callable[..., torch.Tensor] = torch.functional.istft

#: Positions among istft's arguments.
_WINDOW, _LENGTH = 4, 8
_PACKAGE = __name__.partition(".")[0]
#: Folders of this package that are programs: warnings about their calls name their own lines.
_PROGRAMS = ("bench", "cli", "doctor", "emulator")

#: The only modules of torch in which its own functions are replaced.
TORCH_MODULES = frozenset({"torch", "torch.functional"})

#: Once-only warnings that this process has had through us, and that are not asked for again. Those
#: of stft by what they are about, those of istft as ``"windowless"`` and ``"padded"``.
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
    # Not reached where a filter makes the warning an exception: torch, too, warns again then.
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

    The answer takes a tenth of a microsecond.
    """
    given = len(args)
    return (args[_WINDOW] if given > _WINDOW else kwargs.get("window")) is None or (
        args[_LENGTH] if given > _LENGTH else kwargs.get("length")
    ) is not None


def is_inner_frame(frame: FrameType) -> bool:
    """Whether a call only passes through this frame, on its way from a program to torch."""
    package, _, folder = (frame.f_globals.get("__package__") or "").partition(".")
    return package == _PACKAGE and folder.partition(".")[0] not in _PROGRAMS


def list_modules() -> Iterator[tuple[str, ModuleType]]:
    """Yield the loaded modules in which a program may hold torch's functions, with their names."""
    seen = set[int]()
    for name, module in list(sys.modules.items()):
        ours = name == _PACKAGE or name.startswith(_PACKAGE + ".")
        torchs = name.startswith("torch.") and name not in TORCH_MODULES
        if ours or torchs or id(module) in seen:
            continue
        if isinstance(getattr(module, "__dict__", None), dict):
            seen.add(id(module))
            yield name, module


def list_holders(functions: Iterable[Any]) -> Iterator[tuple[str, ModuleType]]:
    """Yield those of :func:`list_modules` that hold one of these functions, under any name."""
    wanted = {id(function) for function in functions}
    for name, module in list_modules():
        # Most hold none, which this finds out in a fraction of the time that a loop takes.
        if not wanted.isdisjoint(map(id, list(module.__dict__.values()))):
            yield name, module


def list_names_left(is_patched: bool) -> tuple[str, ...]:
    """List names in loaded modules, as ``module.name``, under which a patch leaves the functions.

    Args:
        is_patched: names that a patch replaces are left if they hold the functions all the same.
    """
    originals = {id(stft): "stft", id(istft): "istft"}
    return tuple(
        f"{module_name}.{name}"
        for module_name, module in list_holders((stft, istft))
        if module_name not in TORCH_MODULES
        for name, value in list(module.__dict__.items())
        if originals.get(id(value), name) != name or (is_patched and id(value) in originals)
    )


def call_at_line(
    caller: FrameType, builtin: Callable[..., torch.Tensor], args: Any, kwargs: Any
) -> torch.Tensor:
    """Call a builtin so that its warnings name the line of ``caller``.

    Python reads the file, the line and the warnings that were given there from the calling frame.
    So the builtin is called in a frame that has the caller's values. Where the caller is a frame of
    this package, the frame that called it counts.
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
