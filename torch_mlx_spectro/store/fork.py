"""Renew, in a forked child, the locks that nobody would release, before its program goes on."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[[], Any])


class Callbacks:
    """Functions that are called together, in the order in which they were added.

    A method does not keep its object alive: it is forgotten with its object.
    """

    def __init__(self) -> None:
        #: Functions, and for each what returns its object, or None when that is gone.
        #: A dictionary, since threads may change it at once: each change is one step of Python's.
        self._entries: dict[int, tuple[Callable[[Any], Any], Callable[[], Any]]] = {}

    def add(self, function: Function) -> Function:
        """Add a function and return it, so that this is a decorator, too."""
        if isinstance(function, MethodType):
            # No WeakMethod: where the interpreter ends before it, it complains.
            owner = weakref.ref(function.__self__, self._drop)
            self._entries[id(owner)] = (function.__func__, owner)
        else:
            self._entries[id(function)] = (_call, lambda: function)
        return function

    def _drop(self, reference: weakref.ref[Any]) -> None:
        self._entries.pop(id(reference), None)

    def call(self) -> None:
        """Call all whose objects are there now."""
        # A list comes to be before the entries are looked at: looking at one may end objects.
        for act, owner in [(act, refer()) for act, refer in list(self._entries.values())]:
            if owner is not None:
                act(owner)


def _call(function: Callable[[], Any]) -> None:
    function()


_renewals = Callbacks()
#: Registers a function that every child forked from now on calls, in its only thread.
after_fork = _renewals.add
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renewals.call)
