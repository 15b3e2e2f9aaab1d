"""Decides who computes a call, with every reason; computes nothing.

The questions in order: What does the program ask for? Are the arguments valid? Does anything in
torch's state or in the tensors rule a backend out? Is it here? Can it compute this call? Was it
wrong before? Who is faster?
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..backends import registry
from ..calls.kind import (
    LEAST_FRAMED,
    CallKind,
    Route,
    framed_samples,
    make_kind,
)
from ..calls.operation import Call, Operation
from ..errors import UnresolvedArguments
from ..native import private_state as torch_state
from ..store import verdicts
from ..verify.ledger import Ledger, make_case
from . import choice as routing
from .autotune import Trials
from .choice import Choice
from .plans import Plan
from .recording import Took
from .statistics import logger

if TYPE_CHECKING:  # a program whose calls all go native never resolves one
    from ..core.params import IstftParams, StftParams

trials = Trials(store=verdicts.store)
ledger = Ledger(verdicts.store)

NATIVE_ASKED = "the native backend was asked for"
NOT_RESOLVED = "these arguments are accepted by this torch but not known to this package"
NOT_MEASURED = "auto: transformed calls are not measured"
TOO_SMALL = "auto: too small to be faster on the CPU"
CAPTURED = "auto: a CUDA graph is being captured"
CHECKPOINTED = "auto: calls that may be computed again, as checkpointed ones, are not measured"
MEASURED_NOW = "auto: being measured"
MEASURED = "auto: measured faster"
STATIC = "auto: nothing may be measured (SPEC_MLX_AUTOTUNE)"
DETERMINISTIC = "auto: nothing is measured where torch is to use deterministic algorithms"


def native_plan(
    op: Operation, *reasons: str, rejected: bool = False, fallback: bool = False
) -> Plan:
    """Make the plan of a call that native computes, with the reasons."""
    route = Route(op.name, "native", "torch", reasons)
    return Plan(route, rejected=rejected, fallback=fallback)


def log_decision(plan: Plan) -> None:
    """Log a decision, with the sizes of the call if a backend computes it."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    route, params = plan.route, plan.params
    sizes = (
        ""
        if params is None
        else (
            f" of {params.rows} rows, {params.frames} frames, n_fft {params.n_fft},"
            f" hop_length {params.hop_length}"
        )
    )
    reasons = f": {'; '.join(route.reasons)}" if route.reasons else ""
    final = "" if plan.settled else ", not final"
    logger.debug(
        "decided torch.%s%s: %s (%s)%s%s",
        *(route.op, sizes, route.backend, route.kernel, final, reasons),
    )


def decide(op: Operation, choice: Choice, args: Any, kwargs: Any) -> Plan:
    """Decide a call, without computing anything."""
    if choice.backend == "native":
        return native_plan(op, NATIVE_ASKED)
    if torch_state.is_recorded():  # reading a shape would be recorded, too
        return native_plan(op, *torch_state.ambient_reasons(), fallback=True)
    try:
        bound = op.bind(*args, **kwargs)
    except TypeError:
        return native_plan(op, NOT_RESOLVED, rejected=True)
    tensor, window = (torch_state.as_plain(bound[name]) for name in ("input", "window"))
    bound["input"], bound["window"] = tensor, window
    given = [value for value in (tensor, window) if value is not None]
    if tensor is None or not all(isinstance(value, torch.Tensor) for value in given):
        return native_plan(op, NOT_RESOLVED, rejected=True)
    params = None
    if all(type(value) in torch_state.PLAIN_TYPES for value in given):
        try:
            params = _resolve(op, bound)
        except UnresolvedArguments:
            return native_plan(op, NOT_RESOLVED, rejected=True)
    return _choose_route(op, choice, bound, params)


def _choose_route(
    op: Operation, choice: Choice, bound: dict[str, Any], params: StftParams | IstftParams | None
) -> Plan:
    """Make the plan of a call of valid arguments: for the first pick that can compute it.

    Args:
        params: None where an argument is not a plain tensor.
    """
    tensor, window = bound["input"], bound["window"]
    left, refused = _candidates(choice, tensor, window)
    while left and params is not None:
        pick = _pick_backend(op, choice, tensor, window, params, left)
        reasons = (pick.why, *refused) if pick.why else ()
        if pick.backend == "native":
            route = Route(op.name, "native", "torch", reasons)
            return Plan(route, trial=pick.trial, settled=pick.settled, took=pick.took)
        kernel, refusal = _kernel(op, choice, pick.backend, params, tensor, window)
        if refusal is None:
            route = Route(op.name, pick.backend, kernel, reasons)
            return Plan(
                route, bound, params, trial=pick.trial, settled=pick.settled, took=pick.took
            )
        refused.append(refusal)
        left = tuple(name for name in left if name != pick.backend)
    plan = native_plan(op, *dict.fromkeys(refused), fallback=True)
    # Not final while a CUDA graph is captured, when a backend refuses what it did not prepare.
    return replace(plan, settled=not torch_state.is_captured(tensor))


def _candidates(choice: Choice, tensor: Any, window: Any) -> tuple[tuple[str, ...], list[str]]:
    """Find the backends that may compute a call, and why others may not; loads nothing large."""
    device = tensor.device.type
    left, refused = [], list[str]()
    for name in routing.find_candidates(choice, device):
        reasons = routing.unsupported_reasons((("input", tensor), ("window", window)), name)
        if not reasons and choice.backend == "auto" and not registry.find(name).loads_library:
            missing = routing.missing_reason(device, name)
            reasons = () if missing is None else (missing,)
        refused += reasons
        if not reasons:
            left.append(name)
    return tuple(left), refused


def _kernel(
    op: Operation,
    choice: Choice,
    backend: str,
    params: StftParams | IstftParams,
    tensor: torch.Tensor,
    window: torch.Tensor | None,
) -> tuple[str, str | None]:
    """Name a backend's kernel for a call, and say why it cannot or may not compute it, or None."""
    missing = routing.missing_reason(tensor.device.type, backend)
    if missing is not None:
        return "", missing
    computing, call = registry.load(backend), Call(params, tensor, window)
    refused = computing.explain_refusal(call)
    if refused is not None:
        return "", refused
    kernel = computing.name_kernel(call)
    is_named = choice.backend != "auto"
    if not ledger.may_refuse(asked_by_name=is_named):
        return kernel, None
    case = make_case(Route(op.name, backend, kernel), params, tensor, window)
    return kernel, ledger.explain_refusal(case, asked_by_name=is_named)


def _resolve(op: Operation, bound: dict[str, Any]) -> StftParams | IstftParams:
    """Resolve bound arguments; raises UnresolvedArguments for those that are left to torch."""
    from ..core.params import TensorFacts, resolve_istft, resolve_stft

    facts: dict[str, Any] = dict(bound)
    tensor, window = facts.pop("input"), facts["window"]
    if window is not None:
        if window.device != tensor.device:
            raise UnresolvedArguments("window and input are on one device")
        facts["window"] = TensorFacts(tuple(window.shape), window.is_complex())
    resolve = resolve_stft if op.name == "stft" else resolve_istft
    return resolve(TensorFacts(tuple(tensor.shape), tensor.is_complex()), **facts)


class Pick(NamedTuple):
    """The backend for a call, and why; the call's kind, if it is to be timed.

    ``settled`` means that the pick is final for calls like it, ``took`` what they take.
    """

    backend: str
    why: str = ""
    trial: CallKind | None = None
    settled: bool = False
    took: Took | None = None


def _pick_backend(
    op: Operation,
    choice: Choice,
    tensor: torch.Tensor,
    window: torch.Tensor | None,
    params: StftParams | IstftParams,
    candidates: tuple[str, ...],
) -> Pick:
    """Pick who computes a call that native and these candidates can compute."""
    if choice.backend != "auto":
        return Pick(choice.backend, settled=True)
    if tensor.is_cpu and framed_samples(params) < LEAST_FRAMED[op.name]:
        return Pick("native", TOO_SMALL, settled=True)
    if torch_state.is_transformed():
        return Pick(candidates[0] if tensor.is_cpu else "native", NOT_MEASURED)
    if torch_state.is_captured(tensor):
        # What is recorded is not computed now; native's istft cannot be recorded at all.
        return Pick(candidates[0], CAPTURED)
    why = _why_unmeasured(tensor, window)
    if why is not None:
        # Always the same: who is faster depends on the run, and what is computed again, as
        # torch.utils.checkpoint does, has to save what the first computation did.
        return Pick(candidates[0], why, settled=True)
    kind = make_kind(params, tensor)
    if kind.is_differentiated:
        name, timed = trials.pick_both_ways(kind, kind.both_ways, candidates)
    else:
        name, timed = trials.pick(kind, candidates)
    if timed:
        return Pick(name, MEASURED_NOW, kind)
    if trials.is_running(kind) or trials.is_running(kind.both_ways):
        return Pick(name, MEASURED_NOW)
    return Pick(name, MEASURED, settled=True, took=_find_seconds(kind, name))


def _find_seconds(kind: CallKind, name: str) -> Took | None:
    """Find what a call of this kind takes, with its gradient where that was measured, too."""
    for measured in (kind.both_ways, kind) if kind.is_differentiated else (kind,):
        seconds = trials.list_seconds(measured)
        if "native" in seconds and name in seconds:
            return Took(seconds["native"], seconds[name])
    return None


def _why_unmeasured(tensor: torch.Tensor, window: torch.Tensor | None) -> str | None:
    """Say why ``auto`` does not measure a call; None where it does."""
    if torch_state.is_deterministic():
        return DETERMINISTIC
    if not routing.measures():
        return STATIC
    if torch_state.is_differentiated(tensor, window) and torch_state.recomputes():
        return CHECKPOINTED
    return None
