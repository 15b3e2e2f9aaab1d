"""What each kernel of ``metal_src`` reads and writes, by the names in its body."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

#: Buffers in order, and ``edge``, a number.
INPUTS = MappingProxyType(
    {
        "analysis": ("signal", "window", "table", "parameters", "edge"),
        "synthesis": ("spectrum", "window", "table", "parameters", "edge"),
        "synthesis_walk": ("spectrum", "window", "table", "parameters", "edge"),
        "cut_frames": ("signal", "window", "parameters"),
        "add_frames": ("frames", "window", "parameters"),
    }
)
OUTPUTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "analysis": ("spectrum",),
        "synthesis": ("signal",),
        "synthesis_walk": ("signal",),
        "cut_frames": ("frames",),
        "add_frames": ("signal",),
    }
)
#: Where a kernel writes its verdict on an envelope: an integer, or a null pointer.
VANISHING = "vanishing"
#: The kernels that check an envelope.
CHECKING_KERNELS = ("synthesis", "synthesis_walk", "add_frames")
#: Headers by kernel; these include all others that the kernel needs.
HEADERS = MappingProxyType(
    {
        "analysis": ("analysis.h", "element.h"),
        "synthesis": ("synthesis.h", "element.h"),
        "synthesis_walk": ("synthesis_walk.h",),
        "cut_frames": ("framing.h", "element.h"),
        "add_frames": ("framing.h", "element.h"),
    }
)


class Verdict(IntEnum):
    """A kernel's verdict on an envelope (envelope.h); ``FINE`` is the last that a launch writes."""

    NOT_TOLD, VANISHES, FINE, NOBODY_ASKS = range(4)
