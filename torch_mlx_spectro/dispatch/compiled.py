"""Both functions as operators of torch: what compiled and exported programs call.

A compiler cannot look into MLX, so it is shown operators: their shapes are native's (asked of
native with fake tensors), their gradients are operators again. When the program runs, they decide
and count like any other call: a program that was compiled while MLX was asked for runs natively
once that is withdrawn. Second derivatives of compiled programs are not offered by torch either.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from ..calls.key import with_tensors
from ..calls.operation import ISTFT, STFT, WINDOW, Operation
from .choice import Choice, current_choice, patched_choice
from .decide import decide
from .run import dispatch

NAMESPACE = "torch_mlx_spectro"

#: torch's own arguments in torch's order, and whether they came by torch's own name.
_ARGUMENTS = {
    "stft": (
        "SymInt n_fft, SymInt? hop_length, SymInt? win_length, Tensor? window, bool center, "
        "str pad_mode, bool normalized, bool? onesided, bool? return_complex, "
        "bool? align_to_window, bool patched"
    ),
    "istft": (
        "SymInt n_fft, SymInt? hop_length, SymInt? win_length, Tensor? window, bool center, "
        "bool normalized, bool? onesided, SymInt? length, bool return_complex, bool patched"
    ),
}
#: A gradient's arguments before those: the cotangent; the input where the gradient depends on it,
#: and else what it was like; and which of the two gradients it is.
_GIVEN = "Tensor cotangent, Tensor? input, SymInt[] shape, bool is_complex, bool of_window"


def _choice(patched: bool) -> Choice:
    return patched_choice() if patched else current_choice()


def _program_frame() -> FrameType:
    """The frame that a compiled program's calls are counted for: the first outside of torch."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_machinery(frame):
        frame = frame.f_back
    return frame


def _is_machinery(frame: FrameType) -> bool:
    file, module = frame.f_code.co_filename, frame.f_globals.get("__name__")
    if module is None or "<" in file or "torchinductor" in file:
        return True  # generated
    return str(module).partition(".")[0] in ("torch", NAMESPACE)


def _gradient(
    op: Operation,
    cotangent: Tensor,
    tensor: Tensor | None,
    shape: Sequence[int],
    is_complex: bool,
    of_window: bool,
    *rest: Any,
) -> Tensor:
    """The gradient of a call in its input, or in its window; computed where the call would be."""
    *others, patched = rest
    if tensor is None:
        # A gradient in the input, which is linear in the cotangent: shapes will do.
        dtype = torch.complex64 if is_complex else torch.float32
        tensor = torch.zeros((), dtype=dtype, device=cotangent.device).expand(shape)
    args = [tensor, *others]
    plan = decide(op, _choice(patched), args, {})
    if plan.params is None:
        return _natives_gradient(op, cotangent, args, of_window)
    from ..autograd import derivatives

    return derivatives.gradient(
        plan.params, cotangent, tensor, args[WINDOW], of_window, plan.route.backend
    )


def _natives_gradient(
    op: Operation, cotangent: Tensor, args: Sequence[Any], of_window: bool
) -> Tensor:
    tensor, window = args[0], args[WINDOW]

    def call(leaf: Tensor) -> Tensor:
        pair = (tensor, leaf) if of_window else (leaf, window)
        given, _ = with_tensors(tuple(args), {}, dict(zip(("input", "window"), pair, strict=True)))
        return op.native(*given)

    _, pullback, *_ = torch.func.vjp(call, window if of_window else tensor)
    gradient: Tensor = pullback(cotangent)[0]
    return gradient.contiguous()


def _symbolic_stft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None,
    window: Tensor | None,
    center: bool,
    onesided: bool | None,
    return_complex: bool | None,
    align_to_window: bool | None,
    **_: Any,
) -> Tensor | None:
    """An empty spectrum of native's sizes and strides, whatever the sizes; None if not known.

    Native computes sizes in plain integers, so that a program compiled with it is compiled anew
    for each length. What torch rejects it rejects when the program runs.
    """
    hop = n_fft // 4 if hop_length is None else hop_length
    if align_to_window or not (0 < hop <= n_fft and input.is_contiguous()):
        return None
    is_complex = input.is_complex() or (window is not None and window.is_complex())
    padded = input.shape[-1] + (2 * (n_fft // 2) if center else 0)
    half = not is_complex if onesided is None else onesided
    shape = (*input.shape[:-1], 1 + (padded - n_fft) // hop, n_fft // 2 + 1 if half else n_fft)
    spectrum = input.new_empty(shape, dtype=torch.complex64).mT
    as_complex = is_complex if return_complex is None else return_complex
    return spectrum if as_complex else torch.view_as_real(spectrum)


def _symbolic_istft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None,
    center: bool,
    length: int | None,
    return_complex: bool,
    **_: Any,
) -> Tensor:
    """An empty signal of native's size."""
    hop = n_fft // 4 if hop_length is None else hop_length
    if length is None:
        length = n_fft + hop * (input.shape[-1] - 1) - (2 * (n_fft // 2) if center else 0)
    dtype = torch.complex64 if return_complex else torch.float32
    return input.new_empty((*input.shape[:-2], length), dtype=dtype)


_SYMBOLIC: dict[str, Callable[..., Tensor | None]] = {
    "stft": _symbolic_stft,
    "istft": _symbolic_istft,
}


def _define(op: Operation) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Define the operator of a function and that of its gradients."""

    def compute(*given: Any) -> Tensor:
        *args, patched = given
        with torch.no_grad():  # autograd has formulas of its own, below
            return dispatch(op, _choice(patched), args, {}, _program_frame())

    def compute_gradient(*given: Any) -> Tensor:
        with torch.no_grad():
            return _gradient(op, *given)

    def fake(*given: Any) -> Tensor:
        *args, _ = given
        sizes = (*args[0].shape, *args)
        if any(isinstance(size, torch.SymInt) for size in sizes):
            result = _SYMBOLIC[op.name](**op.bind(*args))
            if result is not None:
                return result
        return op.native(*args)

    def fake_gradient(*given: Any) -> Tensor:
        cotangent, _, shape, is_complex, of_window, *others = given
        if of_window:
            window: Tensor = others[WINDOW - 1]
            like: Tensor = torch.empty_like(window, memory_format=torch.contiguous_format)
            return like
        dtype = torch.complex64 if is_complex else torch.float32
        return torch.empty(shape, dtype=dtype, device=cotangent.device)

    name, arguments = f"{NAMESPACE}::{op.name}", _ARGUMENTS[op.name]
    make: Any = torch.library.custom_op
    operator = make(name, compute, mutates_args=(), schema=f"(Tensor input, {arguments}) -> Tensor")
    operator.register_fake(fake)
    gradient = make(
        f"{name}_gradient",
        compute_gradient,
        mutates_args=(),
        schema=f"({_GIVEN}, {arguments}) -> Tensor",
    )
    gradient.register_fake(fake_gradient)
    operator.register_autograd(_backward_of(gradient), setup_context=partial(_save, op))
    return operator, gradient


def _save(op: Operation, ctx: Any, inputs: Any, output: Any) -> None:
    """Save what the gradients need; what native has copies of, as copies.

    A program may change the originals in place before it calls backward; see
    :mod:`.autograd.derivatives`.
    """
    tensor, n_fft, _, win_length, window, center = inputs[: WINDOW + 2]
    kept = None
    if ctx.needs_input_grad[WINDOW]:
        kept = tensor.clone() if center or op is ISTFT else tensor
    is_short = win_length is not None and win_length != n_fft
    # Of a window that alone is trained an stft's gradient needs the size and dtype.
    is_known = op is STFT and not ctx.needs_input_grad[0]
    if window is not None and (is_short or is_known):
        window = window.clone()
    ctx.save_for_backward(kept, window)
    ctx.like = (tensor.shape, tensor.is_complex())
    ctx.args = [None if isinstance(value, Tensor) else value for value in inputs]


def _backward_of(gradient: Callable[..., Tensor]) -> Callable[..., Any]:
    """Torch's gradients of an operator: one of all its arguments, None for most."""

    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        tensor, window = ctx.saved_tensors
        (_, *others), _ = with_tensors(tuple(ctx.args), {}, {"window": window})
        found: list[Tensor | None] = [None] * len(ctx.args)
        for place, of_window in ((0, False), (WINDOW, True)):
            if ctx.needs_input_grad[place]:
                given = tensor if of_window else None
                found[place] = gradient(cotangent, given, *ctx.like, of_window, *others)
        return tuple(found)

    return backward


#: By the name of the function: its operator, and that of its gradients.
OPERATORS = {op.name: _define(op) for op in (STFT, ISTFT)}
