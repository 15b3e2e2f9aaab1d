"""What a call is decided on, as a key that is read off it in a few microseconds, unresolved."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from contextlib import suppress
from typing import Any, Generic, TypeVar

import torch

from ..native import private_state as torch_state
from ..store import caches as recent
from ..store.fork import after_fork

#: Position of the window among either function's arguments.
_WINDOW = 4

Value = TypeVar("Value")


def input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The input that is passed, whatever it is."""
    return args[0] if args else kwargs.get("input")


def window_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The window that is passed, whatever it is."""
    return args[_WINDOW] if len(args) > _WINDOW else kwargs.get("window")


def with_tensors(
    args: tuple[Any, ...], kwargs: dict[str, Any], tensors: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call with other tensors in it, by their names."""
    changed, named = list(args), dict(kwargs)
    for name, place in (("input", 0), ("window", _WINDOW)):
        if name in tensors:
            if len(changed) > place:
                changed[place] = tensors[name]
            else:
                named[name] = tensors[name]
    return changed, named


def keeps_its_backend(backend: str, differentiated: bool) -> bool:
    """Whether a call stays with whom its first computation was given to, as checkpointed ones do.

    Args:
        backend: that is asked for.
    """
    return differentiated and backend == "auto" and torch_state.recomputes()


def spelling_of(
    name: str,
    backend: str,
    tensor: Any,
    window: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[Any, ...]:
    """What a call is decided on besides its tensors.

    Args:
        name: of the function.
        backend: that is asked for.
        tensor, window: which are among the arguments.
        args, kwargs: as the program spells them.
    """
    others = [*args[1:_WINDOW], *args[_WINDOW + 1 :], *kwargs, len(args)]
    for value in kwargs.values():
        if value is not window and value is not tensor:
            others.append(value)
    # Types, because True == 1 == 1.0, of which torch rejects two.
    return (name, backend, torch_state.is_deterministic(), *others, *map(type, others))


def key_of(
    spelling: tuple[Any, ...],
    tensor: torch.Tensor,
    window: torch.Tensor | None,
    differentiated: bool,
) -> Hashable:
    """What a call is decided on, but for the tensors' values and for torch's state.

    Args:
        spelling: as of :func:`spelling_of`.
    """
    of_window: tuple[Hashable, ...] = ()
    if window is not None:
        strides = window.stride() if window.layout is torch.strided else None
        is_zero = torch_state.is_zerotensor(window)
        of_window = (window.shape, strides, window.dtype, window.layout, window.device, is_zero)
    return (
        differentiated,
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.device,
        torch_state.is_zerotensor(tensor),
        *of_window,
        *spelling,
    )


class Known(Generic[Value]):
    """A bounded table of what is known of calls, read without a lock.

    A stale answer costs nothing but time. Keys that cannot be hashed have nothing.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: dict[Hashable, Value] = {}
        self._lock = threading.Lock()
        after_fork(self.after_fork_in_child)
        recent.register_cache(self.clear)

    def get(self, key: Hashable) -> Value | None:
        """What was put under a key."""
        try:
            return self._values.get(key)
        except TypeError:
            return None

    def put(self, key: Hashable, value: Value) -> None:
        """Keep something; when there is too much, forget all and begin again."""
        recent.note_preparation()
        with self._lock:
            if len(self._values) >= self.most:
                self._values = {}
            with suppress(TypeError):
                self._values[key] = value

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values = {}

    def after_fork_in_child(self) -> None:
        """A forked child has a lock that nobody holds."""
        self._lock = threading.Lock()
