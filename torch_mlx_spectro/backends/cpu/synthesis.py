"""Overlap-added inverse transforms of a spectrum, block by block, by torch's own FFT.

Each block writes samples of its own, and needs nothing of the others: the few frames that two of
them add to are transformed by both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from ...core.params import IstftParams, StftParams
from . import mkl
from .blocks import (
    Block,
    compute_blocks,
    count_frame_bytes,
    cut_blocks,
    find_block_size,
    find_cache_size,
)
from .frames import invert_frames
from .windows import Inverse, Piece

Optional = torch.Tensor | None

#: Bytes of a block, at most, whose spectrum is copied before it is transformed: larger copies are
#: memory that is new to the process.
MAX_COPIED = 4 << 20


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
    others = -(-n_fft // hop) - 1
    # A hop may be far longer than all that is wanted of a lone frame.
    step = hop if last - first > 1 else min(hop, n_fft)

    def prepare(block: Block) -> Sums:
        behind = others if block.last == last else 0
        own = max(first, block.first - others)
        begin, hops = block.first * hop, block.last + behind - block.first
        writes = _find_writes(targets, block.rows, begin, begin + hops * step, inverse)
        before = others - (block.first - own)
        return Sums(by_frames[block.rows, own : block.last], before, behind, [*writes])

    def add(sums: Sums) -> None:
        frames = _invert_block(params, sums.spectrum.to(dtype), edge, both_halves, is_copied)
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
    # A transform reads memory that is not in the cache at half the speed of a copy. On an EPYC with
    # 32 MiB of cache the two took four fifths of the time of a transform alone, for spectra of 60
    # MiB; on a Xeon with 300 MiB they took a tenth longer.
    is_copied = size > find_cache_size() and find_block_size(size) <= MAX_COPIED
    compute_blocks([prepare(block) for block in blocks], add, size)


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
    frames = _invert_block(params, by_frames)
    added = _add_frames(frames, window, params.hop_length, others, others)
    return added.narrow(1, params.start, params.kept) * inverse


def _find_writes(
    targets: list[Target], rows: slice, begin: int, end: int, inverse: Inverse | None
) -> Iterator[Write]:
    """What targets want of the sums of these samples."""
    for target in targets:
        first, last = max(target.begin, begin), min(target.end, end)
        if first >= last:
            continue
        pieces = [Piece(first, last, None)] if inverse is None else inverse.split(first, last)
        for piece in pieces:
            place = target.values[rows, piece.begin - target.begin : piece.end - target.begin]
            yield Write(piece.begin - begin, place, piece.inverse)


def _invert_block(
    params: StftParams | IstftParams,
    spectrum: torch.Tensor,
    edge: float = 1.0,
    both_halves: bool = False,
    is_copied: bool = False,
) -> torch.Tensor:
    """The inverse transform of the frames of a block, shape (rows, frames, n_fft).

    Args:
        is_copied: the spectrum is copied first.
    """
    spectrum = spectrum.resolve_conj().resolve_neg()
    takes_all = both_halves or params.complex_fft
    if edge != 1.0 and not takes_all:
        return invert_frames(params, spectrum, edge)
    # Whatever torch's transform makes of imaginary parts of DC and Nyquist, native does, too. Bins
    # that are not neighbours are gathered first: a block's are in the cache then.
    part = spectrum if takes_all else spectrum[..., : params.n_fft // 2 + 1]
    if is_copied:
        part = part.clone(memory_format=torch.contiguous_format)
    if takes_all:
        return invert_frames(params, part, edge, both_halves)
    part = part.contiguous()
    frames = part.new_empty((*part.shape[:2], params.n_fft), dtype=part.dtype.to_real())
    return frames if mkl.invert(part, frames) else torch.fft.irfft(part, params.n_fft)


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
