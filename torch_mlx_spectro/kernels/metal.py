"""The launcher for ``mx.fast.metal_kernel``."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ..params import IstftParams, StftParams
from . import describe
from .describe import Launch
from .mlx_launcher import MlxLauncher
from .plans import APPLE_CORES
from .tuning import Tuning, demanded


class MetalKernels(MlxLauncher):
    """The kernels of one ``mx.fast.metal_kernel``."""

    def refusal(self, params: StftParams | IstftParams) -> str | None:
        """Why no kernel may compute this call; None where one does."""
        return describe.refusal(params)

    def analysis(
        self,
        params: StftParams,
        signal: Any,
        window: Any,
        stream: Any,
        *,
        edge: float = 1.0,
        envelope: Any = None,
    ) -> Any | None:
        """Spectrum of shape (rows, frames, bins); None where the fused kernel covers it not.

        Args:
            signal: shape (rows, samples), any strides.
            window: shape (n_fft,) or longer.
            edge: factor of bins 0 and n_fft / 2.
            envelope: what the signal is multiplied by: the rows of an inverse envelope, flat, of
                the window's type, which then has every scale folded in; None for nothing.
        """
        kinds = (_is_complex(signal), _is_complex(window), envelope is not None)
        launches = demanded(describe.analysis, params, *kinds, self._group("analysis"))
        if not launches:
            return None
        signal = self._in_device_memory(signal, stream)

        def inputs(launch: Launch) -> list[Any]:
            table = self._table(launch)
            factors = window if envelope is None else envelope
            return [signal, window, factors, table, self._integers(launch), self._number(edge)]

        def shapes() -> tuple[Launch, ...]:
            return describe.analysis_shapes(params, *kinds)

        return self._best_running(launches, inputs, stream, shapes)

    def synthesis(
        self,
        params: IstftParams,
        spectrum: Any,
        window: Any,
        envelope: Any,
        stream: Any,
        *,
        frames_fastest: bool = False,
        edge: float = 1.0,
        adjoint: describe.Adjoint | None = None,
    ) -> Any | None:
        """Signal of shape (rows, output length); None where the fused kernel covers it not.

        Args:
            spectrum: shape (rows, frames, bins), any strides.
            window: shape (n_fft,) or longer, 1 / n_fft and every other scale folded in.
            envelope: inverse envelope by hops, flat; ignored for an adjoint.
            frames_fastest: neighbouring frames are neighbours in memory.
            edge: factor of bins 0 and n_fft / 2.
            adjoint: leave the envelope out, and fold the padding of an analysis.
        """
        groups = (self._group("synthesis_walk"), self._group("synthesis"))
        kinds = (_is_complex(window), frames_fastest, adjoint)
        launches = demanded(describe.synthesis, params, *kinds, *groups, self.cores)
        if not launches:
            return None
        spectrum = self._in_device_memory(spectrum, stream)

        def inputs(launch: Launch) -> list[Any]:
            table = self._table(launch)
            numbers = [self._integers(launch), self._number(edge)]
            return [spectrum, window, envelope, table, *numbers]

        return self._best_running(launches, inputs, stream)

    def cut_frames(self, params: StftParams, signal: Any, window: Any, stream: Any) -> Any:
        """Windowed frames, shape (rows, frames, n_fft)."""
        group = self._group("cut_frames") or describe.FREE_GROUP
        launch = describe.cut_frames(params, _is_complex(signal), _is_complex(window), group)
        signal = self._in_device_memory(signal, stream)
        return self._launch(launch, [signal, window, self._integers(launch)], stream)

    def add_frames(
        self,
        params: IstftParams,
        frames: Any,
        window: Any,
        envelope: Any,
        stream: Any,
        adjoint: describe.Adjoint | None = None,
    ) -> Any:
        """Windowed, overlap-added signal, shape (rows, output length).

        Args:
            frames: shape (rows, frames, n_fft), contiguous.
        """
        group = self._group("add_frames") or describe.FREE_GROUP
        launch = describe.add_frames(params, _is_complex(window), adjoint, group)
        frames = self._in_device_memory(frames, stream)
        return self._launch(launch, [frames, window, envelope, self._integers(launch)], stream)


def analysis_scale(params: StftParams, enveloped: bool = False) -> float:
    """What an analysis' window is multiplied by: the fused kernel scales its results itself.

    Args:
        enveloped: it multiplies its signal by an inverse envelope; then the window has every scale.
    """
    return 1.0 if describe.points_of(params) is not None and not enveloped else params.scale


def synthesis_scale(params: IstftParams) -> float:
    """What the synthesis kernel's window is multiplied by: its inverse transform divides not."""
    return 1.0 / params.n_fft if describe.points_of(params) is not None else 1.0


def device_name(mx: Any) -> str:
    """MLX's name of its default device."""
    return str(mx.device_info().get("device_name", mx.default_device()))


def _is_complex(array: Any) -> bool:
    return "complex" in str(array.dtype)


@lru_cache(maxsize=4)
def _kernels_of(mx: Any, factory: Callable[..., Any]) -> MetalKernels:
    if getattr(factory, "emulated", False):
        return MetalKernels(mx, factory)
    return MetalKernels(mx, factory, Tuning(lambda: device_name(mx)), APPLE_CORES)


def metal_kernels(mx: Any, device_type: str) -> MetalKernels | None:
    """The kernels for tensors of a device: a GPU's own for MPS, emulated ones for any."""
    kernels = _kernels_of(mx, mx.fast.metal_kernel)
    if kernels.emulated or (device_type == "mps" and mx.metal.is_available()):
        return kernels
    return None
