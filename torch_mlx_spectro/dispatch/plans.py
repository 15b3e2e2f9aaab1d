"""Decided calls, ready to run: one table for all backends, native and differentiated calls, too.

Deciding a small call takes the host longer than all else, so what was decided for good is kept by
what it was decided on (:mod:`.calls.key`). The table is read without a lock; a dictionary changes
in one step of the interpreter. What no key holds makes a plan stale: a comparison that found
something wrong begins a new epoch of the ledger, a fork and :func:`clear_caches` empty the table,
and where torch's state wants to see a call the table is not asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..calls.key import Key, NoKey, make_key
from ..calls.kind import CallKind, Route
from ..calls.operation import Operation
from ..native import private_state as torch_state
from ..store.caches import note_preparation, register_cache
from ..store.fork import after_fork
from .statistics import Sites, Way

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
    sites: Sites | None = None

    @property
    def way(self) -> Way:
        """What calls by this plan are counted by: with reasons where native computes them."""
        reasons = self.route.reasons if self.params is None else ()
        by_choice = bool(reasons) and not (self.fallback or self.rejected)
        return Way(self.route.op, self.route.backend, reasons, by_choice)


#: What the table has of a call: its plan, its key (None where none can be kept), and the call's
#: input, window and other arguments.
Found = tuple[Plan | None, Key | None, Any, Any, tuple[Any, ...]]
NOTHING: Found = (None, None, None, None, ())


class PlanTable:
    """Plans by key, bounded: when there are too many, all are forgotten.

    Args:
        most: plans that are kept at once.
    """

    def __init__(self, most: int = MAX_PLANS) -> None:
        self.most = most
        self._plans: dict[Key, Plan] = {}
        after_fork(self.clear)  # a parent's device, streams and libraries are not its child's
        register_cache(self.clear)

    def __len__(self) -> int:
        return len(self._plans)

    def get(self, key: Key) -> Plan | None:
        """The plan of a key, of whichever epoch."""
        return self._plans.get(key)

    def find(self, op: Operation, backend: str, args: Any, kwargs: Any, epoch: int) -> Found:
        """The plan of a call, if it is kept and holds in this epoch of the ledger.

        Args:
            backend: that is asked for.
        """
        if torch_state.is_intercepted():
            return NOTHING
        try:
            tensor, window, others = op.read(*args, **kwargs)
            if type(tensor) not in torch_state.PLAIN_TYPES:
                return NOTHING
            key = make_key(op.name, backend, tensor, window, others)
            plan = self._plans.get(key)
        except (NoKey, TypeError, RuntimeError):  # no arguments of torch's, no strides, no hash
            return NOTHING
        if plan is not None:
            # What native does cannot always be recorded into a CUDA graph.
            records = plan.run is None and tensor.is_cuda and torch_state.is_capturing()
            if plan.epoch != epoch or records:
                plan = None
        return plan, key, tensor, window, others

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
