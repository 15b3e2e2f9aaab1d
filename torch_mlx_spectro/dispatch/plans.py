"""Decided calls, ready to run: one table for all backends, for native and differentiated calls.

Deciding a small call takes the host longer than everything else. So final decisions are kept under
the call's key (:mod:`.calls.key`). The table is read without a lock, since a dictionary changes in
one step of the interpreter.

Some events that no key holds make plans stale. A comparison that found something wrong begins a new
epoch of the ledger. A fork and :func:`clear_caches` empty the table. And where torch's state wants
to see a call, the table is not used.
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
from .statistics import Answer, Sites

if TYPE_CHECKING:  # a program whose calls all go native never resolves one
    from ..core.params import IstftParams, StftParams

MAX_PLANS = 2048

#: Computes calls of one key from their input and window.
Run = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


@dataclass(frozen=True)
class Plan:
    """A decided call.

    Attributes:
        bound: the arguments of the call that was decided; None in the table.
        params: None where native computes it.
        rejected: torch is expected to raise.
        fallback: another than native was wanted.
        trial: the kind of call that ``auto`` times; None if this one is not timed.
        settled: decided for good.
        run: computes calls like it; None where native does, and before one was computed.
        epoch: of the ledger, when it was decided.
        warns: torch warns of calls like it, once; or of each, if the program has told it to.
        sites: where calls by this plan are counted.
    """

    route: Route
    bound: dict[str, Any] | None = None
    params: StftParams | IstftParams | None = None
    rejected: bool = False
    fallback: bool = False
    trial: CallKind | None = None
    settled: bool = False
    run: Run | None = None
    epoch: int = 0
    warns: bool = False
    sites: Sites | None = None

    @property
    def answer(self) -> Answer:
        """What calls by this plan are counted by, with reasons where native computes them."""
        reasons = self.route.reasons if self.params is None else ()
        by_choice = bool(reasons) and not (self.fallback or self.rejected)
        return Answer(self.route.op, self.route.backend, reasons, by_choice)


class PlanTable:
    """Plans by key, bounded: when there are too many, all are forgotten.

    Args:
        most: plans that are kept at once.

    Attributes:
        get: the plan of a key, of whichever epoch; None if there is none.
    """

    def __init__(self, most: int = MAX_PLANS) -> None:
        self.most = most
        self._plans: dict[Key, Plan] = {}
        self.get = self._plans.get  # for good: the table is emptied, never replaced
        after_fork(self.clear)  # a parent's device, streams and libraries are not its child's
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
