"""Caches that make later calls faster, and the function that empties all of them.

:func:`clear_caches` empties every :class:`Cache` and every function under :func:`cached`. Any other
table registers itself by :func:`register_cache`. Measurements, and what was found to be wrong, are
no caches.
"""

from __future__ import annotations

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
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
    """Return how often this process has kept something new for later calls, such as a kernel.

    If the number grows during a call, that call did work that later ones need not do.
    """
    return _preparations


def note_preparation() -> None:
    """Count one preparation. If two threads count at once, one may be lost."""
    global _preparations
    _preparations += 1


def clear_caches() -> None:
    """Forget everything that is kept to make later calls faster; later calls make it again.

    These are plans, windows, tables, kernels and transforms, and MLX's pool of memory where this
    package uses MLX. Results stay the same, also those of calls that run meanwhile in other
    threads. Not forgotten are measurements (the faster backends and groups), what was found to be
    wrong, counts, files, and what the program itself holds: transforms, compiled functions, graphs.

    With glibc the free memory of the whole process goes back to the system.
    """
    _clearings.call()
    # Plans lie between large results that are freed, and glibc gives back the end of a heap alone:
    # after 10,000 calls of random sizes by eight threads 700 MiB were free, and not given back.
    with suppress(AttributeError, OSError, TypeError):  # not glibc; on Windows None is no library
        ctypes.CDLL(None).malloc_trim(0)


def cached(
    most: int, *, typed: bool = False
) -> Callable[[Callable[..., Value]], _lru_cache_wrapper[Value]]:
    """Decorate a function of a module so that its results are kept by its arguments.

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
    """Values by key, of which the least recently used is forgotten. Its owner has to lock it.

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

    def list_keys(self) -> list[Key]:
        """Return the keys, least recently used first."""
        return list(self._values)

    def find(self, key: Key) -> Value | None:
        """Return the value of a key, which becomes the most recent one; None if there is none."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> Value:
        """Keep a value, and return it."""
        note_preparation()
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self.most:
            self._values.popitem(last=False)
        return value

    def clear(self) -> None:
        """Forget all values."""
        self._values.clear()


class Cache(Recent[Key, Value]):
    """The values that were used last, by key, for all threads.

    A forked child begins with an empty cache. What its parent keeps belongs to libraries whose
    threads the child does not have, so the child can neither use nor free it.

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
        """Return the value of a key; None if there is none. Hits and misses are not counted."""
        with self._lock:
            return super().find(key)

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of a key, made when missing. Two threads that make it get one value."""
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
        """Keep a value, and return the one that is kept.

        Args:
            replace: replace a value that is there already.
        """
        with self._lock:
            there = None if replace else super().find(key)
            return super().put(key, value) if there is None else there

    def info(self) -> dict[str, int]:
        """Return hits and misses of :meth:`get` since the cache was emptied, and sizes."""
        with self._lock:
            return {
                "hits": self._hits,
                "misses": self._misses,
                "maxsize": self.most,
                "currsize": len(self),
            }

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            forgotten, self._values = self._values, OrderedDict()
            self._hits = self._misses = 0
        del forgotten  # without the lock: what it held may run code of its own when it ends

    def after_fork_in_child(self) -> None:
        """Begin anew, with a lock that nobody holds."""
        self._lock = threading.Lock()
        self._inherited.append(self._values)
        self.clear()
