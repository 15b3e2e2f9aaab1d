"""The launcher for ``mx.fast.metal_kernel``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.params import IstftParams, StftParams
from ..kernels import describe
from ..kernels.describe import Launch
from ..kernels.functions import Kernels
from ..kernels.radices import APPLE_CORES
from ..kernels.tuning import Tuning
from ..store.caches import cached
from .launcher import MlxLauncher


class MetalKernels(MlxLauncher, Kernels):
    """The kernels of one ``mx.fast.metal_kernel``.

    Their windows have ``n_fft`` values. Whether an envelope vanishes is found before, on the host.
    """

    def refusal(self, params: StftParams | IstftParams) -> str | None:
        """Why no kernel may compute this call; None where one does."""
        return describe.refusal(params)

    def _is_complex(self, array: Any) -> bool:
        return "complex" in str(array.dtype)

    def _layout_of(self, window: Any, n_fft: int) -> tuple[bool, int | None]:
        return self._is_complex(window), None

    def _run(
        self,
        launches: Sequence[Launch],
        first: Any,
        window: Any,
        stream: Any,
        *,
        edge: float = 1.0,
        shapes: Callable[[], Sequence[Launch]] = tuple,
        vanishing: Any = None,
    ) -> Any:
        assert vanishing is None, "MLX's arrays are written whole"
        first = self._in_device_memory(first, stream)
        if launches[0].plan is None:
            given = [first, window, self._integers(launches[0])]
            return self._launch(launches[0], given, stream)

        def inputs(launch: Launch) -> list[Any]:
            table = self._table(launch)
            return [first, window, table, self._integers(launch), self._number(edge)]

        return self._best_running(launches, inputs, stream, shapes)


def device_name(mx: Any) -> str:
    """MLX's name of its default device."""
    return str(mx.device_info().get("device_name", mx.default_device()))


@cached(4)
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
