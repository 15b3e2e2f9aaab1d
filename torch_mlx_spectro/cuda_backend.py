"""The ``cuda`` backend: a resolved call on CUDA tensors, by the project's own kernels.

Both functions are one launch where a fused kernel covers the size: nothing but input, output and a
few n_fft values is in the device's memory. Other sizes go through cuFFT, between kernels that cut
and add frames. Everything runs on torch's current stream, and nothing waits for it. What else
derivatives need is in :mod:`.cuda_adjoints`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch

from . import torch_state
from .cuda_prepared import Reading, is_judged, reading_of, scaled_window
from .kernels import cubins, describe
from .kernels.cubins import CudaProblem
from .kernels.cuda import CudaKernels, architecture_of, cuda_kernels
from .kernels.cuda_text import MAX_BLOCKS, grid_of
from .kernels.metal import analysis_scale, synthesis_scale
from .maps import own_conjugates
from .params import IstftParams, StftParams
from .strides import frames_in_order, spectrum_strides

Optional = torch.Tensor | None
Function = TypeVar("Function", bound=Callable[..., Any])

NOT_PREPARED = "a CUDA graph is being captured, and this call was not made before"


@lru_cache(maxsize=1)
def unavailable_reason() -> str | None:
    """Why CUDA tensors cannot be computed here; None where they can."""
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if not sys.platform.startswith("linux"):
        return "CUDA kernels are compiled on Linux only"
    try:
        cuda_kernels()
    except (CudaProblem, ImportError) as problem:
        return str(problem)
    return None


@lru_cache(maxsize=64)
def device_reason(device: int) -> str | None:
    """Why the kernels do not run on one device; None where they do."""
    architecture = architecture_of(device)
    if architecture in cubins.architectures():
        return None
    version = ".".join(map(str, cubins.nvrtc_version()))
    major, minor = divmod(architecture, 10)
    return f"NVRTC {version} does not compile for compute capability {major}.{minor}"


def computation(
    params: StftParams | IstftParams, tensor: torch.Tensor, window: Optional
) -> tuple[str, str | None]:
    """What computes a call on this input, for reports, and why it cannot, if so."""
    launches = _launches(params, tensor, window)
    reason = device_reason(tensor.device.index) or _refusal(params, launches)
    if reason is None and torch_state.is_capturing():
        loaded = all(cuda_kernels().is_loaded(one, tensor.device.index) for one in launches)
        if not loaded or (isinstance(params, IstftParams) and not is_judged(params, window)):
            reason = NOT_PREPARED
    kernel = f"cuda {launches[0].kernel}"
    if launches[0].plan is None:
        kernel = f"{kernel} + cufft" if isinstance(params, StftParams) else f"cufft + {kernel}"
    return kernel, reason


def _launches(
    params: StftParams | IstftParams, tensor: torch.Tensor, window: Optional
) -> tuple[describe.Launch, ...]:
    """Our launches for a call."""
    complex_window = window is not None and window.is_complex()
    if isinstance(params, StftParams):
        fused = describe.analysis(params, tensor.is_complex(), complex_window)
        return fused[:1] or (describe.cut_frames(params, tensor.is_complex(), complex_window),)
    by_frames = tensor.transpose(-2, -1)
    fused = describe.synthesis(params, complex_window, frames_fastest(by_frames))
    return fused[:1] or (describe.add_frames(params, complex_window),)


def _refusal(params: StftParams | IstftParams, launches: tuple[describe.Launch, ...]) -> str | None:
    counts = [params.rows, params.frames, params.bins, params.frames + 2 * params.n_fft]
    counts.append(params.samples if isinstance(params, StftParams) else params.output_length)
    if max(counts) > describe.MAX_COUNT:
        return "a dimension exceeds what the kernels count"
    if any(grid_of(launch)[0] > MAX_BLOCKS for launch in launches):
        return "more thread blocks than CUDA counts"
    return None


def on_its_device(function: Function) -> Function:
    """A function of (parameters, tensor, ...) that runs with the tensor's device as torch's own.

    The default stream has no handle of its own: it is that of the current device.
    """

    @wraps(function)
    def called(params: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if tensor.device.index == torch_state.cuda_device():
            return function(params, tensor, *args, **kwargs)
        with torch.cuda.device(tensor.device):
            return function(params, tensor, *args, **kwargs)

    return called  # type: ignore[return-value]


def stft(params: StftParams, signal: torch.Tensor, window: Optional) -> torch.Tensor:
    """Compute a resolved ``torch.stft``; as :func:`.mlx_backend.stft`, on a CUDA device."""
    batched = signal if params.batched else signal.unsqueeze(0)
    spectrum: torch.Tensor = analysis(params, batched, window)
    if not params.batched:
        spectrum = spectrum.squeeze(0)
    return spectrum if params.return_complex else torch.view_as_real(spectrum)


@on_its_device
def analysis(
    params: StftParams, signal: torch.Tensor, window: Optional, edge: float = 1.0
) -> torch.Tensor:
    """The spectrum of a batch with native's strides, shape (rows, bins, frames), complex64.

    Args:
        signal: shape (rows, samples).
        edge: factor of the bins that are their own conjugates, of a onesided spectrum.
    """
    by_frames = spectrum_of(params, signal, window, edge=edge)
    # In place, as native does: a view that a custom function returns may not be changed.
    spectrum = by_frames.transpose_(1, 2)
    multiplied = window.dtype if window is not None else None
    if multiplied is None and params.win_length < params.n_fft:
        multiplied = signal.dtype  # native pads a missing window, too, and multiplies by it
    # cuFFT's results keep the order of its input's batch dimensions, as MKL's do.
    outer = frames_in_order(params, signal.stride(), signal.dtype, multiplied)
    strides = spectrum_strides(params, outer)
    if spectrum.stride() == strides:
        return spectrum
    return torch.empty_strided(
        spectrum.shape, strides, dtype=spectrum.dtype, device=spectrum.device
    ).copy_(spectrum)


def spectrum_of(
    params: StftParams,
    signal: torch.Tensor,
    window: Optional,
    *,
    conjugate: bool = False,
    edge: float = 1.0,
    envelope: Optional = None,
) -> torch.Tensor:
    """A spectrum of shape (rows, frames, bins).

    Args:
        signal: shape (rows, samples).
        conjugate: multiply by the window's conjugate.
        edge: factor of the bins that are their own conjugates, of a onesided spectrum.
        envelope: what a fused kernel multiplies the signal by; as of ``CudaKernels.analysis``.
    """
    kernels, signal = cuda_kernels(), resolved(signal)
    prepared = scaled_window(
        kernels,
        window,
        params.win_length,
        params.n_fft,
        analysis_scale(params),
        signal.device,
        conjugate,
    )
    spectrum = kernels.analysis(params, signal, prepared, edge=edge, envelope=envelope)
    if spectrum is not None:
        return spectrum
    frames = kernels.cut_frames(params, signal, prepared)
    transform: Callable[..., torch.Tensor] = torch.fft.rfft if params.onesided else torch.fft.fft
    spectrum = transform(frames)
    if params.onesided and edge != 1.0:
        for own in own_conjugates(params.n_fft):
            spectrum[..., own] *= edge
    return spectrum


@on_its_device
def istft(params: IstftParams, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
    """Compute a resolved ``torch.istft``; as :func:`.mlx_backend.istft`, on a CUDA device.

    Raises:
        UnresolvedArguments: the envelope is below the NOLA threshold, for which torch raises.
    """
    batched = spectrum if params.batched else spectrum.unsqueeze(0)
    read = what_is_read(params, window, spectrum.device)
    by_frames = resolved(batched).transpose(1, 2)
    signal = synthesis_of_frames(cuda_kernels(), params, by_frames, read.window, read.envelope)
    read.settle()
    return signal if params.batched else signal.squeeze(0)


def synthesis_of_frames(
    kernels: CudaKernels,
    params: IstftParams,
    by_frames: torch.Tensor,
    window: torch.Tensor,
    envelope: torch.Tensor,
    *,
    edge: float = 1.0,
    adjoint: describe.Adjoint | None = None,
) -> torch.Tensor:
    """A signal of shape (rows, output length); arguments as of ``CudaKernels.synthesis``."""
    signal = kernels.synthesis(
        params,
        by_frames,
        window,
        envelope,
        frames_fastest=frames_fastest(by_frames),
        edge=edge,
        adjoint=adjoint,
    )
    if signal is not None:
        return signal
    both_halves = adjoint is not None and adjoint.both_halves
    frames = inverse_frames(params, by_frames, edge=edge, both_halves=both_halves)
    return kernels.add_frames(params, frames, window, envelope, adjoint=adjoint)


def inverse_frames(
    params: StftParams | IstftParams,
    by_frames: torch.Tensor,
    *,
    edge: float = 1.0,
    both_halves: bool = False,
) -> torch.Tensor:
    """Frames of a spectrum, shape (rows, frames, n_fft), by cuFFT (:func:`.maps.windowed_frames`).

    cuFFT reads the imaginary parts of DC and Nyquist, which do not belong to real frames.
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
    frames = torch.fft.irfft(half, n_fft)
    return frames.contiguous()


def warns(params: StftParams | IstftParams) -> bool:
    """Whether torch warns of a call like this, which has a window."""
    if isinstance(params, StftParams):
        return not params.return_complex
    return params.zero_tail > 0


def what_is_read(
    params: StftParams | IstftParams, window: Optional, device: torch.device
) -> Reading:
    """What a call's kernel reads besides its input; of an stft, the window twice.

    Raises:
        UnresolvedArguments: the envelope is below the NOLA threshold, for which torch raises; or
            settling what is returned raises it.
    """
    if isinstance(params, StftParams):
        factor = analysis_scale(params)
        scaled = scaled_window(
            cuda_kernels(), window, params.win_length, params.n_fft, factor, device
        )
        return Reading(scaled, scaled)
    return reading_of(cuda_kernels(), params, window, synthesis_scale(params), device)


def single_launch(
    params: StftParams | IstftParams, tensor: torch.Tensor, window: Optional, result: torch.Tensor
) -> Callable[..., None] | None:
    """What launches a call that has been computed; None where it takes more than a launch.

    It takes the stream and the addresses of input, window, envelope and result.
    """
    launch = _launches(params, tensor, window)[0]
    if launch.plan is None:
        return None
    read = tensor if params.batched else tensor.unsqueeze(0)
    if isinstance(params, StftParams):
        strides = spectrum_strides(params, False)[0 if params.batched else 1 :]
        if not params.return_complex:
            strides = (*(2 * stride for stride in strides), 1)
        if result.stride() != strides:
            return None  # it was copied into another order
    else:
        read = read.transpose(1, 2)
    return cuda_kernels().prepared(launch, tensor.device.index, read.stride()).run


def frames_fastest(by_frames: torch.Tensor) -> bool:
    """Whether neighbouring frames of a spectrum (..., frames, bins) are nearer than its bins."""
    return by_frames.stride(-2) < by_frames.stride(-1)


def resolved(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as a kernel reads it: its bits resolved, complex values on their own boundary."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.is_complex() and plain.data_ptr() % plain.element_size():
        plain = plain.clone()
    return plain
