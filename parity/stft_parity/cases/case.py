"""One call of torch.stft or torch.istft as a value: drawn, compared and printed.

Tensors and arguments are kept as Python expressions and evaluated for each call, so what a failing
test prints as its reproducer is what the test ran, to the letter.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from types import CodeType
from typing import Any

import numpy as np
import torch

from stft_parity.cases.uses import FACTOR, USES, Use

#: Parameter names in torch's order, less the input. torch.istft is a builtin without a signature;
#: the tensor method of the same name has one.
PARAMETERS = {
    "stft": tuple(inspect.signature(torch.Tensor.stft).parameters)[1:],
    "istft": tuple(inspect.signature(torch.Tensor.istft).parameters)[1:],
}

WIDER = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}


class Unmakeable(Exception):
    """A device cannot hold the tensors of a case, for their dtype for example."""


Tensors = dict[str, Any]
Call = tuple[tuple[Any, ...], dict[str, Any]]


@lru_cache(maxsize=4096)
def _compile(expression: str) -> CodeType:
    return compile(expression, "<case>", "eval")


def _evaluate(expression: str, names: dict[str, Any]) -> Any:
    return eval(_compile(expression), {"torch": torch, "np": np}, names)


def _default_device(device: str) -> AbstractContextManager[Any]:
    """Make tensors on a device; what the context costs is saved where it would change nothing."""
    return nullcontext() if device == "cpu" else torch.device(device)


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        op: ``"stft"`` or ``"istft"``.
        x: expression of the tensor that is transformed; ``g`` in it is a seeded generator.
        w: expression of the window, made after ``x`` from the same generator; None for no window.
        arguments: names and expressions of what is passed, in which ``x`` and ``w`` are the
            tensors; ``input`` is the first.
        seed: of the generator.
        positional: how many arguments after the input are passed by position, as far as torch's
            order allows.
        fault: why torch is expected to reject the call; empty for a call that looks valid.
        differentiate: names of the tensors that require a gradient, ``x``, ``w`` or both.
        use: what is done with the call, one of ``uses.USES``.
        labels: argument and short name of its value, for tables and selection; two cases that
            differ in nothing else are the same call.
    """

    op: str
    x: str
    w: str | None
    arguments: tuple[tuple[str, str], ...]
    seed: int = 0
    positional: int = 0
    fault: str = ""
    differentiate: tuple[str, ...] = ()
    use: str = "plain"
    labels: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    def tensors(self, device: str = "cpu") -> Tensors:
        """The tensors of the call, made anew on a device, with the same strides on each.

        Raises:
            Unmakeable: the device cannot hold them.
        """
        names = {"g": torch.Generator(device).manual_seed(self.seed)}
        try:
            with _default_device(device):
                made = {"x": self._tensor("x", self.x, names)}
                if self.w is not None:
                    made["w"] = self._tensor("w", self.w, names)
        except (NotImplementedError, RuntimeError, TypeError) as error:
            if device == "cpu":
                raise
            raise Unmakeable(f"{device} has no such tensors: {error}") from error
        for name in self.differentiate:
            made[name].requires_grad_()
        return made

    def _tensor(self, name: str, expression: str, names: dict[str, Any]) -> Any:
        made_in_inference_mode = name in self.how.inference
        with torch.inference_mode() if made_in_inference_mode else nullcontext():
            return _evaluate(expression, names)

    @property
    def how(self) -> Use:
        """The use that is made of the call."""
        return USES[self.use]

    def used(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that makes this use of one, and takes the same arguments."""
        return self.how.around(function, next(iter(self.differentiate), ""))

    def cotangent(self, result: torch.Tensor) -> torch.Tensor:
        """What the gradient of ``result`` is taken with: noise of its shape, dtype and device."""
        generator = torch.Generator(result.device).manual_seed(self.seed)
        return torch.randn(
            result.shape, dtype=result.dtype, device=result.device, generator=generator
        )

    def label(self, argument: str) -> str:
        """Short name of an argument's value; empty where the case has none."""
        return dict(self.labels).get(argument, "")

    def bind(self, tensors: Tensors, device: str = "cpu") -> Call:
        """Positional and keyword arguments on the given tensors of a device."""
        by_position, by_name = self._split_given()
        with _default_device(device):
            return (
                tuple(_evaluate(expression, tensors) for expression in by_position),
                {name: _evaluate(expression, tensors) for name, expression in by_name.items()},
            )

    def call(self, function: Callable[..., Any]) -> Any:
        """Make the call on tensors of its own."""
        args, kwargs = self.bind(self.tensors())
        return function(*args, **kwargs)

    def _split_given(self) -> tuple[list[str], dict[str, str]]:
        remaining = dict(self.arguments)
        by_position = [remaining.pop("input")]
        for name in PARAMETERS[self.op][: self.positional]:
            if name not in remaining:
                break
            by_position.append(remaining.pop(name))
        return by_position, remaining

    def reproducer(self, device: str = "cpu", aspect: str = "") -> str:
        """A Python program of five lines that makes this call of whatever ``torch.stft`` is there.

        Its last line makes the use of it that the case makes, and where tensors require a gradient
        it takes that.

        Args:
            device: where the tensors are.
            aspect: of ``results.ASPECTS``: what the last line prints, where it can.
        """
        by_position, by_name = self._split_given()
        passed = ", ".join([*by_position, *(f"{name}={value}" for name, value in by_name.items())])
        leaf = next(iter(self.differentiate), "x")
        call = "y = " + self.how.program.format(f=f"torch.{self.op}", passed=passed, leaf=leaf)
        if self.how.changed:
            call += f"; {self.how.changed}.detach().mul_({FACTOR})"
        if aspect == "view":
            resized = "" if self.differentiate else "; y.resize_(2 * y.numel())"
            call += f"; print(y._is_view()){resized}"
        elif self.differentiate and self.use not in _WITHOUT_GRAPH:
            noise = f"dtype=y.dtype, generator=g.manual_seed({self.seed})"
            call += self._backward(f"torch.randn(y.shape, {noise})", aspect)
        here = device == "cpu"
        return "\n".join(
            (
                "import numpy as np; import torch"
                + ("" if here else f"; torch.set_default_device({device!r})"),
                f"g = torch.Generator({'' if here else repr(device)}).manual_seed({self.seed})",
                f"x = {self._make('x', self.x)}",
                f"w = {self._make('w', self.w)}",
                call,
            )
        )

    def _backward(self, noise: str, aspect: str) -> str:
        if aspect != "gradient strides":
            return f"; y.backward({noise})"
        # What backward leaves in ``.grad`` may have been copied into the tensor's own order.
        leaves = ", ".join(self.differentiate)
        gradients = f"torch.autograd.grad(y, ({leaves},), {noise})"
        return f"; print([z.stride() for z in {gradients}])"

    def _make(self, name: str, expression: str | None) -> str:
        if name in self.how.inference:
            return f"torch.inference_mode()(lambda: {expression})()"
        if name in self.differentiate:
            return f"({expression}).requires_grad_()"
        return str(expression)

    def __repr__(self) -> str:
        note = f"  # fault: {self.fault}" if self.fault else ""
        return f"<Case{note}\n{self.reproducer()}\n>"


#: Uses whose result has no graph to the tensors of the call.
_WITHOUT_GRAPH = ("in place after no_grad", "within inference mode", "vmap of gradients")


def widen(tensors: Tensors) -> Tensors:
    """The same tensors in double precision, where they are in single."""

    def widen(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dtype in WIDER:
            return value.detach().resolve_conj().resolve_neg().to(WIDER[value.dtype])
        return value

    return {name: widen(value) for name, value in tensors.items()}
