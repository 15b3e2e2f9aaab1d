"""What is kept to make later calls faster, and how all of it is forgotten at once.

A :class:`Cache` and a function under :func:`cached` are emptied by :func:`clear_caches`; any other
table says so to :func:`register_cache`. What is measured, or was found to be wrong, is no cache.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from .fork import Callbacks, after_fork

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

Key = TypeVar("Key")
Value = TypeVar("Value")

_clearings = Callbacks()
#: Have :func:`clear_caches` call a function, which may be called in any thread, at any time.
register_cache = _clearings.add
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


def clear_caches() -> None:
    """Forget everything that is kept to make later calls faster; later calls make it again.

    That is plans, windows, tables, kernels and transforms, and MLX's pool of memory where this
    package uses MLX. Results stay the same, also of calls that run meanwhile, in other threads.
    Kept are what was measured (the faster backends and groups) or found to be wrong, counts,
    files, and what the program itself holds: transforms, compiled functions, graphs.
    """
    _clearings.call()


def cached(
    most: int, *, typed: bool = False
) -> Callable[[Callable[..., Value]], _lru_cache_wrapper[Value]]:
    """Keep what a function of a module returns, by its arguments: a decorator.

    Args:
        most: results that are kept at once.
        typed: 1, 1.0 and True are different arguments.
    """

    def decorate(function: Callable[..., Value]) -> _lru_cache_wrapper[Value]:
        kept = lru_cache(maxsize=most, typed=typed)(function)
        register_cache(kept.cache_clear)
        return kept

    return decorate


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

    def find(self, key: Key) -> Value | None:
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


class Cache(Recent[Key, Value]):
    """The values that were used last, by key, for all threads.

    A forked child begins with an empty one. What its parent keeps belongs to libraries whose
    threads the child has not: it cannot use that, and does not free it either.

    Args:
        most: values that are kept at once.
        note: called at each :meth:`get`, with whether there was a value, and the key.
    """

    _inherited: ClassVar[list[Any]] = []

    def __init__(self, most: int, note: Callable[[bool, Key], None] | None = None) -> None:
        super().__init__(most)
        self._note = note
        self._hits = self._misses = 0
        self._lock = threading.Lock()
        after_fork(self.after_fork_in_child)
        register_cache(self.clear)

    def find(self, key: Key) -> Value | None:
        """The value of a key; None if there is none. It is not counted."""
        with self._lock:
            return super().find(key)

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of a key, made when missing. Two threads may both make it, and get one."""
        with self._lock:
            value = super().find(key)
            if value is None:
                self._misses += 1
            else:
                self._hits += 1
        if self._note is not None:
            self._note(value is not None, key)
        return self.put(key, make(), replace=False) if value is None else value

    def put(self, key: Key, value: Value, *, replace: bool = True) -> Value:
        """Keep a value; returns what is kept.

        Args:
            replace: what is there already.
        """
        with self._lock:
            there = None if replace else super().find(key)
            return super().put(key, value) if there is None else there

    def info(self) -> dict[str, int]:
        """Hits and misses of :meth:`get` since the cache was emptied, and sizes."""
        with self._lock:
            return {
                "hits": self._hits,
                "misses": self._misses,
                "maxsize": self.most,
                "currsize": len(self),
            }

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            forgotten, self._values = self._values, OrderedDict()
            self._hits = self._misses = 0
        del forgotten  # without the lock: what it held may run code of its own when it ends

    def after_fork_in_child(self) -> None:
        """Begin anew, with a lock that nobody holds."""
        self._lock = threading.Lock()
        self._inherited.append(self._values)
        self.clear()
