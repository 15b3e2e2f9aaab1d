"""What a result is besides its values: whose memory it has, and what a program may do with it.

Every expectation is what native does in the same run. Each of our backends computes the calls, and
every test asserts that it did.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from cuda_stand_in import Recorder, recording, standing_in
from every_backend import CALLS, WINDOW, Call, by_prepared_launch, given_tensor, natively
from every_backend import ours as ours
from needs import ONCE_ONLY

pytestmark = ONCE_ONLY


def outcome(function: Callable[[], object]) -> str:
    """What kind of exception comes of a use; "" for none."""
    try:
        function()
    except (RuntimeError, TypeError) as error:
        return type(error).__name__
    return ""


#: What a program may do with a result, and a parameter.
USES: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "multiply by a parameter in place": lambda y, p: y.mul_(p),
    "multiply a part in place": lambda y, p: y[..., :2].mul_(p),
    "differentiate what was changed in place": lambda y, p: y.mul_(p).abs().sum().backward(),
    "detach in place": lambda y, p: y.detach_(),
    "ask for a gradient": lambda y, p: y.requires_grad_(),
    "ask for a gradient, and write": lambda y, p: y.requires_grad_().mul_(2),
    "shrink": lambda y, p: y.resize_(3),
    "grow": lambda y, p: y.resize_(5000),
    "set to another's memory": lambda y, p: y.set_(torch.zeros(5, dtype=y.dtype)),
    "set to nothing": lambda y, p: y.set_(),
    "assign data": lambda y, p: setattr(y, "data", torch.zeros(2, dtype=y.dtype)),
    "squeeze in place": lambda y, p: y.squeeze_(),
    "transpose in place": lambda y, p: y.transpose_(0, -1),
    "grow the memory": lambda y, p: y.untyped_storage().resize_(100_000),
    "write into it by out=": lambda y, p: torch.add(y.detach(), 1, out=y),
    "look at as one dimension": lambda y, p: y.view(-1),
}


def traits(y: torch.Tensor) -> dict[str, object]:
    base = y._base
    return {
        "view": y._is_view(),
        "base": None if base is None else (base.shape, base.stride(), base.dtype),
        "shape": (y.shape, y.stride(), y.storage_offset(), y.dtype),
        "bytes": y.untyped_storage().nbytes(),
        "resizable": y.untyped_storage().resizable(),
        "leaf": (y.is_leaf, y.requires_grad, y.is_inference()),
    }


#: By name: the mode of a call, and whether input and window ask for gradients.
MODES: dict[str, tuple[Callable[[], AbstractContextManager[object]], bool, bool]] = {
    "nothing is recorded": (nullcontext, False, False),
    "the input's gradient": (nullcontext, True, False),
    "both gradients": (nullcontext, True, True),
    "no_grad": (torch.no_grad, True, True),
    "inference_mode": (torch.inference_mode, False, False),
}


def compare_uses(ours: Call, mode: str) -> None:
    context, of_input, of_window = MODES[mode]
    differing = []
    for op, arguments in CALLS:
        for rows in (None, 2):
            bins = 16 if arguments.get("onesided") is False else 9

            def make(
                call: Call,
                op: str = op,
                rows: int | None = rows,
                arguments: dict[str, Any] = arguments,
                bins: int = bins,
            ) -> torch.Tensor:
                tensor = given_tensor(op, rows, bins).requires_grad_(of_input)
                with context():
                    return call(
                        op, tensor, window=WINDOW.clone().requires_grad_(of_window), **arguments
                    )

            expected, actual = traits(make(natively)), traits(make(ours))
            differing += [
                (op, arguments, rows, name, value, actual[name])
                for name, value in expected.items()
                if value != actual[name]
            ]
            for name, use in USES.items():
                parameter = torch.nn.Parameter(torch.ones(()))
                wanted, got = (
                    outcome(lambda: use(make(call), parameter))  # noqa: B023
                    for call in (natively, ours)
                )
                if wanted != got:
                    differing.append((op, arguments, rows, name, wanted, got))
    assert not differing


@pytest.mark.parametrize("mode", MODES)
def test_a_result_is_what_natives_is(ours: Call, mode: str) -> None:
    compare_uses(ours, mode)


@pytest.mark.parametrize("mode", ["nothing is recorded", "no_grad", "inference_mode"])
def test_the_result_of_a_remembered_launch_is_what_natives_is(mode: str) -> None:
    driver = Recorder()
    with standing_in(recording(driver)):
        compare_uses(by_prepared_launch, mode)
    assert driver.launched


def test_the_memory_of_a_result_is_nobody_elses(ours: Call) -> None:
    """Writing into one result changes neither the input, nor a later result of the same call."""
    for op, arguments in CALLS:
        bins = 16 if arguments.get("onesided") is False else 9
        tensor = given_tensor(op, None, bins)
        before, expected = tensor.clone(), natively(op, tensor, **arguments)
        for _ in range(3):
            found = ours(op, tensor, **arguments)
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
            found.fill_(float("nan"))
        assert torch.equal(tensor, before)
