"""Blocks of frames that fit the processor's cache, and who computes them.

No frame matrix of a whole call exists: in flight is one block for each of torch's threads, its
spectrum and what of it is added up. A short row is one block together with others, a long one is
cut. Torch's threads share each operation, or take whole blocks of a long call (:mod:`.threads`).
Then they hold Python's lock for each operation's first microseconds and wait for each other there,
so that operations are few and views are made before.

Blocks of 256 KiB lose everywhere, since torch's FFT makes its plan anew for each, and blocks of
8 MiB a thread leave the cache.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from ...core.params import IstftParams, StftParams
from .threads import Part, find_team, share

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
    size = find_block_size(rows * frames * frame_bytes)
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
    return size <= find_block_size(size)


def find_block_size(size: int) -> int:
    """The bytes of the largest block of a call of this size."""
    if _takes_whole_blocks(size):
        return BLOCK_BYTES
    return BLOCK_BYTES * min(torch.get_num_threads(), MAX_GROWTH)


@lru_cache(maxsize=1)
def find_cache_size() -> int:
    """The bytes of the last cache; more than any memory where the system does not tell."""
    try:
        size = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
        return int(size.removesuffix("K")) << 10
    except (OSError, ValueError):
        return sys.maxsize


def _takes_whole_blocks(size: int) -> bool:
    """Whether threads take whole blocks of a call of this size; else they share each operation."""
    long = LONG_BYTES.get(torch.get_num_threads())
    return long is not None and size > long and find_team() is not None


def compute_blocks(parts: Sequence[Part], work: Callable[[Part], None], size: int) -> None:
    """Do the work on what was prepared of all blocks of a call of this size."""
    if _takes_whole_blocks(size):
        share(parts, work)
        return
    for part in parts:
        work(part)


def count_frame_bytes(params: StftParams | IstftParams, dtype: torch.dtype) -> int:
    """The bytes of one frame of a spectrum of this dtype."""
    item = dtype.itemsize
    # What lies between frames is copied with them where they are padded.
    return max(params.n_fft, params.hop_length // 4) * (item if params.complex_fft else item // 2)
