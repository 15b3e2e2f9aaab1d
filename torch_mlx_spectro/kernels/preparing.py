"""The launch that makes, of a real analysis window, what the other kernels read of it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from ..params import NOLA_THRESHOLD, IstftParams
from .describe import Launch, in_order
from .launches import bits_of

#: Threads of a group: few, as all groups run at once, each thread for a moment.
GROUP = 128
#: Floats to whose multiple the envelope is aligned: the bus width of a GPU.
_ALIGNMENT = 32


@dataclass(frozen=True)
class Preparation:
    """A launch, and where in its output what is.

    Attributes:
        rows_at: where the rows of the inverse envelope begin.
        columns: of the rows; 0 where there are none.
    """

    launch: Launch
    rows_at: int
    columns: int

    @property
    def verdicts(self) -> int:
        """How many the launch writes: one on each column, or one if there are none."""
        return self.columns or 1


@lru_cache(maxsize=256)
def preparation(
    win_length: int, n_fft: int, factor: float, params: IstftParams | None = None
) -> Preparation:
    """What makes ``n_fft`` padded values times ``factor``, and the inverse envelope of a call.

    Args:
        params: of an istft whose inverse envelope is wanted, too.
    """
    rows_at = -(-n_fft // _ALIGNMENT) * _ALIGNMENT
    hop = overlap = frames = rows = 0
    start, end, scale = (0, 0), (0, 0), 1.0
    if params is not None:
        hop, overlap, frames = params.hop_length, params.overlap, params.frames
        start, end = divmod(params.start, hop), divmod(params.start + params.kept, hop)
        scale = params.scale
        rows = min(frames + overlap - 1, 2 * overlap - 1)
    launch = Launch(
        kernel="prepare_window",
        template=(),
        integers=in_order(
            "window.h",
            "WindowParameter",
            length=win_length,
            left=(n_fft - win_length) // 2,
            n_fft=n_fft,
            hop=hop,
            frames=frames,
            overlap=overlap,
            start_hops=start[0],
            start_rest=start[1],
            end_hops=end[0],
            end_rest=end[1],
            rows=rows_at,
            factor=bits_of(factor),
            factor_rest=_rest(factor),
            scale=bits_of(scale),
            scale_rest=_rest(scale),
            threshold=bits_of(NOLA_THRESHOLD),
        ),
        grid=(max(hop, 1) + rows_at + rows * hop, 1, 1),
        threadgroup=(GROUP, 1, 1),
        shape=(rows_at + rows * hop,),
        complex_output=False,
    )
    return Preparation(launch, rows_at, hop)


def _rest(value: float) -> int:
    """The bits of what single precision lacks of a value."""
    (nearest,) = struct.unpack("=f", struct.pack("=f", value))
    return bits_of(value - nearest)
