"""Counts of what was computed where, and why not elsewhere."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType, FrameType, MappingProxyType
from typing import Any

#: Call sites counted one by one; further ones are counted together under OTHER_SITES.
MAX_SITES = 1000
MAX_REASONS = 1000
OTHER_SITES = "(other call sites)"
OTHER_REASONS = "(other reasons)"


@dataclass(frozen=True)
class Stats:
    """A snapshot of the counters.

    Attributes:
        accelerated: calls computed by an accelerated backend.
        native: calls answered by native torch, by fallback or by choice of routing.
        calls: (op, backend) to count; op is ``"stft"`` or ``"istft"``.
        fallbacks: reason to count, for calls that were to be accelerated and could not be.
        sites: ``file:line`` of the caller to ``{"accelerated": n, "native": n}``.
    """

    accelerated: int
    native: int
    calls: Mapping[tuple[str, str], int]
    fallbacks: Mapping[str, int]
    sites: Mapping[str, Mapping[str, int]]

    def as_dict(self) -> dict[str, Any]:
        """The snapshot in JSON's types; keys of ``calls`` read ``"stft/mlx"``."""
        return {
            "accelerated": self.accelerated,
            "native": self.native,
            "calls": {f"{op}/{backend}": n for (op, backend), n in self.calls.items()},
            "fallbacks": dict(self.fallbacks),
            "sites": {site: dict(counts) for site, counts in self.sites.items()},
        }


class Counters:
    """Thread-safe counters; a call costs well under a microsecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[tuple[str, str]] = Counter()
        self._fallbacks: Counter[str] = Counter()
        self._sites: dict[tuple[CodeType | None, int], list[int]] = {}

    def count(self, op: str, backend: str, caller: FrameType | None) -> None:
        """Count one answered call; ``caller`` is the frame that made it."""
        if caller is None:
            site: tuple[CodeType | None, int] = (None, 0)
        else:
            site = (caller.f_code, caller.f_lineno)
        with self._lock:
            self._calls[op, backend] += 1
            counts = self._sites.get(site)
            if counts is None:
                if len(self._sites) >= MAX_SITES:
                    site = (None, 0)
                counts = self._sites.setdefault(site, [0, 0])
            counts[backend == "native"] += 1

    def count_fallback(self, reasons: tuple[str, ...]) -> None:
        """Count why a call that was to be accelerated is native's."""
        with self._lock:
            for reason in reasons:
                known = reason in self._fallbacks or len(self._fallbacks) < MAX_REASONS
                self._fallbacks[reason if known else OTHER_REASONS] += 1

    def snapshot(self) -> Stats:
        with self._lock:
            calls, fallbacks = dict(self._calls), dict(self._fallbacks)
            counted = [(key, tuple(counts)) for key, counts in self._sites.items()]
        sites: dict[str, dict[str, int]] = {}
        for (code, line), (accelerated, native) in counted:
            name = OTHER_SITES if code is None else f"{code.co_filename}:{line}"
            site = sites.setdefault(name, {"accelerated": 0, "native": 0})
            site["accelerated"] += accelerated
            site["native"] += native
        native_calls = sum(n for (_, backend), n in calls.items() if backend == "native")
        return Stats(
            accelerated=sum(calls.values()) - native_calls,
            native=native_calls,
            calls=MappingProxyType(calls),
            fallbacks=MappingProxyType(fallbacks),
            sites=MappingProxyType(sites),
        )

    def reset(self) -> None:
        with self._lock:
            self._calls.clear()
            self._fallbacks.clear()
            self._sites.clear()

    def after_fork_in_child(self) -> None:
        """A forked child counts its own calls, with a lock that nobody holds."""
        self.__init__()  # type: ignore[misc]
