"""The kernels on torch tensors where they are; the launcher of a device is a subclass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..params import IstftParams, StftParams
from . import describe
from .describe import Launch
from .tuning import Demands, demanded


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
        window: torch.Tensor,
        *,
        edge: float = 1.0,
        envelope: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """Spectrum of shape (rows, frames, bins); None where the fused kernel covers it not.

        Args:
            signal: shape (rows, samples), any strides, its bits resolved.
            window: shape (n_fft,), contiguous.
            edge: factor of bins 0 and n_fft / 2.
            envelope: what the signal is multiplied by: the rows of an inverse envelope, flat, of
                the window's type, which then has every scale folded in; None for nothing.
        """
        kinds = (signal.is_complex(), window.is_complex(), envelope is not None)
        launches = demanded(describe.analysis, params, *kinds, self._group("analysis"))
        if not launches:
            return None
        factors = window if envelope is None else envelope

        def shapes() -> Sequence[Launch]:
            return describe.analysis_shapes(params, *kinds)

        return self._run(launches, signal, window, factors, edge=edge, shapes=shapes)

    def synthesis(
        self,
        params: IstftParams,
        spectrum: torch.Tensor,
        window: torch.Tensor,
        envelope: torch.Tensor,
        *,
        frames_fastest: bool = False,
        edge: float = 1.0,
        adjoint: describe.Adjoint | None = None,
    ) -> torch.Tensor | None:
        """Signal of shape (rows, output length); None where the fused kernel covers it not.

        Args:
            spectrum: shape (rows, frames, bins), any strides, its bits resolved.
            window: shape (n_fft,), contiguous, 1 / n_fft and every other scale folded in.
            envelope: inverse envelope by hops, flat; ignored for an adjoint.
            frames_fastest: neighbouring frames are neighbours in memory.
            edge: factor of bins 0 and n_fft / 2.
            adjoint: leave the envelope out, and fold the padding of an analysis.
        """
        groups = (self._group("synthesis_walk"), self._group("synthesis"))
        kinds = (window.is_complex(), frames_fastest, adjoint)
        launches = demanded(describe.synthesis, params, *kinds, *groups, self.cores)
        if not launches:
            return None
        return self._run(launches, spectrum, window, envelope, edge=edge)

    def cut_frames(
        self, params: StftParams, signal: torch.Tensor, window: torch.Tensor
    ) -> torch.Tensor:
        """Windowed frames, shape (rows, frames, n_fft)."""
        group = self._group("cut_frames") or describe.FREE_GROUP
        launch = describe.cut_frames(params, signal.is_complex(), window.is_complex(), group)
        return self._run((launch,), signal, window)

    def add_frames(
        self,
        params: IstftParams,
        frames: torch.Tensor,
        window: torch.Tensor,
        envelope: torch.Tensor,
        adjoint: describe.Adjoint | None = None,
    ) -> torch.Tensor:
        """Windowed, overlap-added signal, shape (rows, output length).

        Args:
            frames: shape (rows, frames, n_fft), contiguous.
        """
        group = self._group("add_frames") or describe.FREE_GROUP
        launch = describe.add_frames(params, window.is_complex(), adjoint, group)
        return self._run((launch,), frames, window, envelope)

    def _run(
        self,
        launches: Sequence[Launch],
        first: torch.Tensor,
        *others: torch.Tensor,
        edge: float = 1.0,
        shapes: Callable[[], Sequence[Launch]] = tuple,
    ) -> torch.Tensor:
        """The result of one of these launches, which compute the same, best first.

        Args:
            first, others: inputs of the kernel, in its order.
            edge: where the kernel asks for it.
            shapes: returns launches of which one may be taken instead, bit by bit the same.
        """
        raise NotImplementedError


def result_of(launch: Launch, device: torch.device) -> torch.Tensor:
    """An uninitialised output of a launch."""
    dtype = torch.complex64 if launch.complex_output else torch.float32
    return torch.empty(launch.shape, dtype=dtype, device=device)
