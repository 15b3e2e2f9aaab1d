"""What a forked child does before its program goes on: it renews locks that nobody releases."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[[], Any])


class Callbacks:
    """Functions that are called together, in the order in which they came.

    A method is held by its object alone: it is forgotten when that one is.
    """

    def __init__(self) -> None:
        #: Functions, and those of methods with a reference to their object, by its identity.
        #: A dictionary, since threads may change it at once: each change is one step of Python's.
        self._entries: dict[int, tuple[Callable[..., Any], weakref.ref[Any] | None]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, function: Function) -> Function:
        """Add a function; returns it, so that this is a decorator, too."""
        if isinstance(function, MethodType):
            owner = weakref.ref(function.__self__, self._drop)
            self._entries[id(owner)] = (function.__func__, owner)
        else:
            self._entries[id(function)] = (function, None)
        return function

    def _drop(self, owner: weakref.ref[Any]) -> None:
        self._entries.pop(id(owner), None)

    def functions(self) -> list[Callable[[], Any]]:
        """All that can be called now, in order."""
        found: list[Callable[[], Any]] = []
        # A list comes to be before the entries are looked at: making one may end objects.
        for function, reference in list(self._entries.values()):
            owner = None if reference is None else reference()
            if reference is None:
                found.append(function)
            elif owner is not None:
                found.append(MethodType(function, owner))
        return found

    def call(self) -> None:
        """Call them all."""
        for function in self.functions():
            function()


_renewals = Callbacks()
#: Have a function called in every child that is forked from now on, by its only thread.
after_fork = _renewals.add
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renewals.call)
