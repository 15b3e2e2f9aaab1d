"""The kernels on torch tensors where they are; the launcher of a device is a subclass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..params import IstftParams, StftParams
from . import describe
from .describe import Launch
from .tuning import Demands, demanded

Optional = torch.Tensor | None
#: complex64 values, and those of windows in pairs, are read at once.
_PAIR_BYTES = 8


class TensorKernels(Demands):
    """What is launched for a call, and with which tensors; how it is launched is a subclass's.

    Attributes:
        cores: of the GPU; None for those of the one that plans were sized for.
    """

    cores: int | None = None

    def analysis(
        self,
        params: StftParams,
        signal: torch.Tensor,
        window: Optional,
        *,
        edge: float = 1.0,
        divisor: float | None = None,
    ) -> torch.Tensor | None:
        """Spectrum of shape (rows, frames, bins); None where no fused kernel covers it.

        Args:
            signal: shape (rows, samples), any strides, its bits resolved.
            window: shape (win_length,), any stride, its bits resolved, read where it is; or None.
            edge: factor of bins 0 and n_fft / 2.
            divisor: as of :func:`.describe.analysis`.
        """
        complex_window, step = layout_of(window, params.n_fft)
        kinds = (signal.is_complex(), complex_window, divisor)
        launches = demanded(describe.analysis, params, *kinds, self._group("analysis"), step)
        if not launches:
            return None

        def shapes() -> Sequence[Launch]:
            return describe.analysis_shapes(params, *kinds, step)

        return self._run(launches, signal, window, edge=edge, shapes=shapes)

    def synthesis(
        self,
        params: IstftParams,
        spectrum: torch.Tensor,
        window: Optional,
        *,
        frames_fastest: bool = False,
        adjoint: describe.Adjoint | None = None,
        vanishing: Optional = None,
    ) -> torch.Tensor | None:
        """Signal of shape (rows, output length); None where no fused kernel covers it.

        Args:
            spectrum: shape (rows, frames, bins), any strides, its bits resolved.
            window: as of :meth:`analysis`.
            frames_fastest: neighbouring frames are neighbours in memory.
            adjoint: leave the envelope out, and fold the padding of an analysis.
            vanishing: an int32 that becomes 1 if the envelope vanishes; None if nobody asks.
        """
        groups = (self._group("synthesis_walk"), self._group("synthesis"))
        complex_window, step = layout_of(window, params.n_fft)
        kinds = (complex_window, frames_fastest, adjoint)
        launches = demanded(describe.synthesis, params, *kinds, *groups, self.cores, step)
        if not launches:
            return None
        edge = 1.0 if adjoint is None else adjoint.edge
        return self._run(launches, spectrum, window, edge=edge, vanishing=vanishing)

    def cut_frames(
        self,
        params: StftParams,
        signal: torch.Tensor,
        window: Optional,
        *,
        divisor: float | None = None,
    ) -> torch.Tensor:
        """Windowed frames, shape (rows, frames, n_fft); arguments as of :meth:`analysis`."""
        group = self._group("cut_frames") or describe.FREE_GROUP
        complex_window, step = layout_of(window, params.n_fft)
        kinds = (signal.is_complex(), complex_window)
        launch = describe.cut_frames(params, *kinds, group, step, divisor)
        return self._run((launch,), signal, window)

    def add_frames(
        self,
        params: IstftParams,
        frames: torch.Tensor,
        window: Optional,
        *,
        adjoint: describe.Adjoint | None = None,
        vanishing: Optional = None,
    ) -> torch.Tensor:
        """Windowed, overlap-added signal, shape (rows, output length).

        Args:
            frames: shape (rows, frames, n_fft), contiguous.
            window, adjoint, vanishing: as of :meth:`synthesis`.
        """
        group = self._group("add_frames") or describe.FREE_GROUP
        complex_window, step = layout_of(window, params.n_fft)
        launch = describe.add_frames(params, complex_window, adjoint, group, step)
        return self._run((launch,), frames, window, vanishing=vanishing)

    def _run(
        self,
        launches: Sequence[Launch],
        first: torch.Tensor,
        window: Optional,
        *,
        edge: float = 1.0,
        shapes: Callable[[], Sequence[Launch]] = tuple,
        vanishing: Optional = None,
    ) -> torch.Tensor:
        """The result of one of these launches, which compute the same, best first.

        Args:
            first: what the kernel reads besides the window.
            edge, vanishing: where the kernel asks for it.
            shapes: returns launches of which one may be taken instead, bit by bit the same.
        """
        raise NotImplementedError


def layout_of(window: Optional, n_fft: int) -> tuple[bool, int | None]:
    """Whether a window is complex, and its ``step`` (:func:`.describe.analysis`)."""
    if window is None:
        return False, describe.NO_WINDOW
    is_whole = len(window) == n_fft and window.is_contiguous()
    step = None if is_whole and window.data_ptr() % _PAIR_BYTES == 0 else window.stride(0)
    return window.is_complex(), step


def result_of(launch: Launch, device: torch.device) -> torch.Tensor:
    """An uninitialised output of a launch."""
    dtype = torch.complex64 if launch.complex_output else torch.float32
    return torch.empty(launch.shape, dtype=dtype, device=device)
