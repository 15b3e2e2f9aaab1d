"""CUDA calls that were made before: they are decided, and their launch is ready.

For small calls the Python on the way to the launch decides. So what a call comes down to (one
launch, its grid, its packed arguments, the shape of its result) is kept by what it was decided on:
the layouts and the device of input and window, and the other arguments, as the program spells them.
A window's values are read by the launch, and nothing is made of them. A call that differs in
anything else is decided anew (:mod:`.dispatch.run`).

Within a program whose other code has had the processor's caches each question to torch takes
microseconds, and there are twenty. So calls whose tensors are like those of one before are found by
one question for all (:func:`.native.private_state.likeness`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import torch

from ..backends import registry
from ..calls.key import Known, input_of, keeps_its_backend, key_of, spelling_of, window_of
from ..calls.operation import Call as Decided
from ..core.params import IstftParams, StftParams
from ..errors import KernelRefused, UnresolvedArguments
from ..native import private_state as torch_state

if TYPE_CHECKING:
    from ..backends.base import Prepared
    from ..backends.cuda.backend import CudaBackend

MAX_CALLS = 1024
#: Kinds of tensors, and states of torch around them, that calls of one spelling are known by.
MAX_KINDS = 8
#: complex64 values, and windows in pairs, are read whole.
_ALIGNMENT = 8


class Call:
    """A decided call, and its launch, if it is one.

    Args:
        prepared: computes it; None where it takes more than one launch.

    Attributes:
        warns: torch warns of such calls, once, or each time if it is told to.
    """

    __slots__ = ("_params", "_prepared", "backend", "warns")

    def __init__(
        self,
        backend: CudaBackend,
        params: StftParams | IstftParams,
        prepared: Prepared | None,
    ) -> None:
        self.backend, self._params, self._prepared = backend, params, prepared
        self.warns = _warns(params)

    def compute(
        self, tensor: torch.Tensor, window: torch.Tensor, differentiated: bool
    ) -> torch.Tensor | None:
        """The result for an input and a window like those that the call was decided for.

        Returns:
            None while a graph is recorded, where this takes more than a launch.

        Raises:
            UnresolvedArguments: of this window torch would not take an envelope.
        """
        if differentiated or not self._is_readable(tensor, window):
            if self.backend.is_capturing():
                return None
            return self._compute_by_functions(tensor, window, differentiated)
        return self.compute_alike(tensor, window)

    def _is_readable(self, *tensors: torch.Tensor) -> bool:
        return not any(tensor.is_conj() or tensor.is_neg() for tensor in tensors)

    def is_known_by_kind(self, tensor: torch.Tensor, window: torch.Tensor) -> bool:
        """Whether :meth:`compute_alike` may be asked for tensors like these."""
        return (
            self._prepared is not None
            and not (tensor.requires_grad or window.requires_grad)
            and self._is_readable(tensor, window)
        )

    def compute_alike(self, tensor: torch.Tensor, window: torch.Tensor) -> torch.Tensor | None:
        """As :meth:`compute`, for tensors that are like those of :meth:`is_known_by_kind`."""
        prepared = self._prepared
        if prepared is not None and not (tensor.data_ptr() | window.data_ptr()) % _ALIGNMENT:
            return prepared(tensor, window)
        if self.backend.is_capturing():
            return None
        return self._compute_by_functions(tensor, window, False)

    def _compute_by_functions(
        self, tensor: torch.Tensor, window: torch.Tensor, differentiated: bool
    ) -> torch.Tensor:
        from ..autograd import derivatives

        computing: Any = derivatives if differentiated else self.backend
        function = computing.stft if isinstance(self._params, StftParams) else computing.istft
        result: torch.Tensor = function(self._params, tensor, window)
        return result


def _warns(params: StftParams | IstftParams) -> bool:
    """Whether torch warns of a call like this, which has a window."""
    if isinstance(params, StftParams):
        return not params.return_complex
    return params.zero_tail > 0


def _backend() -> CudaBackend:
    return cast("CudaBackend", registry.load("cuda"))


#: What sends a call on the way of those that are not known, to native in the end.
_DECIDED_ANEW = (UnresolvedArguments, KernelRefused)

calls: Known[Call] = Known(MAX_CALLS)
#: The same calls by their spelling: what tells whether tensors are of a kind, and the call.
kinds: Known[tuple[tuple[Callable[..., bool], Call], ...]] = Known(MAX_CALLS)


def forget() -> None:
    """Every call is to be decided anew."""
    calls.clear()
    kinds.clear()


@lru_cache(maxsize=1)
def missing_reason() -> str | None:
    """Why there are no CUDA kernels here, answered within a microsecond; None where there are."""
    return _backend().explain_absence()


def _is_ordinary(tensor: torch.Tensor) -> bool:
    """Whether nothing in torch's state asks for another decision."""
    return not torch_state.is_intercepted() and _backend().is_current(tensor.get_device())


def recall(
    name: str, backend: str, tensor: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.Tensor | None:
    """The result of a call that was decided before; None if it was not.

    Args:
        name: of the function.
        backend: that is asked for.
        tensor: the input, which is among the arguments.
    """
    window = window_of(args, kwargs)
    if type(window) not in torch_state.PLAIN_TYPES:
        return None
    spelling = spelling_of(name, backend, tensor, window, args, kwargs)
    for is_like, alike in kinds.get(spelling) or ():
        if is_like(tensor, window) and _may_be_launched(alike, tensor):
            with suppress(*_DECIDED_ANEW):
                return alike.compute_alike(tensor, window)
            return None
    if not _is_ordinary(tensor):
        return None
    differentiated = (tensor.requires_grad or window.requires_grad) and torch.is_grad_enabled()
    if keeps_its_backend(backend, differentiated):
        return None
    call = calls.get(key_of(spelling, tensor, window, differentiated))
    if call is None or _warns_again(call):
        return None
    _know_by_kind(spelling, call, tensor, window)
    with suppress(*_DECIDED_ANEW):
        return call.compute(tensor, window, differentiated)
    return None


def _may_be_launched(call: Call, tensor: torch.Tensor) -> bool:
    """What a likeness does not tell of torch's state."""
    return (
        not torch_state.is_forward_mode()
        and call.backend.is_current(tensor.get_device())
        and not _warns_again(call)
    )


def _warns_again(call: Call) -> bool:
    """Whether torch repeats what it warned of when the call was first made."""
    return call.warns and torch.is_warn_always_enabled()


def _know_by_kind(
    spelling: Hashable, call: Call, tensor: torch.Tensor, window: torch.Tensor
) -> None:
    """Have the next call of a spelling and of tensors like these found by their likeness."""
    if call.is_known_by_kind(tensor, window):
        is_like = torch_state.likeness(tensor, window)
        if is_like is not None:
            known = kinds.get(spelling) or ()
            # Two threads at once keep one of them: the other is found when it is next asked for.
            kinds.put(spelling, (*known, (is_like, call))[-MAX_KINDS:])


def remember(
    name: str,
    backends: Iterable[str],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    params: StftParams | IstftParams,
    result: torch.Tensor,
) -> None:
    """Keep a call that has just been computed, and has given its once-only warnings.

    Args:
        backends: asked for any of these, the call is to be answered so.
    """
    tensor = input_of(args, kwargs)
    window = window_of(args, kwargs)
    if type(window) not in torch_state.PLAIN_TYPES or not _is_ordinary(tensor):
        return
    backend = _backend()
    if backend.is_capturing():
        return
    differentiated = torch_state.is_differentiated(tensor, window)
    prepared = None
    if not differentiated:
        prepared = backend.prepare(Decided(params, tensor, window), result)
    call = Call(backend, params, prepared)
    for asked in backends:
        spelling = spelling_of(name, asked, tensor, window, args, kwargs)
        key = key_of(spelling, tensor, window, differentiated)
        calls.put(key, call)
