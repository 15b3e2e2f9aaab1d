"""Both functions as torch's autograd sees them: derivatives of every order and direction.

Analysis ``A(x, w)``, its adjoint and its correlation (:mod:`.autograd.linear_maps`) are each linear
in both of their arguments, and each is what the derivatives of the other two are made of. With the
cotangent written with a bar,

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

import weakref
from dataclasses import replace
from itertools import repeat
from typing import Any

import torch
from torch.autograd import Function

from ..backends.envelope import inverse_envelope
from ..core.linear import Form, Inversion, analysis_of, bins_that_are_read
from ..core.params import IstftParams, StftParams
from ..native import private_state as torch_state
from ..native.strides import shape_result, with_rows
from ..store.caches import cached
from . import linear_maps as adjoints

Optional = torch.Tensor | None


def stft(
    params: StftParams, signal: torch.Tensor, window: Optional, backend: str | None = None
) -> torch.Tensor:
    """:meth:`.Backend.stft`, differentiable in signal and window.

    A signal is kept for the backward pass only if the window is trained. It is kept as a copy where
    native keeps its padded one, as a reference where native refers to it, too.

    Args:
        backend: that computes the call and its derivatives; None for the one of its device.
    """
    # Of examples of vmap native stacks the results; what it frames of each nobody sees.
    stacks, given = torch_state.is_vmapped(signal, window), signal
    copies = _copies(params, signal)
    is_trained = window is not None and not torch_state.is_constant(window)
    if not stacks:
        signal = _with_natives_gradient(params, signal)
    if is_trained and copies:
        signal = signal.clone()
    form = _form_of(params, signal, window, backend)
    window = _own(params, window, when_trained=True)
    spectrum: torch.Tensor = _apply(Analysis, form, with_rows(params, signal), window)
    if params.padded and not (is_trained or copies):
        _refuse_changes(spectrum, given)
    return shape_result(params, spectrum.contiguous() if stacks else spectrum)


def _with_natives_gradient(params: StftParams, signal: torch.Tensor) -> torch.Tensor:
    """The signal, such that its gradient has the strides that native gives to it.

    Where nothing is padded native frames the signal where it lies: so lies the gradient, and of
    samples that share memory each has the mean of their gradients.
    """
    padding = params.padding or (params.padded and params.pad_mode != "constant")
    if padding or not signal.requires_grad or signal.is_contiguous():
        return signal
    framed = signal.clone() if params.padded else signal
    return framed.as_strided(framed.shape, framed.stride())


def _copies(params: StftParams, signal: torch.Tensor) -> bool:
    """Whether native lets a program change the signal before a gradient is computed.

    Native keeps its padded copy. But it refers to a differentiated signal that it reflects or
    replicates.
    """
    refers = signal.requires_grad and params.pad_mode in ("reflect", "replicate")
    return params.padded and not refers


def _refuse_changes(result: torch.Tensor, given: torch.Tensor) -> None:
    """Have backward raise, as native's does, if a tensor is changed in place before it.

    For one that native keeps and we do not: its values are not needed. It is not kept alive.
    """
    if result.grad_fn is None or torch_state.is_transformed():
        return
    reference, before = weakref.ref(given), given._version

    def check(_: Any) -> None:
        tensor = reference()
        if tensor is not None and tensor._version != before:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: [{tensor.type()} {list(tensor.shape)}] is at version "
                f"{tensor._version}; expected version {before} instead."
            )

    result.grad_fn.register_prehook(check)


def _own(
    params: StftParams | IstftParams, window: Optional, *, when_trained: bool = False
) -> Optional:
    """The window, or a copy of one that is shorter than the frames: native pads that, and keeps it.

    Args:
        when_trained: copy before the call, for derivatives of every order; else what is saved of a
            window that is constant, so that the call itself is made with a window that is known.
    """
    if window is None or params.win_length == params.n_fft:
        return window
    trained = window.requires_grad or torch_state.is_transformed()
    return window.clone() if trained == when_trained else window


def _form_of(
    params: StftParams, signal: torch.Tensor, window: Optional, backend: str | None
) -> Form:
    complex_window = window is not None and window.is_complex()
    return Form(params, signal.is_complex(), complex_window, backend=backend)


def istft(
    params: IstftParams, spectrum: torch.Tensor, window: Optional, backend: str | None = None
) -> torch.Tensor:
    """:meth:`.Backend.istft`, differentiable in spectrum and window.

    A copy of the spectrum is kept for the backward pass if the window is trained, as large as the
    frames that native keeps.

    Args:
        backend: as of :func:`stft`.

    Raises:
        UnresolvedArguments: the envelope vanishes, for which torch raises.
    """
    params = bins_that_are_read(params)
    batched = with_rows(params, spectrum)[:, : params.bins]
    if window is None or torch_state.is_constant(window):
        inverted = params if params.batched else replace(params, batched=True)
        inversion = Inversion(inverted, backend)
        signal: torch.Tensor = _apply(Inverse, inversion, batched, window)
    else:
        signal = _istft_of_window(params, batched, window, backend)
    return shape_result(params, signal)


def _istft_of_window(
    params: IstftParams, spectrum: torch.Tensor, window: torch.Tensor, backend: str | None
) -> torch.Tensor:
    """An istft that depends on its window twice: overlap-add by our maps, envelope by torch's.

    An adjoint conjugates the window, an istft does not. Spectrum and short windows may be changed
    in place before the backward pass, as natively, and a gradient in the spectrum is contiguous.
    """
    pairs = torch.view_as_real(spectrum.resolve_conj().resolve_neg())
    spectrum = torch.view_as_complex(pairs.clone())
    given = window
    if params.win_length < params.n_fft:
        window = window.clone()
    form = replace(
        analysis_of(params), complex_window=window.is_complex(), nola=params, backend=backend
    )
    signal: torch.Tensor = _apply(Adjoint, form, spectrum, window.conj())
    signal = signal * inverse_envelope(params, window)
    if window is given:
        _refuse_changes(signal, given)
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


@cached(8)
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
    batched = with_rows(params, cotangent)
    if isinstance(params, StftParams):
        if not params.return_complex:
            batched = torch.view_as_complex(batched.contiguous())
        form = _form_of(params, tensor, window, backend)
        if of_window:
            return adjoints.correlation(form, with_rows(params, tensor), batched)
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
    return found if params.batched else found.squeeze_(0)


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
    results = [_apply(function, form, *pair) for pair in zip(*each, strict=False)]
    if function is Analysis:  # a spectrum's frames are outside of its bins
        return torch.stack([spectrum.mT for spectrum in results]).mT, 0
    return torch.stack(results), 0


def _values(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with memory: derivatives may be torch's symbolic zeros."""
    if torch_state.is_zerotensor(tensor):
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    return tensor


class Analysis(_Bilinear):
    """``analysis(x, w)``."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        form, signal, window = inputs
        _Bilinear.setup_context(ctx, (form, signal, _own(form.params, window)), output)

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
        window = _own(ctx.inversion.params, window)
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
