"""Decided calls, ready to run: one table for all backends, for native and differentiated calls.

Deciding a small call takes the host longer than everything else. So final decisions are kept under
the call's key (:mod:`.calls.key`). The table is read without a lock, since a dictionary changes in
one step of the interpreter.

Some events that no key holds make plans stale. A comparison that finds something wrong begins a new
epoch of the ledger; plans of an earlier epoch are not used. A fork and :func:`clear_caches` empty
the table. And where something in torch's state has to see a call, the table is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..calls.key import Key
from ..calls.kind import CallKind, Route
from ..store.caches import note_preparation, register_cache
from ..store.fork import after_fork
from .recording import Answer, Took
from .statistics import Sites

if TYPE_CHECKING:  # a program whose calls all go native never resolves one
    from ..core.params import IstftParams, StftParams

MAX_PLANS = 2048

#: A function of input and window that computes the calls of one key.
Run = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


@dataclass(frozen=True)
class Plan:
    """A decided call.

    Attributes:
        bound: the arguments of the call that was decided; None in the table.
        params: the resolved arguments; None where native computes the call.
        rejected: whether torch is expected to raise.
        fallback: whether native computes the call although another backend was wanted.
        trial: the kind for which ``auto`` times this call; None if it is not timed.
        settled: whether the decision is final.
        took: seconds of a call like it, if ``auto`` has decided by them.
        run: computes calls like it; None where native does, and before the first was computed.
        epoch: the ledger's epoch when the call was decided.
        warns: whether torch warns of calls like it: once, or of each if the program asks for that.
        sites: where calls by this plan are counted.
    """

    route: Route
    bound: dict[str, Any] | None = None
    params: StftParams | IstftParams | None = None
    rejected: bool = False
    fallback: bool = False
    trial: CallKind | None = None
    settled: bool = False
    took: Took | None = None
    run: Run | None = None
    epoch: int = 0
    warns: bool = False
    sites: Sites | None = None

    @property
    def answer(self) -> Answer:
        """What calls by this plan are counted as, with reasons where native computes them."""
        reasons = self.route.reasons if self.params is None else ()
        by_choice = bool(reasons) and not (self.fallback or self.rejected)
        return Answer(self.route.op, self.route.backend, reasons, by_choice, self.took)


class PlanTable:
    """Plans by key; when there are too many, all are forgotten.

    Args:
        most: plans that are kept at once.

    Attributes:
        get: returns the plan of a key, of any epoch; None if there is none.
    """

    def __init__(self, most: int = MAX_PLANS) -> None:
        self.most = most
        self._plans: dict[Key, Plan] = {}
        self.get = self._plans.get  # stays valid: the dictionary is emptied, never replaced
        after_fork(self.clear)  # a child cannot use its parent's devices, streams and libraries
        register_cache(self.clear)

    def __len__(self) -> int:
        return len(self._plans)

    def keep(self, key: Key, plan: Plan) -> None:
        """Keep a plan."""
        note_preparation()
        if len(self._plans) >= self.most:
            self._plans.clear()
        self._plans[key] = plan

    def clear(self) -> None:
        """Forget every plan."""
        self._plans.clear()


plans = PlanTable()
