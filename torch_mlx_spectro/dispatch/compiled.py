"""Both functions as operators of torch: what compiled and exported programs call.

A compiler cannot look into MLX, so it is shown operators. Their shapes are native's, which native
is asked for with fake tensors; their gradients are operators again. When the program runs, the
operators are decided and counted like any other call: a program that was compiled while MLX was
asked for runs natively once MLX is no longer asked for. Second derivatives of compiled programs are
not offered; torch does not offer them either.

A gradient has a plan, too, under the key of a call on its cotangent. In a CUDA graph of Inductor's
(``mode="reduce-overhead"``) an operator runs, and is counted, once before the graph is recorded and
once while it is. A replay repeats what was recorded, whatever the program asks for by then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType, SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backends import registry
from ..calls.key import Key, NoKey, make_key, with_tensors
from ..calls.operation import ISTFT, STFT, WINDOW, Operation
from ..native import private_state as torch_state
from ..native.private_state import PLAIN_TYPES
from . import choice as routing
from .choice import Choice, current_choice, patched_choice
from .decide import decide, ledger, log_decision
from .plans import Plan, plans
from .run import dispatch

NAMESPACE = "torch_mlx_spectro"

#: torch's own arguments in torch's order, and whether the call was of the patched torch function.
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
#: The first arguments of the gradients: that in the input, which depends on the input's shape and
#: kind alone, and that in the window. The call's own arguments follow.
_GIVEN = "Tensor cotangent, SymInt[] shape, bool is_complex"
_GIVEN_OF_WINDOW = "Tensor cotangent, Tensor input"

#: Frames of these packages do not belong to the program.
_PACKAGES = ("torch", NAMESPACE)
_MACHINERY = tuple(f"{package}." for package in _PACKAGES)

_Library: Any = torch.library.Library


def _read_choice(patched: bool) -> Choice:
    return patched_choice() if patched else current_choice()


def _choose_for_gradient(patched: bool, device_type: str) -> Choice:
    """Return the choice for a gradient: the backend that the program names, or the device's first.

    Autograd computes gradients on a device in a thread of its own, where ``backend()`` contexts of
    the program are not in force. And ``auto`` does not time gradients without their calls.
    """
    choice = _read_choice(patched)
    if choice.backend != "auto":
        return choice
    for name in registry.list_candidates(device_type):
        if routing.missing_reason(device_type, name) is None:
            return Choice(name)
    return choice


def _find_program_frame() -> FrameType:
    """Find the frame that a compiled program's call is counted for: the first outside of torch."""
    frame = sys._getframe(1)
    # A dozen frames are torch's, in every call: so no function of ours is called for each.
    while (outer := frame.f_back) is not None and (
        (module := frame.f_globals.get("__name__")) is None
        or module.startswith(_MACHINERY)
        or module in _PACKAGES
        or "<" in (file := frame.f_code.co_filename)
        or "torchinductor" in file  # generated, as what is above
    ):
        frame = outer
    return frame


def _compute_gradient(
    op: Operation, cotangent: Tensor, shape: Sequence[int], is_complex: bool, *rest: Any
) -> Tensor:
    """Compute the gradient of a call in its input, by the backend that would compute the call.

    Args:
        shape: the input's shape.
    """
    *others, patched = rest
    choice = _choose_for_gradient(patched, cotangent.device.type)
    window = others[WINDOW - 1]
    key = _make_key(op, choice, cotangent, shape, is_complex, others)
    kept = plans.get(key) if key is not None else None
    if kept is not None and kept.epoch == ledger.epoch and kept.run is not None:
        return kept.run(cotangent, window)
    dtype, epoch = torch.complex64 if is_complex else torch.float32, ledger.epoch
    tensor = torch.zeros((), dtype=dtype, device=cotangent.device).expand(shape)
    args = [tensor, *others]
    plan = decide(op, choice, args, {})
    params = plan.params
    # While a CUDA graph is recorded nothing may be compiled, which a first gradient may need.
    if params is None or torch_state.is_captured(cotangent):
        return _differentiate_natively(op, cotangent, args, in_window=False)
    from ..autograd import derivatives

    backend = registry.load(plan.route.backend)
    log_decision(plan)
    run = derivatives.bind_gradient(params, backend, tensor, window)
    gradient = run(cotangent, window)
    if key is not None and plan.settled:
        run = derivatives.prepare_gradient(params, backend, cotangent, window, gradient) or run
        plans.keep(key, Plan(plan.route, params=params, settled=True, run=run, epoch=epoch))
    return gradient


def _compute_window_gradient(
    op: Operation, cotangent: Tensor, tensor: Tensor, *rest: Any
) -> Tensor:
    """Compute the gradient of a call in its window, by the backend that would compute the call."""
    *others, patched = rest
    args = [tensor, *others]
    plan = decide(op, _choose_for_gradient(patched, cotangent.device.type), args, {})
    if plan.params is None:
        return _differentiate_natively(op, cotangent, args, in_window=True)
    from ..autograd import derivatives

    backend = registry.load(plan.route.backend)
    return derivatives.compute_window_gradient(
        plan.params, backend, cotangent, tensor, args[WINDOW]
    )


def _make_key(
    op: Operation,
    choice: Choice,
    cotangent: Tensor,
    shape: Sequence[int],
    is_complex: bool,
    others: Sequence[Any],
) -> Key | None:
    """Make the key of a gradient in the input, as of a call on its cotangent; None if none fits."""
    if torch_state.is_intercepted() or type(cotangent) not in PLAIN_TYPES:
        return None
    sizes = (*shape, is_complex, *others[: WINDOW - 1], *others[WINDOW:])
    try:
        return make_key(f"{op.name} gradient", choice.backend, cotangent, others[WINDOW - 1], sizes)
    except (NoKey, RuntimeError, ValueError):
        return None


def _differentiate_natively(
    op: Operation, cotangent: Tensor, args: Sequence[Any], in_window: bool
) -> Tensor:
    tensor, window = args[0], args[WINDOW]

    def call(leaf: Tensor) -> Tensor:
        pair = (tensor, leaf) if in_window else (leaf, window)
        given, _ = with_tensors(tuple(args), {}, dict(zip(("input", "window"), pair, strict=True)))
        return op.native(*given)

    _, pullback, *_ = torch.func.vjp(call, window if in_window else tensor)
    gradient: Tensor = pullback(cotangent)[0]
    return gradient.contiguous()


def _make_symbolic_stft(
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
    """Make an empty spectrum of native's sizes and strides, from sizes that are symbols.

    Native computes with plain integers, so a program that asks it for shapes is compiled anew for
    each length. Arguments that torch rejects are rejected when the program runs. Returns None for
    arguments whose strides only native knows.
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


def _make_symbolic_istft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None,
    center: bool,
    length: int | None,
    return_complex: bool,
    **_: Any,
) -> Tensor:
    """Make an empty signal of native's size, from sizes that are symbols."""
    hop = n_fft // 4 if hop_length is None else hop_length
    if length is None:
        length = n_fft + hop * (input.shape[-1] - 1) - (2 * (n_fft // 2) if center else 0)
    dtype = torch.complex64 if return_complex else torch.float32
    return input.new_empty((*input.shape[:-2], length), dtype=dtype)


class Operators(NamedTuple):
    """The operators of a function, of its gradient in the input, and of that in the window.

    Attributes:
        library: torch's own, in which they are defined for as long as it is there.
    """

    call: Any
    gradient: Any
    window_gradient: Any
    library: Any


def _define(op: Operation, make_symbolic: Callable[..., Tensor | None]) -> Operators:
    """Define the operators of a function.

    Args:
        make_symbolic: makes an empty result, from sizes that are symbols; None if it cannot.
    """
    library = _Library(NAMESPACE, "FRAGMENT")

    def compute(*given: Any) -> Tensor:
        *args, patched = given
        return dispatch(op, _read_choice(patched), args, {}, _find_program_frame())

    def fake(*given: Any) -> Tensor:
        *args, _ = given
        sizes = (*args[0].shape, *args)
        if any(isinstance(size, torch.SymInt) for size in sizes):
            result = make_symbolic(**op.bind(*args))
            if result is not None:
                return result
        return op.native(*args)

    def fake_gradient(cotangent: Tensor, shape: Sequence[int], is_complex: bool, *_: Any) -> Tensor:
        dtype = torch.complex64 if is_complex else torch.float32
        return torch.empty(shape, dtype=dtype, device=cotangent.device)

    def fake_window_gradient(cotangent: Tensor, tensor: Tensor, *others: Any) -> Tensor:
        window: Tensor = others[WINDOW - 1]
        like: Tensor = torch.empty_like(window, memory_format=torch.contiguous_format)
        return like

    name, arguments = op.name, _ARGUMENTS[op.name]
    # Inductor leaves operators with this tag out of its CUDA graphs. In an istft and its gradients
    # the host may wait for an envelope's verdict: in ours for a new window, in native's always. And
    # what a gradient in a window needs may have to be compiled.
    unsafe = (torch.Tag.cudagraph_unsafe,)
    tags = unsafe if op is ISTFT else ()
    gradient = _define_operator(
        library,
        f"{name}_gradient",
        f"{_GIVEN}, {arguments}",
        partial(_compute_gradient, op),
        fake_gradient,
        tags=tags,
    )
    window_gradient = _define_operator(
        library,
        f"{name}_window_gradient",
        f"{_GIVEN_OF_WINDOW}, {arguments}",
        partial(_compute_window_gradient, op),
        fake_window_gradient,
        tags=unsafe,
    )
    call = _define_operator(
        library,
        name,
        f"Tensor input, {arguments}",
        compute,
        fake,
        backward=partial(_differentiate, gradient, window_gradient),
        save=partial(_save, op),
        tags=tags,
    )
    return Operators(call, gradient, window_gradient, library)


def _refuse(ctx: Any, cotangent: Tensor) -> Any:
    raise RuntimeError("second derivatives of compiled stft and istft are not offered")


def _define_operator(
    library: Any,
    name: str,
    arguments: str,
    compute: Callable[..., Tensor],
    fake: Callable[..., Tensor],
    *,
    backward: Callable[..., Any] = _refuse,
    save: Callable[..., None] | None = None,
    tags: tuple[torch.Tag, ...] = (),
) -> Any:
    """Define one operator.

    ``torch.library.custom_op`` is not used: its layers of Python (for autograd, and for results
    that share memory with inputs) took 13 us of the host's time, twice as long as a stft that has a
    plan.
    """
    # The operators take tensors of any strides. Otherwise Inductor would copy them to the strides
    # that were traced, by a kernel of its own, and its code generator has no complex types.
    tags = (torch.Tag.pt2_compliant_tag, torch.Tag.flexible_layout, *tags)
    library.define(f"{name}({arguments}) -> Tensor", tags=tags)
    library.impl(name, compute, "CompositeExplicitAutograd")
    place = f"{NAMESPACE}::{name}"
    torch.library.register_fake(place, fake, lib=library)
    operator = getattr(getattr(torch.ops, NAMESPACE), name).default
    if torch_state.make_autograd is None:
        torch.library.register_autograd(place, backward, setup_context=save, lib=library)
        return operator
    callbacks = SimpleNamespace(_backward_fn=backward, _setup_context_fn=save)
    differentiate = torch_state.make_autograd(operator, callbacks)

    def compute_or_record(keys: Any, *given: Any) -> Tensor:
        """Compute directly where neither autograd nor a tracer has to see the call.

        Calls of compiled programs are such calls.
        """
        if (
            type(given[0]) in PLAIN_TYPES
            and not given[0].is_meta
            and not torch_state.is_intercepted()
            and not (torch.is_grad_enabled() and any(map(_requires_grad, given)))
        ):
            return compute(*given)
        recorded: Tensor = differentiate(keys, *given)
        return recorded

    library.impl(name, compute_or_record, "Autograd", with_keyset=True)
    return operator


def _requires_grad(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _save(op: Operation, ctx: Any, inputs: Any, output: Any) -> None:
    """Save what the gradients need: a copy wherever native saves one.

    A program may then change the original in place before it calls backward; see
    :mod:`.autograd.derivatives`.
    """
    tensor, n_fft, _, win_length, window, center = inputs[: WINDOW + 2]
    kept = None
    if ctx.needs_input_grad[WINDOW]:
        kept = tensor.clone() if center or op is ISTFT else tensor
    is_short = win_length is not None and win_length != n_fft
    # Where only an stft's window is trained, its gradient needs the window's size and dtype.
    needs_no_values = op is STFT and not ctx.needs_input_grad[0]
    if window is not None and (is_short or needs_no_values):
        window = window.clone()
    ctx.save_for_backward(kept, window)
    ctx.like = (tensor.shape, tensor.is_complex())
    ctx.args = [None if isinstance(value, Tensor) else value for value in inputs]


def _differentiate(
    gradient: Any, window_gradient: Any, ctx: Any, cotangent: Tensor
) -> tuple[Any, ...]:
    """Compute the gradients of an operator, as torch wants them: one per argument, mostly None."""
    tensor, window = ctx.saved_tensors
    (_, *others), _ = with_tensors(tuple(ctx.args), {}, {"window": window})
    found: list[Tensor | None] = [None] * len(ctx.args)
    if ctx.needs_input_grad[0]:
        found[0] = gradient(cotangent, *ctx.like, *others)
    if ctx.needs_input_grad[WINDOW]:
        found[WINDOW] = window_gradient(cotangent, tensor, *others)
    return tuple(found)


#: The operators by the name of the function.
OPERATORS = {
    op.name: _define(op, make_symbolic)
    for op, make_symbolic in ((STFT, _make_symbolic_stft), (ISTFT, _make_symbolic_istft))
}
