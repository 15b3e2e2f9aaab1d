"""What every form of a report shows alike: tables by argument, and failing cases by cause."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from stft_parity.cases import Case
from stft_parity.results import ASPECTS, FAILURES, Report, Result

#: Beyond so many values of an argument its numbers are shown by octaves: more rows say less.
MOST_VALUES = 24

#: Labels that a group of cases has in common, at most: the most telling ones.
TELLING = 3

#: A label is telling when the group has so many times the share of its cases that it has of all.
CONCENTRATION = 2.0

#: What XML cannot contain, not even escaped; a terminal would obey some of it.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

#: What differs from case to case where the cause is the same: shapes and alternatives, which are
#: in brackets, and numbers.
_BRACKETS = re.compile(r"\s*\([^()]*\)")
_NUMBER = re.compile(r"[-+]?\b\d+(?:\.\d+)?(?:e[-+]?\d+)?\b")

Label = Callable[[str, str], str]

#: Failing cases -> the result of the smallest case that fails alike, as ``minimise`` finds it.
Smaller = Mapping[Case, Result]


def printable(text: str) -> str:
    """The text without what XML and terminals should not get; its place is marked."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def octave(number: int) -> str:
    """The range from one power of two up to the next that a size lies in."""
    low = 1 << (number.bit_length() - 1) if number > 0 else number
    return str(low) if low <= 1 else f"{low}-{2 * low - 1}"


def make_label(report: Report) -> Label:
    """The name under which tables have an argument's value: itself, or the octave of a number."""
    values: dict[str, set[str]] = {}
    for result in report.results:
        for argument, value in result.case.labels:
            values.setdefault(argument, set()).add(value)
    many = {argument for argument, found in values.items() if len(found) > MOST_VALUES}

    def shown(argument: str, value: str) -> str:
        return octave(int(value)) if argument in many and value.isdigit() else value

    return shown


def by_argument(report: Report) -> dict[str, dict[str, Counter[str]]]:
    """``Report.by_argument`` with few values each, numbers in their order and after names."""
    shown = make_label(report)
    table: dict[str, dict[str, Counter[str]]] = {}
    for argument, values in report.by_argument().items():
        merged: dict[str, Counter[str]] = {}
        for value, counts in values.items():
            merged.setdefault(shown(argument, value), Counter()).update(counts)
        table[argument] = {value: merged[value] for value in in_order(merged)}
    return table


def in_order(values: Iterable[str]) -> list[str]:
    """Names as they come, then numbers and ranges of numbers by size."""
    found = list(values)
    numbers = [value for value in found if value[:1].isdigit()]
    named = [value for value in found if not value[:1].isdigit()]
    # A name may begin with a digit, too; then there is no order but the given one.
    if not all(re.fullmatch(r"\d+(-\d+)?", value) for value in numbers):
        return found
    return named + sorted(numbers, key=lambda value: int(value.partition("-")[0]))


def is_compared(report: Report) -> bool:
    """Whether there is a case of which something can be said."""
    return any(result.verdict != "unsupported" for result in report.results)


def count_failing(counts: Counter[str]) -> int:
    """How many of the counted cases have a verdict with which no run is well."""
    return sum(counts[verdict] for verdict in FAILURES)


def is_distinctive(counts: Counter[str], share: float) -> bool:
    """Whether of the counted cases many more fail than the share of all that do."""
    return count_failing(counts) >= CONCENTRATION * share * sum(counts.values()) > 0


@dataclass(frozen=True)
class Group:
    """Failing cases that differ in the same way, as far as their diagnosis says.

    Attributes:
        op: ``"stft"`` or ``"istft"``.
        verdict: of all of them.
        aspects: in which any of them differs; all differ first in the same one.
        diagnosis: of the first difference of the first case; the others' has other numbers.
        results: in the order of the run.
        telling: argument and label that all have, and few other cases; the most telling first,
            with the share of all cases with this label that are in the group.
    """

    op: str
    verdict: str
    aspects: tuple[str, ...]
    diagnosis: str
    results: tuple[Result, ...]
    telling: tuple[tuple[str, str, float], ...]

    def shown(self, smaller: Smaller, most: int) -> tuple[Result, ...]:
        """The first results, so many at most, or the smaller case in the place of each."""
        return tuple(smaller.get(result.case, result) for result in self.results[:most])


def groups(report: Report) -> tuple[Group, ...]:
    """The failing cases by what is wrong with them, the largest group first."""
    found: dict[tuple[str, str, str, str], list[Result]] = {}
    for result in report.failures:
        first = result.differences[0].aspect if result.differences else ""
        cause = _cause(first_diagnosis(result))
        found.setdefault((result.case.op, result.verdict, first, cause), []).append(result)
    totals = Counter(
        (result.case.op, *label) for result in report.results for label in result.case.labels
    )
    made = [
        Group(
            op,
            verdict,
            _aspects(results),
            first_diagnosis(results[0]),
            tuple(results),
            _find_distinctive(op, results, totals),
        )
        for (op, verdict, _, _), results in found.items()
    ]
    return tuple(sorted(made, key=lambda group: -len(group.results)))


def _cause(diagnosis: str) -> str:
    """A diagnosis without what is the single case's."""
    outer, inner = _BRACKETS.sub("", diagnosis), diagnosis
    while outer != inner:
        outer, inner = _BRACKETS.sub("", outer), outer
    return _NUMBER.sub("#", outer)


def _aspects(results: Iterable[Result]) -> tuple[str, ...]:
    found = {difference.aspect for result in results for difference in result.differences}
    return tuple(aspect for aspect in ASPECTS if aspect in found)


def first_diagnosis(result: Result) -> str:
    """The diagnosis of what differs first, which mostly explains the rest."""
    return result.differences[0].diagnosis if result.differences else result.reason


def _find_distinctive(
    op: str, results: Sequence[Result], totals: Counter[tuple[str, str, str]]
) -> tuple[tuple[str, str, float], ...]:
    shared = set(results[0].case.labels).intersection(*(r.case.labels for r in results))
    everyone = totals[op, "op", op]
    shares = [
        (argument, value, len(results) / totals[op, argument, value])
        for argument, value in shared
        if argument != "op"
        and len(results) > 1
        and everyone >= CONCENTRATION * totals[op, argument, value]
    ]
    return tuple(sorted(shares, key=lambda share: (-share[2], share[0]))[:TELLING])


def reasons(report: Report, verdict: str) -> Counter[str]:
    """Why cases have a verdict such as ``"unsupported"``, and how many have it for this reason."""
    return Counter(
        result.reason or "no reason given" for result in report.results if result.verdict == verdict
    )
