"""Memory of large results, kept for later ones when a program has let go of them.

Memory that is new to a process costs a page fault for every 4 KiB: for the 62 MB spectrum of eight
rows of 480,000 samples 30 ms on two cores of an EPYC, three times as long as its transforms take.
glibc gives what is larger than 32 MiB back to the system as soon as it is freed. What else could be
done about it, and why it is not:

* ``mallopt``, torch's ``THP_MEM_ALLOC_ENABLE`` and other allocators change the whole process, for
  memory that is not ours. torch's own caching allocator for CPUs is reached from C++ alone.
* Huge pages (``MADV_HUGEPAGE``) and populating at once (``MADV_POPULATE_WRITE``), new for every
  call, took as long or longer there.
* Memory with a deleter of ours (``torch.frombuffer``, DLPack, a copy on write) would tell when it
  is free, but such a storage cannot be resized, which native's results can.

So each storage is torch's own, of exactly the size of a result: a saved file, ``nbytes()`` and
``resize_`` are as native's. It is written again when nobody but this module holds it, which its
count of references tells: views, NumPy, DLPack and autograd hold it, too. Only weak references
(``StorageWeakRef``) are not seen: one ends when the storage is forgotten here, not when the program
has let go of it. A storage that was resized, shared or emptied is not used again, nor one that
``numpy()`` has seen, which makes it one that cannot be resized.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from ...native.private_state import count_references
from ...settings import result_memory_setting
from ...store.caches import register_cache
from ...store.fork import after_fork

#: Results below this come from glibc's heap once the first few were freed, and its pages stay
#: where they are: results of 3 to 31 MB had no page faults. To keep those, too, made it worse:
#: glibc learns from what is freed how large its heap may be, and without that it gave back a
#: block's memory, at 4,700 faults a call.
MIN_BYTES = 32 << 20
#: What is kept at most: this, or this share of the machine's memory if that is less.
MOST_BYTES = 256 << 20
SHARE_OF_MEMORY = 32
#: Seconds that nobody has used a storage for, after which it is forgotten.
MAX_IDLE = 10.0
#: Storages that are looked at; each look takes about two microseconds.
MAX_STORAGES = 32
#: Kinds of results that are remembered. Only what is like one that came before is kept: a program
#: whose results all differ, such as whole songs, would hold memory that it never uses again.
MAX_KINDS = 64


class _Lent:
    """A storage that a result was made of, and what it was like then.

    Attributes:
        holder: a tensor of ours that keeps it alive.
        idle_since: when it was first seen that nobody else does; None while somebody does.
    """

    __slots__ = ("address", "holder", "idle_since", "size")

    def __init__(self, holder: torch.Tensor, size: int) -> None:
        self.holder, self.size, self.address = holder, size, holder.data_ptr()
        self.idle_since: float | None = None

    def is_as_it_was(self) -> bool:
        """Whether its memory is still what it was, and nobody but this process sees it."""
        storage = self.holder.untyped_storage()
        return (
            storage.nbytes() == self.size
            and storage.data_ptr() == self.address
            and storage.resizable()
            and not storage.is_shared()
        )


def _count_holders(tensor: torch.Tensor) -> tuple[int, int, int]:
    """References to a tensor's storage, to the object that stands for it in Python, and weak ones.

    That object is one and the same for all who ask for it, so that it counts as one reference.
    """
    storage = tensor.untyped_storage()
    return (
        count_references(storage._cdata),
        sys.getrefcount(storage),
        weakref.getweakrefcount(storage),
    )


def measure_alone() -> tuple[int, int, int] | None:
    """What :func:`_count_holders` says of a tensor that nobody else holds.

    None where it does not see others.
    """
    tensor = torch.empty(4, dtype=torch.uint8, device="cpu")
    alone = _count_holders(tensor)
    other: Any = tensor[1:]
    seen = [_count_holders(tensor) != alone]
    other = tensor.untyped_storage()
    seen.append(_count_holders(tensor) != alone)
    other = tensor.numpy()
    seen.append(_count_holders(tensor) != alone)
    del other
    return alone if all(seen) and _count_holders(tensor) == alone else None


class ResultMemory:
    """Storages of large results.

    Args:
        limit: bytes that are kept at most; None for the default.
        clock: returns seconds; a test passes its own.
    """

    def __init__(
        self, limit: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit, self._clock = limit, clock
        self._lock = threading.Lock()
        self._lent: list[_Lent] = []
        #: Shape, strides and dtype: a gradient of a result's size is of another kind.
        self._kinds: deque[tuple[Any, ...]] = deque(maxlen=MAX_KINDS)
        #: Of :func:`measure_alone`, once a large result was made: torch.compile may import this
        #: while tensors have no memory.
        self._alone: tuple[int, int, int] | None = None
        after_fork(self.after_fork_in_child)
        register_cache(self.clear)

    @property
    def limit(self) -> int:
        """Bytes that are kept at most, those that the program still uses included."""
        if self._limit is None:
            self._limit = read_limit()
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self.clear()

    def held(self) -> int:
        """Bytes of all storages that are known here."""
        return sum(one.size for one in self._lent)

    def make(
        self, shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype
    ) -> torch.Tensor:
        """A new tensor of the host, uninitialised, that is dense."""
        size = math.prod(shape) * dtype.itemsize
        if size < MIN_BYTES or size > self.limit:
            return self._allocate(shape, strides, dtype)
        self._alone = self._alone or measure_alone()
        if self._alone is None:
            return self._allocate(shape, strides, dtype)
        # Who finds another thread in the list gets new memory, rather than wait: a handler of a
        # signal may stand above that very thread. An interrupt between acquire() and a "try" would
        # leave the lock held for good; "with" has no such gap.
        if self._lock.locked():
            return self._allocate(shape, strides, dtype)
        with self._lock:
            found, forgotten = self._take(size)
            is_again = (kind := (shape, strides, dtype)) in self._kinds
            if not is_again:
                self._kinds.append(kind)
        del forgotten
        if found is None:
            result = self._allocate(shape, strides, dtype)
            if not is_again:
                return result
            found = _Lent(torch.empty(0, dtype=torch.uint8, device="cpu"), size)
            found.holder.set_(result.untyped_storage())
            found.address = found.holder.data_ptr()
        else:
            result = torch.empty(0, dtype=dtype, device="cpu")
            result.set_(found.holder.untyped_storage(), 0, shape, strides)
        found.idle_since = None
        self._lent.append(found)
        return result

    def _take(self, size: int) -> tuple[_Lent | None, list[_Lent]]:
        """A free storage of this size, if there is one, and those that are forgotten."""
        now = self._clock()
        found: _Lent | None = None
        kept: list[_Lent] = []
        forgotten: list[_Lent] = []
        for one in self._lent:
            if _count_holders(one.holder) != self._alone:
                one.idle_since = None
                kept.append(one)
                continue
            one.idle_since = one.idle_since or now
            if not one.is_as_it_was() or now - one.idle_since > MAX_IDLE:
                forgotten.append(one)
            elif found is None and one.size == size:
                found = one
            else:
                kept.append(one)
        # Room for this one: what is free and was not used for longest goes first.
        kept.sort(key=lambda one: one.idle_since is None)
        while kept and (
            sum(one.size for one in kept) + size > self.limit or len(kept) >= MAX_STORAGES
        ):
            forgotten.append(kept.pop(0))
        self._lent = kept
        return found, forgotten

    def _allocate(
        self, shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype
    ) -> torch.Tensor:
        try:
            return torch.empty_strided(shape, strides, dtype=dtype, device="cpu")
        except RuntimeError:
            if not self._lent:
                raise
        self.clear()
        return torch.empty_strided(shape, strides, dtype=dtype, device="cpu")

    def clear(self) -> None:
        """Forget all storages and kinds. Storages that the program uses stay its own."""
        self._lent = []
        self._kinds.clear()

    def after_fork_in_child(self) -> None:
        """Begin anew, with a lock that nobody holds."""
        self._lock = threading.Lock()
        self.clear()


def read_limit() -> int:
    """What the environment says, or the default."""
    asked = result_memory_setting()
    if asked is not None:
        return asked
    return min(MOST_BYTES, _physical_memory() // SHARE_OF_MEMORY)


def _physical_memory() -> int:
    """Bytes of this machine's memory; 4 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 4 << 30


memory = ResultMemory()


def set_result_memory(limit: int) -> int:
    """Set how many bytes of large results on the CPU are kept for later ones, at most.

    What is kept now is forgotten. Results that the program uses stay its own.

    Args:
        limit: 0 to keep nothing.

    Returns:
        What held before.

    Raises:
        ValueError: the limit is no number of bytes.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise ValueError(f"limit must be a number of bytes, 0 or more; got {limit!r}")
    before, memory.limit = memory.limit, limit
    return before
