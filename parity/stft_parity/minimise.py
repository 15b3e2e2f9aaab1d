"""A failing case made small: fewer arguments, smaller tensors, the plainest signal.

A change is kept when the case still differs in the same aspect. Cases of the grid and drawn ones
are shrunk by the names of their values, as they were made; any other case by its arguments alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import takewhile

from stft_parity.cases import Case
from stft_parity.cases.choices import VALUES, Choice, plain
from stft_parity.cases.making import make_call, size
from stft_parity.results import Result

#: Compares a case.
Judge = Callable[[Case], Result]

#: Cases that are tried, at most.
TRIALS = 400

#: Arguments in the order in which they are made plain: what else is passed hides most.
_ORDER = (
    "use",
    "passed",
    "integers",
    "window layout",
    "layout",
    "signal",
    "gradient",
    "fault",
    "rows",
    "normalized",
    "align_to_window",
    "length",
    "pad_mode",
    "center",
    "win_length",
    "window",
    "onesided",
    "return_complex",
    "bins",
    "dtype",
    "samples",
    "frames",
    "hop",
    "n_fft",
)

#: Of the sizes, smallest first: what is the least that shows it.
_SMALLER = {
    "n_fft": ("1", "2", "3", "4", "5", "8", "15", "16", "31", "64", "100", "128", "210", "256"),
    "hop": ("n_fft", "n_fft/2", "n_fft/4", "1"),
    "rows": ("no batch", "1", "2", "3"),
    "samples": ("shortest", "one frame more", "some frames"),
    "frames": ("1", "2", "some"),
    "window": ("none", "ones", "hann"),
}


def minimise(result: Result, judge: Judge) -> Result:
    """The smallest case found that fails in the same way, as the judge reports it.

    Args:
        result: of a failing case.
        judge: compares a case with the same candidate.
    """
    if result.main is None:
        return result
    # One aspect is enough, and the most serious one mostly explains the others.
    aspect = result.main.aspect
    best, smaller = result, _smaller(result.case)
    for _ in range(TRIALS):
        case = next(smaller, None)
        if case is None:
            break
        tried = judge(case)
        if any(difference.aspect == aspect for difference in tried.differences):
            best, smaller = tried, _smaller(tried.case)
    return best


def _smaller(case: Case) -> Iterator[Case]:
    """Cases with one thing made simpler, those first that simplify most."""
    choice = dict(case.labels)
    named = choice.keys() >= VALUES[case.op].keys()
    # Whether the case is the one that its labels name.
    if named and make_call(case.op, made := _values(case, choice)) == case:
        yield from filter(None, (
            make_call(case.op, {**made, argument: value})
            for argument in _ORDER
            if argument in made
            for value in _simpler(case.op, argument, made)
        ))  # fmt: skip
    else:
        # Arguments first: a short signal may need the very padding that does not matter else.
        yield from _of_arguments(case)
        yield from _of_tensors(case)


def _values(case: Case, choice: Choice) -> Choice:
    """The choice that a case was made of; of hops without a name, tables have only the group."""
    values = {argument: choice[argument] for argument in VALUES[case.op]}
    hop = re.search(r"\d+(?=\)?$)", dict(case.arguments).get("hop_length", ""))
    if hop is not None and size(values["hop"], int(values["n_fft"])) != int(hop.group()):
        values["hop"] = hop.group()
    return values


def _simpler(op: str, argument: str, choice: Choice) -> Iterator[str]:
    """Values of an argument that are simpler than the present one, the simplest first."""
    present, values = choice[argument], _SMALLER.get(argument, (plain(op)[argument],))
    return takewhile(
        lambda value: value != present and (argument != "n_fft" or int(value) < int(present)),
        values,
    )


def _of_arguments(case: Case) -> Iterator[Case]:
    """The case with one argument less, then passed by keyword."""
    for name, _ in case.arguments:
        if name in ("input", "n_fft"):
            continue
        remaining = tuple(pair for pair in case.arguments if pair[0] != name)
        window = None if name == "window" else case.w
        kept = tuple(t for t in case.differentiate if t != "w" or window is not None)
        yield replace(case, arguments=remaining, w=window, differentiate=kept)
    for name in case.differentiate:
        yield replace(case, differentiate=tuple(t for t in case.differentiate if t != name))
    if case.use != "plain":
        yield replace(case, use="plain")
    if case.positional:
        yield replace(case, positional=0)


def _of_tensors(case: Case) -> Iterator[Case]:
    """The case with noise for its input: of half the length, of one row, then of the same shape."""
    shape = tuple(case.tensors()["x"].shape)
    *batch, last = shape
    smaller = [(*batch, part) for part in (last // 2, last * 3 // 4, last - 1) if 0 < part < last]
    if len(shape) == (2 if case.op == "stft" else 3) and shape[0] > 1:
        smaller.append((1, *shape[1:]))
    smaller.append(shape)
    dtype = str(case.tensors()["x"].dtype)
    if dtype not in ("torch.float32", "torch.complex64"):
        return
    for lengths in smaller:
        noise = f"torch.randn({lengths}, dtype={dtype}, generator=g)"
        if noise != case.x:
            yield replace(case, x=noise)
