"""Both transforms in steps, in double precision, so that one step can be done otherwise.

``Analysis`` is ``torch.stft`` and ``Synthesis`` is ``torch.istft``; each field is something that a
candidate may have got wrong, and ``dataclasses.replace`` makes the transform that has it so. Only
torch operations with derivatives are used: a changed transform has its gradient, too.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad

from stft_parity.candidates import DEFAULTS, bound
from stft_parity.cases import Case, Tensors
from stft_parity.compare.values import wide

#: The modes of torch, and two that other libraries have.
PAD_MODES = ("reflect", "constant", "replicate", "circular", "symmetric", "odd")


class NoModel(Exception):
    """The call is not one whose steps are known: torch rejects it, or an argument is no number."""


def extend(signal: torch.Tensor, left: int, right: int, mode: str) -> torch.Tensor:
    """``signal`` with samples before and after it, by one of ``PAD_MODES``."""
    n_samples = signal.shape[-1]
    if mode == "constant":
        return pad(signal, (left, right))
    if n_samples == 0:
        raise NoModel("nothing to extend")
    index = torch.arange(-left, n_samples + right)
    inside = index.clamp(0, n_samples - 1)
    if mode == "replicate":
        return signal[..., inside]
    if mode == "circular":
        return signal[..., index % n_samples]
    mirrored = _mirror(index, n_samples, edge_twice=mode == "symmetric")
    if mode != "odd":
        return signal[..., mirrored]
    # Twice the value at the edge, less the mirror image: continuous in its slope.
    return (
        torch.where(index == inside, 1.0, -1.0) * signal[..., mirrored]
        + torch.where(index == inside, 0.0, 2.0) * signal[..., inside]
    )


def _mirror(index: torch.Tensor, n_samples: int, *, edge_twice: bool) -> torch.Tensor:
    """The sample that a mirror at either end shows at ``index``."""
    period = 2 * n_samples if edge_twice else max(1, 2 * (n_samples - 1))
    folded = index % period
    last = 2 * n_samples - 1 if edge_twice else period
    return torch.where(folded < n_samples, folded, last - folded)


@dataclass(frozen=True)
class Steps:
    """What both transforms have.

    Attributes:
        window: of ``win_length`` samples, with which the frames are multiplied.
        n_fft, hop: of the frames.
        placed: where the window begins in a frame.
        scale: of the spectrum; of the frames that come of it.
        onesided: whether only the bins up to Nyquist's are there.
    """

    window: torch.Tensor
    n_fft: int
    hop: int
    placed: int
    scale: float
    onesided: bool

    def framed_window(self) -> torch.Tensor:
        """The window in a frame of ``n_fft`` samples; what would stick out is cut off."""
        after = self.n_fft - self.placed - self.window.shape[-1]
        return pad(self.window, (self.placed, after))


@dataclass(frozen=True)
class Analysis(Steps):
    """``torch.stft``.

    Attributes:
        signal: shape ``(..., samples)``, double precision.
        n_frames: how many frames.
        left, right: samples by which the signal is extended.
        pad_mode: one of ``PAD_MODES``.
        first: where frame 0 begins in the extended signal; zeros are taken beyond its ends.
        turned: places by which the frames are rotated in the result.
    """

    signal: torch.Tensor
    n_frames: int
    left: int
    right: int
    pad_mode: str
    first: int
    turned: int = 0

    @property
    def n_bins(self) -> int:
        return self.n_fft // 2 + 1 if self.onesided else self.n_fft

    def frames(self) -> torch.Tensor:
        """Shape ``(..., frames, n_fft)``, without the window."""
        signal = extend(self.signal, self.left, self.right, self.pad_mode)
        needed = self.first + (self.n_frames - 1) * self.hop + self.n_fft
        # A negative start cuts or extends at the front likewise.
        signal = pad(signal, (-self.first, needed - signal.shape[-1]))
        return signal.unfold(-1, self.n_fft, self.hop)

    def spectrum(self, frames: torch.Tensor) -> torch.Tensor:
        """Shape ``(..., bins, frames)``, of frames without the window."""
        spectrum: torch.Tensor = torch.fft.fft(frames * self.framed_window()) * self.scale
        return spectrum[..., : self.n_bins].transpose(-1, -2)

    def result(self) -> torch.Tensor:
        """Shape ``(..., bins, frames)``."""
        result = self.spectrum(self.frames())
        return result.roll(self.turned, -1) if self.turned else result


@dataclass(frozen=True)
class Synthesis(Steps):
    """``torch.istft``.

    Attributes:
        spectrum: shape ``(..., bins, frames)``, double precision.
        as_complex: whether the signal is complex.
        edge_imaginary: how the imaginary parts of bin 0 and of Nyquist's bin take part: both
            ``"added"`` to the real ones, or only that of the ``"zero"`` or of the ``"nyquist"``
            bin, or as in a complex FFT of half the size that is not told to leave them out:
            ``"packed"``; empty when they do not.
        power: of the window in the envelope by which the signal is divided; 0 for no division.
        start: samples that are cut off at the front.
        n_samples: of the result; zeros are appended where the frames do not reach.
    """

    spectrum: torch.Tensor
    as_complex: bool
    edge_imaginary: str
    power: int
    start: int
    n_samples: int

    @property
    def n_frames(self) -> int:
        return self.spectrum.shape[-1]

    @property
    def covered(self) -> int:
        """Samples that the frames reach."""
        return self.n_fft + self.hop * (self.n_frames - 1)

    def frames(self) -> torch.Tensor:
        """Shape ``(..., frames, n_fft)``, without the window."""
        spectrum = self.spectrum.transpose(-1, -2)
        frames: torch.Tensor
        if self.as_complex:  # then there are two sides
            frames = torch.fft.ifft(spectrum)
        else:
            half = spectrum[..., : self.n_fft // 2 + 1]
            frames = torch.fft.irfft(half, self.n_fft)
            if self.edge_imaginary:
                frames = frames + self._of_edges(half) / self.n_fft
        return frames * self.scale

    def _of_edges(self, half: torch.Tensor) -> torch.Tensor:
        """What the imaginary parts of bin 0 and Nyquist's bin add to ``n_fft`` times a frame."""
        alternating = 1.0 - 2.0 * (torch.arange(self.n_fft) % 2)
        zero, nyquist = half[..., :1].imag, half[..., -1:].imag * (self.n_fft % 2 == 0)
        if self.edge_imaginary == "packed":
            return -zero * alternating - nyquist
        of_zero, of_nyquist = self.edge_imaginary != "nyquist", self.edge_imaginary != "zero"
        return of_zero * zero + of_nyquist * nyquist * alternating

    def add_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """Overlap-add: shape ``(..., covered)``."""
        at = torch.arange(self.n_frames)[:, None] * self.hop + torch.arange(self.n_fft)
        total = frames.new_zeros((*frames.shape[:-2], self.covered))
        return total.index_add(-1, at.flatten(), frames.flatten(-2))

    def envelope(self) -> torch.Tensor:
        """Overlap-added power of the window, over all that the frames reach."""
        window = self.framed_window()
        return self.add_frames((window**self.power).expand(self.n_frames, self.n_fft))

    def result(self) -> torch.Tensor:
        """Shape ``(..., samples)``."""
        signal = self.add_frames(self.frames() * self.framed_window())
        return self.divide(signal, self.envelope()) if self.power else self.cut(signal)

    def divide(self, signal: torch.Tensor, envelope: torch.Tensor) -> torch.Tensor:
        """What of ``signal`` is returned, divided by the envelope."""
        # What is cut off may be zero by zero, which has no gradient: it is not divided before.
        return self.cut(signal) / self.cut(envelope, beyond=1.0)

    def cut(self, signal: torch.Tensor, beyond: float = 0.0) -> torch.Tensor:
        """What of ``signal`` is returned; ``beyond`` what the frames reach there are zeros."""
        after = self.start + self.n_samples - signal.shape[-1]
        return pad(signal, (-self.start, after), value=beyond)


def arguments(case: Case, tensors: Tensors) -> dict[str, Any]:
    """All arguments of the call by name, torch's defaults for those that are not passed."""
    args, kwargs = case.bind(tensors)
    return DEFAULTS[case.op] | bound(case.op, args, kwargs)


def model(case: Case, tensors: Tensors) -> Analysis | Synthesis:
    """The call in steps.

    Raises:
        NoModel: torch rejects the call, or understands an argument in a way of its own.
    """
    given = arguments(case, tensors)
    tensor, window = given["input"], given["window"]
    if not isinstance(tensor, torch.Tensor) or tensor.dim() == 0 or 0 in tensor.shape:
        raise NoModel("no values")
    try:
        n_fft = operator.index(given["n_fft"])
        hop, win = (
            default if given[name] is None else operator.index(given[name])
            for name, default in (("hop_length", n_fft // 4), ("win_length", n_fft))
        )
    except (KeyError, TypeError) as error:
        raise NoModel("sizes are integers") from error
    if not (0 < win <= n_fft and hop > 0):
        raise NoModel("sizes are positive, win_length at most n_fft")
    values = wide(tensor.cpu())
    if window is not None and not isinstance(window, torch.Tensor):
        raise NoModel("the window is a tensor")
    taper = torch.ones(win, dtype=torch.float64) if window is None else wide(window.cpu())
    if taper.shape != (win,):
        raise NoModel("the window has win_length samples")
    build = _analysis if case.op == "stft" else _synthesis
    return build(given, values, taper, n_fft, hop)


def _analysis(
    given: dict[str, Any], signal: torch.Tensor, window: torch.Tensor, n_fft: int, hop: int
) -> Analysis:
    win, samples = window.shape[0], signal.shape[-1]
    padding, span, mode = 0, n_fft, given["pad_mode"]
    counted = samples
    if given["center"]:
        padding = n_fft // 2
        counted = samples + 2 * padding
    elif given["align_to_window"]:
        padding, span, mode = (n_fft - win) // 2, win, "constant"
    if mode not in PAD_MODES or counted < span:
        raise NoModel("torch rejects the call")
    complex_values = signal.is_complex() or window.is_complex()
    onesided = not complex_values if given["onesided"] is None else bool(given["onesided"])
    return Analysis(
        signal=signal,
        window=window,
        n_fft=n_fft,
        hop=hop,
        n_frames=1 + (counted - span) // hop,
        left=padding,
        right=padding,
        pad_mode=mode,
        first=0,
        placed=(n_fft - win) // 2,
        scale=1 / math.sqrt(n_fft) if given["normalized"] else 1.0,
        onesided=onesided,
    )


def _synthesis(
    given: dict[str, Any], spectrum: torch.Tensor, window: torch.Tensor, n_fft: int, hop: int
) -> Synthesis:
    if spectrum.dim() < 2 or not spectrum.is_complex():
        raise NoModel("torch rejects the call")
    n_bins, n_frames = spectrum.shape[-2:]
    onesided = n_bins != n_fft if given["onesided"] is None else bool(given["onesided"])
    if n_bins != (n_fft // 2 + 1 if onesided else n_fft):
        raise NoModel("torch rejects the call")
    start = n_fft // 2 if given["center"] else 0
    length = given["length"]
    kept = n_fft + hop * (n_frames - 1) - 2 * start if length is None else operator.index(length)
    if kept <= 0:
        raise NoModel("no samples remain")
    return Synthesis(
        spectrum=spectrum,
        window=window,
        n_fft=n_fft,
        hop=hop,
        placed=(n_fft - window.shape[0]) // 2,
        scale=math.sqrt(n_fft) if given["normalized"] else 1.0,
        onesided=onesided,
        as_complex=bool(given["return_complex"]),
        edge_imaginary="",
        power=2,
        start=start,
        n_samples=kept,
    )
