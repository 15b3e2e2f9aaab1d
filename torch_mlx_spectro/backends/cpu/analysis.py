"""Spectra of a signal's frames, block by block, by torch's own FFT."""

from __future__ import annotations

from itertools import pairwise

import torch

from ...core.linear import Analysis
from ...core.params import StftParams
from . import mkl
from .blocks import Block, compute_blocks, count_frame_bytes, cut_blocks, find_cache_size
from .frames import cover_samples, find_unpadded, invert_frames, weigh_edges
from .windows import Inverse

Optional = torch.Tensor | None


def transform_frames(
    params: StftParams,
    frames: torch.Tensor,
    window: Optional,
    out: torch.Tensor,
    *,
    is_copied: bool = False,
) -> None:
    """Write the spectra of frames.

    Args:
        out: shape (rows, frames, bins), any strides.
        is_copied: they are written to other memory first.
    """
    windowed = frames if window is None else frames * window
    if not params.onesided:
        torch.fft.fft(windowed, out=out)
    elif is_copied or not mkl.transform(windowed, out):
        torch.fft.rfft(windowed, out=out)


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

    def prepare(block: Block) -> tuple[Block, Optional, torch.Tensor]:
        spectrum = out[block.rows, block.first : block.last]
        is_view = inverse is None and within[0] <= block.first and block.last <= within[1]
        return block, _cut_frames(params, signal, block, inverse) if is_view else None, spectrum

    def analyse(part: tuple[Block, Optional, torch.Tensor]) -> None:
        block, frames, spectrum = part
        if frames is None:
            frames = _cut_frames(params, signal, block, inverse)
        transform_frames(params, frames, window, spectrum, is_copied=is_copied)
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
    # A transform writes memory that is not in the cache more slowly than a copy: on an EPYC with 32
    # MiB of cache results of 60 MiB took a tenth longer without it, those of 20 MiB a twentieth.
    is_copied = 2 * size > find_cache_size()
    compute_blocks([prepare(block) for block in blocks], analyse, size)


def analyse_at_once(
    params: StftParams, signal: torch.Tensor, window: Optional, edge: float = 1.0
) -> torch.Tensor:
    """The spectrum of a signal of one block, shape (rows, frames, bins), contiguous.

    Args:
        signal, window, edge: see :func:`analyse_blocks`.
    """
    block = Block(slice(0, params.rows), 0, params.frames)
    frames = _cut_frames(params, signal, block, None)
    dtype = frames.dtype if window is None else torch.promote_types(frames.dtype, window.dtype)
    spectrum = frames.new_empty((*frames.shape[:2], params.bins), dtype=dtype.to_complex())
    transform_frames(params, frames, window, spectrum)
    weigh_edges(params, spectrum, edge)
    return spectrum


def _cut_frames(
    params: StftParams, signal: torch.Tensor, block: Block, inverse: Inverse | None
) -> torch.Tensor:
    """The frames of a block, shape (rows, frames, n_fft), which share samples."""
    count = block.last - block.first
    covered = cover_samples(params, signal[block.rows], block.first, count)
    covered = covered.resolve_conj().resolve_neg()
    if inverse is not None:
        begin = block.first * params.hop_length
        covered = covered * inverse.find(begin, begin + covered.shape[1])
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
    compute_blocks(range(len(blocks)), correlate, size)
    return sums.sum(0)
