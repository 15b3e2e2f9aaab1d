"""Parts of a call that are calls themselves, by which a large call is compared.

A frame of an stft depends on its own samples alone, so frames of native's answer to a piece of the
signal are frames of the answer to the whole. Samples of an istft depend on the frames that cover
them. The beginning, middle and end of the first, the middle and the last row are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from ..core.params import IstftParams, StftParams

#: Samples in the frames of a part, and a part's frames, in frames over a sample, at least.
FRAMED_SAMPLES = 1 << 20
LEAST_OVERLAPS = 4


class Excerpt(NamedTuple):
    """A call on a part of the input.

    Attributes:
        given: its arguments by name.
        dim: of results, along which they are compared.
        begin, length: where in its result.
        at: where in the result of the whole.
        rows: of the whole.
    """

    given: dict[str, Any]
    dim: int
    begin: int
    length: int
    at: int
    rows: slice | None = None

    def cut_part(self, result: torch.Tensor) -> torch.Tensor:
        """Cut out of the part's result what is compared."""
        return result.narrow(self.dim, self.begin, self.length)

    def cut_whole(self, result: torch.Tensor) -> torch.Tensor | None:
        """Cut out of the whole result what it is compared with; None if there is no such part."""
        if result.dim() < -self.dim or result.shape[self.dim] < self.at + self.length:
            return None
        rows = result if self.rows is None else result[self.rows]
        return rows.narrow(self.dim, self.at, self.length)


def cut_excerpts(params: StftParams | IstftParams, bound: Mapping[str, Any]) -> Iterator[Excerpt]:
    """Cut parts out of a decided call; none if they would be calls of another kind.

    Args:
        bound: the call's arguments by name.
    """
    if bound.get("align_to_window") is not None:
        return
    given = {name: value for name, value in bound.items() if value is not None}
    tensor = given.pop("input")
    for rows in _choose_rows(params):
        row = tensor if rows is None else tensor[rows]
        for first, last in _choose_frames(params):
            if isinstance(params, StftParams):
                found = _cut_stft(params, given, row, (first, last))
            else:
                found = _cut_istft(params, given, row, (first, last))
            if found is not None:
                yield found._replace(rows=rows)


def _choose_rows(params: StftParams | IstftParams) -> list[slice | None]:
    if not params.batched:
        return [None]
    chosen = {0, params.rows // 2, params.rows - 1}
    return [slice(row, row + 1) for row in sorted(chosen)]


def _choose_frames(params: StftParams | IstftParams) -> list[tuple[int, int]]:
    """Frames of each part, from the first to behind the last."""
    overlap = -(-params.n_fft // params.hop_length)
    count = max(LEAST_OVERLAPS * overlap, FRAMED_SAMPLES // params.n_fft)
    if params.frames <= 3 * count:
        return [(0, params.frames)]
    middle = (params.frames - count) // 2
    return [(0, count), (middle, middle + count), (params.frames - count, params.frames)]


def _cut_stft(
    params: StftParams, given: dict[str, Any], row: torch.Tensor, frames: tuple[int, int]
) -> Excerpt | None:
    """Some frames of a row."""
    first, last = frames
    hop, n_fft, padding = params.hop_length, params.n_fft, params.padding
    dim = -1 if params.return_complex else -2
    begin, end = first * hop - padding, (last - 1) * hop - padding + n_fft
    skipped = 0  # hops of the signal before the part
    if (first, last) == (0, params.frames):
        part = row
    elif begin >= 0 and end <= params.samples:
        part, given = row[..., begin:end], given | {"center": False}
        skipped = first
    elif params.pad_mode == "circular":
        return None  # pads with what is at the other end
    elif first == 0:
        part = row[..., : max(end, padding + n_fft)]
    else:
        skipped = max(0, first - -(-padding // hop))
        part = row[..., skipped * hop :]
    return Excerpt(given | {"input": part}, dim, first - skipped, last - first, first)


def _cut_istft(
    params: IstftParams, given: dict[str, Any], row: torch.Tensor, frames: tuple[int, int]
) -> Excerpt | None:
    """The samples that depend on none but some frames of a row."""
    first, last = frames
    hop, start = params.hop_length, params.start
    # Positions count from the first frame's first sample.
    low = start if first == 0 else max((first + params.overlap - 1) * hop, first * hop + start)
    covered = (last - 1) * hop + params.n_fft - start
    high = min(covered if last == params.frames else last * hop, covered, start + params.kept)
    if high <= low:
        return None
    part = {name: value for name, value in given.items() if name != "length"}
    part["input"] = row[..., first:last]
    return Excerpt(part, -1, low - first * hop - start, high - low, low - start)
