"""What a call reads of its window, made on the device from the values that are there.

Most stfts read the window itself. Else a real one is padded, scaled and squared into the inverse
envelope by one launch (:mod:`.kernels.preparing`), so that a program which makes its window anew
for every call pays for a launch and no more. The same launch finds whether torch refuses the
envelope: the first istft with a window waits for that, after its own launch, as native waits for
the same answer in every call. A window that is known is judged without waiting; for further lengths
its values are read once (:func:`.prepared.window_of`), as those of complex windows always are.

What is kept belongs to one version of a window and to one stream of the device: what a stream's
kernels wrote is there when its next ones read it. While a graph is recorded nothing is kept or
taken from what was: the graph prepares windows and envelopes each time that it runs, from the
values that they then have.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import NamedTuple, Protocol

import torch

from .kernels.metal import synthesis_scale
from .kernels.preparing import Preparation, preparation
from .known_windows import (
    MAX_WINDOWS,
    KnownWindow,
    KnownWindows,
    needs_no_preparation,
    read_where_it_is,
)
from .params import IstftParams
from .prepared import check_envelope, envelope_of, is_known, window_of
from .recent import Cache

Optional = torch.Tensor | None


class Verdict(Protocol):
    """Whether torch refuses the envelope of a call: known once the device has made it."""

    def settle(self) -> None:
        """Wait for it.

        Raises:
            UnresolvedArguments: the envelope vanishes, for which torch raises.
        """


class Reading(NamedTuple):
    """What a kernel reads besides its input.

    Attributes:
        window: ``n_fft`` values or more, padded and scaled.
        behind: holds the inverse envelope's rows, flat, from element ``rows_at`` on.
        verdict: to be settled once the call is launched; None where the envelope is known.
    """

    window: torch.Tensor
    behind: torch.Tensor
    rows_at: int = 0
    verdict: Verdict | None = None

    @property
    def envelope(self) -> torch.Tensor:
        return self.behind[self.rows_at :]

    @property
    def addresses(self) -> tuple[int, int]:
        """Of window and envelope."""
        behind = self.behind
        return self.window.data_ptr(), behind.data_ptr() + self.rows_at * behind.element_size()

    def settle(self) -> None:
        """Raise UnresolvedArguments where the envelope turns out to vanish."""
        if self.verdict is not None:
            self.verdict.settle()


class DeviceWindows(ABC):
    """The windows of one kind of device; its own methods are those up to :meth:`_on_device`."""

    def __init__(self) -> None:
        self.known = KnownWindows()
        #: Windows of ones, and envelopes of complex windows.
        self._constants: Cache[Hashable, torch.Tensor] = Cache(MAX_WINDOWS)

    @abstractmethod
    def _made(self, made: Preparation, window: torch.Tensor) -> torch.Tensor:
        """The output of a preparation's launch."""

    @abstractmethod
    def _made_and_judged(
        self, made: Preparation, window: torch.Tensor, judged: Callable[[], None]
    ) -> tuple[torch.Tensor, Verdict]:
        """As :meth:`_made`, with the verdict on the envelope.

        Args:
            judged: to be called if it does not vanish.
        """

    @abstractmethod
    def _stream(self, device: torch.device) -> Hashable:
        """What tells the current stream of a device from its others."""

    def _counts_versions(self, window: torch.Tensor) -> bool:
        """Whether a window that is the same, and of the same version, has the same values."""
        return not window.is_inference()

    def _is_recording(self) -> bool:
        """Whether what is launched now is recorded, to be run later."""
        return False

    def _on_device(self, values: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Host values on a device."""
        return values.to(device)

    def scaled(
        self,
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
            ``n_fft`` values, or more; the window itself where nothing is to be done.
        """
        window = self._window_or_ones(window, win_length, device)
        if needs_no_preparation(win_length, n_fft, factor) and read_where_it_is(window):
            return window.detach()
        if window.is_complex():
            what = (win_length, n_fft, factor, conjugate)
            return self._kept(window, what, lambda: _scaled(window, n_fft, factor, conjugate))
        made = preparation(win_length, n_fft, factor)
        return self._kept(window, made, lambda: self._made(made, _plain(window)))

    def envelope(
        self,
        params: IstftParams,
        window: Optional,
        device: torch.device,
        conjugate: bool = False,
    ) -> torch.Tensor:
        """The rows of the inverse envelope as a kernel reads them, flat, of a call torch makes.

        Args:
            conjugate: for a complex window, the rows' conjugates.
        """
        window = self._window_or_ones(window, params.win_length, device)
        if window.is_complex():
            return self._complex_envelope(params, window, conjugate)
        return self._read_of(params, window).envelope

    def read_of(self, params: IstftParams, window: Optional, device: torch.device) -> Reading:
        """What an istft's kernel reads: the scaled window, and the inverse envelope.

        Raises:
            UnresolvedArguments: the envelope is below the NOLA threshold, for which torch raises.
                If that is to be waited for, :meth:`Reading.settle` raises it.
        """
        judged = self._is_judged_now(params, window)
        given = self._window_or_ones(window, params.win_length, device)
        if given.is_complex():
            factor = synthesis_scale(params)
            scaled = self.scaled(given, params.win_length, params.n_fft, factor, device)
            return Reading(scaled, self._complex_envelope(params, given, False))
        return self._read_of(params, given, judged)

    def is_judged(self, params: IstftParams, window: Optional) -> bool:
        """Whether it is known, without asking the device, if the envelope of a call vanishes."""
        if is_known(window):
            return True
        known = None if window is None else self.known.find(window)
        return known is not None and _geometry(params) in known.judged

    def _is_judged_now(self, params: IstftParams, window: Optional) -> bool:
        """Whether an envelope is known not to vanish, or else is to be judged by the device.

        Raises:
            UnresolvedArguments: it is known to vanish.
        """
        if window is None or window.is_complex():
            check_envelope(params, window_of(window, params.win_length, params.n_fft))
            return True
        geometry = _geometry(params)
        known = self._known(window)
        if known is not None and geometry in known.judged:
            return True
        if not self._is_recording() and (known is None or not known.judged):
            return False
        check_envelope(params, window_of(window, params.win_length, params.n_fft))
        if known is not None:
            known.judged.add(geometry)
        return True

    def _read_of(self, params: IstftParams, window: torch.Tensor, judged: bool = True) -> Reading:
        """What is read of a real window."""
        factor = synthesis_scale(params)
        made = preparation(params.win_length, params.n_fft, factor, params)
        # Rows depend on the number of frames only where frames are few.
        few = min(params.frames, params.overlap)
        what = (params.n_fft, params.hop_length, few, params.scale, factor)
        if judged:
            prepared = self._kept(window, what, lambda: self._made(made, _plain(window)))
            return Reading(prepared, prepared, made.rows_at)
        known = self._known(window)

        def note() -> None:
            if known is not None:
                known.judged.add(_geometry(params))

        prepared, verdict = self._made_and_judged(made, _plain(window), note)
        if known is not None:
            known.made[(self._stream(window.device), what)] = prepared
        return Reading(prepared, prepared, made.rows_at, verdict)

    def _known(self, window: torch.Tensor) -> KnownWindow | None:
        """The record of a window; a new one unless a graph is recorded."""
        if not self._counts_versions(window):
            return None
        return self.known.find(window) if self._is_recording() else self.known.know(window)

    def _kept(
        self, window: torch.Tensor, what: Hashable, make: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """What was made of a window on this stream, made if it was not."""
        known = None if self._is_recording() else self._known(window)
        if known is None:
            return make()
        key = (self._stream(window.device), what)
        found = known.made.get(key)
        if found is None:
            found = known.made[key] = make()
        return found

    def _window_or_ones(
        self, window: Optional, win_length: int, device: torch.device
    ) -> torch.Tensor:
        if window is not None:
            return window

        def make() -> torch.Tensor:
            return torch.ones(win_length, dtype=torch.float32, device=device)

        if self._is_recording():
            return make()
        ones: torch.Tensor = self._constants.get((win_length, device, self._stream(device)), make)
        return ones

    def _complex_envelope(
        self, params: IstftParams, window: torch.Tensor, conjugate: bool
    ) -> torch.Tensor:
        """The rows of a complex window's inverse envelope, of its values on the host."""
        device = window.device
        if self._is_recording():
            rows = _rows_on_device(params, window)
            return rows.conj().resolve_conj() if conjugate else rows
        values = window_of(window, params.win_length, params.n_fft)
        few = min(params.frames, params.overlap)
        sizes = (params.n_fft, params.hop_length, params.win_length, params.scale, few)
        key = (values.key, *sizes, conjugate, device, self._stream(device))

        def make() -> torch.Tensor:
            rows = torch.from_numpy(envelope_of(params, values).rows).flatten()
            return self._on_device((rows.conj() if conjugate else rows).resolve_conj(), device)

        found: torch.Tensor = self._constants.get(key, make)
        return found

    def forget(self) -> None:
        """Drop what was prepared."""
        self.known.clear()
        self._constants.clear()


def _geometry(params: IstftParams) -> Hashable:
    """What decides, besides its values, whether a window's envelope vanishes."""
    return (params.n_fft, params.hop_length, params.frames, params.start, params.kept)


def _plain(window: torch.Tensor) -> torch.Tensor:
    return window.detach().resolve_neg()


def _scaled(window: torch.Tensor, n_fft: int, factor: float, conjugate: bool) -> torch.Tensor:
    """A complex window, scaled and padded."""
    values = window.detach()
    product = (values.conj() if conjugate else values) * factor
    return _padded(product.resolve_conj(), n_fft).contiguous()


def _padded(values: torch.Tensor, n_fft: int) -> torch.Tensor:
    """Values with zeros on both sides, as torch pads a window."""
    missing = n_fft - len(values)
    if missing == 0:
        return values
    return torch.nn.functional.pad(values, (missing // 2, missing - missing // 2))


def _rows_on_device(params: IstftParams, window: torch.Tensor) -> torch.Tensor:
    """:attr:`.envelope.Envelope.rows` of a complex window, flat, by torch's operations."""
    wide = window.detach().to(torch.complex128)
    overlap, hop = params.overlap, params.hop_length
    squares = torch.nn.functional.pad(
        _padded(wide * wide, params.n_fft), (0, overlap * hop - params.n_fft)
    )
    frames = min(params.frames, overlap)
    around = (0, 0, frames - 1, frames - 1)
    rows = torch.nn.functional.pad(squares.view(overlap, hop), around).unfold(0, frames, 1).sum(-1)
    inverse = torch.where(rows == 0, 0, params.scale / rows)
    return inverse.to(window.dtype).flatten()
