"""What programs do with a call besides making it and reading what comes back.

A case has one of these uses, and all that is compared of a call is then compared of the call as it
is used: under ``torch.func.vmap`` the strides, the values and the gradients, for example.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from stft_parity.adapting import Function, adapter

#: By what the input or the window is multiplied before backward: no gradient stays as it was.
FACTOR = -0.75


def _multiply(result: Any) -> Any:
    """The result, multiplied in place by a parameter."""
    return result.mul_(torch.full((), 1.5, device=result.device, requires_grad=True))


def _multiply_after_no_grad(function: Function, leaf: str) -> Function:
    def used(*args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            result = function(*args, **kwargs)
        return _multiply(result)

    return adapter(used, function)


def _multiply_before_backward(function: Function, leaf: str) -> Function:
    return adapter(lambda *args, **kwargs: _multiply(function(*args, **kwargs)), function)


def _within_inference_mode(function: Function, leaf: str) -> Function:
    def used(*args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode():
            return function(*args, **kwargs)

    return adapter(used, function)


def _map_rows(row: Function, batch: torch.Tensor) -> Any:
    """The results of all rows; each warning comes once.

    torch has no batching rule for its own functions: it warns of that, computes row by row and
    repeats their warnings. None of this is expected of a candidate.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = torch.func.vmap(row)(batch)
    told = {(given.category, str(given.message)): given for given in caught}
    for (category, text), given in told.items():
        if not text.startswith("There is a performance drop because"):
            warnings.warn_explicit(text, category, given.filename, given.lineno)
    return result


def _stack(x: torch.Tensor) -> torch.Tensor:
    return torch.stack((x, x.flip(-1)))


def _vmap(batch: Callable[[torch.Tensor], torch.Tensor], function: Function, leaf: str) -> Function:
    def used(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return _map_rows(lambda row: function(row, *args, **kwargs), batch(x))

    return adapter(used, function)


def _vmap_gradient(function: Function, leaf: str) -> Function:
    """The gradient of the sum of squares, in the input of each row or in the window."""

    def loss(result: torch.Tensor) -> torch.Tensor:
        return (result * result.conj()).real.sum()

    def used(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        place = next((n for n, value in enumerate(args) if isinstance(value, torch.Tensor)), None)

        def with_window(w: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
            if place is None:
                return loss(function(row, *args, **kwargs | {"window": w}))
            return loss(function(row, *args[:place], w, *args[place + 1 :], **kwargs))

        def in_input(row: torch.Tensor) -> Any:
            gradient = torch.func.grad(lambda row: loss(function(row, *args, **kwargs)))
            return gradient(row.detach())

        def in_window(row: torch.Tensor) -> Any:
            window = kwargs["window"] if place is None else args[place]
            return torch.func.grad(lambda w: with_window(w, row))(window.detach())

        return _map_rows(in_window if leaf == "w" else in_input, _stack(x))

    return adapter(used, function)


@dataclass(frozen=True)
class Use:
    """One use of a call.

    Attributes:
        phrase: with which a diagnosis begins; empty where the call alone is what is told.
        program: what makes ``y`` in a reproducer: of {f}, torch's function, its arguments {passed}
            and the {leaf} of a gradient.
        around: the function that does the same with a function which takes torch's arguments;
            the second argument is the name of the first tensor that requires a gradient.
        inference: names of the tensors that are made in inference mode.
        changed: name of the tensor that is changed in place before backward.
        vmapped: whether ``torch.func.vmap`` makes the result: whether that is a view is its matter.
        arrays: whether it says anything of functions of arrays.
    """

    phrase: str = ""
    program: str = "{f}({passed})"
    around: Callable[[Function, str], Function] = lambda function, leaf: function
    inference: tuple[str, ...] = ()
    changed: str = ""
    vmapped: bool = False
    arrays: bool = True


_PARAMETER = "torch.full((), 1.5, device={y}.device, requires_grad=True)"
_IN_PLACE = f"(lambda y: y.mul_({_PARAMETER.format(y='y')}))"
_STACK = "torch.stack((x, x.flip(-1)))"
_LOSS = "(lambda y: (y * y.conj()).real.sum())"

USES: dict[str, Use] = {
    "plain": Use(),
    "in place after no_grad": Use(
        "multiplied in place by a parameter after torch.no_grad()",
        f"{_IN_PLACE}(torch.no_grad()({{f}})({{passed}}))",
        _multiply_after_no_grad,
        arrays=False,
    ),
    "in place before backward": Use(
        "multiplied in place by a parameter",
        f"{_IN_PLACE}({{f}}({{passed}}))",
        _multiply_before_backward,
        arrays=False,
    ),
    "input changed before backward": Use(changed="x", arrays=False),
    "window changed before backward": Use(changed="w", arrays=False),
    "input of inference mode": Use("of an input made in inference mode", inference=("x",)),
    "window of inference mode": Use("of a window made in inference mode", inference=("w",)),
    "within inference mode": Use(
        "within inference mode",
        "torch.inference_mode()({f})({passed})",
        _within_inference_mode,
    ),
    "vmap over rows": Use(
        "under torch.func.vmap",
        "torch.func.vmap(lambda x: {f}({passed}))(x)",
        partial(_vmap, lambda x: x),
        vmapped=True,
        arrays=False,
    ),
    "vmap over a stack": Use(
        "under torch.func.vmap",
        f"torch.func.vmap(lambda x: {{f}}({{passed}}))({_STACK})",
        partial(_vmap, _stack),
        vmapped=True,
        arrays=False,
    ),
    "vmap of gradients": Use(
        "the gradient under torch.func.vmap",
        f"torch.func.vmap(lambda x: torch.func.grad(lambda {{leaf}}: {_LOSS}({{f}}({{passed}})))"
        f"({{leaf}}.detach()))({_STACK})",
        _vmap_gradient,
        vmapped=True,
        arrays=False,
    ),
}

#: Uses in which a gradient is taken after something else was done.
BEFORE_BACKWARD = (
    "in place before backward",
    "input changed before backward",
    "window changed before backward",
)
