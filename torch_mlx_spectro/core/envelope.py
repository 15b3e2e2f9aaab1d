"""The overlap-added squared window of ``torch.istft`` and its inverse, computed in float64.

With ``K = ceil(n_fft / hop)`` and samples counted in hops, sample ``r`` of hop ``j`` receives

    envelope[j, r] = sum over k in 0..K-1 with 0 <= j - k < frames of w[k * hop + r] ** 2

so all hops from ``K - 1`` to ``frames - 1`` are alike: ``2 K - 1`` rows of ``hop`` values hold the
envelope of a signal of any length. (Griffin and Lim 1984, "Signal estimation from modified
short-time Fourier transform", equation 6, gives the least-squares inversion it belongs to.)
"""

from __future__ import annotations

import sys
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .params import NOLA_THRESHOLD, IstftParams

Rows = npt.NDArray[Any]


@dataclass(frozen=True)
class Envelope:
    """Inverse envelope by hops, of all calls with the same window and sizes.

    Those of at least K frames have the same rows; fewer frames have rows of their own.

    Attributes:
        rows: shape (min(frames + K - 1, 2 K - 1), hop), float32 or complex64, double
            precision of wide calls; ``scale`` of the call is folded in. Zero where the envelope is
            zero (only outside the kept range).
        too_small: the envelope is below the NOLA threshold there; of the shape of ``rows``.
        clear_from, clear_behind: no sample is too small from the first on, up to the second's
            number of samples behind the last hop of those that are all alike.
    """

    rows: Rows
    too_small: Rows
    clear_from: int
    clear_behind: int

    def vanishes(self, params: IstftParams) -> bool:
        """Whether torch.istft raises: the envelope is below the threshold in the kept range."""
        hop, overlap, frames = params.hop_length, params.overlap, params.frames
        begin, end = params.start, params.start + params.kept
        if frames < overlap:
            return bool(self.too_small.reshape(-1)[begin:end].any())
        if self.clear_from <= begin and end <= frames * hop + self.clear_behind:
            return False
        first, last = begin // hop, (end - 1) // hop
        # Every distinct row occurs among the first and last 2 * overlap hops of the kept range.
        if last - first < 4 * overlap:
            hops = np.arange(first, last + 1, dtype=np.int64)
        else:
            ends = np.arange(2 * overlap, dtype=np.int64)
            hops = np.concatenate([first + ends, last - ends])
        sample = hops[:, None] * hop + np.arange(hop)
        inside = (begin <= sample) & (sample < end)
        return bool(self.too_small[row_of_hop(hops, frames, overlap)][inside].any())


def row_of_hop(hop_index: npt.NDArray[np.int64], frames: int, overlap: int) -> Any:
    """Row of :attr:`Envelope.rows` that holds hop ``hop_index`` (0 ... frames + overlap - 2)."""
    if frames < overlap:
        return hop_index
    head = np.minimum(hop_index, overlap - 1)
    return head + np.maximum(hop_index - (frames - 1), 0)


def inverse_of_frames(
    rows: Rows, frames: int, overlap: int, n_fft: int, first: int, count: int
) -> Any:
    """Return the inverse envelope of the samples that frames ``first ... first + count - 1`` cover.

    Args:
        rows: of :class:`Envelope`.
    """
    hops = np.arange(first, first + count + overlap - 1)
    length = (count - 1) * rows.shape[1] + n_fft
    return rows[row_of_hop(hops, frames, overlap)].reshape(-1)[:length]


def pad_window(window: npt.NDArray[Any] | None, win_length: int, n_fft: int) -> npt.NDArray[Any]:
    """Return the window in double precision, zero-padded to n_fft as by torch (left half first)."""
    if window is None:
        window = np.ones(win_length)
    left = (n_fft - win_length) // 2
    wide = np.complex128 if np.iscomplexobj(window) else np.float64
    return np.pad(window.astype(wide), (left, n_fft - win_length - left))


def overlap_added_square(window: npt.NDArray[Any], hop: int, frames: int) -> Rows:
    """Compute the distinct rows of the envelope in double precision, by the module's formula.

    Args:
        window: shape (n_fft,), double precision.
        hop: hop length in samples, at most n_fft.
        frames: number of frames.
    """
    overlap = -(-len(window) // hop)
    count = min(frames + overlap - 1, 2 * overlap - 1)
    squares = np.zeros((overlap, hop), window.dtype)
    squares.reshape(-1)[: len(window)] = window * window
    rows = np.zeros((count, hop), window.dtype)
    for piece in range(overlap):
        # Piece k of the window falls on hops k ... k + frames - 1, of which the rows keep
        # overlap many at most.
        rows[piece : piece + min(frames, overlap)] += squares[piece]
    return rows


def resolve_envelope(
    window: npt.NDArray[Any] | None, params: IstftParams, is_wide: bool = False
) -> Envelope:
    """Compute the inverse envelope of calls of a window and sizes.

    Args:
        window: shape (win_length,), or None for a rectangular one.
        params: of one of the calls.
        is_wide: the calls are in double precision.
    """
    real: Any = np.float64 if is_wide else np.float32
    overlap = params.overlap
    # torch does not warn of windows that single precision cannot hold; infinities are its result.
    with np.errstate(all="ignore"):
        full = pad_window(window, params.win_length, params.n_fft)
        rows = overlap_added_square(full, params.hop_length, params.frames)
        too_small = np.abs(rows).astype(real) < real(NOLA_THRESHOLD)
        inverse = np.where(rows == 0, 0, params.scale / rows)
        if not is_wide:
            inverse = inverse.astype(np.complex64 if np.iscomplexobj(rows) else np.float32)
    before, behind = np.flatnonzero(too_small[:overlap]), np.flatnonzero(too_small[overlap:])
    head = (overlap - 1) * params.hop_length
    clear_from = int(before[-1]) + 1 if before.size else 0
    return Envelope(
        rows=inverse,
        too_small=too_small,
        clear_from=clear_from if clear_from <= head else sys.maxsize,
        clear_behind=int(behind[0]) if behind.size else too_small[overlap:].size,
    )


def envelope_key(params: IstftParams) -> Hashable:
    """What :func:`resolve_envelope` needs of a call beside its window: alike calls share it."""
    sizes = (params.n_fft, params.hop_length, params.win_length, params.scale)
    return (*sizes, min(params.frames, params.overlap))
