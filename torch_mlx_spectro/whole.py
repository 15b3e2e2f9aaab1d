"""Both transforms on whole MLX arrays: for tensors that live on an MLX GPU.

A GPU needs no blocks to stay in a cache, and fused kernels will replace these operations there;
until then, and for arguments that kernels do not cover, this is the computation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import maps
from .bridge import copy_to_mlx
from .envelope import Envelope, row_of_hop
from .framing import outside_positions
from .params import IstftParams, StftParams


def stft_whole(mx: Any, params: StftParams, signal: Any, window: Any, stream: Any) -> Any:
    """Spectrum of shape (rows, frames, bins), lazily.

    Args:
        signal: MLX array of shape (rows, samples), contiguous.
        window: MLX array of shape (n_fft,) with the call's scale folded in, or None.
    """
    return maps.analysis(
        mx,
        _padded(mx, params, signal, stream),
        window,
        frames=params.frames,
        n_fft=params.n_fft,
        hop_length=params.hop_length,
        onesided=params.onesided,
        complex_fft=params.complex_fft,
        stream=stream,
    )


def _padded(mx: Any, params: StftParams, signal: Any, stream: Any) -> Any:
    if not params.padding:
        return signal
    if params.pad_mode == "constant":
        pads = [(0, 0), (params.padding, params.padding)]
        return mx.pad(signal, pads, stream=stream)
    sides = []
    for begin in (-params.padding, params.samples):
        outside = np.arange(begin, begin + params.padding, dtype=np.int64)
        inside = outside_positions(outside, params.samples, params.pad_mode)
        sides.append(mx.take(signal, copy_to_mlx(mx, inside), axis=1, stream=stream))
    return mx.concatenate([sides[0], signal, sides[1]], axis=1, stream=stream)


def istft_whole(
    mx: Any, params: IstftParams, spectrum: Any, window: Any, envelope: Envelope, stream: Any
) -> Any:
    """Signal of shape (rows, output length), lazily.

    Args:
        spectrum: MLX array of shape (rows, frames, bins).
        window: MLX array of shape (n_fft,), or None.
    """
    real = not params.return_complex
    if real and not params.onesided:
        positive = mx.arange(params.n_fft // 2 + 1, stream=stream)
        spectrum = mx.take(spectrum, positive, axis=2, stream=stream)
    frames = maps.windowed_frames(mx, spectrum, window, params.n_fft, real, stream)
    # overlap - 1 silent frames before each row, and once behind the last, keep rows apart.
    silent = params.overlap - 1
    hops = params.frames + silent
    frames = mx.pad(frames, [(0, 0), (silent, 0), (0, 0)], stream=stream)
    frames = mx.reshape(frames, (params.rows * hops, params.n_fft), stream=stream)
    frames = mx.pad(frames, [(0, silent), (0, 0)], stream=stream)
    added = maps.overlap_add(mx, frames, params.hop_length, stream)
    added = mx.reshape(added, (params.rows, hops, params.hop_length), stream=stream)
    rows = row_of_hop(np.arange(hops), params.frames, params.overlap)
    inverse = mx.take(copy_to_mlx(mx, envelope.rows), copy_to_mlx(mx, rows), axis=0, stream=stream)
    signal = mx.reshape(
        mx.multiply(added, inverse, stream=stream), (params.rows, -1), stream=stream
    )
    kept = mx.arange(params.start, params.start + params.kept, stream=stream)
    signal = mx.take(signal, kept, axis=1, stream=stream)
    return mx.pad(signal, [(0, 0), (0, params.zero_tail)], stream=stream)
