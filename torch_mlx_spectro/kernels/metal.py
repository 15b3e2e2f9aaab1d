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
    """The kernels of one ``mx.fast.metal_kernel``.

    Their windows have ``n_fft`` values. Whether an envelope vanishes is found before, on the host.
    """

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
        divisor: float | None = None,
    ) -> Any | None:
        """Spectrum of shape (rows, frames, bins); None where no fused kernel covers it.

        Args:
            signal: shape (rows, samples), any strides.
            window: shape (n_fft,) or longer.
            edge: factor of bins 0 and n_fft / 2.
            divisor: as of :func:`.describe.analysis`.
        """
        kinds = (_is_complex(signal), _is_complex(window), divisor)
        launches = demanded(describe.analysis, params, *kinds, self._group("analysis"))
        if not launches:
            return None
        signal = self._in_device_memory(signal, stream)

        def inputs(launch: Launch) -> list[Any]:
            table = self._table(launch)
            return [signal, window, table, self._integers(launch), self._number(edge)]

        def shapes() -> tuple[Launch, ...]:
            return describe.analysis_shapes(params, *kinds)

        return self._best_running(launches, inputs, stream, shapes)

    def synthesis(
        self,
        params: IstftParams,
        spectrum: Any,
        window: Any,
        stream: Any,
        *,
        frames_fastest: bool = False,
        adjoint: describe.Adjoint | None = None,
    ) -> Any | None:
        """Signal of shape (rows, output length); None where no fused kernel covers it.

        Args:
            spectrum: shape (rows, frames, bins), any strides.
            window: shape (n_fft,) or longer.
            frames_fastest: neighbouring frames are neighbours in memory.
            adjoint: leave the envelope out, and fold the padding of an analysis.
        """
        groups = (self._group("synthesis_walk"), self._group("synthesis"))
        kinds = (_is_complex(window), frames_fastest, adjoint)
        launches = demanded(describe.synthesis, params, *kinds, *groups, self.cores)
        if not launches:
            return None
        spectrum = self._in_device_memory(spectrum, stream)
        edge = 1.0 if adjoint is None else adjoint.edge

        def inputs(launch: Launch) -> list[Any]:
            table = self._table(launch)
            return [spectrum, window, table, self._integers(launch), self._number(edge)]

        return self._best_running(launches, inputs, stream)

    def cut_frames(
        self,
        params: StftParams,
        signal: Any,
        window: Any,
        stream: Any,
        *,
        divisor: float | None = None,
    ) -> Any:
        """Windowed frames, shape (rows, frames, n_fft); arguments as of :meth:`analysis`."""
        group = self._group("cut_frames") or describe.FREE_GROUP
        kinds = (_is_complex(signal), _is_complex(window))
        launch = describe.cut_frames(params, *kinds, group, divisor=divisor)
        signal = self._in_device_memory(signal, stream)
        return self._launch(launch, [signal, window, self._integers(launch)], stream)

    def add_frames(
        self,
        params: IstftParams,
        frames: Any,
        window: Any,
        stream: Any,
        *,
        adjoint: describe.Adjoint | None = None,
    ) -> Any:
        """Windowed, overlap-added signal, shape (rows, output length).

        Args:
            frames: shape (rows, frames, n_fft), contiguous.
            window, adjoint: as of :meth:`synthesis`.
        """
        group = self._group("add_frames") or describe.FREE_GROUP
        launch = describe.add_frames(params, _is_complex(window), adjoint, group)
        frames = self._in_device_memory(frames, stream)
        return self._launch(launch, [frames, window, self._integers(launch)], stream)


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
