"""A resolved call on tensors of a device that runs our kernels where the tensors are.

Both functions are one launch where a fused kernel covers the size: nothing but input, output and a
few n_fft values is in the device's memory. Other sizes go through torch's transforms, between
kernels that cut and add frames. Windows are read where they are, in every call. Only the first
istft by a window waits for the device, to hear whether its envelope vanishes. What differs between
devices is a :class:`DeviceKind`: :mod:`.cuda_backend`, :mod:`.mps_backend`. What else derivatives
need is in :mod:`.device_adjoints`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from .envelope_checks import EnvelopeChecks
from .kernels import describe
from .kernels.tensors import TensorKernels, layout_of
from .maps import own_conjugates
from .params import IstftParams, StftParams
from .strides import in_order, shape_result, spectrum_strides, with_rows

Optional = torch.Tensor | None


class DeviceKind(Protocol):
    """What a kind of device does in its own way.

    Attributes:
        checks: of the envelopes of its windows.
    """

    checks: EnvelopeChecks

    def kernels(self) -> TensorKernels:
        """The kernels of this process."""

    def frames_outermost(
        self, params: StftParams, signal: torch.Tensor, multiplied: torch.dtype | None
    ) -> bool:
        """Whether native lays a spectrum of this device out as (frames, rows, bins) in memory.

        Args:
            multiplied: dtype of the window that native multiplies by, if it does.
        """

    def inverse_real(self, half: torch.Tensor, n_fft: int) -> torch.Tensor:
        """``torch.fft.irfft(half, n_fft)``; imaginary parts of DC and Nyquist are zero."""

    def summed(self, products: torch.Tensor) -> torch.Tensor:
        """The sum over all but the last dimension, of as many digits as its terms have."""


def launches_of(
    params: StftParams | IstftParams,
    tensor: torch.Tensor,
    window: Optional,
    cores: int | None = None,
) -> tuple[describe.Launch, ...]:
    """Our launches for a call: alternatives, best first.

    Args:
        cores: as of :class:`.TensorKernels`.
    """
    complex_window, step = layout_of(window, params.n_fft)
    if isinstance(params, StftParams):
        kinds = (tensor.is_complex(), complex_window)
        fused = describe.analysis(params, *kinds, step=step)
        return fused or (describe.cut_frames(params, *kinds, step=step),)
    by_frames = tensor.transpose(-2, -1)
    fused = describe.synthesis(
        params, complex_window, frames_fastest(by_frames), cores=cores, step=step
    )
    return fused or (describe.add_frames(params, complex_window, step=step),)


def kernel_name(
    device_name: str, transform: str, params: StftParams | IstftParams, launch: describe.Launch
) -> str:
    """What computes a call, for reports.

    Args:
        transform: what stands between our kernels where none is fused.
    """
    kernel = f"{device_name} {launch.kernel}"
    if launch.plan is not None:
        return kernel
    pair = (kernel, transform) if isinstance(params, StftParams) else (transform, kernel)
    return " + ".join(pair)


def exceeds_counts(params: StftParams | IstftParams) -> str | None:
    """Why the kernels cannot count what a call is made of; None where they can."""
    counts = [params.rows, params.frames, params.bins, params.frames + 2 * params.n_fft]
    counts.append(params.samples if isinstance(params, StftParams) else params.output_length)
    return (
        "a dimension exceeds what the kernels count" if max(counts) > describe.MAX_COUNT else None
    )


def stft(
    analysed: Callable[..., torch.Tensor],
    params: StftParams,
    signal: torch.Tensor,
    window: Optional,
) -> torch.Tensor:
    """Compute a resolved ``torch.stft``; as :func:`.mlx_backend.stft`.

    Args:
        analysed: :func:`analysis` of a device.
    """
    return shape_result(params, analysed(params, with_rows(params, signal), window))


def analysis(
    kind: DeviceKind,
    params: StftParams,
    signal: torch.Tensor,
    window: Optional,
    edge: float = 1.0,
) -> torch.Tensor:
    """The spectrum of a batch with native's strides, shape (rows, bins, frames), complex64.

    Args:
        signal: shape (rows, samples).
        edge: factor of the bins that are their own conjugates, of a onesided spectrum.
    """
    by_frames = spectrum_of(kind, params, signal, window, edge=edge)
    # In place, as native does: a view that a custom function returns may not be changed.
    spectrum = by_frames.transpose_(1, 2)
    multiplied = window.dtype if window is not None else None
    if multiplied is None and params.win_length < params.n_fft:
        multiplied = signal.dtype  # native pads a missing window, too, and multiplies by it
    strides = spectrum_strides(params, kind.frames_outermost(params, signal, multiplied))
    return in_order(spectrum, strides)


def spectrum_of(
    kind: DeviceKind,
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
        divisor: as of :func:`.describe.analysis`.
    """
    kernels, signal = kind.kernels(), resolved(signal)
    window = readable(window, conjugate)
    spectrum: Optional = kernels.analysis(params, signal, window, edge=edge, divisor=divisor)
    if spectrum is not None:
        return spectrum
    frames = kernels.cut_frames(params, signal, window, divisor=divisor)
    transform: Callable[..., torch.Tensor] = torch.fft.rfft if params.onesided else torch.fft.fft
    spectrum = transform(frames)
    if params.onesided and edge != 1.0:
        for own in own_conjugates(params.n_fft):
            spectrum[..., own] *= edge
    return spectrum


def istft(
    kind: DeviceKind, params: IstftParams, spectrum: torch.Tensor, window: Optional
) -> torch.Tensor:
    """Compute a resolved ``torch.istft``; as :func:`.mlx_backend.istft`.

    Raises:
        UnresolvedArguments: the envelope is below the NOLA threshold, for which torch raises.
    """
    batched = with_rows(params, spectrum)
    read = readable(window)
    by_frames = resolved(batched).transpose(1, 2)
    call, checks = params.geometry, kind.checks
    if window is None:
        checks.check(params, None)
    if window is None or checks.is_fine(call, window):
        signal = synthesis_of_frames(kind, params, by_frames, read)
    else:
        flag = checks.take_flag(spectrum.device)
        signal = synthesis_of_frames(kind, params, by_frames, read, vanishing=flag)
        checks.settle(call, window, flag, spectrum.device)
    return shape_result(params, signal)


def synthesis_of_frames(
    kind: DeviceKind,
    params: IstftParams,
    by_frames: torch.Tensor,
    window: Optional,
    *,
    adjoint: describe.Adjoint | None = None,
    vanishing: Optional = None,
) -> torch.Tensor:
    """A signal of shape (rows, output length); arguments as of ``TensorKernels.synthesis``."""
    kernels = kind.kernels()
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
    frames = inverse_frames(kind, params, by_frames, edge=edge, both_halves=both_halves)
    added: torch.Tensor = kernels.add_frames(
        params, frames, window, adjoint=adjoint, vanishing=vanishing
    )
    return added


def inverse_frames(
    kind: DeviceKind,
    params: StftParams | IstftParams,
    by_frames: torch.Tensor,
    *,
    edge: float = 1.0,
    both_halves: bool = False,
) -> torch.Tensor:
    """Frames of a spectrum, shape (rows, frames, n_fft), by torch (:func:`.maps.windowed_frames`).

    Transforms of torch may read the imaginary parts of DC and Nyquist, as cuFFT does, which do not
    belong to real frames.
    """
    n_fft = params.n_fft
    complex_frames = params.complex_fft if isinstance(params, StftParams) else params.return_complex
    frames: torch.Tensor
    if complex_frames or both_halves:
        frames = torch.fft.ifft(by_frames)
        return (frames if complex_frames else frames.real).contiguous()
    half = by_frames[..., : n_fft // 2 + 1].clone(memory_format=torch.contiguous_format)
    for own in own_conjugates(n_fft):
        half[..., own] = half[..., own].real * edge
    return kind.inverse_real(half, n_fft).contiguous()


def frames_fastest(by_frames: torch.Tensor) -> bool:
    """Whether neighbouring frames of a spectrum (..., frames, bins) are nearer than its bins."""
    return by_frames.stride(-2) < by_frames.stride(-1)


def readable(window: Optional, conjugate: bool = False) -> Optional:
    """A window, or its conjugate, as kernels read it."""
    return None if window is None else resolved(window.conj() if conjugate else window)


def resolved(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as a kernel reads it: its bits resolved, complex values on their own boundary."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.is_complex() and plain.data_ptr() % plain.element_size():
        plain = plain.clone()
    return plain
