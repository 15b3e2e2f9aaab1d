"""This package's own functions as candidates of the parity suite.

Each is strict: a call that the backend would leave to native torch counts as fallen back, not as
passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch_mlx_spectro as tms
from stft_parity import Candidate, FellBack, Known, Result, adapter, known

from .. import terminal
from ..backends import registry

#: The differences of the package's own backends from torch, with reasons.
KNOWN_DIFFERENCES = Path(__file__).parent / "known_differences.toml"

DOUBLES = ("float64", "complex128")

#: Keeps the emulator active until the process ends: worker processes compute by it.
_OPEN = ExitStack()


def __getattr__(name: str) -> Callable[[], Candidate]:
    """Return a function that makes a candidate, for an attribute that is a backend's name.

    With ``emulated_`` before the name of a backend of Metal kernels, the Metal emulator computes,
    for the rest of the process.
    """
    backend = name.removeprefix("emulated_")
    if backend not in registry.names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(_emulate if name != backend else make_strict, backend)


def list_known_differences(backend: str) -> tuple[Known, ...]:
    """List the accepted differences of one of the package's own backends.

    A backend that computes in double precision may not leave such tensors to native torch.
    """
    if backend == registry.NATIVE:
        return ()
    entries = known.read(KNOWN_DIFFERENCES)
    if not registry.find(backend).takes_doubles:
        return entries
    return tuple(
        replace(
            entry,
            where=tuple(
                (argument, tuple(value for value in values if value not in DOUBLES))
                for argument, values in entry.where
            ),
        )
        for entry in entries
    )


def _emulate(backend: str) -> Candidate:
    from torch_mlx_spectro import emulator

    _OPEN.enter_context(emulator.Machine().installed())
    return make_strict(backend)


def make_strict(backend: str) -> Candidate:
    """Make a candidate of the package's functions with this backend, strict.

    Args:
        backend: its name; ``"native"`` for native torch, through this package's dispatch.
    """
    kernel = ""  # the kernel of the last call

    def bind(op: str) -> Callable[..., Any]:
        ours = getattr(tms, op)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal kernel
            kernel = ""
            tms.reset_stats()
            try:
                with tms.backend(registry.check_name(backend, "backend"), strict=True):
                    result = ours(*args, **kwargs)
                    # This gives the kernel's name only; the counters say whether it was called.
                    kernel = tms.explain(op, *args, **kwargs).kernel
            except tms.NotAccelerated as refused:
                raise FellBack("; ".join(refused.reasons)) from refused
            return result

        return adapter(call, ours)

    def tell_route() -> str:
        """Return backend and kernel of the last call, as it was counted; empty if none was."""
        backends = sorted({counted for _, counted in tms.stats().calls})
        return f"{', '.join(backends)}: {kernel}" if backends and kernel else ""

    def tell_fallback() -> str:
        """Return why the last call was not the backend's; empty if it was."""
        stats = tms.stats()
        if backend == registry.NATIVE or (stats.accelerated and not stats.native):
            return ""
        return "; ".join(stats.fallbacks) or "native torch computed it, or nothing was counted"

    return Candidate(
        bind("stft"),
        bind("istft"),
        f"torch_mlx_spectro, backend {backend}",
        tell_route,
        tell_fallback,
    )


@contextmanager
def progress() -> Iterator[Callable[[int, int, Sequence[Result]], None]]:
    """Show on stderr how many cases of a parity run are done, and how many fail."""
    with terminal.progress("comparing") as update:
        failing = seen = 0

        def show(done: int, total: int, results: Sequence[Result]) -> None:
            nonlocal failing, seen
            failing += sum(result.failed for result in results[seen:])
            seen = len(results)
            update(done, total, f"{failing} failing")

        yield show
