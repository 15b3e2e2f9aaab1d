"""What the kernels compute, for arrays of any library; a subclass knows how to launch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ..core.params import IstftParams, StftParams
from . import describe, framing
from .chooser import Chooser, describe_demanded
from .describe import Launch


class Kernels(ABC):
    """The four functions that kernels compute.

    Attributes:
        cores: of an Apple GPU; None for any other (:func:`.kernels.radices.find_gpu`).
    """

    cores: int | None = None

    @cached_property
    def chooser(self) -> Chooser:
        """The chooser among launches; it tries no shapes if a launcher does not bring its own."""
        return Chooser()

    def compute_analysis(
        self,
        params: StftParams,
        signal: Any,
        window: Any,
        stream: Any = None,
        *,
        edge: float = 1.0,
        divisor: float | None = None,
        frames_fastest: bool = False,
    ) -> Any | None:
        """Compute a spectrum, shape (rows, frames, bins); None where no fused kernel covers it.

        Args:
            signal: shape (rows, samples), any strides, its bits resolved.
            window: shape (win_length,), as the launcher reads it; None where the launcher takes
                that.
            stream: of a launcher that has no current stream.
            edge: factor of bins 0 and n_fft / 2.
            divisor: as in :func:`.kernels.describe.list_analyses`.
            frames_fastest: the spectrum has shape (rows, bins, frames) instead.
        """
        kinds = (self._is_complex(signal), window, divisor, frames_fastest)
        launches = self.list_spectra(params, *kinds)
        if launches[0].plan is None:
            return None
        return self.run(launches, signal, window, stream, edge=edge)

    def list_spectra(
        self,
        params: StftParams,
        complex_signal: bool,
        window: Any,
        divisor: float | None = None,
        frames_fastest: bool = False,
    ) -> tuple[Launch, ...]:
        """List launches of :meth:`compute_analysis`, best first, or that of :meth:`cut_frames`.

        Args:
            frames_fastest: the spectrum is to have shape (rows, bins, frames).
        """
        complex_window, step = self._window_layout(window, params.n_fft)
        kinds = (complex_signal, complex_window, divisor)
        group = self.chooser.find_group("analysis")
        fused = describe_demanded(
            describe.list_analyses, params, *kinds, group, step, frames_fastest, self.cores
        )
        return fused or self.list_cuts(params, complex_signal, window, divisor)

    def compute_synthesis(
        self,
        params: IstftParams,
        spectrum: Any,
        window: Any,
        stream: Any = None,
        *,
        frames_fastest: bool = False,
        adjoint: describe.Adjoint | None = None,
        vanishing: Any = None,
    ) -> Any | None:
        """Compute a signal, shape (rows, output length); None where no fused kernel covers it.

        Args:
            spectrum: shape (rows, frames, bins), any strides, its bits resolved.
            window, stream: as in :meth:`compute_analysis`.
            frames_fastest: neighbouring frames are neighbours in memory.
            adjoint: leave the envelope out, and fold the padding of an analysis back.
            vanishing: an int32 of 0 that takes the kernel's verdict on the envelope
                (:class:`.Verdict`). Some kernels leave 0 where the envelope does not vanish. None:
                no verdict is wanted.
        """
        launches = self.list_signals(params, window, frames_fastest, adjoint)
        if launches[0].plan is None:
            return None
        edge = 1.0 if adjoint is None else adjoint.edge
        return self.run(launches, spectrum, window, stream, edge=edge, vanishing=vanishing)

    def list_signals(
        self,
        params: IstftParams,
        window: Any,
        frames_fastest: bool,
        adjoint: describe.Adjoint | None = None,
    ) -> tuple[Launch, ...]:
        """List launches of :meth:`compute_synthesis`, best first, or that of :meth:`add_frames`."""
        complex_window, step = self._window_layout(window, params.n_fft)
        groups = map(self.chooser.find_group, ("synthesis_walk", "synthesis"))
        kinds = (complex_window, frames_fastest, adjoint)
        found = describe_demanded(
            describe.list_syntheses, params, *kinds, *groups, self.cores, step
        )
        return found or self.list_additions(params, window, adjoint)

    def cut_frames(
        self,
        params: StftParams,
        signal: Any,
        window: Any,
        stream: Any = None,
        *,
        divisor: float | None = None,
    ) -> Any:
        """Cut windowed frames, shape (rows, frames, n_fft).

        Args:
            signal, window, stream, divisor: as in :meth:`compute_analysis`.
        """
        launches = self.list_cuts(params, self._is_complex(signal), window, divisor)
        return self.run(launches, signal, window, stream)

    def list_cuts(
        self, params: StftParams, complex_signal: bool, window: Any, divisor: float | None = None
    ) -> tuple[Launch, ...]:
        """List the only launch of :meth:`cut_frames`."""
        group = self.chooser.find_group("cut_frames") or framing.FREE_GROUP
        complex_window, step = self._window_layout(window, params.n_fft)
        kinds = (complex_signal, complex_window)
        return (framing.cut_frames(params, *kinds, group, step, divisor),)

    def add_frames(
        self,
        params: IstftParams,
        frames: Any,
        window: Any,
        stream: Any = None,
        *,
        adjoint: describe.Adjoint | None = None,
        vanishing: Any = None,
    ) -> Any:
        """Window and overlap-add frames to a signal of shape (rows, output length).

        Args:
            frames: shape (rows, frames, n_fft), contiguous.
            window, stream, adjoint, vanishing: as in :meth:`compute_synthesis`.
        """
        launches = self.list_additions(params, window, adjoint)
        return self.run(launches, frames, window, stream, vanishing=vanishing)

    def list_additions(
        self, params: IstftParams, window: Any, adjoint: describe.Adjoint | None = None
    ) -> tuple[Launch, ...]:
        """List the only launch of :meth:`add_frames`."""
        group = self.chooser.find_group("add_frames") or framing.FREE_GROUP
        complex_window, step = self._window_layout(window, params.n_fft)
        return (framing.add_frames(params, complex_window, adjoint, group, step),)

    @abstractmethod
    def _is_complex(self, array: Any) -> bool:
        """Whether an array has complex values."""

    @abstractmethod
    def _window_layout(self, window: Any, n_fft: int) -> tuple[bool, int | None]:
        """Whether a window is complex, and its step (:func:`.kernels.describe.list_analyses`)."""

    @abstractmethod
    def run(
        self,
        launches: Sequence[Launch],
        first: Any,
        window: Any,
        stream: Any,
        *,
        edge: float = 1.0,
        vanishing: Any = None,
    ) -> Any:
        """Run one of several launches that compute the same, best first, and return its result.

        Args:
            first: what the kernel reads besides the window.
            edge, vanishing: for kernels that take them.
        """
