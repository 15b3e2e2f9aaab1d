"""What a CUDA call reads of its window, made on the device from the values that are there.

A real window is padded, scaled and squared into the inverse envelope by one launch
(:mod:`.kernels.preparing`), so that a program which makes its window anew for every call pays for
a launch and no more. Whether torch refuses the envelope the same launch tells the host
(:mod:`.nola`): the first istft with a window waits for that, after its own launch, as native waits
for the same answer in every call. A window that is known is judged without waiting; for further
lengths its values are read once, as of MPS tensors (:func:`.prepared.window_of`), and as those of
complex windows always are.

What is kept belongs to one version of a window and to one stream: what a stream's kernels wrote is
there when its next ones read it, and memory that is given back is used again by that stream alone.
While a CUDA graph is captured nothing is kept or taken from what was: the graph prepares windows
and envelopes each time that it runs, from the values that they then have.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol

import torch

from . import nola, torch_state
from .device_windows import Reading, padded, scaled
from .kernels.preparing import Preparation, preparation
from .known_windows import MAX_WINDOWS, KnownWindows
from .nola import Verdict
from .params import IstftParams
from .prepared import Cache, check_envelope, envelope_of, is_known, window_of

Optional = torch.Tensor | None

_windows = KnownWindows()
#: Windows of ones, and envelopes of complex windows.
_constants = Cache(MAX_WINDOWS)


class Kernels(Protocol):
    """Who launches."""

    def prepare_window(
        self, made: Preparation, window: torch.Tensor, vanishes: int = 0
    ) -> torch.Tensor:
        """The output of a preparation's launch; verdicts are written to ``vanishes``."""

    def preparer(
        self, made: Preparation, window: torch.Tensor
    ) -> Callable[[int, int, int, int], None]:
        """What launches it for windows like this one.

        It takes the stream and the addresses of window, output and verdicts.
        """


class Preparer:
    """Prepares windows that nobody knows for calls of one kind: a launch, and little else.

    Args:
        window: one of those windows.
        params: of an istft.
    """

    __slots__ = ("_device", "_made", "_run", "_stride")

    def __init__(
        self,
        kernels: Kernels,
        window: torch.Tensor,
        n_fft: int,
        factor: float,
        params: IstftParams | None = None,
    ) -> None:
        self._made = preparation(len(window), n_fft, factor, params)
        self._run = kernels.preparer(self._made, window)
        self._stride, self._device = window.stride(), window.device

    def read(self, window: torch.Tensor, stream: int) -> Reading | None:
        """What is read of a window; None of one that is not like the first, or is known."""
        if (
            window.stride() != self._stride
            or window.is_complex()
            or window.is_neg()
            or _windows.find(window) is not None
        ):
            return None
        made = self._made
        prepared = torch.empty(made.launch.shape, dtype=torch.float32, device=self._device)
        of, to = window.data_ptr(), prepared.data_ptr()
        if not made.columns:
            self._run(stream, of, to, to)
            return Reading(prepared, prepared)
        verdict = Verdict(made.columns, self._device, None, None)
        verdict.launch(lambda vanishes: self._run(stream, of, to, vanishes))
        return Reading(prepared, prepared, made.rows_at, verdict)


def scaled_window(
    kernels: Kernels,
    window: Optional,
    win_length: int,
    n_fft: int,
    factor: float,
    device: torch.device,
    conjugate: bool = False,
) -> torch.Tensor:
    """The window as a kernel reads it: padded as torch pads it, times ``factor``.

    Args:
        window: shape (win_length,), or None for ones.

    Returns:
        ``n_fft`` values, or more.
    """
    window = _window_or_ones(window, win_length, device)
    if window.is_complex():
        return _kept(
            window,
            (win_length, n_fft, factor, conjugate),
            lambda: scaled(window, n_fft, factor, conjugate),
        )
    made = preparation(win_length, n_fft, factor)
    return _kept(window, made, lambda: kernels.prepare_window(made, _plain(window)))


def inverse_envelope(
    kernels: Kernels,
    params: IstftParams,
    window: Optional,
    device: torch.device,
    conjugate: bool = False,
) -> torch.Tensor:
    """The rows of the inverse envelope as a kernel reads them, flat, of a call that torch makes.

    Args:
        conjugate: for a complex window, the rows' conjugates.
    """
    window = _window_or_ones(window, params.win_length, device)
    if window.is_complex():
        return _complex_envelope(params, window, conjugate)
    prepared, made = _prepared(kernels, params, window, 1.0)
    return prepared[made.rows_at :]


def reading_of(
    kernels: Kernels, params: IstftParams, window: Optional, factor: float, device: torch.device
) -> Reading:
    """What an istft's kernel reads: the window times ``factor``, and the inverse envelope.

    Raises:
        UnresolvedArguments: the envelope is below the NOLA threshold, for which torch raises. If
            that is to be waited for, :meth:`Reading.settle` raises it.
    """
    verdict = _verdict_on(params, window, device)
    given = _window_or_ones(window, params.win_length, device)
    if given.is_complex():
        times = scaled_window(kernels, given, params.win_length, params.n_fft, factor, device)
        return Reading(times, _complex_envelope(params, given, False))
    prepared, made = _prepared(kernels, params, given, factor, verdict)
    return Reading(prepared, prepared, made.rows_at, verdict)


def _verdict_on(params: IstftParams, window: Optional, device: torch.device) -> Verdict | None:
    """What is to be settled before a call is answered; None where the envelope is known.

    Raises:
        UnresolvedArguments: it is known to vanish.
    """
    if window is None or window.is_complex():
        check_envelope(params, window_of(window, params.win_length, params.n_fft))
        return None
    geometry = _geometry(params)
    capturing = torch_state.is_capturing()
    known = _windows.find(window) if capturing else _windows.know(window)
    if known is not None and geometry in known.judged:
        return None
    if not capturing and (known is None or not known.judged):
        return Verdict(params.hop_length, device, known, geometry)
    check_envelope(params, window_of(window, params.win_length, params.n_fft))
    if known is not None:
        known.judged.add(geometry)
    return None


def is_judged(params: IstftParams, window: Optional) -> bool:
    """Whether it is known, without asking the device, if the envelope of a call vanishes."""
    if is_known(window):
        return True
    known = None if window is None else _windows.find(window)
    return known is not None and _geometry(params) in known.judged


def _geometry(params: IstftParams) -> Hashable:
    """What decides, besides its values, whether a window's envelope vanishes."""
    return (params.n_fft, params.hop_length, params.frames, params.start, params.kept)


def _prepared(
    kernels: Kernels,
    params: IstftParams,
    window: torch.Tensor,
    factor: float,
    verdict: Verdict | None = None,
) -> tuple[torch.Tensor, Preparation]:
    """A real window times ``factor``, and behind it the rows of an inverse envelope."""
    made = preparation(params.win_length, params.n_fft, factor, params)

    def launch(vanishes: int = 0) -> torch.Tensor:
        return kernels.prepare_window(made, _plain(window), vanishes)

    # Rows depend on the number of frames only where frames are few.
    few = min(params.frames, params.overlap)
    what = (params.n_fft, params.hop_length, few, params.scale, factor)
    if verdict is None:
        return _kept(window, what, launch), made
    return _kept(window, what, lambda: verdict.launch(launch), anew=True), made


def _kept(
    window: torch.Tensor, what: Hashable, make: Callable[[], torch.Tensor], anew: bool = False
) -> torch.Tensor:
    """What was made of a window on this stream, made if it was not, or if it is to be ``anew``."""
    known = None if torch_state.is_capturing() else _windows.know(window)
    if known is None:
        return make()
    key = (torch_state.cuda_stream(window.device.index), what)
    found = None if anew else known.made.get(key)
    if found is None:
        found = known.made[key] = make()
    return found


def _window_or_ones(window: Optional, win_length: int, device: torch.device) -> torch.Tensor:
    if window is not None:
        return window

    def make() -> torch.Tensor:
        return torch.ones(win_length, dtype=torch.float32, device=device)

    if torch_state.is_capturing():
        return make()
    key = (win_length, device.index, torch_state.cuda_stream(device.index))
    ones: torch.Tensor = _constants.get(key, make)
    return ones


def _plain(window: torch.Tensor) -> torch.Tensor:
    return window.detach().resolve_neg()


def _complex_envelope(params: IstftParams, window: torch.Tensor, conjugate: bool) -> torch.Tensor:
    """The rows of a complex window's inverse envelope, of its values on the host."""
    device = window.device
    if torch_state.is_capturing():
        rows = _rows_on_device(params, window)
        return rows.conj().resolve_conj() if conjugate else rows
    values = window_of(window, params.win_length, params.n_fft)
    key = (
        values.key,
        params.n_fft,
        params.hop_length,
        params.win_length,
        params.scale,
        min(params.frames, params.overlap),
        conjugate,
        device.index,
        torch_state.cuda_stream(device.index),
    )

    def make() -> torch.Tensor:
        rows = torch.from_numpy(envelope_of(params, values).rows).flatten()
        return _uploaded((rows.conj() if conjugate else rows).resolve_conj(), device)

    found: torch.Tensor = _constants.get(key, make)
    return found


def _uploaded(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Host values on a device, in the order of its stream.

    From pinned memory: of any other the copy would be waited for.
    """
    return values.pin_memory().to(device, non_blocking=True)


def _rows_on_device(params: IstftParams, window: torch.Tensor) -> torch.Tensor:
    """:attr:`.envelope.Envelope.rows` of a complex window, flat, by torch's operations."""
    wide = window.detach().to(torch.complex128)
    overlap, hop = params.overlap, params.hop_length
    squares = torch.nn.functional.pad(
        padded(wide * wide, params.n_fft), (0, overlap * hop - params.n_fft)
    )
    frames = min(params.frames, overlap)
    around = (0, 0, frames - 1, frames - 1)
    rows = torch.nn.functional.pad(squares.view(overlap, hop), around).unfold(0, frames, 1).sum(-1)
    inverse = torch.where(rows == 0, 0, params.scale / rows)
    return inverse.to(window.dtype).flatten()


def forget() -> None:
    """Drop what was prepared."""
    _windows.clear()
    _constants.clear()
    nola.forget()
