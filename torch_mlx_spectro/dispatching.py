"""One call, decided, run and counted.

A call is planned (what does the program ask for, are the arguments valid, does anything in
torch's state or in the tensors speak against MLX, who is faster), run, and counted. Whatever
torch rejects is handed to torch, which raises its own exception. Only our own exceptions lead to
native: any other that comes out of a computation is a bug and stays visible.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

import torch

from . import native, routing, torch_state, verification
from .errors import NotAccelerated, UnresolvedArguments
from .routing import Choice, Route, Settled, Signature, Trials
from .statistics import TRANSPARENT, Counters
from .verification import Check, Verifier

if TYPE_CHECKING:  # a program whose calls all go native never resolves one
    from .params import IstftParams, StftParams

counters = Counters()
trials = Trials()
verifier = Verifier()
#: Calls that ``auto`` leaves to native for good: they go there without being resolved again.
native_calls = {"stft": Settled(), "istft": Settled()}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=counters.after_fork_in_child)
    os.register_at_fork(after_in_child=trials.after_fork_in_child)
    os.register_at_fork(after_in_child=verifier.after_fork_in_child)
    for _calls in native_calls.values():
        os.register_at_fork(after_in_child=_calls.after_fork_in_child)

NOT_RESOLVED = "these arguments are accepted by this torch but not known to this package"
NOT_MEASURED = "auto: transformed calls are not measured"
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
    return {
        "input": input,
        "n_fft": n_fft,
        "hop_length": hop_length,
        "win_length": win_length,
        "window": window,
        "center": center,
        "pad_mode": pad_mode,
        "normalized": normalized,
        "onesided": onesided,
        "return_complex": return_complex,
        "align_to_window": align_to_window,
    }


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
    return {
        "input": input,
        "n_fft": n_fft,
        "hop_length": hop_length,
        "win_length": win_length,
        "window": window,
        "center": center,
        "normalized": normalized,
        "onesided": onesided,
        "length": length,
        "return_complex": return_complex,
    }


@dataclass(frozen=True)
class Operation:
    """What differs between the two functions; ``small`` is a number of input values."""

    name: str
    native: Callable[..., torch.Tensor]
    bind: Callable[..., dict[str, Any]]
    small: int


# A spectrum holds about half as many (complex) values as its frames have samples, at the usual
# hop of a quarter four times as many as the signal.
STFT = Operation("stft", native.stft, _bind_stft, routing.AUTO_FRAMED_SAMPLES // 16)
ISTFT = Operation("istft", native.istft, _bind_istft, routing.AUTO_FRAMED_SAMPLES // 4)


@dataclass(frozen=True)
class Plan:
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
    op: Operation, *reasons: str, rejected: bool = False, fallback: bool = False
) -> Plan:
    route = Route(op.name, "native", "torch", reasons)
    return Plan(route, rejected=rejected, fallback=fallback)


def shape_of_call(tensor: torch.Tensor, args: Any, kwargs: Any) -> Hashable:
    """What ``auto``'s choice depends on, read off a call in a microsecond, unresolved."""
    sizes = args[1:3] or (kwargs.get("n_fft"), kwargs.get("hop_length"))
    return (
        tensor.shape,
        tensor.stride(),
        sizes,
        kwargs.get("hop_length"),
        torch.get_num_threads(),
        tensor.requires_grad and torch.is_grad_enabled(),
    )


def decide(op: Operation, choice: Choice, args: Any, kwargs: Any) -> Plan:
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
        chosen, why, trial = _measured(op, tensor, params)
        if chosen is not None:
            return chosen
    missing = routing.missing_reason(tensor.device.type)
    if missing is not None:
        return _native_plan(op, missing, fallback=True)
    from . import mlx_backend

    kernel, refused = mlx_backend.computation(params, tensor)
    if refused is not None:
        return _native_plan(op, refused, fallback=True)
    route = Route(op.name, "mlx", kernel, (why,) if why else ())
    if verifier.quarantined:
        wrong = verifier.reason_against(verification.key_of(route, params, tensor, window))
        if wrong is not None:
            return _native_plan(op, wrong, fallback=True)
    return Plan(route, bound, params, trial=trial)


def _resolve(op: Operation, bound: dict[str, Any]) -> StftParams | IstftParams:
    """Resolve bound arguments; raises UnresolvedArguments for those that are torch's."""
    from .params import TensorFacts, resolve_istft, resolve_stft

    facts: dict[str, Any] = dict(bound)
    tensor, window = facts.pop("input"), facts["window"]
    if window is not None:
        if window.device != tensor.device:
            raise UnresolvedArguments("window and input are on one device")
        facts["window"] = TensorFacts(tuple(window.shape), window.is_complex())
    resolve = resolve_stft if op is STFT else resolve_istft
    return resolve(TensorFacts(tuple(tensor.shape), tensor.is_complex()), **facts)


def _measured(
    op: Operation, tensor: torch.Tensor, params: StftParams | IstftParams
) -> tuple[Plan | None, str, Signature | None]:
    """``auto``'s choice for a call that both can compute.

    Returns:
        The plan when the choice is native, else None; why; the signature of a call to be timed.
    """
    framed = params.rows * params.frames * params.n_fft
    if tensor.is_cpu and framed < routing.AUTO_FRAMED_SAMPLES:
        route = Route(op.name, "native", "torch", (TOO_SMALL,))
        return Plan(route, settled=True), TOO_SMALL, None
    if torch_state.is_transformed():
        return _native_plan(op, NOT_MEASURED), NOT_MEASURED, None
    signature = routing.signature_of(params, tensor)
    name, timed = trials.pick(signature)
    why = "auto: being measured" if timed else "auto: measured faster"
    trial = signature if timed else None
    route = Route(op.name, "native", "torch", (why,))
    plan = Plan(route, trial=trial, settled=not timed)
    return (plan if name == "native" else None), why, trial


def _run(op: Operation, plan: Plan, args: Any, kwargs: Any) -> torch.Tensor:
    if plan.params is None or plan.bound is None:
        return op.native(*args, **kwargs)
    from . import mlx_backend
    from .params import StftParams

    tensor, window = plan.bound["input"], plan.bound["window"]
    computing: ModuleType = mlx_backend
    if torch_state.is_differentiated(tensor, window):
        from . import derivatives as computing
    if isinstance(plan.params, StftParams):
        as_real = not plan.params.return_complex
        if window is None or as_real:
            native.warn_of_stft(window is None, as_real)
        spectrum: torch.Tensor = computing.stft(plan.params, tensor, window)
        return spectrum
    padded = plan.params.zero_tail > 0
    result: torch.Tensor = computing.istft(plan.params, tensor, window)
    if window is None or padded:
        native.warn_of_istft(window is None, padded, _levels_to_caller())
    return result


def dispatch(
    op: Operation, choice: Choice, args: Any, kwargs: Any, caller: FrameType
) -> torch.Tensor:
    """Compute a call as ``choice`` asks, and count it for the line where ``caller`` stands.

    Raises:
        NotAccelerated: the choice is strict, and MLX cannot compute this call.
    """
    plan = decide(op, choice, args, kwargs)
    if plan.fallback and choice.strict:
        raise NotAccelerated(op.name, plan.route.reasons)
    check = _check_of(op, choice.verify, plan, args, kwargs) if choice.verify else None
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
        native_calls[op.name].add(shape_of_call(tensor, args, kwargs))
    if check is not None and plan.params is not None:
        plan, result = _verified(op, choice, plan, check, result)
    reasons = plan.route.reasons if plan.fallback or plan.rejected else ()
    counters.count(op.name, plan.route.backend, caller, reasons)
    return result


def _check_of(op: Operation, every: int, plan: Plan, args: Any, kwargs: Any) -> Check | None:
    """The check of an accelerated call that is due; None for every other call."""
    if plan.params is None or plan.bound is None:
        return None
    tensor, window = plan.bound["input"], plan.bound["window"]
    if not verification.can_be_verified(tensor):
        return None
    key = verification.key_of(plan.route, plan.params, tensor, window)
    if not verifier.is_due(every, key):
        return None
    return Check(op.native, key, plan.bound, args, kwargs)


def _verified(
    op: Operation, choice: Choice, plan: Plan, check: Check, result: torch.Tensor
) -> tuple[Plan, torch.Tensor]:
    """The plan and the result of a call that was due: native's where ours is wrong.

    Raises:
        NotAccelerated: ours is wrong, and the choice is strict.
    """
    assert plan.params is not None
    compared, wrong = check.verdict(plan.params, result)
    if compared:
        counters.count_verified(agrees=not wrong)
    if not wrong:
        return plan, result
    is_new = verifier.quarantine(check.key, wrong)
    reason = verifier.reason_against(check.key) or wrong
    if is_new:
        verification.warn(check, wrong, _levels_to_caller())
    if choice.strict:
        raise NotAccelerated(op.name, (reason,))
    return _native_plan(op, reason, fallback=True), check.answer()


def _timed(plan: Plan, run: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Run a call of ``auto`` with a clock, the device's queue empty before and after."""
    on_mps = plan.trial is not None and plan.trial.device == "mps"

    def finished() -> torch.Tensor:
        result = run()
        if on_mps:
            torch.mps.synchronize()
        return result

    if on_mps:
        torch.mps.synchronize()
    result: torch.Tensor = trials.time(plan.trial, plan.route.backend, finished)
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
    return level
