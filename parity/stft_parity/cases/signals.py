"""Expressions of signals, spectra and windows by name: what is transformed, and how it lies.

Each is a Python expression in which ``g`` is a seeded generator, so that a case prints what it ran.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Shape = tuple[int, ...]

#: Contents of signals.
SIGNALS = (
    "noise",
    "silence",
    "impulse",
    "impulse at the end",
    "sine on a bin",
    "sine between bins",
    "DC",
    "full-scale square",
    "sweep",
    "tiny",
    "giant",
    "denormals",
    "nan",
    "inf",
    "loud and quiet rows",
)

#: Contents of spectra.
SPECTRA = (
    "noise",
    "silence",
    "one bin",
    "DC",
    "Nyquist",
    "of a sine",
    "of a square",
    "tiny",
    "giant",
    "denormals",
    "nan",
    "inf",
    "loud and quiet rows",
)

#: How a signal lies in memory.
SIGNAL_LAYOUTS = (
    "contiguous",
    "transposed",
    "every second",
    "every third",
    "offset",
    "every second row",
    "expanded rows",
    "expanded samples",
    "overlapping rows",
    "conjugated",
    "negated",
    "part of complex",
)

#: How a spectrum lies in memory; torch.stft's own way first.
SPECTRUM_LAYOUTS = (
    "native",
    "contiguous",
    "permuted",
    "every second bin",
    "every third frame",
    "offset",
    "every second row",
    "expanded rows",
    "expanded frames",
    "conjugated",
    "negated",
)

#: Kinds of windows; None for a call without one.
WINDOWS = (
    "hann",
    "none",
    "symmetric hann",
    "hamming",
    "blackman",
    "kaiser",
    "ones",
    "positive",
    "signed",
    "holes",
    "complex",
    "float64",
    "float16",
    "integers",
)

#: How a window lies in memory.
WINDOW_LAYOUTS = ("contiguous", "strided", "offset", "expanded", "lazy bit")

#: Dtypes of signals and of spectra; the transforms of some are torch's to refuse.
SIGNAL_DTYPES = (
    "float32", "complex64", "float64", "complex128", "float16", "bfloat16", "int16", "bool",
)  # fmt: skip
SPECTRUM_DTYPES = ("complex64", "complex128", "float32")


def _with_dtype(expression: str, dtype: str) -> str:
    return f"({expression}).to(torch.{dtype})"


def content(name: str, shape: Shape, dtype: str, n_fft: int) -> str:
    """Expression of a contiguous signal.

    Args:
        name: one of ``SIGNALS``.
        shape: samples last.
        dtype: one of ``SIGNAL_DTYPES``.
        n_fft: to whose bins the frequencies refer.
    """
    complex_values = dtype.startswith("complex")
    if dtype in ("int16", "bool"):
        return f"torch.randint(0, 2, {shape}, generator=g, dtype=torch.{dtype})"
    if dtype in ("float16", "bfloat16"):
        return _with_dtype(content(name, shape, "float32", n_fft), dtype)
    noise = f"torch.randn({shape}, dtype=torch.{dtype}, generator=g)"
    if dtype in ("float32", "complex64"):
        noise = noise if complex_values else f"torch.randn({shape}, generator=g)"
    return _of_kind(name, shape, dtype, n_fft, noise)


def _of_kind(name: str, shape: Shape, dtype: str, n_fft: int, noise: str) -> str:
    zeros = f"torch.zeros({shape}, dtype=torch.{dtype})"
    if 0 in shape or name == "silence":
        return zeros
    angle = 2 * math.pi / n_fft
    time = f"torch.arange({math.prod(shape)}).reshape({shape})"
    waves = {
        # Whole periods in a frame, or half a period more.
        "sine on a bin": f"torch.sin({angle * max(1, n_fft // 8)!r} * {time})",
        "sine between bins": f"torch.sin({angle * (n_fft // 8 + 0.5)!r} * {time})",
        "full-scale square": f"torch.where({time} % 14 < 7, 1.0, -1.0)",
        "sweep": f"torch.sin(1e-3 * {time} ** 2)",
    }
    if name in waves:
        if dtype.startswith("complex"):
            return _with_dtype(f"torch.complex({waves[name]}, {waves[name]}.flip(-1))", dtype)
        return waves[name] if dtype == "float32" else _with_dtype(waves[name], dtype)
    return _of_scale(name, shape, dtype, noise, zeros)


def _of_scale(name: str, shape: Shape, dtype: str, noise: str, zeros: str) -> str:
    value = "(0.75-0.5j)" if dtype.startswith("complex") else "0.75"
    middle, last = shape[-1] // 2, shape[-1] - 1
    # Both parts: whether a bin that is infinite in one part leaves a sample finite depends on the
    # order in which an FFT adds, which is nobody's contract.
    nan, inf = (
        f"complex('{v}+{v}j')" if dtype.startswith("complex") else f"float('{v}')"
        for v in ("nan", "inf")
    )
    return {
        "noise": noise,
        "DC": f"torch.full({shape}, {value}, dtype=torch.{dtype})",
        "impulse": f"{zeros}.index_fill(-1, torch.tensor([{middle}]), 1.0)",
        "impulse at the end": f"{zeros}.index_fill(-1, torch.tensor([{last}]), 1.0)",
        # Not further: squares and sums stay away from what float32 flushes or overflows.
        "tiny": f"({noise} * 1e-20)",
        "giant": f"({noise} * 1e20)",
        "denormals": f"({noise} * 1e-39)",
        "nan": f"{noise}.index_fill(-1, torch.tensor([{middle}]), {nan})",
        "inf": f"{noise}.index_fill(-1, torch.tensor([{middle}]), {inf})",
        "loud and quiet rows": _rows_of_loudness(noise, shape),
    }[name]


def _rows_of_loudness(noise: str, shape: Shape) -> str:
    """Rows a million times louder than their neighbours; one row is noise."""
    if len(shape) < 2:
        return noise
    ones = ", 1" * (len(shape) - 1)
    return f"({noise} * 1e-6 ** (torch.arange({shape[0]}).reshape({shape[0]}{ones}) % 2))"


def signal(name: str, layout: str, shape: Shape, dtype: str, n_fft: int) -> str | None:
    """Expression of a signal in a memory layout; None where the layout does not go with the rest.

    Args:
        name: one of ``SIGNALS``.
        layout: one of ``SIGNAL_LAYOUTS``.
        shape: ``(samples,)`` or ``(rows, samples)``; any for a contiguous one.
        dtype: one of ``SIGNAL_DTYPES``.
        n_fft: to whose bins the frequencies refer.
    """

    def make(*lengths: int, dtype: str = dtype) -> str:
        return content(name, lengths, dtype, n_fft)

    complex_values = dtype.startswith("complex")
    if layout == "contiguous":
        return make(*shape)
    if len(shape) not in (1, 2):
        return None
    *rows, samples = shape
    if layout == "offset":
        return f"{make(*rows, samples + 5)}[..., 3:-2]"
    if layout in ("every second", "every third"):
        step = 2 if layout == "every second" else 3
        return f"{make(*rows, step * samples)}[..., {step - 1}::{step}]"
    if layout == "expanded samples":
        return f"{make(*rows, 1)}.expand({shape})"
    if layout == "conjugated" and complex_values:
        return f"{make(*shape)}.conj()"
    if layout == "negated":
        if complex_values:
            return f"torch._neg_view({make(*shape)}.conj())"
        return f"{make(*shape, dtype='complex64')}.conj().imag" if dtype == "float32" else None
    if layout == "part of complex" and dtype == "float32":
        return f"{make(*shape, dtype='complex64')}.real"
    if not rows or not rows[0]:
        return None
    return {
        "transposed": f"{make(samples, *rows)}.t()",
        "every second row": f"{make(2 * rows[0], samples)}[::2]",
        "expanded rows": f"{make(1, samples)}.expand({shape})",
        "overlapping rows": f"{make(samples + rows[0] - 1)}.unfold(0, {samples}, 1)",
    }.get(layout)


def spectrum(name: str, layout: str, shape: Shape, dtype: str, n_fft: int) -> str | None:
    """Expression of a spectrum in a memory layout; None where the layout does not go with the rest.

    Args:
        name: one of ``SPECTRA``.
        layout: one of ``SPECTRUM_LAYOUTS``.
        shape: ``(bins, frames)`` or ``(rows, bins, frames)``.
        dtype: one of ``SPECTRUM_DTYPES``.
        n_fft: which bin is Nyquist's.
    """

    def make(*lengths: int) -> str:
        return _spectral_content(name, lengths, dtype, n_fft)

    *rows, bins, frames = shape
    if layout == "native":
        return f"{make(*rows, frames, bins)}.mT"
    if layout == "contiguous":
        return (
            make(*shape) if name not in _BY_BIN else f"{make(*rows, frames, bins)}.mT.contiguous()"
        )
    if layout == "every second bin":
        return f"{make(*rows, frames, 2 * bins)}.mT[..., 1::2, :]"
    if layout == "every third frame":
        return f"{make(*rows, 3 * frames, bins)}.mT[..., 2::3]"
    if layout == "offset":
        return f"{make(*rows, frames + 3, bins + 2)}.mT[..., 2:, 3:]"
    if layout == "expanded frames":
        return f"{make(*rows, 1, bins)}.mT.expand({shape})"
    if layout in ("conjugated", "negated") and dtype.startswith("complex"):
        base = f"{make(*rows, frames, bins)}.mT"
        return f"{base}.conj()" if layout == "conjugated" else f"torch._neg_view({base})"
    if not rows or not rows[0]:
        return None
    return {
        "permuted": f"{make(bins, frames, *rows)}.permute(2, 0, 1)",
        "every second row": f"{make(2 * rows[0], frames, bins)}.mT[1::2]",
        "expanded rows": f"{make(1, frames, bins)}.mT.expand({shape})",
    }.get(layout)


#: Contents that single bins have: their last dimension is that of the bins.
_BY_BIN = ("one bin", "DC", "Nyquist", "of a sine", "of a square", "nan", "inf")


def _spectral_content(name: str, shape: Shape, dtype: str, n_fft: int) -> str:
    """Expression of a contiguous spectrum, bins last."""
    bins = shape[-1]
    fill = {"one bin": bins // 3, "DC": 0, "Nyquist": min(n_fft // 2, bins - 1)}
    if name in fill and 0 not in shape:
        zeros = f"torch.zeros({shape}, dtype=torch.{dtype})"
        return f"{zeros}.index_fill(-1, torch.tensor([{fill[name]}]), 0.75)"
    if name in ("of a sine", "of a square") and 0 not in shape and dtype != "float32":
        wave = {"of a sine": "sine between bins", "of a square": "full-scale square"}[name]
        frames = content(wave, (*shape[:-1], 2 * bins), "float32", n_fft)
        return _with_dtype(f"torch.fft.rfft({frames})[..., :{bins}]", dtype)
    return content(name if name in SIGNALS else "noise", shape, dtype, n_fft)


def window(name: str, layout: str, length: int) -> str | None:
    """Expression of a window in a memory layout; None for a call without one.

    Args:
        name: one of ``WINDOWS``.
        layout: one of ``WINDOW_LAYOUTS``.
        length: in samples.
    """
    if name == "none":
        return None
    make = _WINDOWS[name]
    if layout == "strided":
        return f"{make(2 * length)}[::2]"
    if layout == "offset":
        return f"{make(length + 3)}[3:]"
    if layout == "expanded":
        return f"{make(2)}[1:].expand({length})"
    if layout == "lazy bit":
        # The conjugate bit for a complex window, the negative bit for a real one.
        return f"{make(length)}.conj()" if name == "complex" else f"torch._neg_view({make(length)})"
    return make(length)


_WINDOWS: dict[str, Callable[[int], str]] = {
    "hann": lambda n: f"torch.hann_window({n})",
    "symmetric hann": lambda n: f"torch.hann_window({n}, periodic=False)",
    "hamming": lambda n: f"torch.hamming_window({n})",
    "blackman": lambda n: f"torch.blackman_window({n})",
    "kaiser": lambda n: f"torch.kaiser_window({n}, True, 8.0)",
    "ones": lambda n: f"torch.ones({n})",
    "positive": lambda n: f"(torch.rand({n}, generator=g) + 0.5)",
    "signed": lambda n: f"torch.randn({n}, generator=g)",
    "holes": lambda n: f"((torch.rand({n}, generator=g) + 0.5) * (torch.arange({n}) % 3 != 1))",
    "complex": lambda n: f"torch.randn({n}, dtype=torch.complex64, generator=g)",
    "float64": lambda n: f"torch.hann_window({n}, dtype=torch.float64)",
    "float16": lambda n: f"torch.hamming_window({n}).half()",
    "integers": lambda n: f"torch.ones({n}, dtype=torch.int32)",
}
