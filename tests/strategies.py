"""Hypothesis strategies that draw calls of torch.stft and torch.istft over every argument.

Categories are drawn (sizes, layouts, contents, how an argument is passed), values come from a
drawn seed: a draw stays cheap and shrinks towards plain contiguous noise. About a quarter of the
draws carry a fault. Whether torch rejects a call is always torch's to say; the faults and sizes
here only make sure that both kinds occur.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
from small_calls import UNUSUAL

from stft_parity.cases import PARAMETERS, Case
from stft_parity.cases.faults import ISTFT_FAULTS, STFT_FAULTS, Changes

Draw = Callable[[st.SearchStrategy[Any]], Any]
Shape = tuple[int, ...]

SMALL_SIZES = [8, 16, 1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 15, 20, 21, 25, 30, 31, 32, 35, 49, 60, 64]
LARGE_SIZES = [63, 81, 97, 100, 101, 125, 128, 210, 243, 256, 343, 360, 400, 509, 512, 1000]
HUGE_SIZES = [1009, 1024, 1155, 1536, 2047, 2048]
SIZES = 6 * SMALL_SIZES + 2 * LARGE_SIZES + HUGE_SIZES

PAD_MODES = ["reflect", "constant", "replicate", "circular"]
CONTENTS = [*8 * ["noise"], "zeros", "impulse", "constant", "tone", "tiny", "giant", "not finite"]
NOT_FINITE = ["nan", "inf", "-inf"]
SIGNAL_LAYOUTS = [
    *4 * ["contiguous"],
    "transposed",
    "every second",
    "every third",
    "sliced",
    "every second row",
    "expanded rows",
    "expanded samples",
    "overlapping rows",
    "conjugated",
    "negated",
    "part of complex",
]
SPECTRUM_LAYOUTS = [
    *3 * ["native"],
    *2 * ["contiguous"],
    "permuted",
    "every second bin",
    "every third frame",
    "sliced",
    "every second row",
    "expanded rows",
    "expanded frames",
    "native conjugated",
    "conjugated",
    "negated",
]
WINDOW_KINDS = ["hann", "hamming", "ones", "positive", "symmetric", "signed", "holes", "complex"]
WINDOW_LAYOUTS = [*4 * ["contiguous"], "strided", "sliced", "expanded", "lazy bit"]


@dataclass
class Draft:
    """A call being drawn; ``facts`` are the sizes which faults refer to."""

    op: str
    x: str
    w: str | None
    given: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)


def _one_of(draw: Draw, choices: Sequence[Any]) -> Any:
    return draw(st.sampled_from(choices))


def _content(draw: Draw, shape: Shape, complex_values: bool) -> str:
    """Expression of a contiguous tensor of this shape."""
    kind = _one_of(draw, CONTENTS)
    dtype = ", dtype=torch.complex64" if complex_values else ""
    noise = f"torch.randn({shape}{dtype}, generator=g)"
    if kind == "zeros" or 0 in shape:
        return f"torch.zeros({shape}{dtype})"
    if kind == "constant":
        return f"torch.full({shape}, {'0.75-0.5j' if complex_values else '0.75'}{dtype})"
    if kind == "tone":
        phase = f"(0.37 * torch.arange({math.prod(shape)})).reshape({shape})"
        ones = f"torch.ones({shape})"
        return f"torch.polar({ones}, {phase})" if complex_values else f"torch.sin({phase})"
    if kind in ("impulse", "not finite"):
        where = draw(st.integers(0, shape[-1] - 1))
        if kind == "impulse":
            return f"torch.zeros({shape}{dtype}).index_fill(-1, torch.tensor([{where}]), 1.0)"
        # Both parts: whether a bin that is infinite in one part leaves a sample finite depends
        # on the order in which an FFT adds, which is nobody's contract.
        value = "complex('nan+nanj')" if complex_values else f"float('{_one_of(draw, NOT_FINITE)}')"
        return f"{noise}.index_fill(-1, torch.tensor([{where}]), {value})"
    # Not further: squares and sums stay away from what float32 flushes or overflows.
    scale = {"tiny": "1e-20", "giant": "1e20"}.get(kind)
    return noise if scale is None else f"({noise} * {scale})"


def _signal(draw: Draw, shape: Shape, complex_values: bool) -> str:
    """Expression of a signal in a drawn memory layout."""
    layout = _one_of(draw, SIGNAL_LAYOUTS)
    samples = shape[-1]
    if layout == "transposed" and len(shape) == 2:
        return _content(draw, shape[::-1], complex_values) + ".t()"
    if layout in ("every second", "every third"):
        step = 2 if layout == "every second" else 3
        base = _content(draw, (*shape[:-1], step * samples), complex_values)
        return f"{base}[..., {step - 1}::{step}]"
    if layout == "sliced":
        return _content(draw, (*shape[:-1], samples + 5), complex_values) + "[..., 3:-2]"
    if layout == "every second row" and len(shape) == 2:
        return _content(draw, (2 * shape[0], samples), complex_values) + "[::2]"
    if layout == "expanded rows" and len(shape) == 2:
        return _content(draw, (1, samples), complex_values) + f".expand({shape})"
    if layout == "expanded samples":
        return _content(draw, (*shape[:-1], 1), complex_values) + f".expand({shape})"
    if layout == "overlapping rows" and len(shape) == 2:
        base = _content(draw, (samples + shape[0] - 1,), complex_values)
        return f"{base}.unfold(0, {samples}, 1)"
    return _lazy_bits(draw, layout, shape, complex_values)


def _lazy_bits(draw: Draw, layout: str, shape: Shape, complex_values: bool) -> str:
    """Views that differ from their memory by torch's conjugate or negative bit, or plain noise."""
    if layout == "conjugated" and complex_values:
        return _content(draw, shape, True) + ".conj()"
    if layout == "negated":
        if complex_values:
            return f"torch._neg_view({_content(draw, shape, True)}.conj())"
        return _content(draw, shape, True) + ".conj().imag"
    if layout == "part of complex" and not complex_values:
        return _content(draw, shape, True) + ".real"
    return _content(draw, shape, complex_values)


def _spectrum(draw: Draw, shape: Shape) -> str:
    """Expression of a complex spectrum, shape (bins, frames) or (rows, bins, frames)."""
    layout = _one_of(draw, SPECTRUM_LAYOUTS)
    *rows, bins, frames = shape
    if layout in ("native", "native conjugated"):
        base = _content(draw, (*rows, frames, bins), True) + ".transpose(-1, -2)"
        return base + (".conj()" if layout == "native conjugated" else "")
    if layout == "permuted":
        order = draw(st.permutations(range(len(shape))))
        base = _content(draw, tuple(shape[axis] for axis in order), True)
        back = tuple(order.index(axis) for axis in range(len(shape)))
        return f"{base}.permute({back})"
    if layout == "every second bin":
        return _content(draw, (*rows, 2 * bins, frames), True) + "[..., ::2, :]"
    if layout == "every third frame":
        return _content(draw, (*rows, bins, 3 * frames), True) + "[..., 1::3]"
    if layout == "sliced":
        return _content(draw, (*rows, bins + 2, frames + 3), True) + "[..., 2:, 1:-2]"
    if layout == "every second row" and rows:
        return _content(draw, (2 * rows[0], bins, frames), True) + "[1::2]"
    if layout == "expanded rows" and rows:
        return _content(draw, (1, bins, frames), True) + f".expand({shape})"
    if layout == "expanded frames":
        return _content(draw, (*rows, bins, 1), True) + f".expand({shape})"
    return _lazy_bits(draw, layout, shape, True)


def _window(draw: Draw, kind: str, length: int) -> str:
    """Expression of a window in a drawn memory layout."""
    if kind == "hann" or (kind == "symmetric" and length > 1):
        periodic = "" if kind == "hann" else ", periodic=False"
        return _laid_out(draw, lambda n: f"torch.hann_window({n}{periodic})", length)
    makers: dict[str, Callable[[int], str]] = {
        "hamming": lambda n: f"torch.hamming_window({n})",
        "positive": lambda n: f"(torch.rand({n}, generator=g) + 0.5)",
        "signed": lambda n: f"torch.randn({n}, generator=g)",
        "holes": lambda n: f"((torch.rand({n}, generator=g) + 0.5) * (torch.arange({n}) % 3 != 1))",
        "complex": lambda n: f"torch.randn({n}, dtype=torch.complex64, generator=g)",
    }
    return _laid_out(draw, makers.get(kind, lambda n: f"torch.ones({n})"), length)


def _laid_out(draw: Draw, make: Callable[[int], str], length: int) -> str:
    layout = _one_of(draw, WINDOW_LAYOUTS)
    if layout == "strided":
        return f"{make(2 * length)}[::2]"
    if layout == "sliced":
        return f"{make(length + 3)}[3:]"
    if layout == "expanded":
        return f"{make(2)}[1:].expand({length})"
    if layout == "lazy bit":
        # The conjugate bit for a complex window, the negative bit for a real one.
        base = make(length)
        return f"{base}.conj()" if "complex64" in base else f"torch._neg_view({base})"
    return make(length)


def _sizes(draw: Draw, minimum: int = 1) -> tuple[int, int]:
    """n_fft and win_length."""
    n_fft = _one_of(draw, [size for size in SIZES if size >= minimum])
    full = draw(st.sampled_from([True, True, True, False]))
    return n_fft, n_fft if full else draw(st.integers(1, n_fft))


def _hop(draw: Draw, n_fft: int, limit: int) -> int:
    """A hop length up to ``limit``: one, a quarter, a half, not dividing n_fft, maximal, any."""
    common = [n_fft // 4, n_fft // 2, 1, n_fft // 4 - 1, n_fft // 3 + 1, n_fft, n_fft + 3]
    choices = [hop for hop in common if 0 < hop <= limit] or [1]
    hop: int = _one_of(draw, choices) if draw(st.booleans()) else draw(st.integers(1, limit))
    return hop


def _optional(given: dict[str, str], draw: Draw, name: str, default: Any, value: Any) -> None:
    """Pass ``value``; where it is the default, pass it or leave it out, as drawn."""
    if value != default or draw(st.booleans()):
        given[name] = repr(value)


def _stft_draft(draw: Draw) -> Draft:
    n_fft, win_length = _sizes(draw)
    complex_input = _one_of(draw, [False, False, True])
    center = _one_of(draw, [True, True, False])
    pad_mode = _one_of(draw, PAD_MODES)
    hop = _hop(draw, n_fft, n_fft + n_fft // 2 + 1)
    align = None if center else _one_of(draw, [None, None, True, False])
    padding = {"reflect": n_fft // 2 + 1, "circular": max(1, n_fft // 2)}.get(pad_mode, 1)
    samples = padding if center else n_fft
    samples += hop * draw(st.integers(0, 12)) + draw(st.integers(0, hop))
    rows = _one_of(draw, [None, 1, 2, 3, 5])
    shape = (samples,) if rows is None else (rows, samples)
    x = _signal(draw, shape, complex_input)
    kind = _one_of(draw, [None, *WINDOW_KINDS])
    w = None if kind is None else _window(draw, kind, win_length)

    given = {"input": "x", "n_fft": str(n_fft)}
    default_hop = draw(st.booleans()) and n_fft // 4 > 0
    _optional(given, draw, "hop_length", None, None if default_hop else hop)
    whole = win_length == n_fft and draw(st.booleans())
    _optional(given, draw, "win_length", None, None if whole else win_length)
    if w is not None or draw(st.booleans()):
        given["window"] = "None" if w is None else "w"
    _optional(given, draw, "center", True, center)
    _optional(given, draw, "pad_mode", "reflect", pad_mode)
    _optional(given, draw, "normalized", False, draw(st.booleans()))
    complex_fft = complex_input or kind == "complex"
    _optional(given, draw, "onesided", None, _one_of(draw, [None, False, not complex_fft]))
    as_complex = _one_of(draw, [True, True, False, None if complex_fft else True])
    _optional(given, draw, "return_complex", None, as_complex)
    _optional(given, draw, "align_to_window", None, align)
    return Draft("stft", x, w, given, {"n_fft": n_fft, "hop": hop, "win": win_length})


def _istft_draft(draw: Draw) -> Draft:
    kind = _one_of(draw, ["onesided", "onesided", "two-sided", "complex"])
    center = _one_of(draw, [True, True, True, False])
    n_fft, win_length = _sizes(draw, 1 if kind == "onesided" else 2)
    window_kind = _one_of(draw, [None, *WINDOW_KINDS[: None if kind == "complex" else -1]])
    if not center and _one_of(draw, [*5 * [True], False]):
        # Anything that starts near zero fails torch's check of the overlap-added window: mostly
        # windows that do not, so that uncentred calls are computed, too.
        win_length = n_fft
        window_kind = _one_of(draw, [None, "hamming", "ones", "positive", "signed"])
    # Beyond half a window the overlap-added square mostly vanishes somewhere.
    hop = _hop(draw, n_fft, _one_of(draw, [max(1, win_length // 2)] * 5 + [win_length]))
    frames = draw(st.integers(1, 14)) + (1 if center else 0)
    bins = n_fft // 2 + 1 if kind == "onesided" else n_fft
    rows = _one_of(draw, [None, 1, 2, 3, 5])
    shape = (bins, frames) if rows is None else (rows, bins, frames)
    x = _spectrum(draw, shape)
    w = None if window_kind is None else _window(draw, window_kind, win_length)

    given = {"input": "x", "n_fft": str(n_fft)}
    default_hop = draw(st.booleans()) and 0 < n_fft // 4 <= win_length
    hop = n_fft // 4 if default_hop else hop
    _optional(given, draw, "hop_length", None, None if default_hop else hop)
    whole = win_length == n_fft and draw(st.booleans())
    _optional(given, draw, "win_length", None, None if whole else win_length)
    if w is not None or draw(st.booleans()):
        given["window"] = "None" if w is None else "w"
    _optional(given, draw, "center", True, center)
    _optional(given, draw, "normalized", False, draw(st.booleans()))
    _optional(given, draw, "onesided", None, _one_of(draw, [None, kind == "onesided"]))
    natural = n_fft + hop * (frames - 1) - (2 * (n_fft // 2) if center else 0)
    _optional(given, draw, "length", None, _length(draw, natural, n_fft))
    _optional(given, draw, "return_complex", False, kind == "complex")
    return Draft("istft", x, w, given, {"n_fft": n_fft, "hop": hop, "win": win_length})


def _length(draw: Draw, natural: int, n_fft: int) -> int | None:
    """None, shorter, exact, a little longer (into the last window's tail) or too long."""
    kind = _one_of(draw, ["none", "none", "shorter", "exact", "longer", "too long"])
    if kind == "shorter":
        shorter: int = draw(st.integers(1, max(1, natural)))
        return shorter
    added = {"exact": 0, "longer": n_fft // 2, "too long": 3 * n_fft}
    return None if kind == "none" else max(1, natural) + added[kind]


def _finished(draw: Draw, draft: Draft, faults: Changes) -> Case:
    fault = ""
    # Some of the calls without a fault are rejected, too: more of istft's, by its window check.
    if _one_of(draw, [False] * (3 if draft.op == "stft" else 5) + [True]):
        fault = _one_of(draw, sorted(faults))
        changes = faults[fault]
    else:
        changes = UNUSUAL[_one_of(draw, sorted(UNUSUAL))]
    for name, expression in changes.items():
        if expression is None:
            draft.given.pop(name, None)
        else:
            draft.given[name] = expression.format(**draft.facts)
    return Case(
        op=draft.op,
        x=draft.x,
        w=draft.w,
        arguments=tuple(draft.given.items()),
        seed=draw(st.integers(0, 2**32 - 1)),
        positional=draw(st.integers(0, len(PARAMETERS[draft.op]))),
        fault=fault,
    )


@st.composite
def stft_cases(draw: Draw) -> Case:
    return _finished(draw, _stft_draft(draw), STFT_FAULTS)


@st.composite
def istft_cases(draw: Draw) -> Case:
    return _finished(draw, _istft_draft(draw), ISTFT_FAULTS)
