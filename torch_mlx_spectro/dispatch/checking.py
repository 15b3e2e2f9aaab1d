"""Which calls are compared with native's, and what follows from the outcome.

A call is compared if the program verifies every Nth one; and under ``auto`` until calls like it
were found right on this machine (:mod:`.verify.ledger`). Its gradients are compared with it, and
under ``auto`` until they were compared themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
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
from .decide import native_plan
from .plans import Plan
from .statistics import levels_to_caller

#: Samples in all frames up to which all of a first call is compared. The comparison takes up to
#: seven times the memory of the result, here 1.8 GiB; a program that wants more may not have it
#: left. Of larger calls parts are compared (:mod:`.verify.excerpt`).
MAX_COMPARED = 1 << 26

#: Called after each comparison with whether the results agree.
Count = Callable[[bool], None]
Note = Callable[[Outcome], str | None]


@dataclass
class CallChecks:
    """The comparisons of one call, prepared before it is computed.

    Attributes:
        op, case: of the call.
        note: called with the outcome of a comparison; returns why native is to compute such calls,
            or None.
        check: of its result; None if that need not be compared.
        gradients: of its gradients; None if there are none, or they need not be compared.
        are_trusted: whether its gradients are trusted, compared or not.
    """

    op: Operation
    case: Case
    note: Note
    check: Check | None
    gradients: GradientCheck | None
    are_trusted: bool

    def compare(self, plan: Plan, result: torch.Tensor) -> tuple[Plan, torch.Tensor]:
        """Return the plan and the result of the call, or native's where ours is wrong.

        Raises:
            NotAccelerated: ours is wrong, and the choice is strict.
        """
        check, is_trusted = self.check, self.are_trusted
        if check is not None and plan.params is not None:
            outcome = check.compare(plan.params, result)
            reason = self.note(outcome)
            if reason is not None:
                return native_plan(self.op, reason, fallback=True), check.answer_natively()
            conclusive = outcome.conclusive
            is_trusted &= deciding.ledger.note_comparison(self.case, conclusive=conclusive)
        if self.gradients is not None:
            self.gradients.watch(result)
        return replace(plan, settled=plan.settled and is_trusted), result


def find_checks(
    op: Operation, choice: Choice, plan: Plan, args: Any, kwargs: Any, count: Count
) -> CallChecks | None:
    """Find the comparisons that a call needs; None for none, as where native computes it."""
    params, bound, ledger = plan.params, plan.bound, deciding.ledger
    if params is None or bound is None or not comparison.can_be_verified(bound["input"]):
        return None
    tensor, window = bound["input"], bound["window"]
    case, is_auto = make_case(plan.route, params, tensor, window), choice.backend == "auto"
    is_large = framed_samples(params) > MAX_COMPARED
    is_nth = bool(choice.verify) and ledger.count_call(case, choice.verify)
    is_compared = is_nth or (is_auto and ledger.needs_comparison(case))
    has_gradients = torch_state.is_differentiated(tensor, window) and not is_large
    names = list_differentiated(bound) if has_gradients else ()
    cases = {name: case.with_gradient(name, names) for name in names}
    unknown = [one for one in cases.values() if is_auto and ledger.needs_comparison(one)]
    has_gradients = bool(names) and (is_nth or bool(unknown))
    if not (is_compared or has_gradients):
        return None
    lines = comparison.write_reproducer(case, bound)
    note = partial(_note_outcome, op, choice, case, count, lines)
    check = gradients = None
    if is_compared:
        check = Check(op.native, case, bound, args, kwargs, in_parts=is_large and not is_nth)
    if has_gradients:
        gradients = GradientCheck(op.native, params, bound, partial(_note_gradient, note, cases))
    # Gradients may never be asked for, so after some calls their comparison is not waited for.
    noted = [ledger.note_comparison(one, conclusive=False) for one in unknown]
    return CallChecks(op, case, note, check, gradients, are_trusted=all(noted))


def _note_gradient(note: Note, cases: Mapping[str, Case], name: str, outcome: Outcome) -> bool:
    """Note the outcome of a gradient's comparison; return whether ours is wrong."""
    is_wrong = note(outcome) is not None
    if outcome.conclusive and not is_wrong:
        deciding.ledger.note_comparison(cases[name], conclusive=True)
    return is_wrong


def _note_outcome(
    op: Operation, choice: Choice, case: Case, count: Count, lines: str, outcome: Outcome
) -> str | None:
    """Count a comparison; where ours is wrong, let native compute calls like it from now on.

    Args:
        lines: for the program, which is warned of the first one.

    Returns:
        Why native computes them; None where ours is right.

    Raises:
        NotAccelerated: ours is wrong, and the choice is strict.
    """
    if outcome.compared:
        count(not outcome.wrong)
    if not outcome.wrong:
        return None
    is_new = deciding.ledger.record_wrong(case, outcome.wrong)
    reason = deciding.ledger.explain_refusal(case, asked_by_name=True) or outcome.wrong
    if is_new:
        kept = verdicts.store().path
        comparison.warn(case, outcome.wrong, lines, kept, levels_to_caller())
    if choice.strict:
        raise NotAccelerated(op.name, (reason,))
    return reason
