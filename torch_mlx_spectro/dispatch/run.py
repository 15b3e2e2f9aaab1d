"""One call: run by its plan if one is kept, else decided, compared if need be, and kept as a plan.

Every call is counted, with the reason where native computes it. Whatever torch rejects is handed to
torch, which raises its own exception. Only our own exceptions lead to native; any other exception
in a computation is a bug and stays visible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any

import torch

from ..backends import registry
from ..calls.key import Key, can_be_kept, find_input, make_key, name_backend, with_tensors
from ..calls.operation import Call, Operation
from ..calls.timer import Timer
from ..errors import KernelRefused, NotAccelerated, UnresolvedArguments
from ..native import functions as native
from ..native import private_state as torch_state
from ..native.private_state import PLAIN_TYPES
from ..native.strides import with_view
from . import checking
from .checking import CallChecks
from .choice import Choice
from .decide import NOT_RESOLVED, decide, ledger, log_decision, native_plan, trials
from .gradient_timer import GradientTimer
from .plans import Plan, Run, plans
from .recording import Answer
from .statistics import REFUSED, Counters

#: What was found for a call: its plan and its key, or None; its input, window and other arguments.
Found = tuple[Plan | None, Key | None, Any, Any, tuple[Any, ...]]

counters = Counters()


def dispatch(
    op: Operation, choice: Choice, args: Any, kwargs: Any, caller: FrameType
) -> torch.Tensor:
    """Compute a call as ``choice`` asks, and count it for the line where ``caller`` stands.

    Raises:
        NotAccelerated: the choice is strict, and nothing but native can compute this call.
    """
    # A call that comes again runs no more than what follows, so there are few function calls in it.
    tensor: Any = None
    window, others, key, plan = None, (), None, None
    if not torch_state.is_intercepted():
        try:
            tensor, window, others = op.read(*args, **kwargs)
            if type(tensor) in PLAIN_TYPES:
                key = make_key(op.name, choice.backend, tensor, window, others)
                plan = plans.get(key)
        except Exception:  # wrong arguments, no strides, or whatever an object's own hash raises
            key = None
    if plan is not None and (
        plan.epoch != ledger.epoch
        or ((plan.warns or plan.run is None) and _is_state_against(plan, tensor))
    ):
        plan = None
    if plan is not None and plan.sites is not None and not choice.verify:
        run, sites, decided = plan.run, plan.sites, plan
        try:
            if run is not None:
                result = run(tensor, window)
            elif choice.strict and plan.fallback:
                raise KernelRefused
            else:
                result = op.compute_natively(args, kwargs, caller)
        except (KernelRefused, UnresolvedArguments):
            plan = None  # decided anew below, where torch raises or the reason is counted
        else:
            bump = sites.get(
                (id(caller.f_code), caller.f_lasti)
            )  # as find_site, without calling it
            if bump is None:
                counters.count(decided.answer, caller, decided.route.reasons)
            else:
                bump()
            return result
    try:
        return _dispatch(op, choice, args, kwargs, caller, (plan, key, tensor, window, others))
    except NotAccelerated as refused:
        counters.count(Answer(op.name, REFUSED, refused.reasons), caller)
        raise


def _is_state_against(plan: Plan, tensor: torch.Tensor) -> bool:
    """Whether something in torch's state that the key does not hold rules this plan out."""
    if plan.run is None:  # native's computation cannot always be recorded into a CUDA graph
        return torch_state.is_captured(tensor)
    return plan.warns and torch.is_warn_always_enabled()


def _dispatch(
    op: Operation, choice: Choice, args: Any, kwargs: Any, caller: FrameType, found: Found
) -> torch.Tensor:
    epoch = ledger.epoch
    kept = found[0] if found[0] is not None and found[0].run is not None else None
    if kept is None:
        plan = decide(op, choice, args, kwargs)
    else:  # the plan runs as it would; some of its calls are compared
        plan = replace(kept, bound=op.bind(*args, **kwargs))
    if plan.fallback and choice.strict:
        op.compute_natively(args, kwargs, caller)  # torch's own exception comes before ours
        raise NotAccelerated(op.name, plan.route.reasons)
    plan = _take_kept_run(plan, found[1], found[2])
    checks = None
    if choice.verify or choice.backend == "auto":
        checks = checking.find_checks(op, choice, plan, args, kwargs, counters.count_verified)
    try:
        result = _compute(op, plan, args, kwargs, caller, checks)
    except UnresolvedArguments:
        plan = native_plan(op, NOT_RESOLVED, rejected=True)
        result = op.compute_natively(args, kwargs, caller)
    except KernelRefused as refused:
        plan = native_plan(op, str(refused), fallback=True)
        result = op.compute_natively(args, kwargs, caller)
        if choice.strict:
            raise NotAccelerated(op.name, plan.route.reasons) from refused
    if plan.rejected and choice.strict:
        # torch did not raise after all, so this is a call that native computed.
        raise NotAccelerated(op.name, plan.route.reasons)
    if checks is not None and plan.params is not None:
        plan, result = checks.compare(plan, result)
    if kept is None:
        _keep(replace(plan, epoch=epoch), found, result)
        log_decision(plan)
    counters.count(plan.answer, caller, plan.route.reasons)
    return result


def _take_kept_run(plan: Plan, key: Key | None, tensor: Any) -> Plan:
    """Return the plan with the run of calls that ask for its backend by name, if one is kept.

    So ``auto`` times calls as they will run once it has decided.
    """
    if plan.params is None or plan.run is not None or key is None:
        return plan
    kept = plans.get(name_backend(key, plan.route.backend))
    if kept is None or kept.epoch != ledger.epoch or _is_state_against(kept, tensor):
        return plan
    return replace(plan, run=kept.run)


def _compute(
    op: Operation, plan: Plan, args: Any, kwargs: Any, caller: FrameType, checks: CallChecks | None
) -> torch.Tensor:
    """Compute a call, on aliases of the tensors whose gradients are to be compared or timed."""
    aliases: dict[str, torch.Tensor] = {}
    if checks is not None and checks.gradients is not None and plan.bound is not None:
        aliases = checks.gradients.make_aliases(plan.bound)
    timed = plan.trial
    if timed is not None and timed.is_differentiated:
        tensor = aliases.get("input", find_input(args, kwargs))
        # Another alias: autograd reaches it before the comparison, which is then not timed.
        aliases["input"] = tensor.view_as(tensor)
    if aliases:
        args, kwargs = with_tensors(args, kwargs, aliases)
        plan = replace(plan, bound=None if plan.bound is None else plan.bound | aliases)
    run = partial(_run, op, plan, args, kwargs, caller)
    return run() if timed is None else _time(plan, run, find_input(args, kwargs))


def _run(op: Operation, plan: Plan, args: Any, kwargs: Any, caller: FrameType) -> torch.Tensor:
    params, bound = plan.params, plan.bound
    if params is None or bound is None:
        return op.compute_natively(args, kwargs, caller)
    tensor, window = bound["input"], bound["window"]
    if plan.run is not None:
        return plan.run(tensor, window)
    run = _make_run(plan, tensor, window)
    no_window, other = _find_warnings(plan, window)
    if op.name == "stft" and (no_window or other):
        native.warn_of_stft(no_window, other)
    result = run(tensor, window)
    if op.name == "istft" and (no_window or other):
        native.warn_of_istft(no_window, other, caller)
    return result


def _find_warnings(plan: Plan, window: torch.Tensor | None) -> tuple[bool, bool]:
    """Find what torch warns of: whether the window is missing, and whether another warning is due.

    The other warns of an stft's ``return_complex=False``, or of zeros appended to an istft's
    result. torch gives each once, or for every call if the program asks for that.
    """
    params: Any = plan.params
    other = not params.return_complex if plan.route.op == "stft" else params.zero_tail > 0
    return window is None, other


def _make_run(plan: Plan, tensor: torch.Tensor, window: torch.Tensor | None) -> Run:
    """Make the function that computes a call by its backend, differentiable where the call is."""
    backend, params = registry.load(plan.route.backend), plan.params
    assert params is not None
    if torch_state.is_differentiated(tensor, window):
        from ..autograd import derivatives

        return derivatives.bind(params, backend, tensor, window)
    return partial(getattr(backend, plan.route.op), params)


def _keep(plan: Plan, found: Found, result: torch.Tensor) -> None:
    """Keep a plan under the keys for which it is final, so that calls like it are not decided."""
    _, key, tensor, window, others = found
    if key is None or not can_be_kept(others):
        return
    if torch_state.is_captured(tensor):
        return
    if plan.params is None:
        if plan.settled:
            plans.keep(key, replace(plan, sites=counters.sites(plan.answer)))
        return
    run = plan.run or _make_run(plan, tensor, window)
    if plan.run is None:
        run = _prepare(plan.route.backend, Call(plan.params, tensor, window), result) or run
    warns, sites = any(_find_warnings(plan, window)), counters.sites(plan.answer)
    kept = replace(plan, bound=None, trial=None, run=run, warns=warns, sites=sites)
    if plan.settled:
        plans.keep(key, kept)
    plans.keep(name_backend(key, plan.route.backend), kept)


def _prepare(name: str, call: Call, result: torch.Tensor) -> Run | None:
    """Prepare the function for calls like one that a backend has computed; None if it has none."""
    backend = registry.load(name)
    run: Run | None = backend.prepare(call, result)
    if run is not None and torch_state.is_differentiated(call.tensor, call.window):
        from ..autograd import prepared

        run = prepared.bind_prepared(call, backend, run)
    return None if run is None else with_view(call.params, run)


def _time(plan: Plan, run: Callable[[], torch.Tensor], tensor: torch.Tensor) -> torch.Tensor:
    """Run a call and time it for ``auto``, with its backward pass if there will be one.

    Args:
        tensor: the input whose gradient is timed.
    """
    trial, backend = plan.trial, plan.route.backend
    assert trial is not None
    timer = _make_timer(trial.device)
    result: torch.Tensor = trials.time(trial, backend, run, timer)
    if trial.is_differentiated and result.requires_grad:
        note = partial(trials.note, trial.both_ways, backend)
        GradientTimer(timer, _make_timer(trial.device), note).watch(result, tensor)
    return result


def _make_timer(device_type: str) -> Timer:
    """Make the timer for all calls on a type of device, native's included."""
    first = registry.list_candidates(device_type)[0]
    return registry.load(first).make_timer(trials.clock)
