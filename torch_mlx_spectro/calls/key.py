"""The key of a call: everything that a decision depends on, read off the call in microseconds.

Two calls of equal keys are decided alike, whatever their tensors' values are. Arguments are read by
torch's own signatures, so it does not matter how a program spells them. What else a decision
depends on is no part of the key: when that changes, the table of plans is cleared or not used.
"""

from __future__ import annotations

import marshal
from collections.abc import Hashable, Mapping
from typing import Any

import torch

from ..native import private_state as torch_state
from ..native.private_state import PLAIN_TYPES
from .operation import WINDOW

#: Types whose values never change, so that a key of them may be kept. A 0-d tensor's may change.
_VALUES = frozenset({int, bool, str, type(None)})
is_grad_enabled, is_deterministic = torch_state.is_grad_enabled, torch_state.is_deterministic
float32 = torch.float32
#: The last format in which equal strings are always equal bytes.
_MARSHAL_FORMAT = 2
#: complex64 values, and windows in pairs, are read whole.
ALIGNMENT = 8

#: A key. It begins with the backend that is asked for and the state that ``auto`` depends on.
Key = tuple[Hashable, ...]


class NoKey(Exception):
    """A call has parts that no key can hold, so every such call has to be decided."""


def find_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the input that is passed, whatever it is."""
    return args[0] if args else kwargs.get("input")


def with_tensors(
    args: tuple[Any, ...], kwargs: dict[str, Any], tensors: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a call with other tensors in it, by their names."""
    changed, named = list(args), dict(kwargs)
    for name, index in (("input", 0), ("window", WINDOW)):
        if name in tensors:
            if len(changed) > index:
                changed[index] = tensors[name]
            else:
                named[name] = tensors[name]
    return changed, named


def make_key(op: str, backend: str, tensor: Any, window: Any, others: tuple[Any, ...]) -> Key:
    """Make the key of a call.

    It holds strides, so that nothing is read out of bounds. It holds the conjugate and negative
    bits, since kernels read memory without resolving them, and the last bits of addresses, since
    complex values are loaded whole. It holds types, because True == 1 == 1.0, and torch does not
    accept each of them everywhere.

    Args:
        op: ``"stft"`` or ``"istft"``.
        backend: the backend that is asked for.
        tensor: the input, a plain tensor.
        others: all arguments but the two tensors.

    Raises:
        NoKey: a tensor has no memory of its own, or the window is no plain tensor.
        RuntimeError: a tensor has no strides.
        ValueError: another argument is no plain value of Python's.
    """
    # One function that calls none of ours: it is most of what a small call takes of the host.
    address = tensor.data_ptr()
    described: Key | None = None
    if window is not None:
        if type(window) not in PLAIN_TYPES:
            raise NoKey
        window_address = window.data_ptr()
        if not window_address:
            raise NoKey
        dtype = window.dtype
        described = (
            window.numel(),  # with the number of its strides; torch takes windows of one dimension
            window.stride(),
            dtype,
            window.device,
            dtype is not float32 and window.is_conj(),
            window.is_neg(),
            window_address % ALIGNMENT,
            window.requires_grad and is_grad_enabled(),
        )
    if not address:
        raise NoKey  # zeros without memory, meta tensors, empty ones
    dtype = tensor.dtype
    return (
        backend,
        # A trial may have found another walk, which such programs do not take (kernels/chooser.py).
        (is_deterministic(),) if backend != "auto" else _describe_state(),
        torch.mps.compile_shader,  # the emulator puts another function here
        tensor.shape,
        tensor.stride(),
        dtype,
        tensor.device,
        dtype is not float32 and tensor.is_conj(),
        tensor.is_neg(),
        address % ALIGNMENT,
        tensor.requires_grad and is_grad_enabled() and torch_state.requires_gradient(tensor),
        described,
        # As bytes, in which True, 1 and 1.0 differ; raises for what has no such bytes.
        marshal.dumps(others, _MARSHAL_FORMAT),
        op,
    )


def _describe_state() -> Key:
    """Describe what ``auto`` depends on in torch, besides what :func:`.is_intercepted` answers."""
    return (is_deterministic(), torch.get_num_threads(), torch_state.recomputes())


def can_be_kept(others: tuple[Any, ...]) -> bool:
    """Whether a key of these arguments stays true; arguments of other types may change."""
    return {*map(type, others)} <= _VALUES


def name_backend(key: Key, backend: str) -> Key:
    """Return the key of the same call with a backend asked for by name."""
    state: Any = key[1]
    return (backend, state[:1], *key[2:])
