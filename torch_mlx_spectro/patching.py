"""Put our functions in the place of torch's, under all names that programs know, and back again."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, TracebackType
from typing import Any

import torch

from .backends import registry
from .backends.registry import BackendName
from .dispatch.choice import Choice, check_choice, set_patched_choice
from .dispatch.statistics import levels_to_caller
from .functional import make_compiled_tag, names_left, patched_istft, patched_stft
from .native import functions as native
from .native import private_state as torch_state
from .native import torchscript
from .store.fork import after_fork
from .terminal import Rows, fold, write_html

#: (torch's own, ours)
_PAIRS: tuple[tuple[Callable[..., Any], Callable[..., Any]], ...] = (
    (native.stft, patched_stft),
    (native.istft, patched_istft),
)

_ask = torch.overrides.handle_torch_function


@dataclass(eq=False)
class _Scope:
    """One use of a :class:`Patch`."""

    patch: weakref.ref[Patch]
    choice: Choice
    is_entered: bool


@dataclass
class _State:
    """What is in force: the last of the scopes that have begun and not ended."""

    lock: Any = field(default_factory=threading.RLock)
    scopes: list[_Scope] = field(default_factory=list)
    installed: bool = False
    #: Backends of which this process was told that they are not here.
    missed: set[str] = field(default_factory=set)


_state = _State()


@after_fork
def _renew_lock() -> None:
    _state.lock = threading.RLock()


class Patch:
    """The result of :func:`patch`: in force from then on, and as a context manager until its end.

    Scopes may overlap, also in several threads. The scope that began last holds for all threads;
    the end of a scope removes it, whatever its position. A patch that was made within a scope,
    without a scope of its own, ends with it. To end what has ended does nothing. A patch that is
    entered again is in force again.
    """

    def __init__(self, choice: Choice) -> None:
        self._choice = choice

    def __enter__(self) -> Patch:
        with _state.lock:
            # patch() has begun it, but unpatch() may have ended it since.
            begun = next((scope for scope in self._scopes() if not scope.is_entered), None)
            if begun is None:
                _begin(self, self._choice, is_entered=True)
            else:
                begun.is_entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _state.lock:
            scopes = self._scopes()
            if scopes:
                _end(scopes[-1])

    @property
    def left(self) -> tuple[str, ...]:
        """Names in loaded modules, as ``module.name``, that keep torch's own functions.

        One is ``native = torch.stft``; see :func:`patch`.
        """
        return names_left()

    def _scopes(self) -> list[_Scope]:
        return [scope for scope in _state.scopes if scope.patch() is self]

    def __repr__(self) -> str:
        call, state, left = self._describe()
        kept = f"; left to torch: {', '.join(left)}" if left else ""
        return fold(f"<torch_mlx_spectro.{call}: {state}{kept}>".split(" "))

    def _repr_html_(self) -> str:
        call, state, left = self._describe()
        return write_html(
            [f"torch_mlx_spectro.{call}"],
            [Rows(("", ""), (), [("state", state), ("left to torch", ", ".join(left) or "none")])],
        )

    def _describe(self) -> tuple[str, str, tuple[str, ...]]:
        """Return the call that made it, whether it is in force, and which names it leaves."""
        choice, scopes = self._choice, self._scopes()
        strict = ", strict=True" if choice.strict else ""
        verify = f", verify={choice.verify}" if choice.verify else ""
        holds = scopes[-1:] == _state.scopes[-1:]
        state = "ended" if not scopes else "in force" if holds else "behind a later one"
        left = self.left if scopes else ()
        return f"patch({choice.backend!r}{strict}{verify})", state, left


def patch(
    backend: BackendName = "auto", *, strict: bool = False, verify: int | None = None
) -> Patch:
    """Let this package compute ``torch.stft`` and ``torch.istft`` from now on.

    Replaces ``torch.stft``, ``torch.istft``, ``torch.functional.*``, and the same functions where
    loaded modules hold them under the names ``stft`` and ``istft``. Other names are left alone, as
    a program saves torch's own function under one to compare with: ``Patch.left`` tells them.
    Calling it again changes backend, strictness and verification.

    Args:
        backend: ``"auto"`` (whatever is faster, or what ``TORCH_MLX_SPECTRO_BACKEND`` says),
            or one of :func:`available_backends`.
        strict: raise :class:`NotAccelerated` instead of falling back to native torch.
        verify: every that-many-th accelerated call of a kind is computed by native torch, too, and
            compared; a kind that is wrong once goes to native torch from then on. 0 verifies
            nothing, None (the default) as many as ``TORCH_MLX_SPECTRO_VERIFY`` says.

    Returns:
        A context manager whose end takes away what this call has asked for.

    Raises:
        ValueError: the backend is not known, or ``verify`` is not a number of calls.

    Warns:
        RuntimeWarning: another package has replaced torch's functions; it is left in place. Or the
            backend is named and this machine lacks it, so that torch computes everything: told
            once in a process.
    """
    begun = Patch(check_choice(backend, strict, verify))
    _tell_absence(begun._choice)
    with _state.lock:
        _begin(begun, begun._choice, is_entered=False)
    return begun


def unpatch() -> None:
    """End every patch, and restore torch's own functions in every module that holds ours.

    Scopes of ``with patch():`` end, too, whoever has begun them. A function that another package
    has put in the place of ours since is left alone; if it still calls ours, native computes from
    now on. Does nothing when not patched.
    """
    with _state.lock:
        _hold([], [])


def _tell_absence(choice: Choice) -> None:
    """Warn once of a backend that the program names and that is not here; strict calls raise."""
    name = choice.backend
    if name in ("auto", registry.NATIVE) or choice.strict or name in _state.missed:
        return
    reason = registry.load(name).explain_sure_absence()
    if reason is None:
        return
    _state.missed.add(name)
    needs = registry.find(name).needs
    advice = f"; it needs {needs}" if needs else ""
    warnings.warn(
        f"patch({name!r}): {reason}{advice}. Here torch itself computes every call instead, as"
        " stats() tells. patch() takes what is here, and strict=True makes such calls raise.",
        RuntimeWarning,
        stacklevel=levels_to_caller(),
    )


def _begin(patch: Patch, choice: Choice, is_entered: bool) -> None:
    """Add a scope to those that have begun."""
    before, kept = _state.scopes, list(_state.scopes)
    # Some end with the scope that they were made in, or by unpatch(), alone: nobody holds them.
    lasting = [not scope.is_entered and scope.patch() is None for scope in kept[-2:]]
    if lasting == [True, True]:
        del kept[-2]  # it never holds again: the one after it ends no sooner
    _hold([*kept, _Scope(weakref.ref(patch), choice, is_entered)], before)


def _end(scope: _Scope) -> None:
    """Remove a scope, and the patches that were made within it without a scope of their own."""
    first = _state.scopes.index(scope)
    after = _state.scopes[first + 1 :]
    while after and not after[0].is_entered:
        del after[0]
    remaining = [*_state.scopes[:first], *after]
    _hold(remaining, remaining)


def _hold(scopes: list[_Scope], if_interrupted: list[_Scope]) -> None:
    """Let the last of these scopes hold, or torch's own functions if there is none.

    Args:
        if_interrupted: the scopes that remain after an exception, a KeyboardInterrupt included.
    """
    try:
        _apply(scopes)
    except BaseException:
        _apply(if_interrupted)
        raise


def _apply(scopes: list[_Scope]) -> None:
    if scopes and not _state.installed:
        _state.installed = True
        _install()
    _state.scopes = scopes
    set_patched_choice(scopes[-1].choice if scopes else None)
    if not scopes and _state.installed:
        _remove()
        _state.installed = False


def _install() -> None:
    for name, (original, _) in zip(("stft", "istft"), _PAIRS, strict=True):
        current = getattr(torch, name)
        if current is not original:
            warnings.warn(
                f"torch.{name} was replaced by {current.__module__}.{name} before patch(); "
                "it is left in place and not accelerated",
                RuntimeWarning,
                stacklevel=levels_to_caller(),
            )
    torchscript.install(_PAIRS)
    for _, module in native.list_modules():
        for original, ours in _PAIRS:
            if module.__dict__.get(original.__name__) is original:
                _set(module, original.__name__, ours)
    _tell_torch((_ask, _ask_with_torchs_own), make_compiled_tag)


def _remove() -> None:
    for _, module in native.list_holders([ours for _, ours in _PAIRS]):
        for original, ours in _PAIRS:
            _rebind(module, ours, original)
    _tell_torch((_ask_with_torchs_own, _ask), None)


def _tell_torch(
    ask: tuple[Callable[..., Any], Callable[..., Any]], tag: Callable[[], str] | None
) -> None:
    """Replace the function that asks modes and subclasses, and have torch.compile know ours.

    torch.compile recognises functions by identity: its table is told of both, and not emptied, as
    reading thousands of names again takes 40 ms.
    """
    _rebind(torch.functional, *ask)
    torch_state.show_compiler(_PAIRS)
    torch_state.tag_compiled(tag)


def _ask_with_torchs_own(
    public_api: Callable[..., Any], relevant_args: Any, *args: Any, **kwargs: Any
) -> Any:
    """Ask modes and subclasses in torch's stead, and show them torch's own function.

    The code of ``torch.functional.stft`` shows whatever its module holds under that name, which is
    our function. So a stft that a program saved before the patch would come back to us.
    """
    shown = next((original for original, ours in _PAIRS if ours is public_api), public_api)
    return _ask(shown, relevant_args, *args, **kwargs)


def _rebind(module: ModuleType, old: Callable[..., Any], new: Callable[..., Any]) -> None:
    """Replace ``old`` by ``new`` under every name of a module."""
    for name, value in list(module.__dict__.items()):
        if value is old:
            _set(module, name, new)


def _set(module: ModuleType, name: str, function: Callable[..., Any]) -> None:
    """Put a function in a module's own dictionary: attribute access would run lazy modules."""
    module.__dict__[name] = function
