"""Transforms of the host by torch's own FFT, in blocks of frames that fit the processor's cache.

No frame matrix of a whole call exists: in flight is one block of about two mebibytes, its spectrum
and what of it is added up. Torch's threads share the work on a block, as many as it is told to use
(``torch.set_num_threads``), so that there is nothing here that a fork, a signal or another thread
would have to know of. A short row is one block together with others, a long one is cut.

Blocks of 256 KiB lose everywhere, since torch's FFT makes its plan anew for each, and blocks of
8 MiB leave the cache. Torch's transforms write into memory of their own, from where
``out=`` copies: a copy within the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from ...core.envelope import row_of_hop
from ...core.linear import Analysis
from ...core.params import IstftParams, StftParams
from .frames import cover_samples, invert_frames, weigh_edges

Optional = torch.Tensor | None

#: Bytes that the frames of a block fill, at most. On two cores with 1 MiB of second-level cache
#: each (AMD EPYC) 2 MiB were the fastest or as fast as 1 and 4 MiB at all sizes.
BLOCK_BYTES = 2 << 20
#: Values that are added at once, at least, where memory allows: frames of a smaller hop are added
#: in several passes, each of frames that lie several hops apart.
ADDED_VALUES = 64


class Block(NamedTuple):
    """Frames ``first ... last - 1`` of some rows."""

    rows: slice
    first: int
    last: int


def cut_blocks(rows: int, first: int, last: int, frame_bytes: int) -> Iterator[Block]:
    """Cut frames ``first ... last - 1`` of all rows into blocks of about the same size.

    The blocks of a row follow each other.
    """
    frames = last - first
    most = max(1, BLOCK_BYTES // frame_bytes)
    if frames <= most:
        together = max(1, most // max(frames, 1))
        for row in range(0, rows, together):
            yield Block(slice(row, row + together), first, last)
        return
    each = -(-frames // -(-frames // most))
    for row in range(rows):
        for begin in range(first, last, each):
            yield Block(slice(row, row + 1), begin, min(begin + each, last))


def fits_one_block(rows: int, frames: int, frame_bytes: int) -> bool:
    """Whether a call is one block."""
    return rows * frames * frame_bytes <= BLOCK_BYTES


def transform_frames(
    params: StftParams, frames: torch.Tensor, window: Optional, out: Optional = None
) -> torch.Tensor:
    """The spectra of frames, shape (rows, frames, bins)."""
    windowed = frames if window is None else frames * window
    transform = torch.fft.rfft if params.onesided else torch.fft.fft
    return transform(windowed, out=out) if out is not None else transform(windowed)


def analyse_blocks(
    params: StftParams,
    signal: torch.Tensor,
    window: Optional,
    out: torch.Tensor,
    inverse: Inverse | None = None,
    edge: float = 1.0,
) -> None:
    """Write the spectrum of a signal.

    Args:
        signal: shape (rows, samples), any strides and bits.
        window: n_fft values with every scale folded in, or None.
        out: shape (rows, frames, bins), any strides.
        inverse: what the padded signal is multiplied by; None for nothing.
        edge: factor of the bins that are their own conjugates, of a onesided spectrum.
    """
    for block in cut_blocks(params.rows, 0, params.frames, count_frame_bytes(params, out)):
        frames = _cut_frames(params, signal, block, inverse)
        spectrum = out[block.rows, block.first : block.last]
        transform_frames(params, frames, window, spectrum)
        weigh_edges(params, spectrum, edge)


def count_frame_bytes(params: StftParams | IstftParams, spectrum: torch.Tensor) -> int:
    """The bytes of one frame of a spectrum of this dtype."""
    item = spectrum.element_size()
    # What lies between frames is copied with them where they are padded.
    return max(params.n_fft, params.hop_length // 4) * (item if params.complex_fft else item // 2)


def _cut_frames(
    params: StftParams, signal: torch.Tensor, block: Block, inverse: Inverse | None
) -> torch.Tensor:
    """The frames of a block, shape (rows, frames, n_fft), which share samples."""
    count = block.last - block.first
    covered = cover_samples(params, signal[block.rows], block.first, count)
    covered = covered.resolve_conj().resolve_neg()
    if inverse is not None:
        begin = block.first * params.hop_length
        covered = covered * inverse.cut(begin, begin + covered.shape[1])
    return covered.unfold(1, params.n_fft, params.hop_length)


def correlate_blocks(
    analysis: Analysis, signal: torch.Tensor, by_frames: torch.Tensor
) -> torch.Tensor:
    """The sum over all frames of a frame's conjugate times the inverse transform of its spectrum.

    Args:
        signal: shape (rows, samples).
        by_frames: shape (rows, frames, bins).

    Returns:
        Shape (n_fft,), double precision.
    """
    params = analysis.params
    wide = torch.complex128 if params.complex_fft else torch.float64
    total = torch.zeros(params.n_fft, dtype=wide, device="cpu")
    for block in cut_blocks(params.rows, 0, params.frames, count_frame_bytes(params, by_frames)):
        frames = _cut_frames(params, signal, block, None)
        spectrum = by_frames[block.rows, block.first : block.last].resolve_conj().resolve_neg()
        inverted = invert_frames(params, spectrum, analysis.inverse_edge, analysis.both_halves)
        total += (frames.conj() * inverted).sum((0, 1), dtype=wide)
    return total


class Inverse:
    """The inverse envelope of one call, by samples of its overlap-added signal.

    Args:
        rows: of :class:`~torch_mlx_spectro.core.envelope.Envelope`.
        params: of the call.
    """

    def __init__(self, rows: torch.Tensor, params: IstftParams) -> None:
        self._rows, self._hop = rows, params.hop_length
        self._frames, self._overlap = params.frames, params.overlap
        self._last: tuple[int, int, torch.Tensor] | None = None

    def cut(self, begin: int, end: int) -> torch.Tensor:
        """The inverse envelope of samples ``begin ... end - 1``."""
        hop, head = self._hop, self._overlap - 1
        if begin >= head * hop and end <= self._frames * hop:
            # All hops there are alike, so that blocks in the midst of a row share one.
            moved = (begin // hop - head) * hop
            begin, end = begin - moved, end - moved
        if self._last is not None and self._last[:2] == (begin, end):
            return self._last[2]
        first = begin // hop
        hops = np.arange(first, -(-end // hop), dtype=np.int64)
        rows = self._rows[torch.from_numpy(row_of_hop(hops, self._frames, self._overlap))]
        values = rows.reshape(-1)[begin - first * hop : end - first * hop]
        self._last = (begin, end, values)
        return values


class Target(NamedTuple):
    """Where samples of an overlap-added signal go: those from ``begin`` on, shape (rows, count)."""

    begin: int
    values: torch.Tensor

    @property
    def end(self) -> int:
        return self.begin + self.values.shape[1]


def add_blocks(
    params: StftParams | IstftParams,
    by_frames: torch.Tensor,
    window: Optional,
    targets: list[Target],
    *,
    inverse: Inverse | None = None,
    edge: float = 1.0,
    both_halves: bool = False,
) -> None:
    """Write the overlap-add of the inverse transforms of a spectrum.

    What a block adds to samples that the next one adds to, too, is handed on to it.

    Args:
        by_frames: shape (rows, frames, bins), any strides and bits.
        window: n_fft values with every scale folded in, or None.
        targets: what is written, of all samples that are not covered zeros; not empty.
        inverse: what the sums are multiplied by; None for nothing.
        edge, both_halves: see :func:`.invert_frames`.
    """
    hop, n_fft = params.hop_length, params.n_fft
    covered = (params.frames - 1) * hop + n_fft
    begin, end = min(at.begin for at in targets), max(at.end for at in targets)
    first, last = max(0, (begin - n_fft) // hop + 1), min(params.frames, -(-end // hop))
    for target in targets:
        target.values[:, : max(0, first * hop - target.begin)].zero_()
        target.values[:, max(0, covered - target.begin) :].zero_()
    left = None  # of the block before
    for block in cut_blocks(params.rows, first, last, count_frame_bytes(params, by_frames)):
        spectrum = by_frames[block.rows, block.first : block.last]
        frames = _invert_block(params, spectrum, edge, both_halves)
        reach = (block.last - block.first - 1) * hop + n_fft
        done = reach if block.last == last else (block.last - block.first) * hop
        dtype = frames.dtype if window is None else torch.result_type(frames, window)
        added = frames.new_zeros((frames.shape[0], max(reach, done)), dtype=dtype)
        if left is not None and block.first != first:
            added[:, : left.shape[1]] = left
        _add_frames(added, frames, window, hop)
        for target in targets:
            _write(target, block.rows, added[:, :done], block.first * hop, inverse)
        left = added[:, done:]


def _invert_block(
    params: StftParams | IstftParams, spectrum: torch.Tensor, edge: float, both_halves: bool
) -> torch.Tensor:
    """The inverse transform of the frames of a block, shape (rows, frames, n_fft)."""
    spectrum = spectrum.resolve_conj().resolve_neg()
    if edge != 1.0 or both_halves or params.complex_fft:
        return invert_frames(params, spectrum, edge, both_halves)
    # Whatever torch's transform makes of imaginary parts of DC and Nyquist, native does, too. Bins
    # that are not neighbours are gathered first: a block's are in the cache then.
    half = spectrum[..., : params.n_fft // 2 + 1].contiguous()
    frames: torch.Tensor = torch.fft.irfft(half, params.n_fft)
    return frames


def _add_frames(added: torch.Tensor, frames: torch.Tensor, window: Optional, hop: int) -> None:
    """Add windowed frames up, each ``hop`` samples behind the one before.

    Piece by piece of all frames at once, of which no two meet in a sample.
    """
    step = max(1, min(ADDED_VALUES // hop, frames.shape[2] // hop))
    length = step * hop
    for phase in range(min(step, frames.shape[1])):
        passing = frames[:, phase::step]
        for begin in range(0, frames.shape[2], length):
            piece = passing[..., begin : begin + length]
            places = added[:, phase * hop + begin :].unfold(1, piece.shape[2], length)
            places = places[:, : piece.shape[1]]
            if window is None:
                places += piece
            else:
                places.addcmul_(piece, window[begin : begin + length])


def _write(
    target: Target, rows: slice, added: torch.Tensor, begin: int, inverse: Inverse | None
) -> None:
    """Write what a target wants of sums that begin at sample ``begin``."""
    first, last = max(target.begin, begin), min(target.end, begin + added.shape[1])
    if last <= first:
        return
    values = added[:, first - begin : last - begin]
    place = target.values[rows, first - target.begin : last - target.begin]
    if inverse is None:
        place.copy_(values)
    else:
        torch.mul(values, inverse.cut(first, last), out=place)
