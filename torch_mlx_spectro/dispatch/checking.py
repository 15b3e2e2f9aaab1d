"""Calls that are to be compared with native's: which, and what follows.

A call is compared if the program verifies every Nth one, and under ``auto`` if nobody has seen yet
that calls like it are right on this machine (:mod:`.verify.ledger`). Its gradients are compared
with it, and under ``auto`` until they were compared themselves.
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
from ..verify import comparison
from ..verify.comparison import Check, Outcome
from ..verify.gradients import GradientCheck, list_differentiated
from ..verify.ledger import Case, make_case
from . import decide as deciding
from .choice import Choice
from .decide import Plan, native_plan
from .statistics import levels_to_caller

#: Samples in all frames up to which all of a first call is compared. The comparison takes up to
#: seven times the memory of the result, here 1.8 GiB; a program that wants more may not have it
#: left. Of larger calls parts are compared (:mod:`.verify.excerpt`).
MAX_COMPARED = 1 << 26

#: Is told of each comparison whether it agrees.
Count = Callable[[bool], None]


@dataclass
class CallChecks:
    """What of one call is compared, made before it is computed.

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

    def compare(self, plan: Plan, result: torch.Tensor) -> tuple[Plan, torch.Tensor]:
        """The plan and the result of the call: native's where ours is wrong.

        Raises:
            NotAccelerated: ours is wrong, and the choice is strict.
        """
        check, is_trusted = self.check, self.are_trusted
        if check is not None and plan.params is not None:
            outcome = check.compare(plan.params, result)
            if outcome.compared:
                self.count(not outcome.wrong)
            if outcome.wrong:
                lines = comparison.write_reproducer(self.case, check.bound)
                reason = _refuse(self.op, self.choice, self.case, outcome.wrong, lines)
                return native_plan(self.op, reason, fallback=True), check.answer_natively()
            conclusive = outcome.conclusive
            is_trusted &= deciding.ledger.note_comparison(self.case, conclusive=conclusive)
        if self.gradients is not None:
            self.gradients.watch(result)
        return replace(plan, settled=plan.settled and is_trusted), result


def find_checks(
    op: Operation, choice: Choice, plan: Plan, args: Any, kwargs: Any, count: Count
) -> CallChecks | None:
    """What of a call is to be compared; None if nothing is, as where native computes it."""
    if plan.params is None or plan.bound is None:
        return None
    tensor, window = plan.bound["input"], plan.bound["window"]
    if not comparison.can_be_verified(tensor):
        return None
    case = make_case(plan.route, plan.params, tensor, window)
    found = CallChecks(op, choice, case, count)
    is_large = framed_samples(plan.params) > MAX_COMPARED
    is_nth = bool(choice.verify) and deciding.ledger.count_call(case, choice.verify)
    if is_nth or (choice.backend == "auto" and deciding.ledger.needs_comparison(case)):
        in_parts = is_large and not is_nth
        found.check = Check(op.native, case, plan.bound, args, kwargs, in_parts)
    if torch_state.is_differentiated(tensor, window) and not is_large:
        _add_gradients(found, plan, is_nth)
    return None if found.check is None and found.gradients is None else found


def _add_gradients(found: CallChecks, plan: Plan, is_nth: bool) -> None:
    """Add the gradients of a call, if they are to be compared.

    Args:
        is_nth: the program verifies this call.
    """
    assert plan.bound is not None
    assert plan.params is not None
    # Autograd keeps what `note` refers to: not the check, which has the input.
    op, choice, case, count = found.op, found.choice, found.case, found.count
    names = list_differentiated(plan.bound)
    cases = {name: case.with_gradient(name, names) for name in names}
    unknown = []
    if choice.backend == "auto":
        unknown = [one for one in cases.values() if deciding.ledger.needs_comparison(one)]
    if not (is_nth or unknown):
        return
    lines = comparison.write_reproducer(case, plan.bound)

    def note(name: str, outcome: Outcome) -> bool:
        if outcome.compared:
            count(not outcome.wrong)
        if outcome.wrong:
            _refuse(op, choice, case, outcome.wrong, lines)
        elif outcome.conclusive:
            deciding.ledger.note_comparison(cases[name], conclusive=True)
        return bool(outcome.wrong)

    found.gradients = GradientCheck(op.native, plan.params, plan.bound, note)
    # Gradients may never be asked for: then nobody waits for them for ever.
    noted = [deciding.ledger.note_comparison(one, conclusive=False) for one in unknown]
    found.are_trusted = all(noted)


def _refuse(op: Operation, choice: Choice, case: Case, wrong: str, lines: str) -> str:
    """Let native compute calls like a wrong one, tell the program once, and return the reason.

    Raises:
        NotAccelerated: the choice is strict.
    """
    is_new = deciding.ledger.record_wrong(case, wrong)
    reason = deciding.ledger.explain_refusal(case, asked_by_name=True) or wrong
    if is_new:
        kept = verdicts.store().path
        comparison.warn(case, wrong, lines, kept, levels_to_caller())
    if choice.strict:
        raise NotAccelerated(op.name, (reason,))
    return reason
