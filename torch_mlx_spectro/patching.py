"""Putting our functions in the place of torch's, everywhere they are known, and back again."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType, TracebackType
from typing import Any

import torch

from . import native, torch_state, torchscript
from .functional import patched_istft, patched_stft
from .routing import Choice, check_choice, set_patched_choice

#: (torch's own, ours)
_PAIRS: tuple[tuple[Callable[..., Any], Callable[..., Any]], ...] = (
    (native.stft, patched_stft),
    (native.istft, patched_istft),
)

#: Here torch's own are replaced although the modules are torch's; its other modules keep theirs.
_TORCH_MODULES = frozenset({"torch", "torch.functional"})


class _State:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.choice: Choice | None = None

    def after_fork_in_child(self) -> None:
        self.lock = threading.RLock()


_state = _State()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_state.after_fork_in_child)


class Patch:
    """What :func:`patch` returns: as a context manager it restores what was before it."""

    def __init__(self, before: Choice | None) -> None:
        self._before = before

    def __enter__(self) -> Patch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is None:
            unpatch()
        else:
            before = self._before
            patch(before.backend, strict=before.strict, verify=before.verify)


def patch(backend: str = "auto", *, strict: bool = False, verify: int | None = None) -> Patch:
    """Let this package compute ``torch.stft`` and ``torch.istft`` from now on.

    Replaces ``torch.stft``, ``torch.istft``, ``torch.functional.*`` (which the tensor methods call)
    and the same functions where loaded modules imported them by name. Calling it again changes
    backend, strictness and verification.

    Args:
        backend: ``"auto"`` (whatever is faster, or what ``TORCH_MLX_SPECTRO_BACKEND`` says),
            ``"mlx"``, ``"mps"``, ``"cuda"`` or ``"native"``.
        strict: raise :class:`NotAccelerated` instead of falling back to native torch.
        verify: every that-many-th accelerated call of a kind is computed by native torch, too, and
            compared; a kind that is wrong once goes to native torch from then on. 0 verifies
            nothing, None (the default) as many as ``TORCH_MLX_SPECTRO_VERIFY`` says.

    Returns:
        A context manager whose end restores what was before this call.

    Raises:
        ValueError: the backend is not known, or ``verify`` is not a number of calls.

    Warns:
        RuntimeWarning: another package has replaced torch's functions; it is left in place.
    """
    choice = check_choice(backend, strict, verify)
    with _state.lock:
        before = _state.choice
        if before is None:
            try:
                _install()
            except BaseException:
                _remove()
                raise
        _state.choice = choice
        set_patched_choice(choice)
    return Patch(before)


def unpatch() -> None:
    """Give torch its own functions back, in every module that holds ours.

    A function which another package has put in their place since is left alone; what it kept of
    ours computes natively from now on. Does nothing when not patched.
    """
    with _state.lock:
        if _state.choice is None:
            return
        _state.choice = None
        set_patched_choice(None)
        _remove()


def is_patched() -> bool:
    """Whether :func:`patch` is in force."""
    return _state.choice is not None


def _install() -> None:
    for name, (original, _) in zip(("stft", "istft"), _PAIRS, strict=True):
        current = getattr(torch, name)
        if current is not original:
            warnings.warn(
                f"torch.{name} was replaced by {current.__module__}.{name} before patch(); "
                "it is left in place and not accelerated",
                RuntimeWarning,
                stacklevel=3,
            )
    torchscript.install(_PAIRS)
    for original, ours in _PAIRS:
        _rebind(original, ours)
    _tell_compiler()


def _remove() -> None:
    for original, ours in _PAIRS:
        _rebind(ours, original)
    _tell_compiler()


def _tell_compiler() -> None:
    """Have torch.compile look up torch's names again: it recognises functions by identity."""
    rules = sys.modules.get("torch._dynamo.trace_rules")
    forget = getattr(rules, "clear_lru_cache", None)
    if forget is not None:
        forget()
        torch_state.show_compiler(_PAIRS)


def _rebind(old: Callable[..., Any], new: Callable[..., Any]) -> None:
    """Replace ``old`` by ``new`` under every name of every loaded module."""
    for module in _modules():
        # The module's own dictionary: attribute access would run lazy modules.
        for name, value in list(module.__dict__.items()):
            if value is old:
                module.__dict__[name] = new


def _modules() -> Iterator[ModuleType]:
    package = __name__.rpartition(".")[0]
    for name, module in list(sys.modules.items()):
        ours = name == package or name.startswith(package + ".")
        torchs = name.startswith("torch.") and name not in _TORCH_MODULES
        if not ours and not torchs and isinstance(getattr(module, "__dict__", None), dict):
            yield module
