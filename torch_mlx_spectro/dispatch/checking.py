"""Calls that are due to be compared with native's: which, and what follows.

A call is due if the program verifies every Nth one, and under ``auto`` if nobody has seen yet that
calls like it are right on this machine (:mod:`.verify.ledger`). Its gradients are due with it, and
under ``auto`` until they were compared themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..calls.kind import framed_samples
from ..calls.operation import Operation
from ..errors import NotAccelerated
from ..native import private_state as torch_state
from ..store import verdicts
from ..verify import comparison as verification
from ..verify.comparison import Check
from ..verify.gradients import GradientCheck, Outcome, names_of
from ..verify.ledger import MAX_COMPARED, Case
from . import decide as deciding
from .choice import Choice
from .decide import case_of, native_plan
from .plans import Plan
from .statistics import levels_to_caller

#: Is told of each comparison whether it agrees.
Count = Callable[[bool], None]


@dataclass
class Due:
    """A call that is due, made before it is computed.

    Attributes:
        op, choice, case: of the call.
        count: as :data:`Count`.
        check: of its result; None if that need not be compared.
        gradients: of its gradients; None if there are none, or they need not be compared.
        are_trusted: whether its gradients are believed, compared or not.
    """

    op: Operation
    choice: Choice
    case: Case
    count: Count
    check: Check | None = None
    gradients: GradientCheck | None = None
    are_trusted: bool = True

    def verified(self, plan: Plan, result: torch.Tensor) -> tuple[Plan, torch.Tensor]:
        """The plan and the result of the call: native's where ours is wrong.

        Raises:
            NotAccelerated: ours is wrong, and the choice is strict.
        """
        check = self.check
        if check is not None and plan.params is not None:
            compared, wrong = check.verdict(plan.params, result)
            if compared:
                self.count(not wrong)
            if wrong:
                lines = verification.reproducer(self.case.key, check.bound)
                reason = _distrust(self.op, self.choice, self.case, wrong, lines)
                return native_plan(self.op, reason, fallback=True), check.answer()
            is_trusted = deciding.trust.note(self.case, compared and check.telling)
            plan = replace(plan, settled=plan.settled and is_trusted)
        if self.gradients is not None:
            self.gradients.watch(result)
        return replace(plan, settled=plan.settled and self.are_trusted), result


def due(
    op: Operation, choice: Choice, plan: Plan, args: Any, kwargs: Any, count: Count
) -> Due | None:
    """What of a call is due; None if nothing is, as of every call that native computes."""
    if plan.params is None or plan.bound is None:
        return None
    tensor, window = plan.bound["input"], plan.bound["window"]
    if not verification.can_be_verified(tensor):
        return None
    found = Due(op, choice, case_of(plan.route, plan.params, tensor, window), count)
    key, framed = found.case.key, framed_samples(plan.params)
    is_due, in_parts = bool(choice.verify) and deciding.verifier.is_due(choice.verify, key), False
    of_gradients = is_due
    if not is_due and choice.backend == "auto":
        is_due, in_parts = deciding.trust.is_due(found.case), framed > MAX_COMPARED
    if is_due:
        found.check = Check(op.native, key, plan.bound, args, kwargs, in_parts)
    if torch_state.is_differentiated(tensor, window) and framed <= MAX_COMPARED:
        _with_gradients(found, plan, of_gradients)
    return None if found.check is None and found.gradients is None else found


def _with_gradients(found: Due, plan: Plan, are_due: bool) -> None:
    """Add the gradients of a call, if they are due.

    Args:
        are_due: the program verifies this call.
    """
    assert plan.bound is not None
    assert plan.params is not None
    op, choice, case, count = found.op, found.choice, found.case, found.count
    names = names_of(plan.bound)
    cases = {name: case.of_gradient(name, names) for name in names}
    unknown = []
    if choice.backend == "auto":
        unknown = [of_one for of_one in cases.values() if deciding.trust.is_due(of_one)]
    if not (are_due or unknown):
        return
    lines = verification.reproducer(case.key, plan.bound)

    def note(outcome: Outcome) -> bool:
        if outcome.compared:
            count(not outcome.wrong)
        if outcome.wrong:
            _distrust(op, choice, case, outcome.wrong, lines)
            return True
        if outcome.telling:
            deciding.trust.note(cases[outcome.name], telling=True)
        return False

    found.gradients = GradientCheck(op.native, plan.params, plan.bound, note)
    # Gradients may never be asked for: then nobody waits for them for ever.
    noted = [deciding.trust.note(of_one, telling=False) for of_one in unknown]
    found.are_trusted = all(noted)


def _distrust(op: Operation, choice: Choice, case: Case, wrong: str, lines: str) -> str:
    """Let native compute calls like a wrong one, tell the program once, and return the reason.

    Raises:
        NotAccelerated: the choice is strict.
    """
    is_new = deciding.verifier.quarantine(case.key, wrong)
    reason = deciding.verifier.reason_against(case.key) or wrong
    if is_new:
        deciding.trust.distrust(case, reason)
        kept = verdicts.store().path
        verification.warn(case.key, wrong, lines, kept, levels_to_caller())
    if choice.strict:
        raise NotAccelerated(op.name, (reason,))
    return reason
