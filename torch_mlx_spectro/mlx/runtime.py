"""MLX in this process: whether it can be used, its streams, and blocks pipelined over them.

One set of CPU streams serves every thread. MLX's ordinary streams belong to the thread that made
them, and their system threads are never given back, so a program that calls us from short-lived
threads would leak them. Streams of the other kind may be used from any thread, by one at a time; a
lock here makes sure of that. A call uses every core, so calls in parallel lose nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np

from ..store.caches import register_cache
from ..store.fork import after_fork
from .host import HostArray

MINIMUM_MLX = (0, 32, 4)

#: More streams than this would outgrow MLX's 32 MB buffer cache and fault pages in again.
MAX_STREAMS = 8

#: The part of a Mac's memory that MLX may keep of what was freed, if nobody else has a say: of 8 GB
#: 256 MB. By default it is nearly all memory, and torch keeps freed memory of its own.
KEPT_SHARE = 32

FORKED = "this process was forked after MLX was loaded, and MLX's threads do not survive a fork"


class Part(NamedTuple):
    """A lazy array, and the host memory that takes its values.

    With an ``offset`` the flattened values are written to the target from there on. With ``add``
    they are added to what the target holds.
    """

    array: Any
    target: HostArray
    offset: int | None = None
    add: bool = False


@dataclass(frozen=True)
class Runtime:
    """A usable MLX: its module and the streams on which CPU blocks run."""

    mx: Any
    streams: tuple[Any, ...]
    lock: threading.Lock

    def run(self, producers: list[Iterator[Part]], depth: int) -> None:
        """Evaluate what the producers yield and store it, ``depth`` blocks ahead on each stream.

        The streams compute while this thread stores earlier blocks. Several blocks are ahead,
        because waking a sleeping thread costs up to 0.1 ms in a virtual machine.

        Args:
            producers: one per stream; each yields parts computed on its own stream.
            depth: parts in flight per producer.
        """
        mx = self.mx
        pending: deque[Part] = deque()
        active = list(producers)
        ahead = depth * len(producers)
        while active or pending:
            for producer in tuple(active):
                block = next(producer, None)
                if block is None:
                    active.remove(producer)
                    continue
                mx.async_eval(block.array)
                pending.append(block)
            while pending and (len(pending) > ahead or not active):
                _store(mx, pending.popleft())


def _store(mx: Any, part: Part) -> None:
    mx.eval(part.array)  # waits without holding the interpreter lock
    values = np.asarray(part.array)
    if part.offset is not None:
        values = values.reshape(-1)[part.offset : part.offset + len(part.target)]
    if part.add:
        # torch does not warn when infinities of both signs meet, or when a sum becomes one.
        with np.errstate(all="ignore"):
            np.add(part.target, values, out=part.target)
    else:
        part.target[...] = values


class _Process:
    """MLX's state in this process: made on first use, and made anew in a forked child."""

    def __init__(self) -> None:
        # Re-entrant, since `import mlx` may run a user's own file `mlx.py`, which may call us.
        self.lock = threading.RLock()
        #: The usable MLX, or why there is none; None before anybody has asked.
        self.found: Runtime | str | None = None
        after_fork(self.after_fork_in_child)
        register_cache(self.clear_pool)

    def resolve(self) -> Runtime | str:
        """Return the usable MLX, or why there is none."""
        if self.found is None:
            with self.lock:
                self.found = self.found or _load()
        return self.found

    def clear_pool(self) -> None:
        """Give back the memory that MLX has freed and keeps. MLX is not loaded for that."""
        mx = sys.modules.get("mlx.core")
        if mx is not None and self.found != FORKED:
            mx.clear_cache()

    def after_fork_in_child(self) -> None:
        # Any lock may have been held by a thread that does not exist here.
        self.lock = threading.RLock()
        if "mlx.core" in sys.modules:
            self.found = FORKED


def _load() -> Runtime | str:
    """Import MLX and make its streams; return the reason when that fails."""
    is_the_programs = "mlx.core" in sys.modules
    try:
        mx = importlib.import_module("mlx.core")
    except (ImportError, OSError) as error:
        found = sys.modules.get("mlx")
        hidden = found is not None and not hasattr(found, "__path__")
        by = f" ({getattr(found, '__file__', 'a module')} has its name)" if hidden else ""
        return f"mlx cannot be imported: {error}{by}"
    version = getattr(mx, "__version__", "0")
    if version_numbers(version) < MINIMUM_MLX:
        wanted = ".".join(map(str, MINIMUM_MLX))
        return f"mlx {version} is older than {wanted}: pip install -U mlx"
    if not is_the_programs:
        _bound_cache(mx)
    streams = min(MAX_STREAMS, usable_cpus())
    return Runtime(
        mx,
        tuple(mx.new_thread_unsafe_stream(mx.cpu) for _ in range(streams)),
        threading.Lock(),
    )


def _bound_cache(mx: Any) -> None:
    """Bound the memory that MLX keeps on a Mac, unless a lower bound is set.

    Only for programs that have not imported MLX. In others the setting is theirs, and one that
    imports MLX later may set its own.
    """
    if not mx.metal.is_available():
        return
    memory = int(mx.device_info().get("memory_size", 0))
    if memory:
        wanted = memory // KEPT_SHARE
        before = mx.set_cache_limit(wanted)
        if before < wanted:
            mx.set_cache_limit(before)


_process = _Process()


def unavailable_reason() -> str | None:
    """Return why MLX cannot be used in this process, or None. MLX is imported on first use."""
    found = _process.resolve()
    return found if isinstance(found, str) else None


def find_absence() -> str | None:
    """Return why this machine surely has no MLX, without importing it; None if that is not known.

    A forked child cannot use the MLX that its parent has loaded, but the machine has one.
    """
    if is_resolved():
        reason = unavailable_reason()
        return None if reason == FORKED else reason
    try:
        is_missing = "mlx" not in sys.modules and importlib.util.find_spec("mlx") is None
    except (ImportError, ValueError) as error:
        return f"mlx cannot be imported: {error}"
    return "mlx is not installed: pip install mlx" if is_missing else None


def is_resolved() -> bool:
    """Whether :func:`unavailable_reason` was called before, so that it now loads nothing."""
    return _process.found is not None


def runtime() -> Runtime:
    """The usable MLX.

    Raises:
        RuntimeError: MLX cannot be used here (:func:`unavailable_reason` tells why).
    """
    found = _process.resolve()
    if isinstance(found, str):
        raise RuntimeError(f"MLX cannot be used: {found}")
    return found


def has_gpu() -> bool:
    """Whether this MLX computes on an Apple GPU."""
    return bool(runtime().mx.metal.is_available())


def threads() -> int:
    """Return the number of threads that torch, if imported, would use; else that of CPUs."""
    torch = sys.modules.get("torch")
    return usable_cpus() if torch is None else int(torch.get_num_threads())


def usable_cpus() -> int:
    """Return the number of CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: ``0.32.4.dev1+gabc`` gives (0, 32, 4)."""
    digits = ("".join(takewhile(str.isdecimal, piece)) for piece in version.split(".")[:3])
    return tuple(int(leading or 0) for leading in digits)
