"""``stft`` and ``istft`` with torch's signatures: the one door of every call.

A call is planned (what does the program ask for, are the arguments valid, does anything in
torch's state or in the tensors speak against MLX, who is faster), run, and counted. Whatever
torch rejects is handed to torch, which raises its own exception. Only our own exceptions lead to
native: any other that comes out of a computation is a bug and stays visible.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from . import native, routing, torch_state
from .errors import NotAccelerated, UnresolvedArguments
from .routing import Choice, Route, Settled, Signature, Trials, current_choice, patched_choice
from .statistics import TRANSPARENT, Counters, Stats

if TYPE_CHECKING:  # a program whose calls all go native never resolves one
    from .params import IstftParams, StftParams

_counters = Counters()
_trials = Trials()
#: Calls that ``auto`` leaves to native for good: they go there without being resolved again.
_native_calls = {"stft": Settled(), "istft": Settled()}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_counters.after_fork_in_child)
    os.register_at_fork(after_in_child=_trials.after_fork_in_child)
    for _calls in _native_calls.values():
        os.register_at_fork(after_in_child=_calls.after_fork_in_child)

NOT_RESOLVED = "these arguments are accepted by this torch but not known to this package"
TOO_SMALL = "auto: too small for MLX on the CPU"


def _bind_stft(
    input: Any,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    center: Any = True,
    pad_mode: Any = "reflect",
    normalized: Any = False,
    onesided: Any = None,
    return_complex: Any = None,
    align_to_window: Any = None,
) -> dict[str, Any]:
    return locals()


def _bind_istft(
    input: Any,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    center: Any = True,
    normalized: Any = False,
    onesided: Any = None,
    length: Any = None,
    return_complex: Any = False,
) -> dict[str, Any]:
    return locals()


@dataclass(frozen=True)
class _Operation:
    """What differs between the two functions; ``small`` is a number of input values."""

    name: str
    native: Callable[..., torch.Tensor]
    bind: Callable[..., dict[str, Any]]
    small: int


# A spectrum holds about half as many (complex) values as its frames have samples, at the usual
# hop of a quarter four times as many as the signal.
_STFT = _Operation("stft", native.stft, _bind_stft, routing.AUTO_FRAMED_SAMPLES // 16)
_ISTFT = _Operation("istft", native.istft, _bind_istft, routing.AUTO_FRAMED_SAMPLES // 4)


@dataclass(frozen=True)
class _Plan:
    """A decided call. ``params`` is None where native computes it.

    ``rejected`` means that torch is expected to raise; ``fallback`` that MLX was wanted;
    ``settled`` that ``auto`` has chosen native for good.
    """

    route: Route
    bound: dict[str, Any] | None = None
    params: StftParams | IstftParams | None = None
    rejected: bool = False
    fallback: bool = False
    trial: Signature | None = None
    settled: bool = False


def _native_plan(
    op: _Operation, *reasons: str, rejected: bool = False, fallback: bool = False
) -> _Plan:
    route = Route(op.name, "native", "torch", reasons)
    return _Plan(route, rejected=rejected, fallback=fallback)


def _shape_of_call(tensor: torch.Tensor, args: Any, kwargs: Any) -> Hashable:
    """What ``auto``'s choice depends on, read off a call in a microsecond, unresolved."""
    sizes = args[1:3] or (kwargs.get("n_fft"), kwargs.get("hop_length"))
    return (tensor.shape, tensor.stride(), sizes, kwargs.get("hop_length"), torch.get_num_threads())


def _plan(op: _Operation, choice: Choice, args: Any, kwargs: Any) -> _Plan:
    """Decide a call; computes nothing."""
    if choice.backend == "native":
        return _native_plan(op, "the native backend was asked for")
    try:
        bound = op.bind(*args, **kwargs)
    except TypeError:
        return _native_plan(op, NOT_RESOLVED, rejected=True)
    tensor, window = bound["input"], bound["window"]
    given = [value for value in (tensor, window) if value is not None]
    if tensor is None or not all(isinstance(value, torch.Tensor) for value in given):
        return _native_plan(op, NOT_RESOLVED, rejected=True)
    params = None
    if all(type(value) in torch_state.PLAIN_TYPES for value in given):
        try:
            params = _resolve(op, bound)
        except UnresolvedArguments:
            return _native_plan(op, NOT_RESOLVED, rejected=True)
    reasons = routing.unsupported_reasons((("input", tensor), ("window", window)))
    if reasons or params is None:
        return _native_plan(op, *reasons, fallback=True)
    why: str = ""
    trial: Signature | None = None
    if choice.backend == "auto":
        plan, why, trial = _measured(op, tensor, params)
        if plan is not None:
            return plan
    missing = routing.missing_reason(tensor.device.type)
    if missing is not None:
        return _native_plan(op, missing, fallback=True)
    from . import mlx_backend

    kernel, refused = mlx_backend.computation(params, tensor)
    if refused is not None:
        return _native_plan(op, refused, fallback=True)
    route = Route(op.name, "mlx", kernel, (why,) if why else ())
    return _Plan(route, bound, params, trial=trial)


def _resolve(op: _Operation, bound: dict[str, Any]) -> StftParams | IstftParams:
    """Resolve bound arguments; raises UnresolvedArguments for those that are torch's."""
    from .params import TensorFacts, resolve_istft, resolve_stft

    facts: dict[str, Any] = dict(bound)
    tensor, window = facts.pop("input"), facts["window"]
    if window is not None:
        if window.device != tensor.device:
            raise UnresolvedArguments("window and input are on one device")
        facts["window"] = TensorFacts(tuple(window.shape), window.is_complex())
    resolve = resolve_stft if op is _STFT else resolve_istft
    return resolve(TensorFacts(tuple(tensor.shape), tensor.is_complex()), **facts)


def _measured(
    op: _Operation, tensor: torch.Tensor, params: StftParams | IstftParams
) -> tuple[_Plan | None, str, Signature | None]:
    """``auto``'s choice for a call that both can compute.

    Returns:
        The plan when the choice is native, else None; why; the signature of a call to be timed.
    """
    framed = params.rows * params.frames * params.n_fft
    if tensor.is_cpu and framed < routing.AUTO_FRAMED_SAMPLES:
        route = Route(op.name, "native", "torch", (TOO_SMALL,))
        return _Plan(route, settled=True), TOO_SMALL, None
    signature = routing.signature_of(params, tensor)
    name, timed = _trials.pick(signature)
    why = "auto: being measured" if timed else "auto: measured faster"
    trial = signature if timed else None
    route = Route(op.name, "native", "torch", (why,))
    plan = _Plan(route, trial=trial, settled=not timed)
    return (plan if name == "native" else None), why, trial


def _run(op: _Operation, plan: _Plan, args: Any, kwargs: Any) -> torch.Tensor:
    if plan.params is None or plan.bound is None:
        return op.native(*args, **kwargs)
    from . import mlx_backend
    from .params import StftParams

    tensor, window = plan.bound["input"], plan.bound["window"]
    if isinstance(plan.params, StftParams):
        as_real = not plan.params.return_complex
        if window is None or as_real:
            native.warn_of_stft(window is None, as_real)
        return mlx_backend.stft(plan.params, tensor, window)
    padded = plan.params.zero_tail > 0
    if mlx_backend.envelope_of(plan.params, window).vanishes:
        raise UnresolvedArguments("the overlap-added square of the window vanishes")
    result = mlx_backend.istft(plan.params, tensor, window)
    if window is None or padded:
        native.warn_of_istft(window is None, padded, _levels_to_caller())
    return result


def _dispatch(
    op: _Operation, choice: Choice, args: Any, kwargs: Any, caller: FrameType
) -> torch.Tensor:
    plan = _plan(op, choice, args, kwargs)
    if plan.fallback and choice.strict:
        raise NotAccelerated(op.name, plan.route.reasons)
    try:
        run = partial(_run, op, plan, args, kwargs)
        result = run() if plan.trial is None else _timed(plan, run)
    except UnresolvedArguments:
        plan = _native_plan(op, NOT_RESOLVED, rejected=True)
        result = op.native(*args, **kwargs)
    if plan.rejected and choice.strict:
        # torch did not raise after all, so this was a call that we had to compute.
        raise NotAccelerated(op.name, plan.route.reasons)
    if choice.backend == "auto" and plan.settled and not choice.strict:
        tensor = args[0] if args else kwargs["input"]
        _native_calls[op.name].add(_shape_of_call(tensor, args, kwargs))
    reasons = plan.route.reasons if plan.fallback or plan.rejected else ()
    _counters.count(op.name, plan.route.backend, caller, reasons)
    return result


def _timed(plan: _Plan, run: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Run a call of ``auto`` with a clock, the device's queue empty before and after."""
    on_mps = plan.trial is not None and plan.trial.device == "mps"

    def finished() -> torch.Tensor:
        result = run()
        if on_mps:
            torch.mps.synchronize()
        return result

    if on_mps:
        torch.mps.synchronize()
    result: torch.Tensor = _trials.time(plan.trial, plan.route.backend, finished)
    return result


_PACKAGE = __name__.rpartition(".")[0]


def _levels_to_caller() -> int:
    """Levels from our caller to the first frame outside this package and torch's methods."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and (
        frame.f_globals.get("__package__") == _PACKAGE
        or frame.f_globals.get("__name__") in TRANSPARENT
    ):
        frame, level = frame.f_back, level + 1
    return level - 1


def _function(
    op: _Operation, module: str, choose: Callable[[], Choice]
) -> Callable[..., torch.Tensor]:
    """The Python function of an operation, known to pickle under ``module``.

    ``choose`` tells what the program asks of it.
    """
    # Local names, and no function between: for a small call every microsecond counts.
    native_function, name, small = op.native, op.name, op.small
    is_compiling, overrides = torch_state.is_compiling, torch_state.overrides
    count, get_frame, plain = _counters.count, sys._getframe, torch.Tensor
    settled = _native_calls[name].has
    bump_native = _counters.sites(name, "native").get

    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        if is_compiling():
            return native_function(*args, **kwargs)
        tensor = args[0] if args else kwargs.get("input")
        if overrides(tensor):
            # A mode or a subclass is shown this function, and calls it again from within.
            shown: torch.Tensor = torch.overrides.handle_torch_function(
                call, (tensor,), *args, **kwargs
            )
            return shown
        choice = choose()
        backend = choice.backend
        if backend == "native" or (
            backend == "auto"
            and type(tensor) is plain
            and tensor.is_cpu
            and not choice.strict
            and (tensor.numel() < small or settled(_shape_of_call(tensor, args, kwargs)))
        ):
            result = native_function(*args, **kwargs)
            caller = get_frame(1)
            bump = bump_native((id(caller.f_code), caller.f_lasti))  # site_of, without its call
            if bump is None:
                count(name, "native", caller)
            else:
                bump()
            return result
        if not choice.strict and type(tensor) is plain:
            reason = torch_state.first_reason(tensor)
            if reason is not None:
                result = native_function(*args, **kwargs)
                count(name, "native", get_frame(1), (reason,))
                return result
        return _dispatch(op, choice, args, kwargs, get_frame(1))

    call.__name__ = call.__qualname__ = op.name
    call.__module__ = module
    call.__doc__ = native_function.__doc__
    call.__signature__ = _SIGNATURES[op.name]  # type: ignore[attr-defined]
    return call


def _signature(op: _Operation) -> inspect.Signature:
    """The signature of torch's own; torch.istft is a builtin without one, its method has it."""
    if op is _STFT:
        return inspect.signature(op.native)
    method = inspect.signature(torch.Tensor.istft)
    _, *rest = method.parameters.values()
    first = inspect.Parameter(
        "input", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=torch.Tensor
    )
    return inspect.Signature([first, *rest], return_annotation=torch.Tensor)


_SIGNATURES = {op.name: _signature(op) for op in (_STFT, _ISTFT)}

stft = _function(_STFT, __name__, current_choice)
istft = _function(_ISTFT, __name__, current_choice)
#: What ``patch`` puts in the place of torch's own: pickled by reference to torch's names, and
#: native wherever it is still held after ``unpatch``.
patched_stft = _function(_STFT, "torch.functional", patched_choice)
patched_istft = _function(_ISTFT, "torch.functional", patched_choice)


def explain(function: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Route:
    """Who would compute ``function(*args, **kwargs)`` here and now, and why; computes nothing.

    Args:
        function: ``torch.stft``, ``torch.istft``, ours, or ``"stft"`` or ``"istft"``.

    Raises:
        ValueError: ``function`` is none of these.
    """
    name = function if isinstance(function, str) else getattr(function, "__name__", "")
    for op in (_STFT, _ISTFT):
        if op.name == name:
            return _plan(op, current_choice(), args, kwargs).route
    raise ValueError(f"function must be stft or istft; got {function!r}")


def stats() -> Stats:
    """What was computed where since the start or :func:`reset_stats`, and why."""
    return _counters.snapshot()


def reset_stats() -> None:
    """Set every counter to zero."""
    _counters.reset()
