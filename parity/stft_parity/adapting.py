"""Functions that only pass a call on to another one: whose lines and tensors are not its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

Function = Callable[..., Any]


def adapter(adapted: Function, function: Function, *, arrays: bool = False) -> Function:
    """Mark ``adapted`` as a function that passes each call on to ``function``.

    Where the reference warns of the line that calls it, the candidate may name a line of the
    adapter: that is where it is called.

    Args:
        adapted: takes torch's arguments.
        function: what it calls.
        arrays: whether ``function`` takes arrays, so that the tensors are the adapter's.
    """
    adapted.__dict__.update(adapts=function, of_arrays=arrays)
    return adapted


def takes_arrays(function: Function) -> bool:
    """Whether the tensors of a function's results are an adapter's and not its own."""
    return any(link.__dict__["of_arrays"] for link in _adapters(function))


def find_calling_lines(function: Function) -> set[tuple[str, int]]:
    """Files and lines of the adapters that pass a call on to a function."""
    return {place for link in _adapters(function) for place in lines(link)}


def lines(function: Any) -> set[tuple[str, int]]:
    """Files and lines of a function and of those within it."""
    return {
        (code.co_filename, line)
        for code in _codes(function.__code__)
        for _, _, line in code.co_lines()
        if line is not None
    }


def _adapters(function: Function) -> Iterator[Any]:
    while "adapts" in getattr(function, "__dict__", {}):
        yield function
        function = function.__dict__["adapts"]


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code of a function and of those within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
