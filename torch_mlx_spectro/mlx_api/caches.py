"""Counts hits and misses of the MLX API's caches, for tuning, under mlx-spectro's names.

Nothing is counted unless ``SPEC_MLX_CACHE_STATS`` asks for it.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Hashable
from functools import cached_property
from typing import Any

from ..settings import mlx_settings
from ..store.caches import Cache
from ..store.fork import after_fork
from .functions import get_map
from .ops import kernels

RECENT_EVENTS = 128
#: How many transforms :func:`.mlx_api.transform.get_transform_mlx` keeps.
TRANSFORMS = 64


class _Events:
    """Counters that threads share; while they are off, an event costs one comparison."""

    def __init__(self) -> None:
        self.after_fork_in_child()
        after_fork(self.after_fork_in_child)

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    @cached_property
    def enabled(self) -> bool:
        return mlx_settings().cache_stats

    def clear(self) -> None:
        with self._lock:
            vars(self).pop("enabled", None)  # to be read again
            self._counts: Counter[str] = Counter()
            self._last: dict[str, str] = {}
            self._recent: deque[str] = deque(maxlen=RECENT_EVENTS)

    def record(self, name: str, key: Any) -> None:
        if self.enabled:
            with self._lock:
                self._counts[name] += 1
                self._last[name] = repr(key)
                self._recent.append(name)

    def snapshot(self) -> dict[str, Any]:
        with self._lock:
            return {
                "enabled": self.enabled,
                "counts": dict(self._counts),
                "last_key_shapes": dict(self._last),
                "recent_events": list(self._recent),
            }


_events = _Events()


def make_counted(name: str, entries: int) -> Cache[Hashable, Any]:
    """Make a cache whose hits and misses are events.

    Args:
        name: the events are called ``name.hit`` and ``name.miss``.
        entries: how many entries are kept at most.
    """

    def note(is_there: bool, key: Hashable) -> None:
        _events.record(f"{name}.{'hit' if is_there else 'miss'}", key)

    return Cache(entries, note)


transforms = make_counted("transform_cache", TRANSFORMS)


def reset_cache_debug_stats() -> None:
    """Set the counts to zero, and read ``SPEC_MLX_CACHE_STATS`` again; the caches stay filled."""
    _events.clear()


def get_cache_debug_stats(*, reset: bool = False) -> dict[str, Any]:
    """Return the counts of cache events since the last reset.

    Args:
        reset: set the counts to zero afterwards.

    Returns:
        ``enabled``, ``counts`` by event, ``last_key_shapes`` by event, ``recent_events``,
        ``kernel_cache`` and ``transform_cache``. ``kernel_cache`` has mlx-spectro's keys, and
        ``maps``: the functions that were made, one for a kind of call. Here one kernel computes
        overlap-add, envelope and quotient, so the first three values are equal. Shapes of groups
        (``tgx``) are written to their file as soon as they are found, so none is ever "dirty".
    """
    found = kernels()
    inverts = found is not None and any("synthesis" in name for name in found.list_made())
    stats = {
        **_events.snapshot(),
        "kernel_cache": {
            "ola_kernel_compiled": inverts,
            "ola_norm_kernel_compiled": inverts,
            "envelope_kernel_compiled": inverts,
            "tgx_entries": 0 if found is None else found.chooser.count_chosen(),
            "tgx_loaded": found is not None and found.chooser.count_chosen() > 0,
            "tgx_dirty": False,
            "maps": get_map.cache_info()._asdict(),
        },
        "transform_cache": transforms.info(),
    }
    if reset:
        reset_cache_debug_stats()
    return stats
