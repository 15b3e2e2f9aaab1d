"""``%load_ext torch_mlx_spectro``: the cell magic ``%%stft_stats`` of IPython and notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from .backends import registry
from .dispatch.choice import is_patched
from .dispatch.run import counters
from .functional import stats_since
from .patching import patch

NAME = "stft_stats"
AS_IS = "--as-is"


def load_ipython_extension(ipython: Any) -> None:
    """Add ``%%stft_stats`` to an IPython session; ``%load_ext torch_mlx_spectro`` calls this.

    Args:
        ipython: the session, ``get_ipython()``.
    """
    magic = partial(_run_cell, ipython)
    magic.__doc__ = _run_cell.__doc__
    ipython.register_magic_function(magic, "cell", NAME)


def _run_cell(ipython: Any, line: str, cell: str) -> None:
    """Run a cell, and show who computed its torch.stft and torch.istft, and why.

    %%stft_stats            with torch patched as it is, or by patch() if it is not
    %%stft_stats BACKEND    under patch(BACKEND)
    %%stft_stats --as-is    with torch as it is, patched or not

    Calls of other cells are not counted, unless threads make them meanwhile.
    """
    backend = _read_backend(line)
    before = counters.mark()
    with nullcontext() if backend is None else patch(backend):
        with _keep_number(ipython):
            result = ipython.run_cell(cell)
        stats = stats_since(before)
    shown = {"text/plain": str(stats), "text/html": stats._repr_html_()}
    from IPython.display import display

    display(shown, raw=True)  # type: ignore[no-untyped-call]
    error = result.error_before_exec or result.error_in_exec
    if error is not None:
        # Whoever runs all cells has to stop here; the traceback was shown already.
        error._render_traceback_ = list
        raise error


@contextmanager
def _keep_number(ipython: Any) -> Iterator[None]:
    """Give what is run the number of the cell that is running; IPython 9 has counted on."""
    count = ipython.execution_count
    ipython.execution_count = min(count, max(1, len(ipython.user_ns.get("In", ())) - 1))
    try:
        yield
    finally:
        ipython.execution_count = count


def _read_backend(line: str) -> registry.BackendName | None:
    """Return the backend to patch torch with for a cell; None to leave it as it is."""
    from IPython.core.error import UsageError

    words = line.split()
    if len(words) > 1:
        raise UsageError(f"%%{NAME} takes one word at most: a backend, or {AS_IS}; got {line!r}")
    if words == [AS_IS] or (not words and is_patched()):
        return None
    try:
        return registry.check_name(words[0] if words else "auto", f"the backend of %%{NAME}")
    except ValueError as error:
        raise UsageError(f"{error} (or {AS_IS})") from None
