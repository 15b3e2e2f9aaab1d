"""One call, decided, run and counted.

A call is planned (what does the program ask for, are the arguments valid, does anything in
torch's state or in the tensors speak against MLX, who is faster), run, and counted. Whatever
torch rejects is handed to torch, which raises its own exception. Only our own exceptions lead to
native: any other that comes out of a computation is a bug and stays visible.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache, partial
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, cast

import torch

from . import cuda_calls, native, routing, torch_state, verification
from .errors import NotAccelerated, UnresolvedArguments
from .operations import Operation
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

#: Arguments that are resolved once for each of their values: those that cannot change.
MAX_RESOLVED = 1024
_VALUES = {int, bool, str, type(None)}

NOT_RESOLVED = "these arguments are accepted by this torch but not known to this package"
NOT_MEASURED = "auto: transformed calls are not measured"
TOO_SMALL = "auto: too small for MLX on the CPU"
CAPTURED = "auto: a CUDA graph is being captured"


@dataclass(frozen=True)
class Plan:
    """A decided call. ``params`` is None where native computes it.

    ``rejected`` means that torch is expected to raise; ``fallback`` that another was wanted;
    ``settled`` that ``auto`` has chosen for good.
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
        tensor.is_cpu,
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
    accelerator = routing.accelerator_of(choice, tensor.device.type)
    reasons = routing.unsupported_reasons((("input", tensor), ("window", window)), accelerator)
    if reasons or params is None:
        return _native_plan(op, *reasons, fallback=True)
    why: str = ""
    trial: Signature | None = None
    settled = True
    if choice.backend == "auto":
        if accelerator == "cuda" and (missing := routing.missing_reason("cuda", "cuda")):
            return _native_plan(op, missing, fallback=True)  # nothing to be measured
        chosen, why, trial, settled = _measured(op, tensor, params, accelerator)
        if chosen is not None:
            return chosen
    missing = routing.missing_reason(tensor.device.type, accelerator)
    if missing is not None:
        return _native_plan(op, missing, fallback=True)
    kernel, refused = _backend(accelerator).computation(params, tensor, window)
    if refused is not None:
        return _native_plan(op, refused, fallback=True)
    route = Route(op.name, accelerator, kernel, (why,) if why else ())
    if verifier.quarantined:
        wrong = verifier.reason_against(verification.key_of(route, params, tensor, window))
        if wrong is not None:
            return _native_plan(op, wrong, fallback=True)
    return Plan(route, bound, params, trial=trial, settled=settled)


def _backend(name: str) -> ModuleType:
    """The module that computes for a backend; loaded on first use."""
    return importlib.import_module(f".{name}_backend", __package__)


def _resolve(op: Operation, bound: dict[str, Any]) -> StftParams | IstftParams:
    """Resolve bound arguments; raises UnresolvedArguments for those that are torch's."""
    from .params import TensorFacts

    facts: dict[str, Any] = dict(bound)
    tensor, window = facts.pop("input"), facts["window"]
    if window is not None:
        if window.device != tensor.device:
            raise UnresolvedArguments("window and input are on one device")
        facts["window"] = TensorFacts(tuple(window.shape), window.is_complex())
    kinds = {*map(type, facts.values())} - {TensorFacts}
    resolve = _resolved_once if kinds <= _VALUES else _resolved
    return resolve(op.name, TensorFacts(tuple(tensor.shape), tensor.is_complex()), **facts)


def _resolved(name: str, tensor: Any, **facts: Any) -> StftParams | IstftParams:
    from .params import resolve_istft, resolve_stft

    return (resolve_stft if name == "stft" else resolve_istft)(tensor, **facts)


#: By type, too: True == 1 == 1.0, of which torch rejects two.
_resolved_once = lru_cache(maxsize=MAX_RESOLVED, typed=True)(_resolved)


def _measured(
    op: Operation, tensor: torch.Tensor, params: StftParams | IstftParams, accelerator: str
) -> tuple[Plan | None, str, Signature | None, bool]:
    """``auto``'s choice for a call that both can compute.

    Returns:
        The plan when the choice is native, else None; why; the signature of a call to be timed;
        whether the choice is final.
    """
    framed = params.rows * params.frames * params.n_fft
    if tensor.is_cpu and framed < routing.AUTO_FRAMED_SAMPLES:
        route = Route(op.name, "native", "torch", (TOO_SMALL,))
        return Plan(route, settled=True), TOO_SMALL, None, True
    if torch_state.is_transformed():
        return _native_plan(op, NOT_MEASURED), NOT_MEASURED, None, False
    if tensor.is_cuda and torch_state.is_capturing():
        # What is recorded is not computed now; native's istft cannot be recorded at all.
        return None, CAPTURED, None, False
    signature = routing.signature_of(params, tensor)
    name, timed = trials.pick(signature, accelerator)
    final = not timed and not trials.is_running(signature)
    why = "auto: measured faster" if final else "auto: being measured"
    trial = signature if timed else None
    route = Route(op.name, "native", "torch", (why,))
    plan = Plan(route, trial=trial, settled=final)
    return (plan if name == "native" else None), why, trial, final


def _run(op: Operation, plan: Plan, args: Any, kwargs: Any) -> torch.Tensor:
    if plan.params is None or plan.bound is None:
        return op.native(*args, **kwargs)
    if plan.trial is not None and plan.route.backend == "cuda":
        # What is timed is what later calls will take.
        known = cuda_calls.recall(op.name, "cuda", op.bind, args, kwargs)
        if known is not None:
            return known
    from .params import StftParams

    tensor, window = plan.bound["input"], plan.bound["window"]
    computing = _backend(plan.route.backend)
    more: dict[str, Any] = {}
    if torch_state.is_differentiated(tensor, window):
        from . import derivatives as computing

        more = {"backend": plan.route.backend}
    if isinstance(plan.params, StftParams):
        as_real = not plan.params.return_complex
        if window is None or as_real:
            native.warn_of_stft(window is None, as_real)
        spectrum: torch.Tensor = computing.stft(plan.params, tensor, window, **more)
        return spectrum
    padded = plan.params.zero_tail > 0
    result: torch.Tensor = computing.istft(plan.params, tensor, window, **more)
    if window is None or padded:
        native.warn_of_istft(window is None, padded, _levels_to_caller())
    return result


def dispatch(
    op: Operation, choice: Choice, args: Any, kwargs: Any, caller: FrameType
) -> torch.Tensor:
    """Compute a call as ``choice`` asks, and count it for the line where ``caller`` stands.

    Raises:
        NotAccelerated: the choice is strict, and nothing but native can compute this call.
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
    if check is not None and plan.params is not None:
        plan, result = _verified(op, choice, plan, check, result)
    _remember(op, choice, plan, args, kwargs, result)
    reasons = plan.route.reasons if plan.fallback or plan.rejected else ()
    counters.count(op.name, plan.route.backend, caller, reasons)
    return result


def _remember(
    op: Operation, choice: Choice, plan: Plan, args: Any, kwargs: Any, result: torch.Tensor
) -> None:
    """Keep what was decided for good, so that the next call like it need not be decided."""
    if plan.bound is not None and plan.params is not None and plan.route.backend == "cuda":
        if not choice.verify:  # calls that are recalled are not verified
            asked = {"cuda", choice.backend} if plan.settled else {"cuda"}
            cuda_calls.remember(op.name, asked, plan.bound, plan.params, result)
    elif plan.settled and plan.route.backend == "native" and not choice.strict:
        tensor = args[0] if args else kwargs["input"]
        native_calls[op.name].add(shape_of_call(tensor, args, kwargs))


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
    """Run a call of ``auto`` with a clock: CUDA's own, else ours with MPS's queue empty."""
    assert plan.trial is not None
    device = plan.trial.device
    if device == "cuda":
        timer = CudaTimer()
        return cast(torch.Tensor, trials.time_on_device(plan.trial, plan.route.backend, run, timer))

    def finished() -> torch.Tensor:
        result = run()
        if device == "mps":
            torch.mps.synchronize()
        return result

    if device == "mps":
        torch.mps.synchronize()
    return cast(torch.Tensor, trials.time(plan.trial, plan.route.backend, finished))


class CudaTimer:
    """Two events on the current stream, around a call: what its launches wait for counts."""

    def __init__(self) -> None:
        event: Any = torch.cuda.Event
        self._events = [event(enable_timing=True) for _ in range(2)]

    def begin(self) -> None:
        self._events[0].record()

    def end(self) -> None:
        self._events[1].record()

    def seconds(self) -> float | None:
        """How long it took; None while the device has not finished."""
        if not self._events[1].query():
            return None
        milliseconds: float = self._events[0].elapsed_time(self._events[1])
        return milliseconds / 1000


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
