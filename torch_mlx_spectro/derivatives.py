"""Both functions as torch's autograd sees them: derivatives of every order and direction.

Analysis ``A(x, w)``, its adjoint and its correlation (:mod:`.adjoints`) are each linear in both of
their arguments, and each is what the derivatives of the other two are made of. With the cotangent
written with a bar,

=====================  ======================  =======================
function               gradient of the first   gradient of the second
=====================  ======================  =======================
analysis(x, w)         adjoint(z-bar, w)       correlation(x, z-bar)
adjoint(z, w)          analysis(y-bar, w)      correlation(y-bar, z)
correlation(x, z)      adjoint(z, w-bar)       analysis(x, w-bar)
=====================  ======================  =======================

and a tangent is the function itself at the tangent of either argument. So nothing else is needed
for second derivatives, for forward mode, or for forward over reverse.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import repeat
from typing import Any

import torch
from torch.autograd import Function

from . import adjoints, torch_state
from .differentiable_envelope import inverse_envelope
from .forms import Form, Inversion, analysis_of, bins_that_are_read
from .params import IstftParams, StftParams

Optional = torch.Tensor | None


def stft(
    params: StftParams, signal: torch.Tensor, window: Optional, backend: str | None = None
) -> torch.Tensor:
    """:func:`.mlx_backend.stft`, differentiable in signal and window.

    Args:
        backend: that computes the call and its derivatives; None for the one of its device.
    """
    batched = signal if params.batched else signal.unsqueeze(0)
    form = _form_of(params, signal, window, backend)
    spectrum: torch.Tensor = _apply(Analysis, form, batched, window)
    if not params.batched:
        spectrum = spectrum.squeeze(0)
    return spectrum if params.return_complex else torch.view_as_real(spectrum)


def _form_of(
    params: StftParams, signal: torch.Tensor, window: Optional, backend: str | None
) -> Form:
    complex_window = window is not None and window.is_complex()
    return Form(params, signal.is_complex(), complex_window, backend=backend)


def istft(
    params: IstftParams, spectrum: torch.Tensor, window: Optional, backend: str | None = None
) -> torch.Tensor:
    """:func:`.mlx_backend.istft`, differentiable in spectrum and window.

    Args:
        backend: as of :func:`stft`.

    Raises:
        UnresolvedArguments: the envelope vanishes, for which torch raises.
    """
    batched = spectrum if params.batched else spectrum.unsqueeze(0)
    params = bins_that_are_read(params)
    batched = batched[:, : params.bins]
    if window is None or torch_state.is_constant(window):
        inverted = params if params.batched else replace(params, batched=True)
        inversion = Inversion(inverted, backend)
        signal: torch.Tensor = _apply(Inverse, inversion, batched, window)
    else:
        signal = _istft_of_window(params, batched, window, backend)
    return signal if params.batched else signal.squeeze(0)


def _istft_of_window(
    params: IstftParams, spectrum: torch.Tensor, window: torch.Tensor, backend: str | None
) -> torch.Tensor:
    """An istft that depends on its window twice: overlap-add by our maps, envelope by torch's.

    An adjoint conjugates the window, an istft does not.
    """
    form = replace(
        analysis_of(params), complex_window=window.is_complex(), nola=params, backend=backend
    )
    signal: torch.Tensor = _apply(Adjoint, form, spectrum, window.conj())
    signal = signal * inverse_envelope(params, window)
    tail = signal.new_zeros(params.rows, params.zero_tail)
    return torch.cat([signal, tail], dim=1) if params.zero_tail else signal


def _apply(function: Any, form: Any, first: Any, second: Any) -> Any:
    def of_examples(*args: Any) -> Any:
        first, second, *dims = args
        result, _ = function.vmap(None, (None, *dims), form, first, second)
        return result

    batched = torch_state.unbatched(of_examples, first, second)
    if batched is not None:
        return batched
    if torch_state.is_transformed():
        return function.apply(form, first, second)
    if not torch.is_grad_enabled():  # nothing is recorded, as in most backward passes
        return function.forward(form, first, second)
    return _recorded(function).apply(form, first, second)


@lru_cache(maxsize=8)
def _recorded(function: Any) -> Any:
    """The same function for autograd alone, without rules for torch.func's transforms.

    Of a function with ``setup_context`` torch inspects the signature in each call, which takes
    longer than small transforms.
    """

    def forward(ctx: Any, *inputs: Any) -> Any:
        output = function.forward(*inputs)
        function.setup_context(ctx, inputs, output)
        return output

    members = {"forward": staticmethod(forward), "backward": staticmethod(function.backward)}
    return type(f"{function.__name__}Recorded", (Function,), members)


def gradient(
    params: StftParams | IstftParams,
    cotangent: torch.Tensor,
    tensor: torch.Tensor,
    window: Optional,
    of_window: bool,
    backend: str | None = None,
) -> torch.Tensor:
    """The gradient of a call, given the cotangent of its result; contiguous.

    Args:
        cotangent: of the result's shape.
        tensor: the call's input; only its kind matters unless ``of_window``.
        of_window: the gradient in the window, else in the input.
        backend: as of :func:`stft`.
    """
    batched = cotangent if params.batched else cotangent.unsqueeze(0)
    if isinstance(params, StftParams):
        if not params.return_complex:
            batched = torch.view_as_complex(batched.contiguous())
        form = _form_of(params, tensor, window, backend)
        if of_window:
            rows = tensor if params.batched else tensor.unsqueeze(0)
            return adjoints.correlation(form, rows, batched)
        found = adjoints.adjoint(form, batched, window)
    elif of_window:
        # The envelope depends on the window, too: torch's own derivatives know how.
        _, pullback, *_ = torch.func.vjp(lambda leaf: istft(params, tensor, leaf, backend), window)
        of_the_window: torch.Tensor = pullback(cotangent)[0]
        return of_the_window.contiguous()
    else:
        read = bins_that_are_read(params)
        found = adjoints.istft_adjoint(Inversion(read, backend), batched, window)
        if read.bins < params.bins:
            unread = found.new_zeros(params.rows, params.bins - read.bins, params.frames)
            found = torch.cat([found, unread], dim=1)
    found = found.contiguous()
    return found if params.batched else found.squeeze(0)


class _Bilinear(Function):
    """A function of (form, first, second) that is linear in either tensor."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        form, first, second = inputs
        ctx.form = form if form.nola is None else replace(form, nola=None)
        ctx.set_materialize_grads(False)
        ctx.save_for_forward(first, second)  # until the tangent is computed, which is now
        # What is not saved may be changed in place after the call, as after native's.
        _, of_first, of_second = ctx.needs_input_grad
        ctx.save_for_backward(first if of_second else None, second if of_first else None)


def _gradients(ctx: Any, cotangents: Any, of_first: Any, of_second: Any) -> tuple[Any, ...]:
    """The gradients that are asked for; ``of_...`` are functions of cotangent and other tensor."""
    (cotangent,) = cotangents
    first, second = ctx.saved_tensors
    _, needs_first, needs_second = ctx.needs_input_grad
    if cotangent is None:
        return None, None, None
    return (
        None,
        of_first(cotangent, second) if needs_first else None,
        of_second(cotangent, first) if needs_second else None,
    )


def _tangent(function: Any, ctx: Any, first: Optional, second: Optional) -> Any:
    """The derivative of a function linear in both tensors, along tangents of either."""
    at_first, at_second = ctx.saved_tensors
    parts = []
    if first is not None:
        parts.append(_apply(function, ctx.form, first, at_second))
    if second is not None:
        parts.append(_apply(function, ctx.form, at_first, second))
    return sum(parts[1:], parts[0]) if parts else None


def _by_rows(function: Any, in_dims: Any, form: Any, rows: Any, window: Any) -> tuple[Any, int]:
    """Vmap of a function of rows and of a window: examples are rows of one call.

    Windows that differ make as many calls.
    """
    _, dim, window_dim = in_dims
    if window_dim is not None:
        return _one_by_one(function, in_dims, form, rows, window)
    examples = rows.movedim(dim, 0)
    count, batch = examples.shape[:2]
    result = _apply(function, form.of_rows(count * batch), examples.flatten(0, 1), window)
    return result.unflatten(0, (count, batch)), 0


def _one_by_one(function: Any, in_dims: Any, form: Any, first: Any, second: Any) -> tuple[Any, int]:
    _, *dims = in_dims
    each = [
        repeat(tensor) if dim is None else tensor.unbind(dim)
        for tensor, dim in zip((first, second), dims, strict=True)
    ]
    return torch.stack([_apply(function, form, *pair) for pair in zip(*each, strict=False)]), 0


def _values(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with memory: derivatives may be torch's symbolic zeros."""
    if tensor._is_zerotensor():
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    return tensor


class Analysis(_Bilinear):
    """``analysis(x, w)``."""

    @staticmethod
    def forward(form: Form, signal: torch.Tensor, window: Optional) -> torch.Tensor:
        window = None if window is None else _values(window)
        return adjoints.analysis(form, _values(signal), window)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return _gradients(
            ctx,
            cotangents,
            lambda cotangent, window: _apply(Adjoint, ctx.form, cotangent, window),
            lambda cotangent, signal: _apply(Correlation, ctx.form, signal, cotangent),
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _tangent(Analysis, ctx, *tangents[1:])

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _by_rows(Analysis, in_dims, *args)


class Adjoint(_Bilinear):
    """``adjoint(z, w)``."""

    @staticmethod
    def forward(form: Form, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
        window = None if window is None else _values(window)
        if form.nola is not None:
            # Here, because only here every transform of torch has been unwrapped.
            adjoints.check_envelope(form.backend, form.nola, spectrum, window)
        return adjoints.adjoint(form, _values(spectrum), window)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return _gradients(
            ctx,
            cotangents,
            lambda cotangent, window: _apply(Analysis, ctx.form, cotangent, window),
            lambda cotangent, spectrum: _apply(Correlation, ctx.form, cotangent, spectrum),
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _tangent(Adjoint, ctx, *tangents[1:])

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _by_rows(Adjoint, in_dims, *args)


class Correlation(_Bilinear):
    """``correlation(x, z)``."""

    @staticmethod
    def forward(form: Form, signal: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
        return adjoints.correlation(form, _values(signal), _values(spectrum))

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return _gradients(
            ctx,
            cotangents,
            lambda cotangent, spectrum: _apply(Adjoint, ctx.form, spectrum, cotangent),
            lambda cotangent, signal: _apply(Analysis, ctx.form, signal, cotangent),
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _tangent(Correlation, ctx, *tangents[1:])

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _one_by_one(Correlation, in_dims, *args)


class _Linear(Function):
    """A function of (inversion, tensor, constant window), linear in the tensor."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.inversion, _, window = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(window)
        ctx.save_for_forward(window)


class Inverse(_Linear):
    """An istft, its envelope included."""

    @staticmethod
    def forward(inversion: Inversion, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
        return adjoints.istft(inversion, _values(spectrum), window)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return None, _applied(InverseAdjoint, ctx, *cotangents), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _applied(Inverse, ctx, tangents[1])

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _by_rows(Inverse, in_dims, *args)


class InverseAdjoint(_Linear):
    """The adjoint of :class:`Inverse`."""

    @staticmethod
    def forward(inversion: Inversion, cotangent: torch.Tensor, window: Optional) -> torch.Tensor:
        return adjoints.istft_adjoint(inversion, _values(cotangent), window)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return None, _applied(Inverse, ctx, *cotangents), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _applied(InverseAdjoint, ctx, tangents[1])

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _by_rows(InverseAdjoint, in_dims, *args)


def _applied(function: Any, ctx: Any, tensor: Optional) -> Any:
    (window,) = ctx.saved_tensors
    return None if tensor is None else _apply(function, ctx.inversion, tensor, window)
