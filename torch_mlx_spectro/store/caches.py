"""What was used last, and no more than so much of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

_preparations = 0


def preparations() -> int:
    """How often this process has kept something new for later calls: kernels, launches, windows.

    Where it grows during a call, that call did what later ones need not do.
    """
    return _preparations


def note_preparation() -> None:
    """Count one; of two threads at once one may not be counted."""
    global _preparations
    _preparations += 1


class Recent(Generic[Key, Value]):
    """Values by key, of which the least recently used is forgotten; its owner has the lock.

    Args:
        most: values that are kept at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[Key]:
        return iter(self._values)

    def get(self, key: Key) -> Value | None:
        """The value of a key, which is the most recent one now; None if there is none."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> Value:
        """Keep a value; returns it."""
        note_preparation()
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self.most:
            self._values.popitem(last=False)
        return value

    def clear(self) -> None:
        """Forget all."""
        self._values.clear()


class Cache(Generic[Key, Value]):
    """The same with a lock of its own.

    Args:
        most: values that are kept at once.
    """

    def __init__(self, most: int) -> None:
        self.recent: Recent[Key, Value] = Recent(most)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.recent)

    def find(self, key: Key) -> Value | None:
        """The value of a key; None if there is none."""
        with self._lock:
            return self.recent.get(key)

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of a key, made when missing. Two threads may both make it, and get one."""
        value = self.find(key)
        return self.put(key, make(), replace=False) if value is None else value

    def put(self, key: Key, value: Value, *, replace: bool = True) -> Value:
        """Keep a value; returns what is kept.

        Args:
            replace: what is there already.
        """
        with self._lock:
            there = None if replace else self.recent.get(key)
            return self.recent.put(key, value) if there is None else there

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self.recent.clear()
