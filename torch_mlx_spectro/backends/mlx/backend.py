"""The ``mlx`` backend: a resolved call on torch tensors, computed by MLX.

Where MLX has a GPU, tensors of the host and of MPS are computed there whole, by the project's own
Metal kernels (:mod:`.backends.mlx.whole`): both lie in memory that it addresses. Elsewhere host
tensors run in blocks on MLX CPU streams (:mod:`.backends.mlx.blocks`), or by the kernels while
those are emulated.
"""

from __future__ import annotations

import torch

from ...calls.operation import Call
from ...core.linear import Form
from ...core.params import IstftParams, StftParams
from ...kernels.describe import describe_adjoint, describe_inverse_adjoint
from ...mlx import runtime
from ...mlx.fused import name_kernel
from ...mlx.launcher import MetalKernels, metal_kernels, refusal
from ...native.strides import host_spectrum_strides, spectrum_strides
from ..base import Backend
from . import blocks, whole
from .windows import check_envelope, read_window

Optional = torch.Tensor | None


def find_kernels(tensor: torch.Tensor, params: StftParams | IstftParams) -> MetalKernels | None:
    """The kernels that compute a call on this tensor; None where it is computed in blocks."""
    mx = runtime.runtime().mx
    if not runtime.has_gpu():
        return metal_kernels(mx, tensor.device.type)
    if tensor.device.type == "cpu" and refusal(params) is not None:
        return None
    return metal_kernels(mx, "mps")


class MlxBackend(Backend):
    """Tensors of the host and of MPS, by MLX."""

    def explain_absence(self, device_type: str | None = None) -> str | None:
        reason = runtime.unavailable_reason()
        if reason is None and device_type == "mps" and not runtime.has_gpu():
            return "this MLX has no GPU to take MPS tensors to"
        return reason

    def name_kernel(self, call: Call) -> str:
        by_kernels = find_kernels(call.tensor, call.params) is not None
        return name_kernel(call.params) if by_kernels else "mlx cpu blocks"

    def explain_refusal(self, call: Call) -> str | None:
        by_kernels = find_kernels(call.tensor, call.params) is not None
        return refusal(call.params) if by_kernels else None

    def analyse(
        self, params: StftParams, signal: torch.Tensor, window: Optional, edge: float = 1.0
    ) -> torch.Tensor:
        kernels, prepared = find_kernels(signal, params), read_window(params, window)
        strides = _natives_strides(params, signal, window)
        if kernels is not None:
            return whole.analyse(kernels, params, signal, prepared, strides, edge=edge)
        scaled = prepared.for_maps(params.scale)
        return blocks.analyse(params, signal, scaled, strides, edge=edge)

    def synthesise(
        self, params: IstftParams, spectrum: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        kernels, prepared = find_kernels(spectrum, params), read_window(params, window)
        check_envelope(params, prepared)
        if kernels is None:
            return blocks.synthesise(params, spectrum, prepared)
        return whole.synthesise(kernels, params, spectrum, prepared)

    def adjoint(self, form: Form, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
        params = form.params
        kernels, prepared = find_kernels(spectrum, params), read_window(params, window)
        if kernels is None:
            return blocks.adjoint(form, spectrum, prepared)
        folded, adjoint = describe_adjoint(form)
        return whole.synthesise(
            kernels, folded, spectrum, prepared, conjugate=True, adjoint=adjoint
        )

    def differentiate_window(
        self, form: Form, signal: torch.Tensor, spectrum: torch.Tensor
    ) -> torch.Tensor:
        kernels = find_kernels(signal, form.params)
        if kernels is None:
            return blocks.differentiate_window(form, signal, spectrum)
        return whole.differentiate_window(kernels, form, signal, spectrum)

    def adjoint_synthesis(
        self, params: IstftParams, cotangent: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        form, divisor = describe_inverse_adjoint(params)
        kernels, prepared = find_kernels(cotangent, form.params), read_window(params, window)
        kept = cotangent[:, : params.kept]
        bins, frames = form.params.bins, form.params.frames
        strides = (bins * frames, frames, 1)
        if kernels is not None:
            return whole.analyse(
                kernels,
                form.params,
                kept,
                prepared,
                strides,
                conjugate=True,
                edge=form.edge,
                divisor=divisor,
            )
        return blocks.adjoint_synthesis(params, form, kept, prepared, strides)

    def check_envelope(self, params: IstftParams, window: Optional) -> None:
        check_envelope(params, read_window(params, window))


def _natives_strides(params: StftParams, signal: torch.Tensor, window: Optional) -> tuple[int, ...]:
    """Strides of native's spectrum, shape (rows, bins, frames)."""
    if not signal.is_cpu:
        return spectrum_strides(params, False)  # MPS's transforms write a new, contiguous tensor
    return host_spectrum_strides(params, signal, window)


MLX = MlxBackend()
