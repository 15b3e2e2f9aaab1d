"""The host's time of a call that comes again, in units of one allocation of torch's.

Microseconds depend on the machine; how many allocations a call costs is nearly the same on all. On
a device the computation goes on beside the host, and calls as small as these wait for the host
alone. Where there is no device, the ``mps`` route is taken on the host's tensors, with Metal
kernels that compute nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Final

import torch

from ..backends import registry
from ..native.private_state import HOST
from ..store.caches import clear_caches
from . import running
from .cases import HOST_TABLE, TABLES
from .measuring import Clock
from .schema import Report

#: The backend that is timed where there is no device.
STUBBED = "mps"
#: How many times more samples are taken of these calls than of others, since they are short.
MORE_SAMPLES = 5


class _Nothing:
    """A library of Metal kernels that compute nothing, and each of its kernels."""

    #: An attribute that launchers read from a kernel.
    max_threads_per_threadgroup = 1024
    thread_execution_width = 32

    def __getattr__(self, name: str) -> _Nothing:
        return self

    def __call__(self, *buffers: Any, **sizes: Any) -> None:
        pass


class _Stub:
    """Stands in for ``torch.mps.compile_shader``; like the emulator's, it needs no device."""

    emulated: Final = True

    def __call__(self, source: str) -> _Nothing:
        return _Nothing()


@contextmanager
def stub_metal() -> Iterator[None]:
    """Make the ``mps`` backend accept the host's tensors and compute nothing, within the context.

    Results are uninitialised memory. Afterwards everything that was kept under the stub is
    forgotten. No later call would find it anyway, since its keys hold the stub.
    """
    before = getattr(torch.mps, "compile_shader", None)
    mps: Any = torch.mps
    try:
        mps.compile_shader = _Stub()
        yield
    finally:
        if before is None:
            del mps.compile_shader
        else:
            mps.compile_shader = before
        clear_caches()


def measure_host(
    settings: running.Settings,
    progress: running.Progress = lambda done, total, what: None,
    clock: Clock | None = None,
) -> Report:
    """Time what calls take of the host, by the device's own backend and by native.

    Args:
        settings: how to measure; of its backends only the device's own is timed.
        progress: see :func:`.running.measure`.
        clock: the clock; the device's own by default.

    Returns:
        A report of one table, whose ratios are the allocation's time over a call's.
    """
    is_stubbed = settings.device == HOST
    own = registry.list_candidates(settings.device)[0]
    named = tuple(name for name in settings.backends if name == own)
    chosen = replace(
        settings,
        # Native computes on the host, so its host's time alone cannot be timed.
        backends=(STUBBED,) if is_stubbed else (running.NATIVE, *named),
        samples=MORE_SAMPLES * settings.samples,
        computes=not is_stubbed,
    )
    with stub_metal() if is_stubbed else nullcontext():
        return running.measure(chosen, {HOST_TABLE: TABLES[HOST_TABLE]}, progress, clock)
