"""What a call did: its result or its exception, its warnings, and what it did to its arguments."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stft_parity.adapting import Function, find_calling_lines, lines
from stft_parity.cases import Tensors
from stft_parity.compare.aftermath import watch_state


@dataclass(frozen=True)
class Outcome:
    """A result or an exception, and what else was seen.

    Attributes:
        warned: the warnings in order: name of the category, text.
        lines: the line that each names, in words.
        changed: what of the program's state was changed; it was set again.
    """

    result: Any
    error: Exception | None
    warned: tuple[tuple[str, str], ...]
    changed: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


@contextmanager
def warn_always() -> Iterator[None]:
    """Let torch repeat its once-only warnings, so that the second of two calls warns, too."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        yield
    finally:
        torch.set_warn_always(before)


def observe(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
    """Call ``function`` and record what it did."""
    result, error = None, None
    with watch_state() as changed, warn_always(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = _call(function, args, kwargs)
        except Exception as raised:
            error = raised
    warned = tuple((given.category.__name__, str(given.message)) for given in caught)
    callers = find_calling_lines(function) | lines(_call) if caught else set()
    named = tuple(_line(given, callers) for given in caught)
    return Outcome(result, error, warned, tuple(changed), named)


def _call(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make a call on a line that warnings can name."""
    return function(*args, **kwargs)


def _line(given: warnings.WarningMessage, callers: set[tuple[str, int]]) -> str:
    """The line that a warning names: of the caller, of torch, or of somebody else."""
    if (given.filename, given.lineno) in callers:
        return "the line that makes the call"
    path = Path(given.filename)
    if _TORCH in path.parents:
        return f"line {given.lineno} of torch/{path.relative_to(_TORCH)}"
    return f"line {given.lineno} of {path.name}"


_TORCH = Path(torch.__file__).parent


#: Types of numbers that torch computes with everywhere.
NUMBERS = {
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
}


def readable(result: Any) -> bool:
    """Whether a result is plain numbers in memory: of others only what they are is compared."""
    return (
        type(result) is torch.Tensor
        and result.layout is torch.strided
        and result.dtype in NUMBERS
        and not (result.is_meta or result.is_nested)
    )


def error_text(error: Exception) -> str:
    """The text without the stack of C++ frames which torch appends to some, addresses and all."""
    return str(error).partition("\nException raised from ")[0]


#: A tensor's version and a copy of the memory that it is a view of.
Snapshot = dict[str, tuple[int, torch.Tensor]]


def snapshot(tensors: Tensors) -> Snapshot:
    """Copies of the memory of the call's tensors: all of it, also what a view leaves out."""
    return {
        name: (_version(value), memory(value).clone())
        for name, value in tensors.items()
        if isinstance(value, torch.Tensor)
    }


def find_written(before: Snapshot, tensors: Tensors) -> list[str]:
    """Names of the tensors which are not as they were, or whose memory around views is not."""
    return [
        name
        for name, (version, kept) in before.items()
        if _version(tensors[name]) != version
        or not torch.equal(memory(tensors[name]), kept)
        or (tensors[name].is_leaf and tensors[name].grad is not None)
    ]


def _version(tensor: torch.Tensor) -> int:
    """How often torch counts that a tensor was written to; never of one made in inference mode."""
    return 0 if tensor.is_inference() else tensor._version


def memory(tensor: torch.Tensor) -> torch.Tensor:
    """All bytes of the storage behind a tensor, as a tensor that shares them."""
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def find_strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """The strides by which elements are found: none of a dimension of one element, nor of nothing.

    torch's own are there what the last step of many has left, and nothing works or fails by them.
    """
    if not tensor.numel():
        return ()
    return tuple(
        stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size != 1
    )


def overlap(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors are views of memory that they share."""
    a, b = first.untyped_storage(), second.untyped_storage()
    if a.device != b.device or not a.nbytes() or not b.nbytes():
        return False
    return a.data_ptr() < b.data_ptr() + b.nbytes() and b.data_ptr() < a.data_ptr() + a.nbytes()


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two results hold the same numbers: a NaN is a NaN, and minus zero is not zero."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    a, b = (_real(tensor) for tensor in (first, second))
    differ = a != b
    if not differ.any():
        return torch.equal(torch.signbit(a), torch.signbit(b)) or bool(a.isnan().any())
    return bool((a.isnan() & b.isnan())[differ].all())


def _real(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
