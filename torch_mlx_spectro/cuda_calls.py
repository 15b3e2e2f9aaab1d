"""CUDA calls that were made before: they are decided, and their launch is ready.

For small calls the Python on the way to the launch decides. So what a call comes down to (one
launch, its grid, its packed arguments, the shape of its result) is kept by what it was decided on:
the layouts and the device of input and window, and the other arguments, as the program spells them.
What is made of a window's values is kept while the window is the same and unchanged; a new one of
its kind is prepared in the memory of one that is gone. A call that differs in anything else is
decided anew (:mod:`.dispatching`).

Within a program whose other code has had the processor's caches each question to torch takes
microseconds, and there are twenty. So calls whose tensors are like those of one before are found by
one question for all (:func:`.torch_state.likeness`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from . import torch_state
from .call_keys import Known, input_of, keeps_its_backend, key_of, spelling_of, window_of
from .errors import KernelRefused, UnresolvedArguments
from .known_windows import WindowVersion, read_where_it_is
from .strides import UNDOING, natives_view

if TYPE_CHECKING:
    from .cuda_prepared import Place, Preparer
    from .params import IstftParams, StftParams

MAX_CALLS = 1024
#: Windows of one call that are kept prepared.
MAX_WINDOWS_OF_A_CALL = 4
#: Kinds of tensors, and states of torch around them, that calls of one spelling are known by.
MAX_KINDS = 8
#: complex64 values, and windows in pairs, are read whole.
_ALIGNMENT = 8


class Call:
    """A decided call, and its launch, if it is one.

    Args:
        run: launches it; None where it takes more than one launch.
        result: of the call, for its layout.
        preparer: of windows like the call's that are not known; None if they are complex.
        takes_windows: it reads a window's own values.

    Attributes:
        warns: torch warns of such calls, once, or each time if it is told to.
    """

    __slots__ = (
        *("_index", "_params", "_places", "_preparer", "_result", "_run", "_takes_windows"),
        *("_view", "warns"),
    )

    def __init__(
        self,
        params: StftParams | IstftParams,
        run: Callable[..., None] | None,
        result: torch.Tensor,
        warns: bool = False,
        preparer: Preparer | None = None,
        takes_windows: bool = False,
    ) -> None:
        self._params = params
        self._takes_windows = takes_windows
        self._preparer = preparer
        self.warns = warns
        self._run = run
        self._view = natives_view(params)
        if self._view is not None:
            result = UNDOING[self._view](result)
        self._result = (tuple(result.shape), result.stride(), result.dtype)
        self._index = result.device.index
        self._places: list[Place] = []

    def compute(
        self, tensor: torch.Tensor, window: torch.Tensor, differentiated: bool
    ) -> torch.Tensor | None:
        """The result for an input and a window like those that the call was decided for.

        Returns:
            None while a graph is recorded that is to prepare the window itself.

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
            if torch_state.is_capturing():
                return None
            return self._compute_by_functions(tensor, window, differentiated)
        return self._launched(
            run, address, window, read_where_it_is(window) if self._takes_windows else 0
        )

    def is_known_by_kind(self, tensor: torch.Tensor, window: torch.Tensor) -> bool:
        """Whether :meth:`compute_alike` may be asked for tensors like these."""
        return not (
            self._run is None
            or tensor.requires_grad
            or window.requires_grad
            or tensor.is_conj()
            or tensor.is_neg()
            or (self._takes_windows and not read_where_it_is(window))
        )

    def compute_alike(self, tensor: torch.Tensor, window: torch.Tensor) -> torch.Tensor | None:
        """As :meth:`compute`, for tensors that are like those of :meth:`is_known_by_kind`."""
        run, address = self._run, tensor.data_ptr()
        of_window = window.data_ptr() if self._takes_windows else 0
        if run is None or (address | of_window) % _ALIGNMENT:
            return self.compute(tensor, window, False)
        return self._launched(run, address, window, of_window)

    def _launched(
        self, run: Callable[..., None], address: int, window: torch.Tensor, of_window: int
    ) -> torch.Tensor | None:
        """The result of the call's launch.

        Args:
            address: of the input.
            of_window: of the window's values, if they are read where they are; else 0.
        """
        stream = torch_state.cuda_stream(self._index)
        place, is_new = None, False
        of_envelope = of_window
        if not of_window:
            if torch_state.is_capturing():
                return None
            # First of all: the device works on a new one while the host goes on.
            place, is_new = self._place_of(window, stream)
            of_window, of_envelope = place.window, place.envelope
        result = torch_state.cuda_empty_strided(*self._result)
        run(stream, address, of_window, of_envelope, result.data_ptr())
        if place is not None and is_new:
            self._keep(place, window)
        return result if self._view is None else self._view(result)

    def _place_of(self, window: torch.Tensor, stream: int) -> tuple[Place, bool]:
        """What is read of a window; whether it is new, and then in nobody else's hands."""
        free = None
        for place in self._places:
            version = place.version
            if place.stream != stream:
                continue
            if version is not None and version.is_of(window):
                return place, False
            if place.is_reused and place.is_free():
                free = place
        preparer = self._preparer
        if preparer is not None and preparer.fits(window):
            # What is free may be written again, unless another thread does already.
            new = self._taken(free) or preparer.place(stream)
            preparer.launch(window, new)
            return new, True
        from . import cuda_backend

        return cuda_backend.place_of(self._params, window, window.device, stream), True

    def _keep(self, place: Place, window: torch.Tensor) -> None:
        """Keep what was made of a window, and of those that the call had last.

        Raises:
            UnresolvedArguments: as :meth:`compute`.
        """
        places = self._places
        # While the device works. Of a window that counts no versions nothing is known.
        place.version = None if window.is_inference() else WindowVersion(window)
        refused = None
        try:
            if place.verdict is not None:
                place.verdict.settle()
        except UnresolvedArguments as error:
            place.version, refused = None, error
        if place.is_reused or place.version is not None:
            places.append(place)
        if len(places) > MAX_WINDOWS_OF_A_CALL:
            self._taken(next((place for place in places if place.is_free()), places[0]))
        if refused is not None:
            raise refused

    def _taken(self, place: Place | None) -> Place | None:
        """Take from the list, into nobody else's hands; None if somebody has."""
        if place is not None:
            try:
                self._places.remove(place)
            except ValueError:
                return None
        return place

    def _compute_by_functions(
        self, tensor: torch.Tensor, window: torch.Tensor, differentiated: bool
    ) -> torch.Tensor:
        from . import cuda_backend, derivatives
        from .params import StftParams

        computing: Any = derivatives if differentiated else cuda_backend
        function = computing.stft if isinstance(self._params, StftParams) else computing.istft
        result: torch.Tensor = function(self._params, tensor, window)
        return result


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
    from . import cuda_backend

    return cuda_backend.unavailable_reason()


def _is_ordinary(tensor: torch.Tensor) -> bool:
    """Whether nothing in torch's state asks for another decision."""
    return not torch_state.is_intercepted() and _is_on_current_device(tensor)


def _is_on_current_device(tensor: torch.Tensor) -> bool:
    return torch_state.has_one_cuda_device() or tensor.get_device() == torch_state.cuda_device()


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
        and _is_on_current_device(tensor)
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
    if torch_state.is_capturing():
        return
    from . import cuda_backend

    differentiated = torch_state.is_differentiated(tensor, window)
    run = cuda_backend.single_launch(params, tensor, window, result)
    preparer = None if run is None else cuda_backend.preparer_of(params, window)
    takes_windows = run is not None and cuda_backend.takes_windows(params)
    call = Call(params, run, result, cuda_backend.warns(params), preparer, takes_windows)
    for backend in backends:
        spelling = spelling_of(name, backend, tensor, window, args, kwargs)
        key = key_of(spelling, tensor, window, differentiated)
        calls.put(key, call)
