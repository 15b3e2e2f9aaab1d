"""Both functions as torch's autograd sees them: derivatives of every order and direction.

A call is made of the maps of :mod:`.autograd.rules`, which know their own derivatives. This module
decides which maps, and which of its tensors a program may change in place before the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ..backends.base import Backend, Optional
from ..backends.envelope import inverse_envelope
from ..core.linear import Analysis, bins_that_are_read, describe_analysis
from ..core.params import IstftParams, StftParams
from ..native import private_state as torch_state
from ..native.strides import shape_result, with_rows
from . import linear_maps
from .linear_maps import Task
from .rules import MAPS

#: A call with all arguments bound except its tensor and its window.
Bound = Callable[[torch.Tensor, Optional], torch.Tensor]


def bind(
    params: StftParams | IstftParams, backend: Backend, tensor: torch.Tensor, window: Optional
) -> Bound:
    """Bind what all calls like this one share, so that it is resolved only once.

    An stft saves its signal for the backward pass only if native does: if the window requires a
    gradient, a copy where native saves its padded copy; or if the signal requires one and is
    reflected or replicated. An istft saves a copy of its spectrum if the window requires a
    gradient. It is as large as the frames that native saves.

    Args:
        backend: computes the calls and their derivatives.
        tensor, window: those of this call; all that is read is whether they are complex.

    Returns:
        :meth:`.Backend.stft` or :meth:`.Backend.istft` as a function of a tensor and a window.
        Gradients may be asked for in either, and any transform may be active. The function raises
        UnresolvedArguments where the envelope vanishes, since torch raises there.
    """
    function = _stft if isinstance(params, StftParams) else _istft
    return partial(function, make_task(params, backend, tensor, window))


def make_task(
    params: StftParams | IstftParams, backend: Backend, tensor: torch.Tensor, window: Optional
) -> Task[Any]:
    """Make the task of a call's map; arguments as in :func:`bind`."""
    shortens = params.win_length < params.n_fft  # native pads such a window, and saves the copy
    if isinstance(params, StftParams):
        analysis, refers = _make_analysis(params, tensor, window), refers_to_signal(params)
        return Task(backend, analysis, copies_window=shortens, refers=refers)
    return Task(backend, bins_that_are_read(params), copies_window=shortens)


def _make_analysis(params: StftParams, signal: torch.Tensor, window: Optional) -> Analysis:
    return Analysis(params, signal.is_complex(), window is not None and window.is_complex())


def _stft(task: Task[Analysis], signal: torch.Tensor, window: Optional) -> torch.Tensor:
    params = task.subject.params
    if signal.is_inference():
        signal = signal.detach()  # so that it is a constant, as natively
    # Under vmap native stacks the results of all examples, so the layout of one does not show.
    stacks = torch_state.is_vmapped(signal, window)
    copies = copies_signal(params, signal)
    is_trained = window is not None and not torch_state.is_constant(window)
    if not stacks:
        signal = _with_natives_gradient(params, signal)
    if is_trained and copies:
        signal = signal.clone()
    if (
        task.copies_window
        and window is not None
        and (window.requires_grad or torch_state.is_transformed())
    ):
        window = window.clone()
    spectrum: torch.Tensor = MAPS["analysis"].apply(task, with_rows(params, signal), window)
    return shape_result(params, spectrum.contiguous() if stacks else spectrum)


def _with_natives_gradient(params: StftParams, signal: torch.Tensor) -> torch.Tensor:
    """Return the signal such that its gradient gets the strides that native gives to it.

    Where nothing is padded, native frames the signal in place. Then the gradient has the signal's
    strides, and samples that share memory each get the mean of their gradients.
    """
    if not frames_itself(params, signal):
        return signal
    framed = signal.clone() if params.padded else signal
    return framed.as_strided(framed.shape, framed.stride())


def frames_itself(params: StftParams, signal: torch.Tensor) -> bool:
    """Whether native frames this signal in place, which shows in its gradient's strides.

    It does if nothing is padded, and shows if the signal is differentiated and has other strides
    than a new tensor: those along sizes of one show, too.
    """
    if params.padding or (params.padded and params.pad_mode != "constant"):
        return False
    usual = (params.samples, 1) if signal.dim() > 1 else (1,)
    return signal.requires_grad and signal.stride() != usual


def copies_signal(params: StftParams, signal: torch.Tensor) -> bool:
    """Whether native lets a program change the signal before a gradient is computed.

    Native saves its padded copy. But it saves a reference to the signal itself if the signal is
    differentiated and its padding reflects or replicates.
    """
    return params.padded and not (signal.requires_grad and refers_to_signal(params))


def refers_to_signal(params: StftParams) -> bool:
    """Whether native saves a differentiated signal itself: it does if it reflects or replicates."""
    return params.padded and params.pad_mode in ("reflect", "replicate")


def _istft(task: Task[IstftParams], spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
    params = task.subject
    if window is not None and window.is_inference():
        window = window.detach()  # which native does not train here, unlike an stft's
    batched = with_rows(params, spectrum.detach() if spectrum.is_inference() else spectrum)
    if params.frames == 1:  # native cuts its transpose, which shows in the gradient's strides
        batched = batched.mT.narrow(-1, 0, params.bins).mT
    else:
        batched = batched[:, : params.bins]
    if window is None or torch_state.is_constant(window):
        signal: torch.Tensor = MAPS["inverse"].apply(task, batched, window)
    else:
        signal = _istft_with_trained_window(params, task.backend, batched, window)
    return shape_result(params, signal)


def _istft_with_trained_window(
    params: IstftParams, backend: Backend, spectrum: torch.Tensor, window: torch.Tensor
) -> torch.Tensor:
    """Compute an istft that is differentiated in its window.

    It depends on the window twice: the overlap-add is computed by our maps, the envelope by torch's
    operations. The adjoint conjugates its window and an istft does not, so the map is given the
    conjugate. As natively, the spectrum and short windows may be changed in place before the
    backward pass, and the gradient in the spectrum is contiguous.
    """
    pairs = torch.view_as_real(spectrum.resolve_conj().resolve_neg())
    spectrum = torch.view_as_complex(pairs.clone())
    if params.win_length < params.n_fft:
        window = window.clone()
    analysis = replace(describe_analysis(params), complex_window=window.is_complex())
    # The map checks the envelope, since only inside it are torch's transforms unwrapped.
    task = Task(backend, analysis, checked=params)
    signal: torch.Tensor = MAPS["adjoint"].apply(task, spectrum, window.conj())
    signal = signal * inverse_envelope(params, window, signal.dtype)
    tail = signal.new_zeros(params.rows, params.zero_tail)
    return torch.cat([signal, tail], dim=1) if params.zero_tail else signal


def bind_gradient(
    params: StftParams | IstftParams, backend: Backend, tensor: torch.Tensor, window: Optional
) -> Bound:
    """Bind what the gradients in the input of all calls like this one share.

    Args:
        backend: computes the gradients.
        tensor, window: those of this call; all that is read is whether they are complex.

    Returns:
        A function of a cotangent, which has the result's shape, and the window. It returns the
        gradient, contiguous.
    """
    task = make_task(params, backend, tensor, window).for_derivatives()
    if isinstance(params, StftParams):
        return partial(_compute_stft_gradient, task)
    return partial(_compute_istft_gradient, task, params)


def prepare_gradient(
    params: StftParams | IstftParams,
    backend: Backend,
    cotangent: torch.Tensor,
    window: Optional,
    gradient: torch.Tensor,
) -> Bound | None:
    """Prepare a launch for gradients like one that was computed; None where the backend has none.

    Args:
        cotangent, window: those that the gradient was computed from.
        gradient: the gradient in the input, by :func:`bind_gradient`.
    """
    if isinstance(params, StftParams):
        is_whole = params.return_complex
    else:
        is_whole = bins_that_are_read(params).bins == params.bins
    if not is_whole or (window is not None and window.is_complex()):
        return None
    return backend.prepare_gradient(params, cotangent, window, gradient)


def _compute_stft_gradient(
    task: Task[Analysis], cotangent: torch.Tensor, window: Optional
) -> torch.Tensor:
    params = task.subject.params
    batched = _batch_spectrum(params, cotangent)
    found = linear_maps.compute_adjoint(task, batched, window).contiguous()
    return found if params.batched else found.squeeze_(0)


def _batch_spectrum(params: StftParams, cotangent: torch.Tensor) -> torch.Tensor:
    batched = with_rows(params, cotangent)
    return batched if params.return_complex else torch.view_as_complex(batched.contiguous())


def _compute_istft_gradient(
    task: Task[IstftParams], params: IstftParams, cotangent: torch.Tensor, window: Optional
) -> torch.Tensor:
    found = linear_maps.compute_inverse_adjoint(task, with_rows(params, cotangent), window)
    if task.subject.bins < params.bins:
        unread = found.new_zeros(params.rows, params.bins - task.subject.bins, params.frames)
        found = torch.cat([found, unread], dim=1)
    found = found.contiguous()
    return found if params.batched else found.squeeze_(0)


def compute_window_gradient(
    params: StftParams | IstftParams,
    backend: Backend,
    cotangent: torch.Tensor,
    tensor: torch.Tensor,
    window: torch.Tensor,
) -> torch.Tensor:
    """Compute the gradient of a call in its window; contiguous.

    Args:
        cotangent: has the result's shape.
        tensor: the call's input.
    """
    if isinstance(params, StftParams):
        task = Task(backend, _make_analysis(params, tensor, window))
        batched = _batch_spectrum(params, cotangent)
        return linear_maps.compute_correlation(task, with_rows(params, tensor), batched)
    # The envelope depends on the window, too; torch's own derivatives cover that.
    call = partial(bind(params, backend, tensor, window), tensor)
    whole: torch.Tensor = torch.func.vjp(call, window)[1](cotangent)[0]
    return whole.contiguous()
