"""CUDA calls that were made before: their launch is ready, and needs no decision.

For small calls the Python on the way to the launch decides. So what a call comes down to (one
launch, its grid, its packed arguments, the shape of its result) is kept by what it was decided on:
the input's layout and device, the other arguments, and the window, while it is the same and
unchanged. A call that differs in anything is decided anew (:mod:`.dispatching`).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any

import torch

from . import torch_state

if TYPE_CHECKING:
    from .params import IstftParams, StftParams

MAX_CALLS = 1024
#: complex64 values are read whole.
_ALIGNMENT = 8

#: Position of the window among either function's arguments.
_WINDOW = 4

Bound = dict[str, Any]


class Call:
    """A launch, and what it was made for.

    Attributes:
        stream: that the window and envelope which it reads were prepared on.
    """

    __slots__ = (
        "_address",
        "_held",
        "_read",
        "_result",
        "_run",
        "_version",
        "_window",
        "stream",
    )

    def __init__(
        self,
        run: Callable[..., None],
        window: torch.Tensor,
        read: tuple[torch.Tensor, torch.Tensor],
        result: torch.Tensor,
        stream: int,
    ) -> None:
        self._window = weakref.ref(window)
        self._version = window._version
        self._address = window.data_ptr()
        self._held = read
        self._read = tuple(tensor.data_ptr() for tensor in read)
        self._result = (tuple(result.shape), result.stride(), result.dtype, result.device)
        self._run = run
        self.stream = stream

    def is_of(self, window: torch.Tensor) -> bool:
        """Whether this is the window that the call was made for, unchanged."""
        return (
            self._window() is window
            and self._version == window._version
            and self._address == window.data_ptr()
        )

    def compute(self, address: int) -> torch.Tensor:
        """Launch, for the input at this address."""
        shape, strides, dtype, device = self._result
        result = torch.empty_strided(shape, strides, dtype=dtype, device=device)
        self._run(self.stream, address, *self._read, result.data_ptr())
        return result


class Calls:
    """A bounded table of calls, read without a lock."""

    def __init__(self) -> None:
        self._calls: dict[Hashable, Call] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Call | None:
        try:
            return self._calls.get(key)
        except TypeError:  # an argument cannot be hashed
            return None

    def put(self, key: Hashable, call: Call) -> None:
        """Keep a call; when there are too many, forget all and begin again."""
        with self._lock:
            if len(self._calls) >= MAX_CALLS:
                self._calls = {}
            self._calls[key] = call

    def clear(self) -> None:
        with self._lock:
            self._calls = {}


calls = Calls()


def _key(name: str, backend: str, bound: Bound) -> Hashable:
    """What a call is decided on, but for its window's values and for torch's state."""
    tensor = bound["input"]
    _, *others = bound.values()
    del others[_WINDOW - 1]
    # Types, because True == 1 == 1.0, of which torch rejects two.
    return (
        name,
        backend,
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.get_device(),
        *others,
        *map(type, others),
    )


def _is_ordinary(tensor: torch.Tensor, window: Any) -> bool:
    """Whether nothing in torch's state or in the tensors asks for more than a launch."""
    return (
        isinstance(window, torch.Tensor)
        and not torch_state.is_intercepted()
        and not ((tensor.requires_grad or window.requires_grad) and torch.is_grad_enabled())
        and not tensor.is_conj()
        and not tensor.is_neg()
        and tensor.get_device() == torch_state.cuda_device()
        and not torch_state.is_capturing()
    )


def recall(
    name: str, backend: str, bind: Callable[..., Bound], args: Any, kwargs: Any
) -> torch.Tensor | None:
    """The result of a call that was made before; None if it was not.

    Args:
        name: of the function.
        backend: that is asked for.
        bind: names the arguments.
    """
    try:
        bound = bind(*args, **kwargs)
    except TypeError:
        return None
    tensor, window = bound["input"], bound["window"]
    if not _is_ordinary(tensor, window):
        return None
    call = calls.get(_key(name, backend, bound))
    address = tensor.data_ptr()
    if (
        call is None
        or not call.is_of(window)
        or address % _ALIGNMENT
        or call.stream != torch_state.cuda_stream(tensor.get_device())
    ):
        return None
    return call.compute(address)


def remember(
    name: str,
    backends: Iterable[str],
    bound: Bound,
    params: StftParams | IstftParams,
    result: torch.Tensor,
) -> None:
    """Keep a call that has just been computed, if it is one launch and gives no warnings.

    Args:
        backends: asked for any of these, the call is to be answered so.
    """
    tensor, window = bound["input"], bound["window"]
    if not _is_ordinary(tensor, window) or window.is_inference():
        return
    from . import cuda_backend

    prepared = cuda_backend.prepared_call(params, tensor, window)
    if prepared is not None and prepared.strides == result.stride():
        call = Call(prepared.run, window, prepared.read, result, prepared.stream)
        for backend in backends:
            calls.put(_key(name, backend, bound), call)
