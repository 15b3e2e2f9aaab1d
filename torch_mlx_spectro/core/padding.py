"""Which samples of the signal a run of frames covers: the padding map, on host memory.

Padded position ``p`` (0 is the first padded sample) reads signal position ``p - padding`` inside
the signal; outside it, by mode, with ``t = samples``:

=========  ==========================================  =======================================
constant   zero                                        zero
reflect    ``-q``            for ``q < 0``              ``2 (t - 1) - q``   for ``q >= t``
replicate  ``0``             for ``q < 0``              ``t - 1``           for ``q >= t``
circular   ``q + t``         for ``q < 0``              ``q - t``           for ``q >= t``
=========  ==========================================  =======================================

with ``q = p - padding``: the definitions of ``torch.nn.functional.pad``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .params import StftParams

Samples = npt.NDArray[Any]


def outside_positions(positions: npt.NDArray[np.int64], samples: int, mode: str) -> Any:
    """Map signal positions before 0 or from ``samples`` on to positions inside the signal.

    Args:
        positions: signal positions, all of them outside ``0 ... samples - 1``.
        samples: length of the signal. For reflect it must exceed the overhang; for circular it must
            be at least the overhang.
        mode: ``"reflect"``, ``"replicate"`` or ``"circular"``.
    """
    if mode == "reflect":
        mirrored = np.abs(positions)
        return np.where(mirrored >= samples, 2 * (samples - 1) - mirrored, mirrored)
    if mode == "replicate":
        return np.clip(positions, 0, samples - 1)
    if mode == "circular":
        return positions % samples
    raise ValueError(f"mode must be reflect, replicate or circular; got {mode!r}")


def padded_sides(params: StftParams) -> tuple[int, ...]:
    """Return the positions where padding begins that repeats samples; none if it is zeros."""
    repeats = params.padding and params.pad_mode != "constant"
    return (-params.padding, params.samples) if repeats else ()


def find_sources(params: StftParams, start: int) -> tuple[int, int]:
    """Find the signal positions that the padding of one side repeats.

    Args:
        start: where the padding begins, of :func:`padded_sides`.

    Returns:
        The position that the padding begins with, and the step to the next: 1, -1 or 0.
    """
    is_left, last = start < 0, params.samples - 1
    if params.pad_mode == "reflect":
        return params.padding if is_left else last - 1, -1
    if params.pad_mode == "replicate":
        return 0 if is_left else last, 0
    return params.samples - params.padding if is_left else 0, 1


def fold_side(params: StftParams, start: int, fallen: Any) -> tuple[int, Any]:
    """Compute the adjoint of the padding of one side, for arrays of numpy and of MLX.

    Args:
        start: where the padding begins, of :func:`padded_sides`.
        fallen: the values on the padding, shape (rows, padding).

    Returns:
        A signal position, and what is to be added to the samples from there on.
    """
    first, step = find_sources(params, start)
    if step == 0:
        return first, fallen.sum(axis=1, keepdims=True)
    return (first, fallen) if step > 0 else (first - params.padding + 1, fallen[:, ::-1])


def covered_samples(row: Samples, params: StftParams, first: int, count: int) -> Samples:
    """Return the padded samples that frames ``first ... first + count - 1`` cover.

    Args:
        row: one row of the signal, shape (samples,), any stride.
        params: the resolved call.
        first: first frame.
        count: number of frames, at least one.

    Returns:
        Shape ``((count - 1) * hop_length + n_fft,)``; a view of ``row`` where nothing is padded.
    """
    begin = first * params.hop_length - params.padding
    end = begin + (count - 1) * params.hop_length + params.n_fft
    if begin >= 0 and end <= params.samples:
        return row[begin:end]
    inner_begin, inner_end = max(begin, 0), min(end, params.samples)
    covered = np.zeros(end - begin, row.dtype)
    if inner_end > inner_begin:
        covered[inner_begin - begin : inner_end - begin] = row[inner_begin:inner_end]
    if params.pad_mode != "constant":
        for lo, hi in ((begin, min(end, 0)), (max(begin, params.samples), end)):
            if hi > lo:
                outside = np.arange(lo, hi, dtype=np.int64)
                positions = outside_positions(outside, params.samples, params.pad_mode)
                covered[lo - begin : hi - begin] = row[positions]
    return covered
