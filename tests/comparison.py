"""Whether a candidate's answer to a call can be told from native torch's.

Everything that a program can see is compared: exception, warnings, layout, writability, and values
against the same call computed natively in double precision. The candidate's error may be twice
native's own, so neither a lucky nor an unlucky draw decides, plus a share of the largest value
for calls that native computes exactly.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from cases import Case, Tensors, widened

#: How many times native's own error the candidate's may be.
OWN_ERROR = 2.0
#: Admitted in any case, as a share of the largest value: some thirty float32 roundings.
SHARE_OF_PEAK = 2e-6
#: Admitted where terms cancel: what as many roundings of the input do.
ROUNDINGS = 30
#: Random roundings tried, for results of so few samples that a single one may do little by chance.
ROUNDING_TRIALS = 5

Function = Callable[..., Any]


class Discrepancy(AssertionError):
    """The candidate does not behave as native torch; the text tells how to reproduce it."""

    def __init__(self, case: Case, what: str) -> None:
        super().__init__(f"{what}\n\nto reproduce:\n{case.reproducer()}")


@dataclass(frozen=True)
class Outcome:
    """What a call did: its result or its exception, and its warnings in order."""

    result: Any
    error: Exception | None
    warned: tuple[tuple[str, str], ...]


@contextmanager
def warn_always() -> Iterator[None]:
    """Let torch repeat its once-only warnings, so that the second of two calls warns, too."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        yield
    finally:
        torch.set_warn_always(before)


def observe(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
    """Call ``function`` and record what it did."""
    result, error = None, None
    with warn_always(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = function(*args, **kwargs)
        except Exception as raised:
            error = raised
    warned = tuple((given.category.__name__, str(given.message)) for given in caught)
    return Outcome(result, error, warned)


def compare(case: Case, candidate: Function, native: Function) -> Outcome:
    """Assert that ``candidate`` answers ``case`` as ``native`` does.

    Returns:
        What native did.

    Raises:
        Discrepancy: the two differ in something that a program can see.
    """
    tensors = case.tensors()
    args, kwargs = case.bind(tensors)
    expected = observe(native, args, kwargs)
    before = snapshot(tensors)
    actual = observe(candidate, args, kwargs)
    check_unmodified(case, before, tensors)
    if actual.warned != expected.warned:
        raise Discrepancy(case, _differ("warnings", expected.warned, actual.warned))
    if expected.error is not None or actual.error is not None:
        check_errors(case, expected.error, actual.error)
        return expected
    check_layout(case, expected.result, actual.result)
    check_values(case, tensors, expected.result, actual.result, native)
    again = observe(candidate, args, kwargs)
    check_repeated(case, actual, again)
    check_writable(case, before, tensors, actual.result, again.result)
    return expected


def _differ(what: str, expected: Any, actual: Any) -> str:
    return f"{what} differ\n  native:    {expected!r}\n  candidate: {actual!r}"


def check_errors(case: Case, expected: Exception | None, actual: Exception | None) -> None:
    """Assert the same type of exception and the same text."""
    wanted, got = (None if e is None else (type(e), _text(e)) for e in (expected, actual))
    if wanted != got:
        raise Discrepancy(case, _differ("exceptions", wanted, got)) from actual


def _text(error: Exception) -> str:
    """The text without the stack of C++ frames which torch appends to some, addresses and all."""
    return str(error).partition("\nException raised from ")[0]


def check_layout(case: Case, expected: torch.Tensor, actual: torch.Tensor) -> None:
    """Assert the same type, shape, dtype, device, strides, flags and bits."""
    for name, look in _LAYOUT.items():
        wanted, got = look(expected), look(actual)
        if wanted != got:
            raise Discrepancy(case, _differ(name, wanted, got))


_LAYOUT: dict[str, Callable[[torch.Tensor], Any]] = {
    "types": type,
    "shapes": lambda tensor: tuple(tensor.shape),
    "dtypes": lambda tensor: tensor.dtype,
    "devices": lambda tensor: tensor.device,
    "memory layouts": lambda tensor: tensor.layout,
    "strides": lambda tensor: tensor.stride(),
    "requires_grad": lambda tensor: tensor.requires_grad,
    "conjugate bits": lambda tensor: tensor.is_conj(),
    "negative bits": lambda tensor: tensor.is_neg(),
    "inference flags": lambda tensor: tensor.is_inference(),
}


def reference(case: Case, tensors: Tensors, native: Function) -> torch.Tensor:
    """The same call computed natively in double precision."""
    args, kwargs = case.bind(widened(tensors))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = native(*args, **kwargs)
    assert isinstance(result, torch.Tensor)
    return result


def check_values(
    case: Case, tensors: Tensors, expected: torch.Tensor, actual: torch.Tensor, native: Function
) -> None:
    """Assert that the candidate's error is of the size of native's own."""
    wide = reference(case, tensors, native)
    truth, wanted, got = (_as_numbers(case, tensor) for tensor in (wide, expected, actual))
    finite = torch.isfinite(truth)
    for who, values in (("native", wanted), ("candidate", got)):
        if not torch.equal(torch.isfinite(values), finite):
            where = (torch.isfinite(values) != finite).nonzero()[:3].tolist()
            raise Discrepancy(case, f"{who} is not finite elsewhere than the reference: {where}")
    truth, wanted, got = truth[finite], wanted[finite], got[finite]
    if truth.numel() == 0:
        return
    peak = truth.abs().max().item()
    own, error = ((values - truth).abs().max().item() for values in (wanted, got))
    allowed = OWN_ERROR * own + SHARE_OF_PEAK * peak
    if not error <= allowed:
        allowed += _of_rounded_input(case, tensors, native, wide)
    if not error <= allowed:
        raise Discrepancy(
            case,
            f"values differ: largest error {error:.3e}, native's own {own:.3e}, largest value "
            f"{peak:.3e}, allowed {allowed:.3e}",
        )


def _of_rounded_input(case: Case, tensors: Tensors, native: Function, truth: torch.Tensor) -> float:
    """How far the truth moves when the values of the input are rounded a few times more.

    Where large terms cancel (a spectrum of equal bins is zero at all samples but one) native may
    be right to the last digit by the order of its additions alone; nothing that rounds the terms
    is. What rounding the input does to the result is then the measure.
    """
    noise = torch.Generator().manual_seed(case.seed)
    exact, moved = _as_numbers(case, truth), 0.0
    for _ in range(ROUNDING_TRIALS):
        rounded = widened(tensors)
        share = torch.rand(rounded["x"].shape, generator=noise, dtype=torch.float64) - 0.5
        rounded["x"] = rounded["x"] * (1 + torch.finfo(torch.float32).eps * share)
        difference = (_as_numbers(case, reference(case, rounded, native)) - exact).abs()
        moved = max(moved, difference[torch.isfinite(difference)].max().item())
    return ROUNDINGS * moved


def _as_numbers(case: Case, result: torch.Tensor) -> torch.Tensor:
    """A result in double precision; stft's pairs of reals become the numbers that they are."""
    if case.op == "stft" and not result.is_complex():
        result = torch.view_as_complex(result.detach())
    result = result.detach().resolve_conj().resolve_neg()
    return result.to(torch.complex128 if result.is_complex() else torch.float64)


def check_repeated(case: Case, first: Outcome, second: Outcome) -> None:
    """Assert that a second call gives the same bits, and memory of its own."""
    if second.error is not None:
        raise Discrepancy(case, f"the second call raised {second.error!r}") from second.error
    if not same_bits(first.result, second.result):
        raise Discrepancy(case, "a second call gives other values than the first")


def check_writable(
    case: Case,
    before: Tensors,
    tensors: Tensors,
    result: torch.Tensor,
    other: torch.Tensor,
) -> None:
    """Assert that writing to a result works and reaches neither the inputs nor another result."""
    kept = other.clone()
    half = result.detach().clone().mul_(0.5)
    result.mul_(0.5)
    if not same_bits(result, half):
        raise Discrepancy(case, "multiplying the result in place gives other values")
    check_unmodified(case, before, tensors)
    if not same_bits(other, kept):
        raise Discrepancy(case, "writing to one result changes another")


def snapshot(tensors: Tensors) -> Tensors:
    """Copies of the memory of the call's tensors: all of it, also what a view leaves out."""
    return {
        name: (value._version, _memory(value).clone())
        for name, value in tensors.items()
        if isinstance(value, torch.Tensor) and value.device.type == "cpu"
    }


def check_unmodified(case: Case, before: Tensors, tensors: Tensors) -> None:
    """Assert that the call's tensors, and the memory around views, are as they were."""
    for name, (version, memory) in before.items():
        if tensors[name]._version != version or not torch.equal(_memory(tensors[name]), memory):
            raise Discrepancy(case, f"the call has written to its argument {name}")


def _memory(tensor: torch.Tensor) -> torch.Tensor:
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8).set_(storage)


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two results hold the same numbers, a NaN being equal to a NaN."""
    a, b = (t.detach().resolve_conj().resolve_neg() for t in (first, second))
    return bool(torch.allclose(a, b, rtol=0.0, atol=0.0, equal_nan=True))
