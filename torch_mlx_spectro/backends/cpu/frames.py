"""Frames of the padded signal, and their transforms back, in torch's own operations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import pad

from ...core.linear import own_conjugates
from ...core.padding import find_sources
from ...core.params import IstftParams, StftParams


def resolve(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor apart from autograd, with the values in memory that it shows."""
    return tensor.detach().resolve_conj().resolve_neg()


def find_unpadded(params: StftParams) -> tuple[int, int]:
    """Frames that reach beyond neither end of the signal: the first, the one behind the last."""
    hop, inside = params.hop_length, params.samples - params.n_fft + params.padding
    first = -(-params.padding // hop)
    return first, max(first, min(params.frames, inside // hop + 1))


def cover_samples(params: StftParams, signal: torch.Tensor, first: int, count: int) -> torch.Tensor:
    """The padded samples that frames ``first ... first + count - 1`` cover.

    Args:
        signal: shape (rows, samples).

    Returns:
        Shape (rows, (count - 1) * hop_length + n_fft), or a little more of a whole row; a view of
        the signal where none is padded.
    """
    begin = first * params.hop_length - params.padding
    end = begin + (count - 1) * params.hop_length + params.n_fft
    left, right = max(0, -begin), max(0, end - params.samples)
    inside = signal[:, max(begin, 0) : min(end, params.samples)]
    if left == right == 0:
        return inside
    if params.pad_mode == "constant":
        return pad(inside, (left, right))
    if count == params.frames and right <= params.padding:
        return pad(signal, (left, right), params.pad_mode)
    parts = [inside]
    if left:
        parts.insert(0, _repeat_samples(params, signal, begin, min(end, 0)))
    if right:
        parts.append(_repeat_samples(params, signal, max(begin, params.samples), end))
    return torch.cat(parts, dim=1)


def _repeat_samples(params: StftParams, signal: torch.Tensor, begin: int, end: int) -> torch.Tensor:
    """What padding puts at these positions, of one side of the signal: samples, repeated."""
    side = -params.padding if begin < 0 else params.samples
    first, step = find_sources(params, side)
    at, count = first + step * (begin - side), end - begin
    if step > 0:
        return signal[:, at : at + count]
    if step == 0:
        return signal[:, at : at + 1].expand(-1, count)
    return signal[:, at - count + 1 : at + 1].flip(1)


def weigh_edges(params: StftParams, by_frames: torch.Tensor, edge: float) -> None:
    """Multiply, in place, the bins of a onesided spectrum that are their own conjugates.

    Args:
        by_frames: shape (..., bins).
    """
    if params.onesided and edge != 1.0:
        for own in own_conjugates(params.n_fft):
            by_frames[..., own] *= edge


def invert_frames(
    params: StftParams | IstftParams,
    by_frames: torch.Tensor,
    edge: float = 1.0,
    both_halves: bool = False,
    inverse_real: Callable[[torch.Tensor, int], torch.Tensor] | None = None,
) -> torch.Tensor:
    """The inverse transform of every frame, shape (rows, frames, n_fft).

    Args:
        by_frames: shape (rows, frames, bins), its bits resolved.
        edge: factor of DC and Nyquist of real frames.
        both_halves: real frames of all bins: the real part of the sum.
        inverse_real: in the place of ``torch.fft.irfft``.
    """
    if params.complex_fft or both_halves:
        frames: torch.Tensor = torch.fft.ifft(by_frames)
        return frames if params.complex_fft else frames.real
    half = by_frames[..., : params.n_fft // 2 + 1].clone(memory_format=torch.contiguous_format)
    for own in own_conjugates(params.n_fft):
        # Their imaginary parts belong to no real frame; not every transform ignores them.
        half[..., own] = half[..., own].real * edge
    return (inverse_real or torch.fft.irfft)(half, params.n_fft)
