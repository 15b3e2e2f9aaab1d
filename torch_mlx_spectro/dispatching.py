"""One call, run as it was decided, verified where that is due, and counted.

Whatever torch rejects is handed to torch, which raises its own exception. Only our own exceptions
lead to native: any other that comes out of a computation is a bug and stays visible.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any, cast

import torch

from . import cuda_calls, known_plans, native, torch_state, verdicts, verification
from .call_keys import Known
from .deciding import (
    NOT_RESOLVED,
    Plan,
    backend_module,
    case_of,
    decide,
    native_plan,
    trials,
    trust,
    verifier,
)
from .errors import NotAccelerated, UnresolvedArguments
from .operations import Operation
from .routing import Choice, framed_samples
from .statistics import TRANSPARENT, Counters
from .trials import CudaTimer
from .trust import MAX_COMPARED
from .verification import Check

MAX_SHAPES = 4096

counters = Counters()
#: Calls that ``auto`` leaves to native for good: they go there without being resolved again.
native_calls: dict[str, Known[bool]] = {name: Known(MAX_SHAPES) for name in ("stft", "istft")}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=counters.after_fork_in_child)
    for _calls in native_calls.values():
        os.register_at_fork(after_in_child=_calls.after_fork_in_child)


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


def _run(op: Operation, plan: Plan, args: Any, kwargs: Any) -> torch.Tensor:
    if plan.params is None or plan.bound is None:
        return op.native(*args, **kwargs)
    if plan.trial is not None and plan.route.backend == "cuda":
        # What is timed is what later calls will take.
        known = cuda_calls.recall(op.name, "cuda", plan.bound["input"], args, kwargs)
        if known is not None:
            return known
    from .params import StftParams

    tensor, window = plan.bound["input"], plan.bound["window"]
    computing = backend_module(plan.route.backend)
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
    key = known_plans.key_of_call(op, choice, args, kwargs)
    known = known_plans.recall(op, key, args, kwargs)
    plan = known or decide(op, choice, args, kwargs)
    if plan.fallback and choice.strict:
        raise NotAccelerated(op.name, plan.route.reasons)
    is_checked = known is None and (choice.verify or choice.backend == "auto")
    check = _check_of(op, choice, plan, args, kwargs) if is_checked else None
    try:
        run = partial(_run, op, plan, args, kwargs)
        result = run() if plan.trial is None else _timed(plan, run)
    except UnresolvedArguments:
        plan = native_plan(op, NOT_RESOLVED, rejected=True)
        result = op.native(*args, **kwargs)
    if plan.rejected and choice.strict:
        # torch did not raise after all, so this was a call that we had to compute.
        raise NotAccelerated(op.name, plan.route.reasons)
    if check is not None and plan.params is not None:
        plan, result = _verified(op, choice, plan, check, result)
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
        tensor = args[0] if args else kwargs["input"]
        native_calls[op.name].put(shape_of_call(tensor, args, kwargs), True)


def _check_of(op: Operation, choice: Choice, plan: Plan, args: Any, kwargs: Any) -> Check | None:
    """The check of an accelerated call that is due; None for every other call."""
    if plan.params is None or plan.bound is None:
        return None
    tensor, window = plan.bound["input"], plan.bound["window"]
    if not verification.can_be_verified(tensor):
        return None
    case = case_of(plan.route, plan.params, tensor, window)
    is_due, in_parts = bool(choice.verify) and verifier.is_due(choice.verify, case.key), False
    if not is_due and choice.backend == "auto":
        is_due, in_parts = trust.is_due(case), framed_samples(plan.params) > MAX_COMPARED
    return Check(op.native, case.key, plan.bound, args, kwargs, in_parts) if is_due else None


def _verified(
    op: Operation, choice: Choice, plan: Plan, check: Check, result: torch.Tensor
) -> tuple[Plan, torch.Tensor]:
    """The plan and the result of a call that was due: native's where ours is wrong.

    Raises:
        NotAccelerated: ours is wrong, and the choice is strict.
    """
    assert plan.params is not None
    tensor, window = check.bound["input"], check.bound["window"]
    case = case_of(plan.route, plan.params, tensor, window)
    compared, wrong = check.verdict(plan.params, result)
    if compared:
        counters.count_verified(agrees=not wrong)
    if not wrong:
        is_trusted = trust.note(case, compared and check.telling)
        return replace(plan, settled=plan.settled and is_trusted), result
    is_new = verifier.quarantine(check.key, wrong)
    reason = verifier.reason_against(check.key) or wrong
    if is_new:
        trust.distrust(case, reason)
        verification.warn(check, wrong, verdicts.store().path, _levels_to_caller())
    if choice.strict:
        raise NotAccelerated(op.name, (reason,))
    return native_plan(op, reason, fallback=True), check.answer()


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
