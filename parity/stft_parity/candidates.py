"""Candidates: what is compared with torch, and adapters for those that are not quite torch's.

A candidate says for itself what it does not offer by raising ``Unsupported``, and that somebody
else would have to compute a call by raising ``FellBack``: neither is taken for a wrong answer, and
neither for a right one.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stft_parity.adapting import Function, adapter
from stft_parity.cases import PARAMETERS

#: What torch takes for an argument that is not passed.
DEFAULTS = {
    op: {
        name: parameter.default
        for name, parameter in inspect.signature(getattr(torch.Tensor, op)).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    for op in PARAMETERS
}


class Unsupported(Exception):
    """Raised by a candidate for arguments that it does not offer; the text names them."""


class FellBack(Exception):
    """Raised by a candidate that would have to let somebody else compute the call; says why."""


@dataclass(frozen=True)
class Candidate:
    """The functions that are compared.

    Attributes:
        stft: takes the arguments of ``torch.stft``; None when the candidate has none.
        istft: takes the arguments of ``torch.istft``; None when the candidate has none.
        name: for the report.
        route: asked after a call: who computed it; empty when that is not known.
        fallback: asked after a call: why it was not the candidate itself that computed it; empty
            when it was.
    """

    stft: Function | None
    istft: Function | None
    name: str
    route: Callable[[], str] | None = None
    fallback: Callable[[], str] | None = None

    def function(self, op: str) -> Function | None:
        return self.stft if op == "stft" else self.istft


#: As they were when this module was imported; in a dictionary, as who replaces functions of
#: torch's may do so in the globals of modules, too.
_NATIVE: dict[str, Function] = {"stft": torch.stft, "istft": torch.istft}


def native() -> Candidate:
    """Torch's own functions, also where others stand in their place by now.

    Raises:
        RuntimeError: others stood there before this package was imported.
    """
    stft, istft = _NATIVE["stft"], _NATIVE["istft"]
    code = getattr(stft, "__code__", None)
    genuine = code is not None and code.co_filename == torch.functional.__file__
    if not genuine or not inspect.isbuiltin(istft):
        raise RuntimeError("torch.stft and torch.istft were replaced before the import")
    return Candidate(stft, istft, "torch")


def load(path: str) -> Candidate:
    """The candidate that an import path names.

    Args:
        path: ``"package.module"`` or ``"package.module:name"``. What is there may be a
            ``Candidate``; anything with an attribute ``stft`` or ``istft``, such as the module; a
            function without required parameters that returns either; or a function which is
            called ``...istft...`` or ``...stft...`` and takes torch's arguments.

    Raises:
        ValueError: there is nothing of that name, or it is none of these.
    """
    module_name, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in filter(None, name.split(".")):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no candidate at {path!r}: {error}") from error
    return _candidate_of(found, path)


def _candidate_of(found: Any, path: str) -> Candidate:
    if isinstance(found, Candidate):
        return found
    stft, istft = (getattr(found, op, None) for op in ("stft", "istft"))
    if callable(stft) or callable(istft):
        return Candidate(stft, istft, path)
    if callable(found):
        name = getattr(found, "__name__", "")
        if "istft" in name:
            return Candidate(None, found, path)
        if "stft" in name:
            return Candidate(found, None, path)
        if not _list_required(found):
            return _candidate_of(found(), path)
    raise ValueError(f"{path!r} is no candidate: it is neither stft nor istft and has neither")


def _list_required(function: Function) -> list[str]:
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind not in optional
    ]


def with_arguments(
    function: Function,
    names: Iterable[str] | Mapping[str, str] | None = None,
    *,
    op: str = "stft",
) -> Function:
    """A function that takes only some of torch's arguments, as one that takes all.

    An argument that the function does not take may be passed with torch's default value, which
    the function is then expected to mean, and is unsupported with any other. Of ``return_complex``,
    which torch has no usable default for, ``stft`` is expected to mean True: pairs of real numbers
    are unsupported.

    Args:
        function: takes the input by position and the others by name.
        names: torch's names of the others, or a map from these to the function's own names; by
            default the names of the function's parameters.
        op: whose arguments they are.
    """
    if names is None:
        names = tuple(inspect.signature(function).parameters)[1:]
    own = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
    unknown = own.keys() - set(PARAMETERS[op])
    if unknown:
        raise ValueError(f"torch.{op} has no argument {', '.join(sorted(unknown))}")

    def adapted(*args: Any, **kwargs: Any) -> Any:
        passed = bound(op, args, kwargs)
        tensor = passed.pop("input")
        refused = [name for name in passed.keys() - own.keys() if not _means(op, name, passed)]
        if refused:
            raise Unsupported(", ".join(f"{name}={passed[name]!r}" for name in sorted(refused)))
        if op == "stft" and "return_complex" not in own and _asks_for_pairs(tensor, passed):
            raise Unsupported("a spectrum of pairs of real numbers")
        return function(tensor, **{own[name]: passed[name] for name in passed if name in own})

    return adapter(adapted, function)


def bound(op: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of torch's by their names, ``input`` among them.

    Raises:
        TypeError: torch would not accept them either: too many, or one of them twice.
    """
    order = ("input", *PARAMETERS[op])
    if len(args) > len(order):
        raise TypeError(f"{op}() takes {len(order)} arguments but {len(args)} were given")
    passed = dict(zip(order, args, strict=False))
    if passed.keys() & kwargs.keys():
        raise TypeError(f"{op}() got multiple values for an argument")
    return passed | kwargs


def _means(op: str, name: str, passed: Mapping[str, Any]) -> bool:
    """Whether a function that does not take an argument is expected to mean its value."""
    value = passed[name]
    if (op, name) == ("stft", "return_complex"):
        return True  # told by _asks_for_pairs
    return name in DEFAULTS[op] and (value is None or value == DEFAULTS[op][name])


def _asks_for_pairs(tensor: Any, passed: Mapping[str, Any]) -> bool:
    """Whether a call is not one that returns a complex spectrum."""
    given = passed.get("return_complex")
    if given is None:
        tensors = (tensor, passed.get("window"))
        return not any(isinstance(one, torch.Tensor) and one.is_complex() for one in tensors)
    return not given


def from_numpy(function: Function) -> Function:
    """A function of NumPy arrays as one of tensors.

    Tensors that require a gradient are unsupported, and so are dtypes that NumPy does not have.
    The result is taken with its dtype and its strides. Whether it is a view is not compared, nor
    are uses that NumPy has not: the tensor is the adapter's.
    """

    def adapted(*args: Any, **kwargs: Any) -> Any:
        devices = _devices(args, kwargs)
        result = function(
            *map(_to_numpy, args), **{name: _to_numpy(value) for name, value in kwargs.items()}
        )
        return _from_numpy(result, devices)

    return adapter(adapted, function, arrays=True)


def from_mlx(function: Function) -> Function:
    """A function of MLX arrays as one of tensors.

    Gradients are those of ``mx.vjp``. Dtypes that MLX would narrow are unsupported, and integers
    of NumPy are passed as Python's. Views and uses are as with ``from_numpy``.
    """

    def adapted(*args: Any, **kwargs: Any) -> Any:
        devices = _devices(args, kwargs)
        given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        leaves = {
            key: value
            for key, value in given.items()
            if isinstance(value, torch.Tensor) and value.requires_grad and torch.is_grad_enabled()
        }

        def compute(*arrays: Any) -> Any:
            values = {**others, **dict(zip(leaves, arrays, strict=True))}
            by_name = {key: values[key] for key in kwargs}
            return function(*(values[place] for place in range(len(args))), **by_name)

        others = {key: _to_mlx(value) for key, value in given.items() if key not in leaves}
        if leaves:
            return _MlxCall.apply(compute, *leaves.values())  # type: ignore[no-untyped-call]
        return _from_numpy(np.array(compute()), devices)

    return adapter(adapted, function, arrays=True)


class _MlxCall(torch.autograd.Function):
    """A call of a function of MLX arrays, with the gradients of ``mx.vjp``."""

    @staticmethod
    def forward(ctx: Any, function: Function, *leaves: torch.Tensor) -> Any:
        ctx.function, ctx.leaves = function, [_to_mlx(leaf) for leaf in leaves]
        ctx.devices = _devices(leaves, {})
        return _from_numpy(np.array(function(*ctx.leaves)), ctx.devices)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        import mlx.core as mx

        given = [_to_mlx(cotangent) for cotangent in cotangents]
        _, gradients = mx.vjp(lambda *leaves: [ctx.function(*leaves)], ctx.leaves, given)
        return None, *(_from_numpy(np.array(one), ctx.devices) for one in gradients)


def _devices(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.device]:
    return [v.device for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)]


def _to_numpy(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.requires_grad:
        raise Unsupported("gradients")
    try:
        return value.resolve_conj().resolve_neg().cpu().numpy()
    except TypeError as error:  # a dtype such as bfloat16
        raise Unsupported(f"dtype {value.dtype}") from error


def _from_numpy(result: Any, devices: list[torch.device]) -> Any:
    if not isinstance(result, np.ndarray):
        return result
    if any(stride < 0 for stride in result.strides):
        result = result.copy()  # torch has no such tensors
    tensor = torch.from_numpy(result)
    return tensor.to(devices[0]) if devices else tensor


def _to_mlx(value: Any) -> Any:
    import mlx.core as mx

    if isinstance(value, torch.Tensor) and value.dtype in (torch.float64, torch.complex128):
        raise Unsupported(f"dtype {value.dtype}")
    if isinstance(value, np.integer):
        return int(value)
    return mx.array(_to_numpy(value.detach())) if isinstance(value, torch.Tensor) else value
