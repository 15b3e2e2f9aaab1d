"""The envelope of :mod:`.core.envelope`, of windows that are tensors."""

from __future__ import annotations

import torch

from ..core.envelope import resolve_envelope
from ..core.params import IstftParams
from ..errors import UnresolvedArguments
from ..store.caches import cached

#: What is left to torch, which raises its own exception.
VANISHES = "the overlap-added square of the window vanishes"


def check_envelope(params: IstftParams, window: torch.Tensor | None) -> None:
    """Check the envelope of a call by the window's values; waits for its device.

    Raises:
        UnresolvedArguments: it vanishes at a sample that is kept.
    """
    if window is None:
        vanishes = _vanishes_without_window(params)
    else:
        values = window.detach().to("cpu", copy=True).resolve_conj().resolve_neg()
        vanishes = resolve_envelope(values.numpy(), params).vanishes(params)
    if vanishes:
        raise UnresolvedArguments(VANISHES)


@cached(128)
def _vanishes_without_window(params: IstftParams) -> bool:
    return resolve_envelope(None, params).vanishes(params)


def inverse_envelope(params: IstftParams, window: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The inverse of the overlap-added squared window, shape (kept,); torch differentiates it.

    In double precision; on the host where the device has no doubles: it is made of n_fft values.

    Args:
        dtype: of the signal that it multiplies; the result is of no less precision.
    """
    wide = torch.complex128 if window.is_complex() else torch.float64
    hop, overlap, frames = params.hop_length, params.overlap, params.frames
    right = overlap * hop - params.window_left - params.win_length
    # CUDA's cumsum is refused where a program asks for deterministic algorithms.
    on_device = window.is_cuda and not torch.are_deterministic_algorithms_enabled()
    device = window.device if on_device else "cpu"
    full = torch.nn.functional.pad(window.to(device, wide), (params.window_left, right))
    squares = (full * full).reshape(overlap, hop)
    if frames < overlap:
        gaps = torch.nn.functional.pad(squares, (0, 0, frames - 1, frames - 1))
        rows = gaps.unfold(0, frames, 1).sum(-1)
    else:
        head = squares.cumsum(0)
        tail = squares.flip(0).cumsum(0).flip(0)[1:]
        alike = head[-1:].expand(frames - overlap + 1, hop)
        rows = torch.cat([head[:-1], alike, tail])
    # Zeros lie outside the kept samples; an infinity there would make gradients undefined.
    inverse = params.scale / torch.where(rows == 0, torch.ones_like(rows), rows)
    kept = inverse.flatten()[params.start : params.start + params.kept]
    # Compilers cannot read torch.promote_types.
    is_double = dtype in (torch.float64, torch.complex128)
    return kept.to(window.device, wide if is_double else window.dtype)
