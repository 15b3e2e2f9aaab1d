"""What each kernel of ``metal_src`` reads and writes, by the names in its body."""

from __future__ import annotations

#: Buffers in order, and ``edge``, a number.
INPUTS = {
    "analysis": ("signal", "window", "envelope", "table", "parameters", "edge"),
    "synthesis": ("spectrum", "window", "envelope", "table", "parameters", "edge"),
    "synthesis_walk": ("spectrum", "window", "envelope", "table", "parameters", "edge"),
    "cut_frames": ("signal", "window", "parameters"),
    "add_frames": ("frames", "window", "envelope", "parameters"),
    "prepare_window": ("window", "parameters"),
}
OUTPUTS: dict[str, tuple[str, ...]] = {
    "analysis": ("spectrum",),
    "synthesis": ("signal",),
    "synthesis_walk": ("signal",),
    "cut_frames": ("frames",),
    "add_frames": ("signal",),
    "prepare_window": ("prepared", "vanishes"),
}
#: Headers by kernel; the rest of what they need they include.
HEADERS = {
    "analysis": ("element.h",),
    "synthesis": ("element.h",),
    "synthesis_walk": ("element.h",),
    "cut_frames": ("framing.h", "element.h"),
    "add_frames": ("framing.h", "element.h"),
    "prepare_window": ("window.h",),
}
