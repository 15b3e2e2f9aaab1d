"""One call, run as it was decided, verified where that is due, and counted.

Whatever torch rejects is handed to torch, which raises its own exception. Only our own exceptions
lead to native: any other that comes out of a computation is a bug and stays visible.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any

import torch

from ..backends import registry
from ..calls.key import Known, input_of, with_tensors
from ..calls.operation import Operation
from ..calls.timer import Timer
from ..errors import KernelRefused, NotAccelerated, UnresolvedArguments
from ..native import functions as native
from ..native import private_state as torch_state
from . import checking as verifying
from . import cuda_calls
from . import plans as known_plans
from .checking import Due
from .choice import Choice
from .decide import NOT_RESOLVED, Plan, decide, native_plan, trials
from .gradient_timer import WayBack
from .statistics import REFUSED, Counters

MAX_SHAPES = 4096

counters = Counters()
#: Calls that ``auto`` leaves to native for good: they go there without being resolved again.
native_calls: dict[str, Known[bool]] = {name: Known(MAX_SHAPES) for name in ("stft", "istft")}


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
        torch_state.is_deterministic(),
        tensor.requires_grad and torch.is_grad_enabled(),
    )


def _run(op: Operation, plan: Plan, args: Any, kwargs: Any, caller: FrameType) -> torch.Tensor:
    if plan.params is None or plan.bound is None:
        return op.compute_natively(args, kwargs, caller)
    if plan.trial is not None and plan.route.backend == "cuda":
        # What is timed is what later calls will take.
        known = cuda_calls.recall(op.name, "cuda", plan.bound["input"], args, kwargs)
        if known is not None:
            return known
    from ..core.params import StftParams

    tensor, window = plan.bound["input"], plan.bound["window"]
    computing: Any = registry.load(plan.route.backend)
    more: dict[str, Any] = {}
    if torch_state.is_differentiated(tensor, window):
        from ..autograd import derivatives as computing

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
        native.warn_of_istft(window is None, padded, caller)
    return result


def _computed(
    op: Operation, plan: Plan, args: Any, kwargs: Any, caller: FrameType, due: Due | None
) -> torch.Tensor:
    """The result of a call, made with aliases of what autograd is to be watched at."""
    aliases: dict[str, torch.Tensor] = {}
    if due is not None and due.gradients is not None and plan.bound is not None:
        aliases = due.gradients.aliases(plan.bound)
    timed = plan.trial
    if timed is not None and timed.is_differentiated:
        tensor = aliases.get("input", input_of(args, kwargs))
        # One more, that autograd comes to before anything is compared.
        aliases["input"] = tensor.view_as(tensor)
    if aliases:
        args, kwargs = with_tensors(args, kwargs, aliases)
        plan = replace(plan, bound=None if plan.bound is None else plan.bound | aliases)
    run = partial(_run, op, plan, args, kwargs, caller)
    return run() if timed is None else _timed(plan, run, input_of(args, kwargs))


def dispatch(
    op: Operation, choice: Choice, args: Any, kwargs: Any, caller: FrameType
) -> torch.Tensor:
    """Compute a call as ``choice`` asks, and count it for the line where ``caller`` stands.

    Raises:
        NotAccelerated: the choice is strict, and nothing but native can compute this call.
    """
    try:
        return _dispatch(op, choice, args, kwargs, caller)
    except NotAccelerated as refused:
        counters.count(op.name, REFUSED, caller, refused.reasons)
        raise


def _dispatch(
    op: Operation, choice: Choice, args: Any, kwargs: Any, caller: FrameType
) -> torch.Tensor:
    key = known_plans.key_of_call(op, choice, args, kwargs)
    known = known_plans.recall(op, key, args, kwargs)
    plan = known or decide(op, choice, args, kwargs)
    if plan.fallback and choice.strict:
        op.compute_natively(args, kwargs, caller)  # torch's own exception comes before ours
        raise NotAccelerated(op.name, plan.route.reasons)
    due = None
    if known is None and (choice.verify or choice.backend == "auto"):
        due = verifying.due(op, choice, plan, args, kwargs, counters.count_verified)
    try:
        result = _computed(op, plan, args, kwargs, caller, due)
    except UnresolvedArguments:
        plan = native_plan(op, NOT_RESOLVED, rejected=True)
        result = op.compute_natively(args, kwargs, caller)
    except KernelRefused as refused:
        plan = native_plan(op, str(refused), fallback=True)
        result = op.compute_natively(args, kwargs, caller)
        if choice.strict:
            raise NotAccelerated(op.name, plan.route.reasons) from refused
    if plan.rejected and choice.strict:
        # torch did not raise after all, so this was a call that we had to compute.
        raise NotAccelerated(op.name, plan.route.reasons)
    if due is not None and plan.params is not None:
        plan, result = due.verified(plan, result)
    if known is None:
        known_plans.remember(key, plan)
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
            cuda_calls.remember(op.name, asked, args, kwargs, plan.params, result)
    elif plan.settled and plan.route.backend == "native" and not choice.strict:
        tensor = input_of(args, kwargs)
        native_calls[op.name].put(shape_of_call(tensor, args, kwargs), True)


def _timed(plan: Plan, run: Callable[[], torch.Tensor], tensor: torch.Tensor) -> torch.Tensor:
    """Run a call of ``auto`` with a clock, and have autograd's way back timed, if there is one.

    Args:
        tensor: that ``run`` differentiates in.
    """
    trial, backend = plan.trial, plan.route.backend
    assert trial is not None
    timer = _make_timer(trial.device)
    result: torch.Tensor = trials.time(trial, backend, run, timer)
    if trial.is_differentiated and result.requires_grad:
        note = partial(trials.note, trial.both_ways, backend)
        WayBack(timer, _make_timer(trial.device), note).watch(result, tensor)
    return result


def _make_timer(device_type: str) -> Timer:
    """The clock that all calls on a device are timed by, native's included."""
    first = registry.list_candidates(device_type)[0]
    return registry.load(first).make_timer(trials.clock)
