"""Transforms of the host by torch's own FFT, in blocks of frames that fit the processor's cache.

No frame matrix of a whole call exists: in flight is one block for each of torch's threads, its
spectrum and what of it is added up. A short row is one block together with others, a long one is
cut. Where threads take whole blocks (:mod:`.threads`), how a call is cut, and with it the last bits
of sums, depends on its sizes alone.

Blocks of 256 KiB lose everywhere, since torch's FFT makes its plan anew for each, and blocks of
8 MiB leave the cache. Torch's transforms write into memory of their own, from where
``out=`` copies: a copy within the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ...core.linear import Analysis
from ...core.params import IstftParams, StftParams
from .frames import cover_samples, invert_frames, weigh_edges
from .threads import find_team, share
from .windows import MAX_WHOLE, Cuts, Inverse

Optional = torch.Tensor | None

#: Bytes that the frames of a block fill, at most. On a core with 1 MiB of second-level cache (AMD
#: EPYC) 2 MiB were as fast as 1 MiB at all sizes, and 4 MiB were not.
BLOCK_BYTES = 2 << 20
#: Blocks that a call is cut into, at least, for threads to share, unless they became smaller than
#: this share of a block.
BLOCKS = 8
SMALLEST = 4
#: Threads for which blocks grow where torch's operations on each are shared.
MAX_GROWTH = 8
#: Values that are added at once, at least, where memory allows: frames of a smaller hop are added
#: in several passes, each of frames that lie several hops apart.
ADDED_VALUES = 64


class Block(NamedTuple):
    """Frames ``first ... last - 1`` of some rows."""

    rows: slice
    first: int
    last: int


def cut_blocks(rows: int, first: int, last: int, frame_bytes: int) -> list[Block]:
    """Cut frames ``first ... last - 1`` of all rows into blocks of about the same size.

    The blocks of a row follow each other.
    """
    frames = last - first
    smallest, largest = _find_block_bytes()
    most = max(1, max(smallest, min(largest, rows * frames * frame_bytes // BLOCKS)) // frame_bytes)
    if frames <= most:
        together = max(1, most // max(frames, 1))
        return [
            Block(slice(row, min(row + together, rows)), first, last)
            for row in range(0, rows, together)
        ]
    each = -(-frames // -(-frames // most))
    return [
        Block(slice(row, row + 1), begin, min(begin + each, last))
        for row in range(rows)
        for begin in range(first, last, each)
    ]


def fits_one_block(params: StftParams | IstftParams, dtype: torch.dtype) -> bool:
    """Whether a call is one block.

    Args:
        dtype: of its spectrum.
    """
    size = params.rows * params.frames * count_frame_bytes(params, dtype)
    return size <= _find_block_bytes()[0]


def _find_block_bytes() -> tuple[int, int]:
    """The bytes of the smallest block of a call that is cut, and of the largest."""
    if find_team() is None:
        largest = BLOCK_BYTES * min(torch.get_num_threads(), MAX_GROWTH)
        return largest, largest
    return BLOCK_BYTES // SMALLEST, BLOCK_BYTES


def transform_frames(
    params: StftParams, frames: torch.Tensor, window: Optional, out: Optional = None
) -> torch.Tensor:
    """The spectra of frames, shape (rows, frames, bins)."""
    windowed = frames if window is None else frames * window
    transform = torch.fft.rfft if params.onesided else torch.fft.fft
    spectrum: torch.Tensor = transform(windowed, out=out)
    return spectrum


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
    cuts = Cuts(inverse)

    def analyse(block: Block) -> None:
        frames = _cut_frames(params, signal, block, cuts)
        spectrum = out[block.rows, block.first : block.last]
        transform_frames(params, frames, window, spectrum)
        weigh_edges(params, spectrum, edge)

    frame_bytes = count_frame_bytes(params, out.dtype)
    share(cut_blocks(params.rows, 0, params.frames, frame_bytes), analyse)


def analyse_at_once(
    params: StftParams, signal: torch.Tensor, window: Optional, edge: float = 1.0
) -> torch.Tensor:
    """The spectrum of a signal of one block, shape (rows, frames, bins), contiguous.

    Args:
        signal, window, edge: see :func:`analyse_blocks`.
    """
    block = Block(slice(0, params.rows), 0, params.frames)
    spectrum = transform_frames(params, _cut_frames(params, signal, block, None), window)
    weigh_edges(params, spectrum, edge)
    return spectrum


def count_frame_bytes(params: StftParams | IstftParams, dtype: torch.dtype) -> int:
    """The bytes of one frame of a spectrum of this dtype."""
    item = dtype.itemsize
    # What lies between frames is copied with them where they are padded.
    return max(params.n_fft, params.hop_length // 4) * (item if params.complex_fft else item // 2)


def _cut_frames(
    params: StftParams, signal: torch.Tensor, block: Block, cuts: Cuts | None
) -> torch.Tensor:
    """The frames of a block, shape (rows, frames, n_fft), which share samples."""
    count = block.last - block.first
    covered = cover_samples(params, signal[block.rows], block.first, count)
    covered = covered.resolve_conj().resolve_neg()
    if cuts is not None and cuts.inverse is not None:
        begin = block.first * params.hop_length
        covered = covered * cuts.find(begin, begin + covered.shape[1])
    frames = covered.unfold(1, params.n_fft, params.hop_length)
    return frames[:, :count] if frames.shape[1] > count else frames


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
    frame_bytes = count_frame_bytes(params, by_frames.dtype)
    blocks = cut_blocks(params.rows, 0, params.frames, frame_bytes)
    sums = torch.zeros(len(blocks), params.n_fft, dtype=wide, device="cpu")

    def correlate(index: int) -> None:
        block = blocks[index]
        frames = _cut_frames(params, signal, block, None)
        spectrum = by_frames[block.rows, block.first : block.last].resolve_conj().resolve_neg()
        inverted = invert_frames(params, spectrum, analysis.inverse_edge, analysis.both_halves)
        sums[index] = (frames.conj() * inverted).sum((0, 1), dtype=wide)

    share(range(len(blocks)), correlate)
    return sums.sum(0)


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

    What a block adds to samples that its neighbours add to, too, is added up at the end.

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
        if first * hop > target.begin:
            target.values[:, : first * hop - target.begin].zero_()
        if covered < target.end:
            target.values[:, max(0, covered - target.begin) :].zero_()
    cuts, over = Cuts(inverse), max(0, n_fft - hop)
    # Where the window is wider than the spectrum denormals would lose digits that the result has.
    dtype = targets[0].values.dtype.to_complex()
    blocks = cut_blocks(params.rows, first, last, count_frame_bytes(params, dtype))
    edges: list[Edges | None] = [None] * len(blocks)

    def add(index: int) -> None:
        block = blocks[index]
        spectrum = by_frames[block.rows, block.first : block.last].to(dtype)
        frames = _invert_block(params, spectrum, edge, both_halves)
        own = (block.last - block.first) * hop
        reach = own - hop + n_fft
        tail = own if block.last < last else reach
        width = frames.dtype if window is None else torch.result_type(frames, window)
        added = frames.new_zeros((frames.shape[0], max(reach, tail)), dtype=width)
        _add_frames(added, frames, window, hop)
        head = over if block.first > first else 0
        if tail < head:  # all of it is others', too
            edges[index] = Edges(added, own, None)
            return
        for target in targets:
            _write(target, block, added[:, head:tail], block.first * hop + head, cuts)
        edges[index] = Edges(added[:, :head].clone(), head, added[:, tail:].clone())

    share(range(len(blocks)), add)
    left = None
    for block, found in zip(blocks, edges, strict=True):
        assert found is not None
        if left is not None and block.first > first:
            found.head[:, :over] += left
            for target in targets:
                _write(target, block, found.head[:, : found.done], block.first * hop, cuts)
        left = found.head[:, found.done :] if found.tail is None else found.tail


class Edges(NamedTuple):
    """Sums of a block that its neighbours add to.

    Attributes:
        head: begins with what the blocks before add to.
        done: samples of the head that no later block adds to.
        tail: what the blocks behind add to; None where it is the rest of the head.
    """

    head: torch.Tensor
    done: int
    tail: Optional


class AddAll:
    """As :func:`add_blocks`, of short calls that are alike, with little for the host to do.

    Args:
        params: of the calls, which are one block and add no zeros.
    """

    def __init__(self, params: IstftParams) -> None:
        self._params, hop, n_fft = params, params.hop_length, params.n_fft
        self._strides = (params.covered, hop, 1)
        begins = range(0, n_fft, hop)
        self._pieces = [
            (begin, (params.rows, params.frames, min(hop, n_fft - begin))) for begin in begins
        ]

    @staticmethod
    def can_compute(params: IstftParams, dtype: torch.dtype) -> bool:
        """Whether this is for calls like one; ``dtype`` is that of its spectrum."""
        is_short = fits_one_block(params, dtype) and params.kept <= MAX_WHOLE
        return is_short and not params.zero_tail and params.hop_length >= ADDED_VALUES

    def compute(
        self, by_frames: torch.Tensor, windows: Sequence[torch.Tensor], inverse: torch.Tensor
    ) -> torch.Tensor:
        """The signals, shape (rows, kept).

        Args:
            by_frames: see :func:`add_blocks`.
            windows: the window by hops; none where it is all ones.
            inverse: of all samples that are kept.
        """
        params = self._params
        frames = _invert_block(params, by_frames, 1.0, False).contiguous()
        dtype = torch.result_type(frames, inverse)
        added = frames.new_zeros((params.rows, params.covered), dtype=dtype)
        between = (params.frames * params.n_fft, params.n_fft, 1)
        for index in range(len(self._pieces) - 1, -1, -1):  # as _add_frames does
            begin, shape = self._pieces[index]
            piece = frames.as_strided(shape, between, begin)
            places = added.as_strided(shape, self._strides, begin)
            if windows:
                places.addcmul_(piece, windows[index])
            else:
                places += piece
        return added.narrow(1, params.start, params.kept) * inverse


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

    Args:
        added: contiguous.
    """
    _, count, n_fft = frames.shape
    step = max(1, min(ADDED_VALUES // hop, n_fft // hop))
    length = step * hop
    windows = None if window is None else torch.split(window, length)
    for phase in range(min(step, count)):
        passing = frames if step == 1 else frames[:, phase::step]
        begin = phase * hop
        pieces = torch.split(passing, length, 2)
        # Earlier frames first.
        for index in range(len(pieces) - 1, -1, -1):
            piece, strides = pieces[index], (added.shape[1], length, 1)
            places = added.as_strided(piece.shape, strides, begin + index * length)
            if windows is None:
                places += piece
            else:
                places.addcmul_(piece, windows[index])


def _write(target: Target, block: Block, sums: torch.Tensor, begin: int, cuts: Cuts) -> None:
    """Write what a target wants of sums, which begin at sample ``begin``."""
    first, last = max(target.begin, begin), min(target.end, begin + sums.shape[1])
    if last <= first:
        return
    values = sums[:, first - begin : last - begin]
    place = target.values[block.rows, first - target.begin : last - target.begin]
    if cuts.inverse is None:
        place.copy_(values)
    else:
        torch.mul(values, cuts.find(first, last), out=place)
