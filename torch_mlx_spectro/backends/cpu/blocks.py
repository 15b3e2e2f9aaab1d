"""Transforms of the host by torch's own FFT, in blocks of frames that fit the processor's cache.

No frame matrix of a whole call exists: in flight is one block for each of torch's threads, its
spectrum and what of it is added up. A short row is one block together with others, a long one is
cut. Torch's threads share each operation, or take whole blocks of a long call (:mod:`.threads`).
Then they hold Python's lock for each operation's first microseconds and wait for each other there,
so that operations are few and views are made before.

Blocks of 256 KiB lose everywhere, since torch's FFT makes its plan anew for each, and blocks of
8 MiB a thread leave the cache. Torch's transforms write into memory of their own, from where
``out=`` copies: a copy within the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

from ...core.linear import Analysis
from ...core.params import IstftParams, StftParams
from .frames import cover_samples, find_unpadded, invert_frames, weigh_edges
from .threads import Part, find_team, share
from .windows import Cuts, Inverse

Optional = torch.Tensor | None

#: Bytes that the frames of a block fill, at most. On a core with 1 MiB of second-level cache (AMD
#: EPYC) 2 MiB were as fast as 1 MiB at all sizes, and 4 MiB were not.
BLOCK_BYTES = 2 << 20
#: Bytes of all frames from which so many threads take whole blocks. Where other programs keep the
#: cores busy, calls of 10 MiB took two thirds of the time so, and fewer of them took several times
#: native's. On idle cores it gains nothing. Shorter calls lose by it, and more threads, which wait
#: for Python's lock: 16 of an Intel Xeon took six times native's time for 20 MiB.
LONG_BYTES = {2: 8 << 20, 3: 16 << 20, 4: 32 << 20}
#: Bytes of the frames of a block, at most, that grows since its neighbours transform its last
#: frames once more: these are a quarter then, or less.
GROWN_BYTES = 8 << 20
#: Threads for which blocks grow where they share each operation.
MAX_GROWTH = 8


class Block(NamedTuple):
    """Frames ``first ... last - 1`` of some rows."""

    rows: slice
    first: int
    last: int


def cut_blocks(rows: int, first: int, last: int, frame_bytes: int, overlap: int = 0) -> list[Block]:
    """Cut frames ``first ... last - 1`` of all rows into blocks of about the same size.

    Args:
        overlap: frames of a block that the next one needs as well.
    """
    frames = last - first
    size = _find_block_bytes(rows * frames * frame_bytes)
    size = max(size, min(GROWN_BYTES, 4 * overlap * frame_bytes))
    most = max(1, size // frame_bytes)
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
    return size <= _find_block_bytes(size)


def _find_block_bytes(size: int) -> int:
    """The bytes of the largest block of a call of this size."""
    if _takes_whole_blocks(size):
        return BLOCK_BYTES
    return BLOCK_BYTES * min(torch.get_num_threads(), MAX_GROWTH)


def _takes_whole_blocks(size: int) -> bool:
    """Whether threads take whole blocks of a call of this size; else they share each operation."""
    long = LONG_BYTES.get(torch.get_num_threads())
    return long is not None and size > long and find_team() is not None


def _compute_blocks(parts: Sequence[Part], work: Callable[[Part], None], size: int) -> None:
    """Do the work on what was prepared of all blocks of a call of this size."""
    if _takes_whole_blocks(size):
        share(parts, work)
        return
    for part in parts:
        work(part)


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

    def prepare(block: Block) -> tuple[Block, Optional, torch.Tensor]:
        spectrum = out[block.rows, block.first : block.last]
        is_view = inverse is None and within[0] <= block.first and block.last <= within[1]
        return block, _cut_frames(params, signal, block, cuts) if is_view else None, spectrum

    def analyse(part: tuple[Block, Optional, torch.Tensor]) -> None:
        block, frames, spectrum = part
        if frames is None:
            frames = _cut_frames(params, signal, block, cuts)
        transform_frames(params, frames, window, spectrum)
        weigh_edges(params, spectrum, edge)

    within = find_unpadded(params)
    ends = (
        [0, *within, params.frames]
        if 2 * (within[1] - within[0]) > params.frames
        else [0, params.frames]
    )
    frame_bytes = count_frame_bytes(params, out.dtype)
    blocks = [
        block
        for first, last in pairwise(ends)
        if first < last
        for block in cut_blocks(params.rows, first, last, frame_bytes)
    ]
    size = params.rows * params.frames * frame_bytes
    _compute_blocks([prepare(block) for block in blocks], analyse, size)


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

    size = params.rows * params.frames * frame_bytes
    _compute_blocks(range(len(blocks)), correlate, size)
    return sums.sum(0)


class Target(NamedTuple):
    """Where samples of an overlap-added signal go: those from ``begin`` on, shape (rows, count)."""

    begin: int
    values: torch.Tensor

    @property
    def end(self) -> int:
        return self.begin + self.values.shape[1]


class Write(NamedTuple):
    """Sums of a block from ``begin`` on go to ``place``, times ``inverse`` unless that is None.

    An inverse of fewer values is that of each hop.
    """

    begin: int
    place: torch.Tensor
    inverse: Optional


class Sums(NamedTuple):
    """Hops of an overlap-added signal, and what computes them.

    Attributes:
        spectrum: of all frames that add to these hops, shape (rows, frames, bins).
        before, behind: frames of zeros that add to them, too.
    """

    spectrum: torch.Tensor
    before: int
    behind: int
    writes: list[Write]


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

    The few frames that two blocks add to are transformed by both: threads share nothing then.

    Args:
        by_frames: shape (rows, frames, bins), any strides and bits.
        window: n_fft values with every scale folded in, or None.
        targets: what is written, of all samples that are not covered zeros; not empty.
        inverse: what the sums are multiplied by; None for nothing.
        edge, both_halves: see :func:`.invert_frames`.
    """
    hop, n_fft = params.hop_length, params.n_fft
    begin, end = min(at.begin for at in targets), max(at.end for at in targets)
    first, last = max(0, (begin - n_fft) // hop + 1), min(params.frames, -(-end // hop))
    covered = (last - 1) * hop + n_fft
    for target in targets:
        if first * hop > target.begin:
            target.values[:, : first * hop - target.begin].zero_()
        if covered < target.end:
            target.values[:, max(0, covered - target.begin) :].zero_()
    # Where the window is wider than the spectrum denormals would lose digits that the result has.
    dtype = targets[0].values.dtype.to_complex()
    cuts, others = Cuts(inverse), -(-n_fft // hop) - 1
    # A hop may be far longer than all that is wanted of a lone frame.
    step = hop if last - first > 1 else min(hop, n_fft)

    def prepare(block: Block) -> Sums:
        behind = others if block.last == last else 0
        own = max(first, block.first - others)
        begin, hops = block.first * hop, block.last + behind - block.first
        writes = _find_writes(targets, block.rows, begin, begin + hops * step, cuts)
        before = others - (block.first - own)
        return Sums(by_frames[block.rows, own : block.last], before, behind, [*writes])

    def add(sums: Sums) -> None:
        frames = _invert_block(params, sums.spectrum.to(dtype), edge, both_halves)
        added = _add_frames(frames, window, step, sums.before, sums.behind)
        for begin, place, factor in sums.writes:
            values = added.narrow(1, begin, place.shape[1])
            if factor is None:
                place.copy_(values)
            elif factor.shape[0] == values.shape[1]:
                torch.mul(values, factor, out=place)
            else:
                by_hops = (place.shape[0], -1, factor.shape[0])
                torch.mul(values.view(by_hops), factor, out=place.view(by_hops))

    frame_bytes = count_frame_bytes(params, dtype)
    blocks = cut_blocks(params.rows, first, last, frame_bytes, others)
    size = params.rows * (last - first) * frame_bytes
    _compute_blocks([prepare(block) for block in blocks], add, size)


def add_at_once(
    params: IstftParams, by_frames: torch.Tensor, window: Optional, inverse: torch.Tensor
) -> torch.Tensor:
    """As :func:`add_blocks`, of a short call without samples that no frame covers.

    Args:
        inverse: of all samples that are kept.

    Returns:
        Shape (rows, kept).
    """
    others = params.overlap - 1
    frames = _invert_block(params, by_frames, 1.0, False)
    added = _add_frames(frames, window, params.hop_length, others, others)
    return added.narrow(1, params.start, params.kept) * inverse


def _find_writes(
    targets: list[Target], rows: slice, begin: int, end: int, cuts: Cuts
) -> Iterator[Write]:
    """What targets want of the sums of these samples."""
    for target in targets:
        first, last = max(target.begin, begin), min(target.end, end)
        for piece in cuts.split(first, last) if first < last else ():
            place = target.values[rows, piece.begin - target.begin : piece.end - target.begin]
            yield Write(piece.begin - begin, place, piece.inverse)


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


def _add_frames(
    frames: torch.Tensor, window: Optional, hop: int, before: int, behind: int
) -> torch.Tensor:
    """Add windowed frames up, each ``hop`` samples behind the one before.

    One sum over a view of the frames, in which those that meet in a hop lie above each other.

    Args:
        frames: shape (rows, frames, n_fft).
        before, behind: frames of zeros around them.

    Returns:
        Shape (rows, samples): all hops that have a piece of as many frames as meet in one.
    """
    rows, count, n_fft = frames.shape
    meeting = -(-n_fft // hop)
    width = meeting * hop
    dtype = frames.dtype if window is None else torch.result_type(frames, window)
    spread = frames.new_empty((rows, before + count + behind, width), dtype=dtype)
    if before:
        spread[:, :before].zero_()
    if behind:
        spread[:, before + count :].zero_()
    if width > n_fft:
        spread[:, :, n_fft:].zero_()
    own = spread[:, before : before + count, :n_fft]
    if window is None:
        own.copy_(frames)
    else:
        torch.mul(frames, window, out=own)
    hops = before + count + behind - meeting + 1
    # A piece of the earliest frame first: its last one, a hop before the next frame's.
    shape, strides = (rows, hops, meeting, hop), (spread.stride(0), width, width - hop, 1)
    added: torch.Tensor = spread.as_strided(shape, strides, width - hop).sum(2)
    return added.view(rows, hops * hop)
