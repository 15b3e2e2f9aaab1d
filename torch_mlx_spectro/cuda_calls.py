"""CUDA calls that were made before: they are decided, and their launch is ready.

For small calls the Python on the way to the launch decides. So what a call comes down to (one
launch, its grid, its packed arguments, the shape of its result) is kept by what it was decided on:
the layouts and the device of input and window, and the other arguments. What is made of the
window's values is kept while the window is the same and unchanged; another one of its kind is
prepared anew. A call that differs in anything else is decided anew (:mod:`.dispatching`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from . import torch_state
from .errors import UnresolvedArguments
from .known_windows import KnownWindow

if TYPE_CHECKING:
    from .cuda_prepared import Preparer
    from .device_windows import Reading
    from .params import IstftParams, StftParams

MAX_CALLS = 1024
#: complex64 values are read whole.
_ALIGNMENT = 8

#: Position of the window among either function's arguments.
_WINDOW = 4

Bound = dict[str, Any]


class _Held(NamedTuple):
    """What a launch reads besides its input, and the window that it was made of.

    Attributes:
        known: as nobody else knows it.
        stream: that it was made on.
        reading: holds the memory behind ``addresses``.
    """

    known: KnownWindow
    stream: int
    reading: Reading
    addresses: tuple[int, int]


class Call:
    """A decided call, and its launch, if it is one.

    Args:
        run: launches it; None where it takes more than one launch.
        result: of the call, for its layout.
        preparer: of windows like the call's that are not known; None if they are complex.

    Attributes:
        warns: torch warns of such calls, once, or each time if it is told to.
    """

    __slots__ = ("_held", "_params", "_preparer", "_result", "_run", "warns")

    def __init__(
        self,
        params: StftParams | IstftParams,
        run: Callable[..., None] | None,
        result: torch.Tensor,
        warns: bool = False,
        preparer: Preparer | None = None,
    ) -> None:
        self._params = params
        self._preparer = preparer
        self.warns = warns
        self._run = run
        self._result = (tuple(result.shape), result.stride(), result.dtype, result.device)
        self._held: _Held | None = None

    def compute(
        self, tensor: torch.Tensor, window: torch.Tensor, differentiated: bool
    ) -> torch.Tensor:
        """The result for an input and a window like those that the call was decided for.

        Raises:
            UnresolvedArguments: of this window torch would not take an envelope.
        """
        run, address = self._run, tensor.data_ptr()
        if (
            run is None
            or differentiated
            or address % _ALIGNMENT
            or tensor.is_conj()
            or tensor.is_neg()
        ):
            return self._compute_by_functions(tensor, window, differentiated)
        stream = torch_state.cuda_stream(tensor.get_device())
        shape, strides, dtype, device = self._result
        held = self._held
        if held is not None and held.stream == stream and held.known.is_of(window):
            result = torch.empty_strided(shape, strides, dtype=dtype, device=device)
            run(stream, address, *held.addresses, result.data_ptr())
            return result
        reading = self._read(window, stream)
        result = torch.empty_strided(shape, strides, dtype=dtype, device=device)
        addresses = reading.addresses
        run(stream, address, *addresses, result.data_ptr())
        reading.settle()
        # Of a window that counts no versions nothing is kept.
        known = None if window.is_inference() else KnownWindow(window)
        self._held = None if known is None else _Held(known, stream, reading, addresses)
        return result

    def _read(self, window: torch.Tensor, stream: int) -> Reading:
        """What the launch reads of a window besides the one that it last had."""
        reading = None if self._preparer is None else self._preparer.read(window, stream)
        if reading is None:
            from . import cuda_backend

            reading = cuda_backend.what_is_read(self._params, window, self._result[-1])
        return reading

    def _compute_by_functions(
        self, tensor: torch.Tensor, window: torch.Tensor, differentiated: bool
    ) -> torch.Tensor:
        from . import cuda_backend, derivatives
        from .params import StftParams

        computing: Any = derivatives if differentiated else cuda_backend
        function = computing.stft if isinstance(self._params, StftParams) else computing.istft
        result: torch.Tensor = function(self._params, tensor, window)
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


@lru_cache(maxsize=1)
def missing_reason() -> str | None:
    """Why there are no CUDA kernels here, answered within a microsecond; None where there are."""
    from . import cuda_backend

    return cuda_backend.unavailable_reason()


def _key(name: str, backend: str, bound: Bound, differentiated: bool) -> Hashable:
    """What a call is decided on, but for its window's values and for torch's state."""
    tensor, window = bound["input"], bound["window"]
    _, *others = bound.values()
    del others[_WINDOW - 1]
    # Types, because True == 1 == 1.0, of which torch rejects two.
    return (
        name,
        backend,
        differentiated,
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.get_device(),
        window.shape,
        window.dtype,
        window.layout,
        window.get_device(),
        *others,
        *map(type, others),
    )


def _is_ordinary(tensor: torch.Tensor, window: Any) -> bool:
    """Whether nothing in torch's state or in the arguments asks for another decision."""
    return (
        type(window) in torch_state.PLAIN_TYPES
        and not torch_state.is_intercepted()
        and tensor.get_device() == torch_state.cuda_device()
        and not torch_state.is_capturing()
    )


def recall(
    name: str, backend: str, bind: Callable[..., Bound], args: Any, kwargs: Any
) -> torch.Tensor | None:
    """The result of a call that was decided before; None if it was not.

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
    differentiated = (tensor.requires_grad or window.requires_grad) and torch.is_grad_enabled()
    call = calls.get(_key(name, backend, bound, differentiated))
    if call is None or (call.warns and torch.is_warn_always_enabled()):
        return None
    try:
        return call.compute(tensor, window, differentiated)
    except UnresolvedArguments:
        return None


def remember(
    name: str,
    backends: Iterable[str],
    bound: Bound,
    params: StftParams | IstftParams,
    result: torch.Tensor,
) -> None:
    """Keep a call that has just been computed, and has given its once-only warnings.

    Args:
        backends: asked for any of these, the call is to be answered so.
    """
    tensor, window = bound["input"], bound["window"]
    if not _is_ordinary(tensor, window):
        return
    from . import cuda_backend

    differentiated = torch_state.is_differentiated(tensor, window)
    run = cuda_backend.single_launch(params, tensor, window, result)
    preparer = None if run is None else cuda_backend.preparer_of(params, window)
    call = Call(params, run, result, cuda_backend.warns(params), preparer)
    for backend in backends:
        calls.put(_key(name, backend, bound, differentiated), call)
