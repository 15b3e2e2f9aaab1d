"""Calls on MPS that were decided for good: their plans are kept, and not decided again.

Deciding a small call takes the host longer than all else. A plan is kept by what it was decided on
(:mod:`.calls.key`); the call itself is computed as any other.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import torch

from ..calls.key import Known, input_of, keeps_its_backend, key_of, spelling_of, window_of
from ..calls.operation import Operation
from ..native import private_state as torch_state
from .choice import Choice
from .decide import Plan, verifier

plans: Known[Plan] = Known(1024)


def key_of_call(op: Operation, choice: Choice, args: Any, kwargs: Any) -> Hashable | None:
    """What a call on MPS is decided on; None of any other, and where each has to be decided."""
    tensor = input_of(args, kwargs)
    if type(tensor) not in torch_state.PLAIN_TYPES or choice.verify or verifier.quarantined:
        return None
    if not (tensor.is_mps or (tensor.is_cpu and torch_state.mps_is_emulated())):
        return None
    window = window_of(args, kwargs)
    if not (window is None or type(window) in torch_state.PLAIN_TYPES):
        return None
    if torch_state.is_intercepted():
        return None
    differentiated = torch_state.is_differentiated(tensor, window)
    if keeps_its_backend(choice.backend, differentiated):
        return None
    # What is emulated compiles by its own rules.
    compiled_by = torch.mps.compile_shader
    return (
        compiled_by,
        key_of(
            spelling_of(op.name, choice.backend, tensor, window, args, kwargs),
            tensor,
            window,
            differentiated,
        ),
    )


def recall(op: Operation, key: Hashable | None, args: Any, kwargs: Any) -> Plan | None:
    """The plan of a call, if it is known."""
    plan = None if key is None else plans.get(key)
    return None if plan is None else replace(plan, bound=op.bind(*args, **kwargs))


def remember(key: Hashable | None, plan: Plan) -> None:
    """Keep the plan of a call that was computed, if it holds for good."""
    if key is not None and plan.settled and plan.route.backend == "mps":
        plans.put(key, replace(plan, bound=None))
