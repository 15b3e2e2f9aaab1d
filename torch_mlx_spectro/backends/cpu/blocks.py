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

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ...core.envelope import row_of_hop
from ...core.linear import Analysis
from ...core.params import IstftParams, StftParams
from .frames import cover_samples, invert_frames, weigh_edges

Optional = torch.Tensor | None

#: Bytes that the frames of a block fill for each of torch's threads, at most. With one on a core
#: with 1 MiB of second-level cache (AMD EPYC) 2 MiB were the fastest or as fast as 1 and 4 MiB at
#: all sizes. Threads that share the machine with other programs wait for each other several times
#: a block, so that more of them get larger ones.
BLOCK_BYTES = 2 << 20
#: Threads for which blocks grow.
MAX_GROWTH = 8
#: Values that are added at once, at least, where memory allows: frames of a smaller hop are added
#: in several passes, each of frames that lie several hops apart.
ADDED_VALUES = 64


#: Samples up to which the inverse envelope of a whole call is kept with its window.
MAX_WHOLE = 1 << 16


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
    most = max(1, _find_block_bytes() // frame_bytes)
    if frames <= most:
        together = max(1, most // max(frames, 1))
        for row in range(0, rows, together):
            yield Block(slice(row, row + together), first, last)
        return
    each = -(-frames // -(-frames // most))
    for row in range(rows):
        for begin in range(first, last, each):
            yield Block(slice(row, row + 1), begin, min(begin + each, last))


def fits_one_block(params: StftParams | IstftParams, dtype: torch.dtype) -> bool:
    """Whether a call is one block.

    Args:
        dtype: of its spectrum.
    """
    return params.rows * params.frames * count_frame_bytes(params, dtype) <= _find_block_bytes()


def _find_block_bytes() -> int:
    return BLOCK_BYTES * min(torch.get_num_threads(), MAX_GROWTH)


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
    for block in cut_blocks(params.rows, 0, params.frames, count_frame_bytes(params, out.dtype)):
        frames = _cut_frames(params, signal, block, cuts)
        spectrum = out[block.rows, block.first : block.last]
        transform_frames(params, frames, window, spectrum)
        weigh_edges(params, spectrum, edge)


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
    total = torch.zeros(params.n_fft, dtype=wide, device="cpu")
    for block in cut_blocks(
        params.rows, 0, params.frames, count_frame_bytes(params, by_frames.dtype)
    ):
        frames = _cut_frames(params, signal, block, None)
        spectrum = by_frames[block.rows, block.first : block.last].resolve_conj().resolve_neg()
        inverted = invert_frames(params, spectrum, analysis.inverse_edge, analysis.both_halves)
        total += (frames.conj() * inverted).sum((0, 1), dtype=wide)
    return total


class Inverse:
    """The inverse envelope of calls, by samples of their overlap-added signals.

    Args:
        rows: of :class:`~torch_mlx_spectro.core.envelope.Envelope`.
        vanishes: the calls are torch's, which raises.
        params: of the calls, but for their rows.

    Attributes:
        whole: the inverse of all samples that are kept, of short calls; else None.
    """

    def __init__(self, rows: torch.Tensor, vanishes: bool, params: IstftParams) -> None:
        self.rows, self.vanishes, self.hop = rows, vanishes, params.hop_length
        self._frames, self._overlap = params.frames, params.overlap
        self.kept = (params.start, params.start + params.kept)
        self.whole = self.cut(*self.kept) if params.kept <= MAX_WHOLE else None

    def move(self, begin: int, end: int) -> tuple[int, int]:
        """Other samples of the same values: blocks in the midst of a row share one."""
        hop, head = self.hop, self._overlap - 1
        if begin < head * hop or end > self._frames * hop:
            return begin, end
        moved = (begin // hop - head) * hop  # all hops there are alike
        return begin - moved, end - moved

    def cut(self, begin: int, end: int) -> torch.Tensor:
        """The inverse envelope of samples ``begin ... end - 1``."""
        hop, first = self.hop, begin // self.hop
        hops = np.arange(first, -(-end // hop), dtype=np.int64)
        rows = self.rows[torch.from_numpy(row_of_hop(hops, self._frames, self._overlap))]
        return rows.reshape(-1)[begin - first * hop : end - first * hop]


class Cuts:
    """Parts of an inverse envelope, for one call, which asks for few different ones."""

    def __init__(self, inverse: Inverse | None) -> None:
        self.inverse = inverse
        self._last: tuple[tuple[int, int], torch.Tensor] | None = None

    def find(self, begin: int, end: int) -> torch.Tensor:
        """As :meth:`Inverse.cut`; there is an inverse."""
        assert self.inverse is not None
        if self.inverse.whole is not None and self.inverse.kept == (begin, end):
            return self.inverse.whole
        key = self.inverse.move(begin, end)
        if self._last is None or self._last[0] != key:
            self._last = (key, self.inverse.cut(*key))
        return self._last[1]


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
        if first * hop > target.begin:
            target.values[:, : first * hop - target.begin].zero_()
        if covered < target.end:
            target.values[:, max(0, covered - target.begin) :].zero_()
    left, cuts = None, Cuts(inverse)
    # Where the window is wider than the spectrum denormals would lose digits that the result has.
    dtype = targets[0].values.dtype.to_complex()
    for block in cut_blocks(params.rows, first, last, count_frame_bytes(params, dtype)):
        spectrum = by_frames[block.rows, block.first : block.last].to(dtype)
        frames = _invert_block(params, spectrum, edge, both_halves)
        reach = (block.last - block.first - 1) * hop + n_fft
        done = reach if block.last == last else (block.last - block.first) * hop
        width = frames.dtype if window is None else torch.result_type(frames, window)
        added = frames.new_zeros((frames.shape[0], max(reach, done)), dtype=width)
        if left is not None and block.first != first:
            added[:, : left.shape[1]] = left
        _add_frames(added, frames, window, hop)
        for target in targets:
            _write(target, block, added, block.first * hop, done, cuts)
        left = added[:, done:]


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
        # Earlier frames first, as across blocks: then sums do not depend on how a row is cut.
        for index in range(len(pieces) - 1, -1, -1):
            piece, strides = pieces[index], (added.shape[1], length, 1)
            places = added.as_strided(piece.shape, strides, begin + index * length)
            if windows is None:
                places += piece
            else:
                places.addcmul_(piece, windows[index])


def _write(
    target: Target, block: Block, added: torch.Tensor, begin: int, count: int, cuts: Cuts
) -> None:
    """Write what a target wants of ``count`` sums, which begin at sample ``begin``."""
    first, last = max(target.begin, begin), min(target.end, begin + count)
    if last <= first:
        return
    values = added[:, first - begin : last - begin]
    place = target.values[block.rows, first - target.begin : last - target.begin]
    if cuts.inverse is None:
        place.copy_(values)
    else:
        torch.mul(values, cuts.find(first, last), out=place)
