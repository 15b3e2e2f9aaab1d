"""A resolved call, and the maps of its derivatives, on a device that runs our kernels in place.

Each is one launch where a fused kernel covers the size: nothing but input, output and a few n_fft
values is in the device's memory. Other sizes go through torch's transforms, between kernels that
cut and add frames. Windows are read where they are, in every call. Only the first istft by a window
waits for the device, to hear whether its envelope vanishes. What differs between devices is a
subclass: :mod:`.backends.cuda.backend`, :mod:`.backends.mps.backend`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from ...calls.operation import Call
from ...core.linear import Form, describe_analysis, bins_that_are_read, describe_synthesis
from ...core.params import IstftParams, StftParams
from ...kernels import describe, framing
from ...kernels.describe import describe_adjoint, find_divisor
from ...native.strides import (
    UNDOING,
    in_order,
    multiplied_dtype,
    natives_view,
    spectrum_strides,
    with_rows,
)
from ..base import Backend, Prepared
from ..cpu.backend import invert_frames, weigh_edges
from .envelope_checks import EnvelopeChecks, read_flag
from .launcher import Bound, TensorKernels, window_layout

Optional = torch.Tensor | None


class KernelBackend(Backend):
    """All maps over a launcher of our kernels, on tensors of one kind of device.

    Attributes:
        label: of its kernels, in reports.
        transform: what transforms frames of sizes that no fused kernel is for, in reports.
        checks: of the envelopes of its windows.
    """

    label: str
    transform: str

    def __init__(self) -> None:
        self.checks = EnvelopeChecks(self.make_flag, self.hear)

    @abstractmethod
    def kernels(self) -> TensorKernels:
        """The kernels of this process."""

    @abstractmethod
    def frames_outermost(
        self, params: StftParams, signal: torch.Tensor, multiplied: torch.dtype | None
    ) -> bool:
        """Whether native lays a spectrum of this device out as (frames, rows, bins) in memory.

        Args:
            multiplied: dtype of the window that native multiplies by, if it does.
        """

    def make_flag(self, device: torch.device) -> torch.Tensor:
        """An int32 of 0 that the kernels can write."""
        return torch.zeros(1, dtype=torch.int32, device=device)

    def hear(self, flag: torch.Tensor, device: torch.device) -> int:
        """What the last launch, which has a flag, has told by it; waits for the launch."""
        return read_flag(flag, device)

    def check_waiting(self) -> None:
        """Raise KernelRefused where the host must not wait for the device."""
        return

    def make_allocator(
        self,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
    ) -> Callable[[], torch.Tensor]:
        """What returns new, uninitialised tensors of this layout."""
        return partial(torch.empty_strided, shape, strides, dtype=dtype, device=device)

    def name_kernel(self, call: Call) -> str:
        launch = describe_launches(*call, self.kernels().cores)[0]
        kernel = f"{self.label} {launch.kernel}"
        if launch.plan is not None:
            return kernel
        is_stft = isinstance(call.params, StftParams)
        return " + ".join((kernel, self.transform) if is_stft else (self.transform, kernel))

    def explain_refusal(self, call: Call) -> str | None:
        exceeds = describe.largest_count(call.params) > describe.MAX_COUNT
        return "a dimension exceeds what the kernels count" if exceeds else None

    def inverse_real(self, half: torch.Tensor, n_fft: int) -> torch.Tensor:
        """``torch.fft.irfft(half, n_fft)``; imaginary parts of DC and Nyquist are zero."""
        frames: torch.Tensor = torch.fft.irfft(half, n_fft)
        return frames

    def summed(self, products: torch.Tensor) -> torch.Tensor:
        """The sum over all but the last dimension, of as many digits as its terms have."""
        wide = torch.complex128 if products.is_complex() else torch.float64
        return products.sum(dim=tuple(range(products.dim() - 1)), dtype=wide)

    def synthesise(
        self, params: IstftParams, spectrum: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        read, by_frames = readable(window), resolved(spectrum).transpose(1, 2)
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
        """As in the base class: one allocation and one launch; None where a call takes more."""
        params, _, window = call
        view = natives_view(params)
        batch = result if view is None else UNDOING[view](result)
        launch = self._bind_launch(call, batch)
        if launch is None:
            return None
        device, checks = result.device, self.checks
        allocate = self.make_allocator(tuple(batch.shape), batch.stride(), batch.dtype, device)

        def compute(tensor: torch.Tensor, window: Optional) -> torch.Tensor:
            result = allocate()
            launch(tensor, window, result)
            return result if view is None else view(result)

        if isinstance(params, StftParams) or window is None:
            return compute  # without a window the sizes alone tell whether the envelope vanishes
        geometry = params.geometry

        def check_and_compute(tensor: torch.Tensor, window: Optional) -> torch.Tensor:
            assert window is not None
            flag = None
            if not checks.is_fine(geometry, window):
                self.check_waiting()
                flag = checks.take_flag(device)
            result = allocate()
            launch(tensor, window, result, flag)
            if flag is not None:
                checks.settle(geometry, window, flag, device)
            return result if view is None else view(result)

        return check_and_compute

    def _bind_launch(self, call: Call, batch: torch.Tensor) -> Bound | None:
        """The only launch of a call, on its tensors as they are given; None where there are more.

        Args:
            batch: the call's result, as the kernel wrote it.
        """
        params, tensor, window = call
        if not is_readable(tensor) or not (window is None or is_readable(window)):
            return None
        kernels, read = self.kernels(), with_rows(params, tensor)
        if isinstance(params, StftParams):
            if batch.stride() != spectrum_strides(params, False)[3 - batch.dim() :]:
                return None  # it was copied into another order
            launches = kernels.list_analyses(params, read, window)
        else:
            read = read.transpose(1, 2)
            launches = kernels.list_syntheses(params, window, frames_fastest(read))
        return kernels.bind(launches, tensor.device, read.stride()) if launches else None

    def analyse(
        self, params: StftParams, signal: torch.Tensor, window: Optional, edge: float = 1.0
    ) -> torch.Tensor:
        edge = edge if params.onesided else 1.0
        by_frames = self._compute_spectrum(params, signal, window, edge=edge)
        # In place, as native does: a view that a custom function returns may not be changed.
        spectrum = by_frames.transpose_(1, 2)
        multiplied = multiplied_dtype(params, signal, window)
        strides = spectrum_strides(params, self.frames_outermost(params, signal, multiplied))
        return in_order(spectrum, strides)

    def adjoint(self, form: Form, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
        return self._compute_signal(
            describe_synthesis(form, form.params.padding, form.params.samples),
            resolved(spectrum).transpose(1, 2),
            readable(window, conjugate=True),
            adjoint=describe_adjoint(form),
        )

    def differentiate_window(
        self, form: Form, signal: torch.Tensor, spectrum: torch.Tensor
    ) -> torch.Tensor:
        params = replace(form.params, win_length=form.params.n_fft, scale=1.0)
        frames = self.kernels().cut_frames(params, resolved(signal), None)
        by_frames = resolved(spectrum).transpose(1, 2)
        inverse = invert_frames(
            params, by_frames, form.inverse_edge, form.both_halves, self.inverse_real
        ).contiguous()
        return self.summed(frames.conj() * inverse)

    def adjoint_synthesis(
        self, params: IstftParams, cotangent: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        form = describe_analysis(params)
        spectrum = self._compute_spectrum(
            form.params,
            cotangent[:, : params.kept],
            window,
            conjugate=True,
            edge=form.edge if form.params.onesided else 1.0,
            divisor=find_divisor(form, params),
        )
        return spectrum.transpose_(1, 2).contiguous()

    def _compute_spectrum(
        self,
        params: StftParams,
        signal: torch.Tensor,
        window: Optional,
        *,
        conjugate: bool = False,
        edge: float = 1.0,
        divisor: float | None = None,
    ) -> torch.Tensor:
        """A spectrum of shape (rows, frames, bins).

        Args:
            signal: shape (rows, samples).
            conjugate: multiply by the window's conjugate.
            edge: factor of the bins that are their own conjugates, of a onesided spectrum.
            divisor: as of :func:`.kernels.describe.analysis`.
        """
        kernels, signal = self.kernels(), resolved(signal)
        window = readable(window, conjugate)
        spectrum: Optional = kernels.analysis(params, signal, window, edge=edge, divisor=divisor)
        if spectrum is not None:
            return spectrum
        frames = kernels.cut_frames(params, signal, window, divisor=divisor)
        spectrum = torch.fft.rfft(frames) if params.onesided else torch.fft.fft(frames)
        weigh_edges(params, spectrum, edge)
        return spectrum

    def _compute_signal(
        self,
        params: IstftParams,
        by_frames: torch.Tensor,
        window: Optional,
        *,
        adjoint: describe.Adjoint | None = None,
        vanishing: Optional = None,
    ) -> torch.Tensor:
        """A signal of shape (rows, output length); arguments as of ``TensorKernels.synthesis``."""
        kernels = self.kernels()
        signal: Optional = kernels.synthesis(
            params,
            by_frames,
            window,
            frames_fastest=frames_fastest(by_frames),
            adjoint=adjoint,
            vanishing=vanishing,
        )
        if signal is not None:
            return signal
        edge = 1.0 if adjoint is None else adjoint.edge
        both_halves = adjoint is not None and adjoint.both_halves
        frames = invert_frames(params, by_frames, edge, both_halves, self.inverse_real).contiguous()
        added: torch.Tensor = kernels.add_frames(
            params, frames, window, adjoint=adjoint, vanishing=vanishing
        )
        return added


def describe_launches(
    params: StftParams | IstftParams,
    tensor: torch.Tensor,
    window: Optional,
    cores: int | None = None,
) -> tuple[describe.Launch, ...]:
    """Our launches for a call: alternatives, best first.

    Args:
        cores: as of :class:`.TensorKernels`.
    """
    complex_window, step = window_layout(window, params.n_fft)
    if isinstance(params, StftParams):
        kinds = (tensor.is_complex(), complex_window)
        fused = describe.analysis(params, *kinds, step=step)
        return fused or (framing.cut_frames(params, *kinds, step=step),)
    by_frames = tensor.transpose(-2, -1)
    fused = describe.synthesis(
        params, complex_window, frames_fastest(by_frames), cores=cores, step=step
    )
    return fused or (framing.add_frames(params, complex_window, step=step),)


def launches_back(
    params: StftParams | IstftParams, tensor: torch.Tensor, window: Optional
) -> list[tuple[describe.Launch, ...]]:
    """What the way back of a call launches, alternatives each, where its cotangent lies as usual.

    Args:
        tensor, window: of the call.
    """
    complex_window, step = window_layout(window, params.n_fft)
    if isinstance(params, StftParams):
        form = Form(params, tensor.is_complex(), complex_window)
        folded = describe_synthesis(form, params.padding, params.samples)
        adjoint = describe_adjoint(form)
        fused = describe.synthesis(folded, complex_window, False, adjoint, step=step)
        found = [fused or (framing.add_frames(folded, complex_window, adjoint, step=step),)]
    else:
        form = replace(describe_analysis(bins_that_are_read(params)), complex_window=complex_window)
        kinds = (form.complex_signal, complex_window)
        divisor = find_divisor(form, params)
        fused = describe.analysis(form.params, *kinds, divisor, step=step)
        found = [fused or (framing.cut_frames(form.params, *kinds, step=step, divisor=divisor),)]
    if window is not None and window.requires_grad:
        kinds = (form.complex_signal, False)
        found.append((framing.cut_frames(form.params, *kinds, step=describe.NO_WINDOW),))
    return found


def frames_fastest(by_frames: torch.Tensor) -> bool:
    """Whether neighbouring frames of a spectrum (..., frames, bins) are nearer than its bins."""
    return by_frames.stride(-2) < by_frames.stride(-1)


def readable(window: Optional, conjugate: bool = False) -> Optional:
    """A window, or its conjugate, as kernels read it."""
    return None if window is None else resolved(window.conj() if conjugate else window)


def resolved(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as a kernel reads it: its bits resolved, complex values on their own boundary."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    return plain if _is_aligned(plain) else plain.clone()


def is_readable(tensor: torch.Tensor) -> bool:
    """Whether a kernel reads the tensor itself: :func:`resolved` makes no other."""
    return not (tensor.is_conj() or tensor.is_neg()) and _is_aligned(tensor)


def _is_aligned(tensor: torch.Tensor) -> bool:
    """Whether complex values lie on their own boundary."""
    return not tensor.is_complex() or tensor.data_ptr() % tensor.element_size() == 0
