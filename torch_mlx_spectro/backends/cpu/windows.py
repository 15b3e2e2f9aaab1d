"""What calls need of their windows: padded and scaled, and the inverse of their envelopes.

Known by the window's values, which every call reads: programs make the same window anew for each
call, and tensors show no trace of writes by NumPy, DLPack or another process.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad

from ...core.envelope import Envelope, envelope_key, resolve_envelope
from ...core.params import IstftParams, StftParams
from ...errors import UnresolvedArguments
from ...store.caches import Cache
from ..envelope import VANISHES
from .frames import resolve

Optional = torch.Tensor | None

CACHE_ENTRIES = 128
#: Values of a window beyond which nothing is kept for it: 128 entries are 128 MiB then at most.
MAX_KEPT = 1 << 16
#: Hops below which nothing is gained by their being alike.
FEW_HOPS = 16
#: Samples up to which the inverse envelope of a whole call is kept with its window.
MAX_WHOLE = 1 << 16

_prepared: Cache[Hashable, Any] = Cache(CACHE_ENTRIES)


class Piece(NamedTuple):
    """Samples ``begin ... end - 1`` and their inverse envelope, or that of each hop of them."""

    begin: int
    end: int
    inverse: Optional


class Inverse:
    """The inverse envelope of calls, by samples of their overlap-added signals.

    Args:
        rows: of :class:`~torch_mlx_spectro.core.envelope.Envelope`.
        params: of the calls, but for their rows.

    Attributes:
        whole: the inverse of all samples that are kept, of short calls; else None.
    """

    def __init__(self, rows: torch.Tensor, params: IstftParams) -> None:
        self.rows, self.hop = rows, params.hop_length
        self._frames, self._overlap = params.frames, params.overlap
        self.kept = (params.start, params.start + params.kept)
        #: Calls cut their blocks alike, so that these are few.
        self._known: dict[tuple[int, int], torch.Tensor] = {}
        self.whole = self._cut(*self.kept) if params.kept <= MAX_WHOLE else None

    def find(self, begin: int, end: int) -> torch.Tensor:
        """The inverse envelope of samples ``begin ... end - 1``."""
        if self.whole is not None and self.kept == (begin, end):
            return self.whole
        key = self._move(begin, end)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._cut(*key)
        return found

    def split(self, begin: int, end: int) -> list[Piece]:
        """Samples in pieces: at most one of many hops, which are all alike."""
        first, last, row = self._find_alike(begin, end)
        if last <= first:
            return [Piece(begin, end, self.find(begin, end))]
        pieces = [Piece(first, last, row)]
        if begin < first:
            pieces.insert(0, Piece(begin, first, self.find(begin, first)))
        if last < end:
            pieces.append(Piece(last, end, self.find(last, end)))
        return pieces

    def _move(self, begin: int, end: int) -> tuple[int, int]:
        """Other samples of the same values: blocks in the midst of a row share one."""
        hop, head = self.hop, self._overlap - 1
        if begin < head * hop or end > self._frames * hop:
            return begin, end
        moved = (begin // hop - head) * hop  # all hops there are alike
        return begin - moved, end - moved

    def _find_alike(self, begin: int, end: int) -> tuple[int, int, torch.Tensor]:
        """Whole hops among samples ``begin ... end - 1`` that are all alike, and one of them.

        Returns:
            Their first sample, the one behind their last (the same where they are few), and the
            inverse envelope of a hop.
        """
        hop, head = self.hop, self._overlap - 1
        first = -(-max(begin, head * hop) // hop) * hop
        last = min(end // hop, self._frames) * hop
        if last - first < FEW_HOPS * hop or (self.whole is not None and self.kept == (begin, end)):
            last = first
        return first, last, self.rows[min(head, self.rows.shape[0] - 1)]

    def _cut(self, begin: int, end: int) -> torch.Tensor:
        """The inverse envelope of samples ``begin ... end - 1``, computed."""
        first, last = begin // self.hop, -(-end // self.hop)
        head, frames = self._overlap - 1, self._frames
        # No table of positions: NumPy keeps small arrays that are freed, and so do plans. One of
        # them behind large results that are freed is enough for glibc to keep all of their memory.
        if frames <= head:
            rows = self.rows[first:last]
        else:
            alike = self.rows[head : head + 1].expand(max(0, frames - head), -1)
            before = self.rows[first : min(last, head)]
            midst = alike[max(first - head, 0) : max(0, min(last, frames) - head)]
            behind = self.rows[head + 1 + max(0, first - frames) : head + 1 + max(0, last - frames)]
            rows = torch.cat([before, midst, behind])
        offset = first * self.hop
        return rows.reshape(-1)[begin - offset : end - offset]


def prepare_window(
    params: StftParams | IstftParams,
    window: Optional,
    dtype: torch.dtype,
    factor: float = 1.0,
    conjugate: bool = False,
) -> Optional:
    """The window times ``factor``, padded to n_fft as torch pads it; None where that is all ones.

    The product is rounded once: errors of a window are the same in all frames.

    Args:
        dtype: of the spectrum.
    """
    if window is None and params.win_length == params.n_fft and factor == 1.0:
        return None

    def make() -> torch.Tensor:
        is_complex = window is not None and window.is_complex()
        values = torch.ones(params.win_length, device="cpu") if window is None else resolve(window)
        wide = values.to(torch.complex128 if is_complex else torch.float64) * factor
        right = params.n_fft - params.win_length - params.window_left
        full = pad(wide, (params.window_left, right)).to(dtype if is_complex else dtype.to_real())
        return full.conj().resolve_conj() if conjugate else full

    prepared: torch.Tensor = _keep(
        window, ("window", dtype, params.win_length, params.n_fft, factor, conjugate), make
    )
    return prepared


def get_inverse(
    params: IstftParams, window: Optional, dtype: torch.dtype, conjugate: bool = False
) -> Inverse:
    """The inverse envelope of a call, its scale included.

    Only its rows are kept with the window: other lengths need them, too.

    Args:
        dtype: of the spectrum.

    Raises:
        UnresolvedArguments: it vanishes within the result.
    """

    def make() -> tuple[Envelope, torch.Tensor]:
        values = None if window is None else resolve(window).numpy()
        found = resolve_envelope(values, params, is_wide=dtype == torch.complex128)
        rows = torch.from_numpy(found.rows)
        return found, rows.conj().resolve_conj() if conjugate else rows

    found, rows = _keep(window, ("envelope", dtype, envelope_key(params), conjugate), make)
    if found.vanishes(params):
        raise UnresolvedArguments(VANISHES)
    return Inverse(rows, params)


class LastWindow:
    """What was last made of a window by calls that are alike, which mostly have the same one.

    The table of plans has one for each of up to 2048 plans, so only the :data:`CACHE_ENTRIES` that
    remembered something last still do.

    Args:
        make: makes it anew.
    """

    def __init__(self, make: Callable[[Optional], Any]) -> None:
        self._make = make
        self._last: tuple[bytes, Any] | None = None

    def find(self, window: Optional) -> Any:
        """What is made of this window."""
        if window is not None and window.numel() > MAX_KEPT:
            return self._make(window)
        values = b"" if window is None else resolve(window).numpy().tobytes()
        last = self._last
        if last is not None and last[0] == values:
            return last[1]
        made = self._make(window)
        self._last = (values, made)
        if last is None:
            _remembering.append(weakref.ref(self))
            if len(_remembering) > CACHE_ENTRIES:
                _forget_oldest()
        return made


#: Those that remember something, in the order in which they began to.
_remembering: deque[weakref.ref[LastWindow]] = deque()


def _forget_oldest() -> None:
    oldest = _remembering.popleft()()
    if oldest is not None:
        oldest._last = None


def _keep(window: Optional, key: Hashable, make: Callable[[], Any]) -> Any:
    """What is made of a window, kept by its values."""
    if window is None:
        return _prepared.get((None, key), make)
    if window.numel() > MAX_KEPT:
        return make()
    values = resolve(window).numpy()
    return _prepared.get((values.dtype.char, values.tobytes(), key), make)
