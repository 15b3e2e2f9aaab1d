"""Transform host tensors in blocks of frames that fit the cache, on several MLX streams.

The frames of all rows are counted through, cut into one contiguous share per stream, and each share
into blocks. The matrix of all frames never exists: at any time a few blocks of about a mebibyte are
computed.

An inverse transform is cut by hops of its output. Each block computes the ``overlap - 1`` frames
before its own again, so blocks are independent of each other. The values do not depend on how the
work is cut: frames are transformed independently, and each hop sums the same frames in the same
order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ..core.envelope import row_of_hop
from ..core.linear import Analysis, describe_synthesis, own_conjugates
from ..core.padding import covered_samples, fold_side, padded_sides
from ..core.params import IstftParams, StftParams
from . import ops as maps
from .host import HostArray, HostView, copy_to_mlx
from .runtime import Part, Runtime, threads

#: Bytes that the frames of a block fill: half of a 2 MiB second-level cache.
BLOCK_BYTES = 1 << 20
#: The same for the inverse transform, which holds more arrays of a block at once.
INVERSE_BLOCK_BYTES = 3 << 18
MAX_BLOCK_BYTES = 4 << 20
#: Most bytes per stream of the blocks in flight: frames, spectra and copies.
FLIGHT_BYTES = 11 << 20
MAX_DEPTH = 4
#: MLX's FFT transforms several frames at once in vector registers: 4 in its current builds.
FRAME_MULTIPLE = 4
#: An inverse transform adds up to this many frames in each hop, one by one.
MAX_OVERLAP = 16
#: Below this many bytes of frames per stream, waking another stream costs more than it brings.
STREAM_BYTES = 1 << 20

#: Where a block's frames are in a spectrum of shape (rows, frames, bins).
Target = tuple[int, slice]
#: Of the samples that frames ``first ... first + count - 1`` cover, by (first, count).
Factors = Callable[[int, int], HostArray]


@dataclass(frozen=True)
class Share:
    """Frames ``first ... last - 1`` of row ``row``: a contiguous piece of one stream's work."""

    row: int
    first: int
    last: int


@dataclass(frozen=True)
class Cut:
    """How a call is cut: shares per stream, frames per block, blocks in flight."""

    shares: tuple[tuple[Share, ...], ...]
    block_frames: int
    depth: int


def cut_frames(
    rows: int, frames: int, n_fft: int, item_bytes: int, streams: int, halo: int = 0
) -> Cut:
    """Cut ``rows * frames`` frames of ``n_fft`` values into shares and blocks.

    Args:
        item_bytes: bytes of one value of a frame.
        streams: most streams to use.
        halo: frames of the neighbouring block that every block computes again.
    """
    frame_bytes = n_fft * item_bytes
    block = max(1, (INVERSE_BLOCK_BYTES if halo else BLOCK_BYTES) // frame_bytes)
    if block >= FRAME_MULTIPLE or FRAME_MULTIPLE * frame_bytes <= MAX_BLOCK_BYTES:
        block = max(FRAME_MULTIPLE, block // FRAME_MULTIPLE * FRAME_MULTIPLE)
    total = rows * frames
    useful = min(streams, max(1, total * frame_bytes // STREAM_BYTES))
    if halo:
        # Every block repeats ``halo`` frames, which should be at most a sixteenth of it.
        affordable = max(block, 2 * INVERSE_BLOCK_BYTES // frame_bytes)
        block = min(max(block, 16 * halo), affordable)
        block = max(1, -(-(block + halo) // FRAME_MULTIPLE) * FRAME_MULTIPLE - halo)
    block = min(block, total)
    # Of a block live: frames, spectra, and for the inverse also windowed frames and their sums.
    copies = 5 if halo else 3
    depth = max(1, min(MAX_DEPTH, FLIGHT_BYTES // (copies * (block + halo) * frame_bytes)))
    edges = [total * index // useful for index in range(useful + 1)]
    shares = tuple(_shares(lo, hi, frames) for lo, hi in pairwise(edges))
    return Cut(shares, block, depth)


def _shares(begin: int, end: int, frames: int) -> tuple[Share, ...]:
    """Find the pieces of rows that frames ``begin ... end - 1`` of all rows consist of."""
    rows = range(begin // frames, -(-end // frames))
    return tuple(
        Share(row, max(begin - row * frames, 0), min(end - row * frames, frames)) for row in rows
    )


def stft_blocks(
    runtime: Runtime,
    params: StftParams,
    signal: HostView,
    window: Any,
    out: HostArray,
    factors: Factors | None = None,
    edge: float = 1.0,
) -> None:
    """Write the spectrum of ``signal`` into ``out``.

    Args:
        signal: array of shape (rows, samples), any strides.
        window: MLX array of shape (n_fft,) with the call's scale folded in, or None.
        out: shape (rows, frames, bins), complex64, any strides.
        factors: returns what the signal is multiplied by, for a range of frames; None for nothing.
        edge: factor of DC and Nyquist of a onesided spectrum.
    """

    def transform(frames: Any, target: Target, stream: Any) -> Part:
        spectrum = maps.compute_spectra(
            runtime.mx,
            frames,
            window,
            n_fft=params.n_fft,
            onesided=params.onesided,
            complex_fft=params.complex_fft,
            stream=stream,
        )
        return Part(spectrum, out[target])

    _run_frames(runtime, params, signal, transform, factors)
    if params.onesided and edge != 1.0:
        with np.errstate(all="ignore"):  # torch does not warn of products with infinities
            out[..., own_conjugates(params.n_fft)] *= np.float32(edge)


def _run_frames(
    runtime: Runtime,
    params: StftParams,
    signal: HostView,
    compute: Callable[[Any, Target, Any], Part],
    factors: Factors | None = None,
) -> None:
    """Cut the padded rows of a signal into frames, and store what is computed of each block.

    Args:
        signal, factors: as in :func:`stft_blocks`.
        compute: makes what is stored: from frames (a view, an MLX array of shape (count, n_fft)),
            their target, and the stream.
    """
    mx, sizes = runtime.mx, (params.rows, params.frames, params.n_fft)
    cut = cut_frames(*sizes, 8 if params.complex_fft else 4, _streams(runtime))

    def blocks(shares: tuple[Share, ...], stream: Any) -> Iterator[Part]:
        for row, first, count in _split_blocks(shares, cut.block_frames):
            samples = signal.block(covered_samples(signal.array[row], params, first, count))
            if factors is not None:
                samples = samples * factors(first, count)
            shape, strides = (count, params.n_fft), (params.hop_length, 1)
            frames = mx.as_strided(copy_to_mlx(mx, samples), shape, strides, stream=stream)
            yield compute(frames, (row, slice(first, first + count)), stream)

    _run(runtime, cut, blocks)


def _run(
    runtime: Runtime, cut: Cut, blocks: Callable[[tuple[Share, ...], Any], Iterator[Part]]
) -> None:
    """Compute and store the blocks of every share, each share on a stream of its own."""
    producers = [
        blocks(shares, stream) for shares, stream in zip(cut.shares, runtime.streams, strict=False)
    ]
    with runtime.lock:
        runtime.run(producers, cut.depth)


def correlate_blocks(
    runtime: Runtime, analysis: Analysis, signal: HostView, spectrum: HostView, total: HostArray
) -> None:
    """Add, over all frames, conj(frame) times the inverse transform of its spectrum to ``total``.

    Args:
        analysis: the one whose window is differentiated.
        signal: array of shape (rows, samples), any strides.
        spectrum: array of shape (rows, frames, bins), any strides.
        total: shape (n_fft,), double precision. Within a block frames are summed in single
            precision.
    """

    def correlate(frames: Any, target: Target, stream: Any) -> Part:
        values = copy_to_mlx(runtime.mx, spectrum.block(spectrum.array[target]))
        return Part(maps.correlate(runtime.mx, analysis, frames, values, stream), total, add=True)

    _run_frames(runtime, analysis.params, signal, correlate)


def _split_blocks(shares: tuple[Share, ...], block_frames: int) -> Iterator[tuple[int, int, int]]:
    """Yield each block of the shares: its row, its first frame, its number of frames."""
    for share in shares:
        for first in range(share.first, share.last, block_frames):
            yield share.row, first, min(block_frames, share.last - first)


def istft_blocks(
    runtime: Runtime,
    params: IstftParams,
    spectrum: HostView,
    window: Any,
    inverse: HostArray | None,
    out: HostArray,
    *,
    edge: float = 1.0,
    both_halves: bool = False,
) -> None:
    """Write the signal of ``spectrum`` into ``out``.

    With a small hop many frames meet in each sample, and would be added in as many tiny pieces. In
    that case every ``stride``-th frame is part of one inverse transform of a larger hop, and the
    ``stride`` signals, each a hop later than the one before, are added.

    Args:
        spectrum: array of shape (rows, frames, bins), any strides.
        window: MLX array of shape (n_fft,), or None.
        inverse: rows of the inverse envelope of this call (:class:`.Envelope`); None for the plain
            overlap-add, the adjoint of an analysis.
        out: shape (rows, output length), contiguous.
        edge, both_halves: as in :func:`.mlx.ops.invert_spectra`.
    """
    stride = -(-params.overlap // MAX_OVERLAP)
    out[:, params.kept if stride == 1 else 0 :] = 0
    for phase in range(min(stride, params.frames)):
        passing = _Pass(
            runtime.mx, params, spectrum, window, inverse, out, stride, phase, edge, both_halves
        )
        if not passing.hops:
            continue  # this phase begins behind the kept range
        cut = cut_frames(
            params.rows,
            len(passing.hops),
            params.n_fft,
            8 if params.return_complex else 4,
            _streams(runtime),
            halo=passing.overlap - 1,
        )
        _run(runtime, cut, partial(passing.blocks, cut.block_frames))


def adjoint_blocks(
    runtime: Runtime, analysis: Analysis, spectrum: HostView, window: Any, out: HostArray
) -> None:
    """Write the adjoint of ``spectrum`` into ``out``.

    Args:
        spectrum: array of shape (rows, frames, bins), any strides.
        window: MLX array of shape (n_fft,), times the analysis' inverse scale, conjugated.
        out: shape (rows, samples), contiguous, complex64 where the frames are complex.
    """
    params = analysis.params
    covered = (params.frames - 1) * params.hop_length + params.n_fft

    def add_up(start: int, target: HostArray) -> None:
        """The overlap-add from ``start`` on; zeros behind what the frames cover."""
        istft_blocks(
            runtime,
            describe_synthesis(analysis, start, min(target.shape[1], covered - start)),
            spectrum,
            window,
            None,
            target,
            edge=analysis.inverse_edge,
            both_halves=analysis.both_halves,
        )

    add_up(params.padding, out)
    for side in padded_sides(params):
        start = side + params.padding
        if start < covered:
            fallen = np.empty((params.rows, params.padding), out.dtype)
            add_up(start, fallen)
            with np.errstate(all="ignore"):  # torch does not warn when a sum becomes infinite
                first, values = fold_side(params, side, fallen)
                out[:, first : first + values.shape[1]] += values


class _Pass:
    """The inverse transform of frames ``phase, phase + stride, ...``, added to ``out``.

    A pass counts frames, hops and rows of the envelope on a grid of its own: hops of ``stride *
    hop_length`` samples that begin ``phase * hop_length`` samples into the signal.
    """

    def __init__(
        self,
        mx: Any,
        params: IstftParams,
        spectrum: HostView,
        window: Any,
        inverse: HostArray | None,
        out: HostArray,
        stride: int,
        phase: int,
        edge: float,
        both_halves: bool,
    ) -> None:
        self.mx, self.params, self.window, self.inverse, self.out = mx, params, window, inverse, out
        self.spectrum, self.stride, self.phase = spectrum, stride, phase
        self.edge, self.both_halves = edge, both_halves
        whole = params.return_complex or both_halves
        bins = params.n_fft if whole else params.n_fft // 2 + 1
        self.values = spectrum.array[:, phase::stride, :bins]
        self.hop = stride * params.hop_length
        self.overlap = -(-params.n_fft // self.hop)
        #: Samples from the pass's first hop to the first kept sample; may be negative.
        self.skipped = params.start - phase * params.hop_length
        first = max(0, self.skipped) // self.hop
        last = min(
            self.values.shape[1] + self.overlap - 1,
            -(-(self.skipped + params.kept) // self.hop),
        )
        #: The hops that hold kept samples.
        self.hops = range(first, max(first, last))
        self._inverses: dict[tuple[int, int] | None, Any] = {}

    def blocks(self, block_hops: int, shares: tuple[Share, ...], stream: Any) -> Iterator[Part]:
        """The blocks of one stream; shares count hops from the first one of :attr:`hops`."""
        mx, params = self.mx, self.params
        # MLX copies what it imports, so one buffer serves all blocks; a new one for each would
        # fault its pages in each time.
        meeting = block_hops + self.overlap - 1
        buffer = np.empty((meeting, self.values.shape[2]), self.values.dtype)
        for row, begin, count in _split_blocks(shares, block_hops):
            first = self.hops[begin]
            frames = maps.invert_spectra(
                mx,
                self._add_meeting(row, first, count, buffer),
                self.window,
                params.n_fft,
                not params.return_complex,
                stream,
                edge=self.edge,
                both_halves=self.both_halves,
            )
            signal = maps.overlap_add(mx, frames, self.hop, stream)
            if self.inverse is not None:
                inverse = self._inverse_rows(self.inverse, first, count)
                signal = mx.multiply(signal, inverse, stream=stream)
            at = first * self.hop - self.skipped
            lo, hi = max(at, 0), min(at + count * self.hop, params.kept)
            yield Part(signal, self.out[row, lo:hi], lo - at, add=self.stride > 1)

    def _add_meeting(self, row: int, first: int, count: int, buffer: HostArray) -> Any:
        """Return in MLX the spectra of frames that meet in hops ``first ...``; zeros for none."""
        begin, end = first - (self.overlap - 1), first + count
        inner_begin, inner_end = max(begin, 0), min(end, self.values.shape[1])
        inside = self.values[row, inner_begin:inner_end]
        whole = (inner_begin, inner_end) == (begin, end)
        if whole and inside.flags.c_contiguous and not self.spectrum.unresolved:
            return copy_to_mlx(self.mx, inside)
        buffer = buffer[: end - begin]
        buffer[: inner_begin - begin] = 0
        buffer[inner_end - begin :] = 0
        self.spectrum.copy_block(inside, buffer[inner_begin - begin : inner_end - begin])
        return copy_to_mlx(self.mx, buffer)

    def _inverse_rows(self, rows: HostArray, first: int, count: int) -> Any:
        """Return the inverse envelope of the hops ``first ...``: one row where all are alike."""
        overlap, frames = self.params.overlap, self.params.frames
        begin = first * self.stride + self.phase
        end = begin + count * self.stride
        alike = begin >= overlap - 1 and end <= frames
        # Every row of the signal has the same blocks, so they share these arrays.
        key = None if alike else (first, count)
        if key not in self._inverses:
            if alike:
                inverse = np.tile(rows[overlap - 1], self.stride)
            else:
                hops = row_of_hop(np.arange(begin, end), frames, overlap)
                inverse = rows[np.minimum(hops, len(rows) - 1)]
                inverse = inverse.reshape(count, self.hop)
            self._inverses[key] = copy_to_mlx(self.mx, inverse)
        return self._inverses[key]


def _streams(runtime: Runtime) -> int:
    """Return the number of streams: as many as torch would use threads."""
    return min(len(runtime.streams), threads())
