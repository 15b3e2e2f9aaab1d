"""What a call that comes again takes of the host's time, in units of one allocation of torch's.

Microseconds are a machine's; how many allocations a call costs is nearly the same on all of them.
On a device the computation goes on beside the host, which is all that is waited for in calls as
small as these. Where there is no device, the ``mps`` route is taken on the host's tensors, with
Metal kernels that compute nothing.
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

#: Computed with where there is no device.
STUBBED = "mps"
#: Samples of these calls are short: so many times as many as of others.
MORE_SAMPLES = 5


class _Nothing:
    """A library of Metal kernels that compute nothing, and each of its kernels."""

    #: What a launcher asks of a kernel.
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
    """Have the ``mps`` backend compute nothing, of the host's tensors, until the context ends.

    What comes out is memory as it was found. Afterwards nothing is left of it: what was kept under
    the stub is forgotten, which no later call would find, as its key has the stub.
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
        settings: how; of its backends the device's own is timed.
        progress: as of :func:`.running.measure`.
        clock: the clock; the device's own by default.

    Returns:
        A report of one table, whose ratios are the allocation's time over a call's.
    """
    is_stubbed = settings.device == HOST
    own = registry.list_candidates(settings.device)[0]
    named = tuple(name for name in settings.backends if name == own)
    chosen = replace(
        settings,
        # What native takes of the host cannot be told from what it computes there.
        backends=(STUBBED,) if is_stubbed else (running.NATIVE, *named),
        samples=MORE_SAMPLES * settings.samples,
        computes=not is_stubbed,
    )
    with stub_metal() if is_stubbed else nullcontext():
        return running.measure(chosen, {HOST_TABLE: TABLES[HOST_TABLE]}, progress, clock)
