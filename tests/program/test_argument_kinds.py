"""Arguments of every kind and of any size: accepted where native accepts them, with its outcome.

Native is asked, not a list: which kinds it takes differs from argument to argument.
"""

from __future__ import annotations

import decimal
import enum
import fractions
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from needs import needs_mlx
from patched import NATIVE

import torch_mlx_spectro as tms

pytestmark = needs_mlx

OURS = {"stft": tms.stft, "istft": tms.istft}
SIGNAL = torch.randn(2, 400, generator=torch.Generator().manual_seed(0))
WINDOW = torch.hann_window(16)
STFT: dict[str, Any] = {
    "n_fft": 16,
    "hop_length": 4,
    "win_length": 16,
    "window": WINDOW,
    "center": True,
    "pad_mode": "reflect",
    "normalized": False,
    "onesided": True,
    "return_complex": True,
}
SPECTRUM = NATIVE["stft"](SIGNAL, **STFT)
ISTFT: dict[str, Any] = {
    "n_fft": 16,
    "hop_length": 4,
    "win_length": 16,
    "window": WINDOW,
    "center": True,
    "normalized": False,
    "onesided": True,
    "length": 120,
    "return_complex": False,
}
CALLS = {"stft": (SIGNAL, STFT), "istft": (SPECTRUM, ISTFT)}
VALUES = {"n_fft": 16, "hop_length": 4, "win_length": 16, "length": 100}
NUMPY = [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64, np.float32, np.timedelta64]
TORCH = [torch.int64, torch.uint8, torch.float32, torch.bool]


class Index:
    """An integer to Python, and to nobody else."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Integer(int):
    """An integer to everybody."""


def kinds(value: int) -> Iterator[tuple[str, Any]]:
    """A value by every kind of object that says it is one."""
    yield from (("subclass", Integer(value)), ("__index__", Index(value)), ("None", None))
    yield "IntEnum", enum.IntEnum("Sizes", {"VALUE": value}).VALUE  # type: ignore[attr-defined]
    yield from ((kind.__name__, kind(value)) for kind in (float, bool, complex, str, bytes))
    yield from ((kind.__name__, kind(value)) for kind in (fractions.Fraction, decimal.Decimal))
    yield from ((f"numpy {kind.__name__}", kind(value)) for kind in (*NUMPY, np.bool_))
    for dtype in (np.int64, np.float32):
        yield f"0-d {dtype.__name__}", np.array(value, dtype)
        yield f"1-d {dtype.__name__}", np.array([value], dtype)
    for kind in TORCH:
        yield f"0-d {kind}", torch.tensor(value, dtype=kind)
    yield from (("1-d tensor", torch.tensor([value])), ("trained", torch.tensor(1.0 * value)))
    yield from (("list", [value]), ("Size", torch.Size([value])))


def outcome(function: Callable[..., Any], tensor: torch.Tensor, arguments: Any) -> tuple[Any, ...]:
    """What a call comes to: layout of its result, or its exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = function(tensor, **arguments)
        except (TypeError, RuntimeError, ValueError, IndexError, MemoryError, OverflowError) as no:
            return type(no), str(no)
    return result.shape, result.stride(), result.dtype


@pytest.mark.parametrize(
    ("op", "name"), [(op, name) for op, (_, given) in CALLS.items() for name in given]
)
def test_each_argument_takes_the_kinds_that_native_takes(op: str, name: str) -> None:
    tensor, arguments = CALLS[op]
    if name == "window":
        return
    taken = 0
    for kind, value in kinds(VALUES.get(name, 1)):
        given = arguments | {name: value}
        expected = outcome(NATIVE[op], tensor, given)
        with tms.backend("mlx"):
            assert outcome(OURS[op], tensor, given) == expected, kind
        taken += isinstance(expected[0], torch.Size)
    assert taken or name not in VALUES


#: Sizes at which something overflows, or would.
EXTREME = sorted(
    {sign * (1 << bits) + step for bits in (31, 44, 60, 61, 62, 63, 64)
     for sign in (1, -1) for step in (-1, 0, 1)}
)  # fmt: skip
SMALL = [1, 2, 3, 8, 15, 16, 17, 399, 400, 401, 0, -1]
SIZES = st.sampled_from(EXTREME + SMALL)
BASE = torch.randn(6, 800, generator=torch.Generator().manual_seed(1))
LAYOUTS = {
    "contiguous": lambda: BASE[:2, :400].contiguous(),
    "strided": lambda: BASE[::3, ::2],
    "transposed": lambda: BASE[:2, :400].t().contiguous().t(),
    "one row": lambda: BASE[0, ::2],
    "one row repeated": lambda: BASE[:1, :400].expand(3, 400),
    "one sample, far away": lambda: BASE[:1, :1].as_strided((1, 1), (1, 1 << 61)),
}


def agree(op: str, tensor: torch.Tensor, arguments: dict[str, Any]) -> None:
    with tms.backend("mlx"):
        assert outcome(OURS[op], tensor, arguments) == outcome(NATIVE[op], tensor, arguments)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("center", [True, False])
def test_a_hop_that_overflows_is_natives_affair(layout: str, center: bool) -> None:
    for hop in (*EXTREME, 4):
        for n_fft in (1, 16):
            given = {"window": torch.ones(n_fft), "center": center, "pad_mode": "constant"}
            given |= {"n_fft": n_fft, "hop_length": hop, "return_complex": True}
            agree("stft", LAYOUTS[layout](), given)


@hypothesis.given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    n_fft=st.sampled_from([1, 2, 16, 16, 16, 1 << 62, (1 << 63) - 1, 1 << 63]),
    hop=st.none() | SIZES,
    win=st.none() | SIZES,
    windowed=st.booleans(),
    center=st.booleans(),
    align=st.sampled_from([None, True, False]),
)
@hypothesis.settings(max_examples=300)
def test_sizes_that_overflow_come_to_what_they_come_to_natively(
    layout: str, n_fft: int, hop: Any, win: Any, windowed: bool, center: bool, align: Any
) -> None:
    window = torch.ones(next((n for n in (win, n_fft) if n and 0 < n < 1000), 16))
    given = {"n_fft": n_fft, "hop_length": hop, "win_length": win, "center": center}
    given |= {"window": window if windowed else None, "return_complex": True}
    agree("stft", LAYOUTS[layout](), given | {"align_to_window": None if center else align})


@hypothesis.given(
    frames=st.sampled_from([1, 2, 5]),
    n_fft=st.sampled_from([16, 16, 16, 1, 1 << 62, (1 << 63) - 1, 1 << 63]),
    hop=st.none() | SIZES,
    win=st.none() | SIZES,
    length=st.none() | SIZES.filter(lambda length: not 1 << 20 < length < 1 << 50),
    center=st.booleans(),
    batch=st.booleans(),
)
@hypothesis.settings(max_examples=300)
def test_lengths_that_overflow_come_to_what_they_come_to_natively(
    frames: int, n_fft: int, hop: Any, win: Any, length: Any, center: bool, batch: bool
) -> None:
    spectrum = torch.ones((2, frames, 9), dtype=torch.complex64).transpose(1, 2)
    given = {"n_fft": n_fft, "hop_length": hop, "win_length": win, "length": length}
    agree("istft", spectrum if batch else spectrum[0], given | {"center": center})


WITHOUT_MEMORY = {
    "signal": ("stft", "input", torch._efficientzerotensor((2, 400))),
    "one row": ("stft", "input", torch._efficientzerotensor((400,))),
    "negated": ("stft", "input", torch._neg_view(torch._efficientzerotensor((2, 400)))),
    "window": ("stft", "window", torch._efficientzerotensor((16,))),
    "spectrum": ("istft", "input", torch._efficientzerotensor((2, 9, 20), dtype=torch.complex64)),
    "window of an istft": ("istft", "window", torch._efficientzerotensor((16,))),
}


@pytest.mark.parametrize("name", WITHOUT_MEMORY)
def test_zeros_without_memory_are_natives(name: str) -> None:
    op, place, zeros = WITHOUT_MEMORY[name]
    tensor, arguments = CALLS[op]
    if place == "input":
        tensor = zeros
    else:
        arguments = arguments | {"window": zeros}
    expected = outcome(NATIVE[op], tensor, arguments)
    tms.reset_stats()
    with tms.backend("mlx"):
        assert outcome(OURS[op], tensor, arguments) == expected
    if isinstance(expected[0], torch.Size):
        reason = f"{place} is a tensor of zeros without memory"
        assert tms.stats().fallbacks == {reason: 1}
        with tms.backend("mlx", strict=True), pytest.raises(tms.NotAccelerated, match=reason):
            OURS[op](tensor, **arguments)


WINDOW_BITS = {
    "negative": lambda: torch._neg_view(WINDOW),
    "conjugate": lambda: torch.complex(WINDOW, WINDOW).conj(),
    "negative imaginary part": lambda: torch.complex(WINDOW, WINDOW).conj().imag,
    "conjugate zeros": lambda: torch._efficientzerotensor((16,), dtype=torch.complex64).conj(),
}


@pytest.mark.parametrize("name", WINDOW_BITS)
def test_windows_with_bits_are_read_as_they_look(name: str) -> None:
    window = WINDOW_BITS[name]()
    given = STFT | {"window": window, "onesided": False}
    expected = NATIVE["stft"](SIGNAL, **given)
    with tms.backend("mlx"):
        torch.testing.assert_close(tms.stft(SIGNAL, **given), expected)
