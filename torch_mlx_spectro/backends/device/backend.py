"""Calls, and the maps of their derivatives, by our kernels on tensors that lie on a device.

Each map is one launch where a fused kernel covers the size; besides input and output it takes a few
n_fft values of the device's memory. Other sizes are computed by torch's transforms, between kernels
that cut and add frames. Windows are read in place, in every call. Only the first istft by a window
waits for the device, to learn whether its envelope vanishes. Subclasses say what differs between
devices: :mod:`.backends.cuda.backend`, :mod:`.backends.mps.backend`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ...calls.operation import Call
from ...core.linear import Analysis, bins_that_are_read
from ...core.params import IstftParams, StftParams
from ...kernels import describe
from ...kernels.describe import Launch, describe_adjoint, describe_inverse_adjoint
from ...native import private_state as torch_state
from ...native.strides import (
    UNDOING,
    as_batch,
    in_order,
    multiplied_dtype,
    natives_view,
    spectrum_strides,
    with_rows,
)
from ..base import Backend, Optional, Prepared
from ..cpu.frames import invert_frames, weigh_edges
from .envelope_checks import EnvelopeChecks, read_flag
from .launcher import Bound, TensorKernels


class KernelBackend(Backend):
    """All maps over a launcher of our kernels, on tensors of one kind of device.

    Attributes:
        label: the prefix of its kernels' names in reports.
        transform: the name in reports of what transforms frames without a fused kernel.
        checks: knows which windows have envelopes that do not vanish.
    """

    label: str
    transform: str

    def __init__(self) -> None:
        self.checks = EnvelopeChecks(self.make_flag, self.wait_for_verdict)

    @abstractmethod
    def kernels(self) -> TensorKernels:
        """Return the kernels of this process."""

    @abstractmethod
    def frames_outermost(
        self, params: StftParams, signal: torch.Tensor, multiplied: torch.dtype | None
    ) -> bool:
        """Whether native's spectra on this device lie as (frames, rows, bins) in memory.

        Args:
            multiplied: dtype of the window that native multiplies by; None if it does not.
        """

    def make_flag(self, device: torch.device) -> torch.Tensor:
        """Make an int32 of 0 that the kernels can write."""
        return torch.zeros(1, dtype=torch.int32, device=device)

    def wait_for_verdict(self, flag: torch.Tensor, device: torch.device) -> int:
        """Wait for the last launch, which was given the flag, and return its verdict."""
        return read_flag(flag, device)

    def check_waiting(self) -> None:
        """Raise KernelRefused where the host must not wait for the device."""
        return

    def make_allocator(self, like: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Make a function that returns uninitialised tensors with the layout of this one."""
        layout = (tuple(like.shape), like.stride())
        return partial(torch.empty_strided, *layout, dtype=like.dtype, device=like.device)

    def name_kernel(self, call: Call) -> str:
        launch = self.list_launches(call)[0]
        kernel = f"{self.label} {launch.kernel}"
        if launch.plan is not None:
            return kernel
        is_stft = isinstance(call.params, StftParams)
        return " + ".join((kernel, self.transform) if is_stft else (self.transform, kernel))

    def explain_refusal(self, call: Call) -> str | None:
        exceeds = describe.largest_count(call.params) > describe.MAX_COUNT
        return "a dimension exceeds what the kernels count" if exceeds else None

    def list_launches(self, call: Call) -> tuple[Launch, ...]:
        """List the alternative launches for a call, best first."""
        params, tensor, window = call
        kernels = self.kernels()
        if isinstance(params, StftParams):
            return kernels.list_spectra(params, tensor.is_complex(), window)
        return kernels.list_signals(params, window, frames_fastest(tensor.transpose(-2, -1)))

    def list_gradient_launches(self, call: Call) -> list[tuple[Launch, ...]]:
        """List the alternative launches for each derivative of a call.

        Cotangents are assumed to have the layout of native's results.
        """
        params, tensor, window = call
        kernels, read, found = self.kernels(), window, []
        if window is not None and not torch_state.is_wrapped(window):  # else asked again, unwrapped
            read = make_readable(window, conjugate=True)
        is_trained = window is not None and window.requires_grad
        if isinstance(params, StftParams):
            analysis = Analysis(params, tensor.is_complex(), False)
        else:
            analysis, divisor = describe_inverse_adjoint(bins_that_are_read(params))
            # With a trained window torch divides by the envelope, and lays out the gradient.
            kinds = (None, False) if is_trained else (divisor, True)
            is_complex = analysis.complex_signal
            found.append(kernels.list_spectra(analysis.params, is_complex, read, *kinds))
        if isinstance(params, StftParams) or is_trained:
            back, adjoint = describe_adjoint(analysis)
            fastest = isinstance(params, IstftParams) and frames_fastest(tensor.transpose(-2, -1))
            found.append(kernels.list_signals(back, read, fastest, adjoint))
        if is_trained:
            found.append(
                kernels.list_cuts(_take_whole_frames(analysis), analysis.complex_signal, None)
            )
        return found

    def inverse_real(self, half: torch.Tensor, n_fft: int) -> torch.Tensor:
        """Compute ``torch.fft.irfft(half, n_fft)``; imaginary parts of DC and Nyquist are zero."""
        frames: torch.Tensor = torch.fft.irfft(half, n_fft)
        return frames

    def sum_products(self, products: torch.Tensor) -> torch.Tensor:
        """Sum over all but the last dimension, as accurately as the terms are."""
        wide = torch.complex128 if products.is_complex() else torch.float64
        return products.sum(dim=tuple(range(products.dim() - 1)), dtype=wide)

    def synthesise(
        self, params: IstftParams, spectrum: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        read, by_frames = make_readable(window), resolve_bits(spectrum).transpose(1, 2)
        call, checks = params.geometry, self.checks
        if window is None:
            checks.check(params, None)
        if window is None or checks.is_fine(call, window):
            return self._compute_signal(params, by_frames, read)
        flag = checks.take_flag(spectrum.device)
        signal = self._compute_signal(params, by_frames, read, vanishing=flag)
        checks.settle(call, window, flag, spectrum.device)
        return signal

    def check_envelope(self, params: IstftParams, window: Optional) -> None:
        self.checks.check(params, window)

    def prepare(self, call: Call, result: torch.Tensor) -> Prepared | None:
        """Prepare one allocation and one launch; None where a call takes more than that."""
        params, _, window = call
        view = natives_view(params)
        batch = (result if view is None else UNDOING[view](result)).detach()
        launch = self._bind_launch(call, batch)
        # Without a window the envelope depends on the sizes alone, and was checked before.
        if launch is None or not isinstance(params, IstftParams) or window is None:
            return launch
        device, checks, geometry = result.device, self.checks, params.geometry

        def compute(tensor: torch.Tensor, window: Any) -> torch.Tensor:
            if checks.is_fine(geometry, window):
                return launch(tensor, window)
            self.check_waiting()
            flag = checks.take_flag(device)
            result = launch(tensor, window, flag)
            checks.settle(geometry, window, flag, device)
            return result

        return compute

    def _bind_launch(self, call: Call, batch: torch.Tensor) -> Bound | None:
        """Bind a call's launch to the layout of its tensors; None where it takes more than one.

        Args:
            batch: the call's result, as the kernel wrote it.
        """
        params, tensor, window = call
        if not is_readable(tensor) or not (window is None or is_readable(window)):
            return None
        read, launches = with_rows(params, tensor), self.list_launches(call)
        if launches[0].plan is None:
            return None
        if isinstance(params, IstftParams):
            read = read.transpose(1, 2)
        elif batch.stride() != spectrum_strides(params, False)[3 - batch.dim() :]:
            return None  # it was copied into another order
        allocate = self.make_allocator(batch)
        return self.kernels().bind(launches, tensor.device, read.stride(), allocate)

    def prepare_gradient(
        self,
        params: StftParams | IstftParams,
        cotangent: torch.Tensor,
        window: Optional,
        gradient: torch.Tensor,
    ) -> Prepared | None:
        """Prepare one allocation and one launch; None where a gradient takes more than that."""
        if not is_readable(cotangent) or not (window is None or is_readable(window)):
            return None
        kernels = self.kernels()
        batch = as_batch(params, cotangent)
        if isinstance(params, StftParams):
            back, adjoint = describe_adjoint(Analysis(params, gradient.is_complex(), False))
            read, edge = batch.transpose(1, 2), adjoint.edge
            launches = kernels.list_signals(back, window, frames_fastest(read), adjoint)
        else:
            analysis, divisor = describe_inverse_adjoint(params)
            read, edge = batch, analysis.edge
            is_complex = analysis.complex_signal
            launches = kernels.list_spectra(
                analysis.params, is_complex, window, divisor, frames_fastest=True
            )
        if launches[0].plan is None:
            return None
        allocate = self.make_allocator(gradient)
        return kernels.bind(launches, gradient.device, read.stride(), allocate, edge)

    def analyse(
        self, params: StftParams, signal: torch.Tensor, window: Optional, edge: float = 1.0
    ) -> torch.Tensor:
        edge = edge if params.onesided else 1.0
        by_frames = self._compute_spectrum(params, signal, window, edge=edge)
        # In place, as native does. A view would not do: a program may not change in place a view
        # that an autograd function returns.
        spectrum = by_frames.transpose_(1, 2)
        multiplied = multiplied_dtype(params, signal, window)
        strides = spectrum_strides(params, self.frames_outermost(params, signal, multiplied))
        return in_order(spectrum, strides)

    def adjoint(self, analysis: Analysis, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
        params, adjoint = describe_adjoint(analysis)
        by_frames, read = (
            resolve_bits(spectrum).transpose(1, 2),
            make_readable(window, conjugate=True),
        )
        return self._compute_signal(params, by_frames, read, adjoint=adjoint)

    def differentiate_window(
        self, analysis: Analysis, signal: torch.Tensor, spectrum: torch.Tensor
    ) -> torch.Tensor:
        params = _take_whole_frames(analysis)
        frames = self.kernels().cut_frames(params, resolve_bits(signal), None)
        by_frames = resolve_bits(spectrum).transpose(1, 2)
        inverse = invert_frames(
            params, by_frames, analysis.inverse_edge, analysis.both_halves, self.inverse_real
        ).contiguous()
        return self.sum_products(frames.conj() * inverse)

    def adjoint_synthesis(
        self, params: IstftParams, cotangent: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        analysis, divisor = describe_inverse_adjoint(params)
        spectrum = self._compute_spectrum(
            analysis.params,
            cotangent[:, : params.kept],
            window,
            conjugate=True,
            edge=analysis.edge,
            divisor=divisor,
            frames_fastest=True,
        )
        if params.frames == 1:  # it is contiguous in either order, and native leaves the other one
            spectrum.as_strided_(spectrum.shape, spectrum_strides(analysis.params, False))
        return spectrum

    def _compute_spectrum(
        self,
        params: StftParams,
        signal: torch.Tensor,
        window: Optional,
        *,
        conjugate: bool = False,
        edge: float = 1.0,
        divisor: float | None = None,
        frames_fastest: bool = False,
    ) -> torch.Tensor:
        """Compute a spectrum of shape (rows, frames, bins), contiguous.

        Args:
            signal: shape (rows, samples).
            conjugate: multiply by the window's conjugate.
            edge: factor of DC and Nyquist in a onesided spectrum.
            divisor: see :func:`.kernels.describe.list_analyses`.
            frames_fastest: the spectrum has shape (rows, bins, frames) instead.
        """
        kernels, read = self.kernels(), make_readable(window, conjugate)
        is_complex = signal.is_complex()
        launches = kernels.list_spectra(params, is_complex, read, divisor, frames_fastest)
        result = kernels.run(launches, resolve_bits(signal), read, edge=edge)
        if launches[0].plan is None:
            result = torch.fft.rfft(result) if params.onesided else torch.fft.fft(result)
            weigh_edges(params, result, edge)
            if frames_fastest:
                result = result.transpose(1, 2).contiguous()
        return result

    def _compute_signal(
        self,
        params: IstftParams,
        by_frames: torch.Tensor,
        window: Optional,
        *,
        adjoint: describe.Adjoint | None = None,
        vanishing: Optional = None,
    ) -> torch.Tensor:
        """Compute a signal of shape (rows, output length).

        Args:
            by_frames: the spectrum, shape (rows, frames, bins).
            window, adjoint, vanishing: as in :meth:`.Kernels.compute_synthesis`.
        """
        kernels = self.kernels()
        launches = kernels.list_signals(params, window, frames_fastest(by_frames), adjoint)
        edge = 1.0 if adjoint is None else adjoint.edge
        if launches[0].plan is None:
            both_halves = adjoint is not None and adjoint.both_halves
            frames = invert_frames(params, by_frames, edge, both_halves, self.inverse_real)
            by_frames = frames.contiguous()
        return kernels.run(launches, by_frames, window, edge=edge, vanishing=vanishing)


def _take_whole_frames(analysis: Analysis) -> StftParams:
    """Return the analysis with a whole frame as its window, not scaled, as its derivative needs."""
    return replace(analysis.params, win_length=analysis.params.n_fft, scale=1.0)


def frames_fastest(by_frames: torch.Tensor) -> bool:
    """Whether frames of a spectrum (..., frames, bins) are closer in memory than its bins."""
    return by_frames.stride(-2) < by_frames.stride(-1)


def make_readable(window: Optional, conjugate: bool = False) -> Optional:
    """Return a window, or its conjugate, as kernels can read it."""
    return None if window is None else resolve_bits(window.conj() if conjugate else window)


def resolve_bits(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor as kernels can read it: bits resolved, complex values aligned."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    return plain if _is_aligned(plain) else plain.clone()


def is_readable(tensor: torch.Tensor) -> bool:
    """Whether kernels can read the tensor itself, so that :func:`resolve_bits` copies nothing."""
    return not (tensor.is_conj() or tensor.is_neg()) and _is_aligned(tensor)


def _is_aligned(tensor: torch.Tensor) -> bool:
    """Whether complex values lie at multiples of their size."""
    return not tensor.is_complex() or tensor.data_ptr() % tensor.element_size() == 0
