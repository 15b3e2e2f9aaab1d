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
        #: By the identity of a reference, which returns the function, or None once that is gone.
        #: A dictionary, since threads may change it at once: each change is one step of Python's.
        self._references: dict[int, Callable[[], Callable[[], Any] | None]] = {}

    def __len__(self) -> int:
        return len(self._references)

    def add(self, function: Function) -> Function:
        """Add a function; returns it, so that this is a decorator, too."""
        reference: Any = lambda: function  # noqa: E731
        if isinstance(function, MethodType):
            reference = weakref.WeakMethod(function, self._drop)
        self._references[id(reference)] = reference
        return function

    def _drop(self, reference: Any) -> None:
        self._references.pop(id(reference), None)

    def call(self) -> None:
        """Call them all."""
        # A list comes to be before the values are looked at: making one may end objects.
        for reference in list(self._references.values()):
            function = reference()
            if function is not None:
                function()


_renewals = Callbacks()
#: Have a function called in every child that is forked from now on, by its only thread.
after_fork = _renewals.add
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renewals.call)
