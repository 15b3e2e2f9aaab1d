"""What every form of a report shows alike: tables by argument, and failing cases by cause."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from stft_parity.cases import Case
from stft_parity.results import (
    ASPECTS,
    CONVENTIONS,
    EXCEPTIONS,
    FAILING,
    FAILURES,
    VALUES,
    Report,
    Result,
)

#: Beyond so many values of an argument its numbers are shown by octaves: more rows say less.
MOST_VALUES = 24

#: Labels that a group of cases has in common, at most: the most telling ones.
TELLING = 3

#: A label is telling when the group has so many times the share of its cases that it has of all.
CONCENTRATION = 2.0

#: Or when the group is so much of the cases that have it.
NEARLY_ALL = 0.8

#: What XML cannot contain, not even escaped; a terminal would obey some of it.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

#: What differs from case to case where the cause is the same: shapes and alternatives, which are
#: in brackets, and numbers.
_BRACKETS = re.compile(r"\s*\([^()]*\)")
_NUMBER = re.compile(r"[-+]?\b\d+(?:\.\d+)?(?:e[-+]?\d+)?\b")

#: Failing cases -> the result of the smallest case that fails alike, as ``minimise`` finds it.
Smaller = Mapping[Case, Result]


def printable(text: str) -> str:
    """The text without what XML and terminals should not get; its place is marked."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def octave(number: int) -> str:
    """The range from one power of two up to the next that a size lies in."""
    low = 1 << (number.bit_length() - 1) if number > 0 else number
    return str(low) if low <= 1 else f"{low}-{2 * low - 1}"


def by_argument(report: Report) -> dict[str, dict[str, Counter[str]]]:
    """``Report.by_argument`` with few values each, numbers in their order and after names."""
    table: dict[str, dict[str, Counter[str]]] = {}
    for argument, values in report.by_argument().items():
        many = len(values) > MOST_VALUES
        merged: dict[str, Counter[str]] = {}
        for value, counts in values.items():
            name = octave(int(value)) if many and value.isdigit() else value
            merged.setdefault(name, Counter()).update(counts)
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
        op: ``"stft"``, ``"istft"``, or both.
        failing: what is wrong with all of them, one of ``results.FAILING``.
        aspects: in which any of them differs; the most serious difference is alike in all.
        diagnosis: what is said of all of them: numbers that differ from case to case are ranges.
        results: in the order of the run.
        telling: argument and label that all have, and few other cases; the most telling first,
            with how many cases of those that could show it have this label.
    """

    op: str
    failing: str
    aspects: tuple[str, ...]
    diagnosis: str
    results: tuple[Result, ...]
    telling: tuple[tuple[str, str, int], ...]

    def shown(self, smaller: Smaller, most: int) -> tuple[Result, ...]:
        """The first results, so many at most, or the smaller case in the place of each."""
        return tuple(smaller.get(result.case, result) for result in self.results[:most])

    def list_telling(self) -> list[str]:
        """What the cases have in common and few others have, in words."""
        number = len(self.results)
        return [
            f"{argument}={value}: {number:,} of {total:,} such cases"
            + (", and no other" if number == total else "")
            for argument, value, total in self.telling
        ]


def groups(report: Report) -> tuple[Group, ...]:
    """The failing cases by what is wrong with them, the most serious first, then the largest.

    What is wrong with a case is its most serious difference. Cases of wrong error texts are one
    group, whatever the texts are.
    """
    found: dict[tuple[str, str, str, str], list[Result]] = {}
    for result in report.failures:
        kind = result.main.kind if result.main else ""
        text = kind == "error texts"
        key = "" if text else result.case.op, kind, "" if text else _cause(first_diagnosis(result))
        found.setdefault((result.failing, *key), []).append(result)
    totals = count_labels(report)
    made = [
        Group(
            " and ".join(dict.fromkeys(result.case.op for result in results)),
            failing,
            tuple(aspect for aspect in ASPECTS if aspect in _aspects(results)),
            _describe(results, kind),
            tuple(results),
            find_telling(totals, results),
        )
        for (failing, _, kind, _), results in found.items()
    ]
    return tuple(sorted(made, key=_rank))


def _rank(group: Group) -> tuple[int, tuple[int, int], int]:
    main = group.results[0].main
    rank = main.rank if main and group.failing == "other conventions" else (0, 0)
    return FAILING.index(group.failing), rank, -len(group.results)


def _aspects(results: Iterable[Result]) -> set[str]:
    return {difference.aspect for result in results for difference in result.differences}


def _describe(results: Sequence[Result], kind: str) -> str:
    """Say what is wrong with all of these cases, whose diagnoses differ in numbers only."""
    told = list(dict.fromkeys(map(first_diagnosis, results)))
    if len(told) == 1:
        return told[0]
    if kind == "error texts":
        return f"{EXCEPTIONS[kind]}, {len(told)} different ones"
    # What is alike in all stays: brackets, too, unless they differ or are within others.
    for simplify in (str, partial(_BRACKETS.sub, " (...)"), _without_brackets):
        texts = [simplify(text) for text in told]
        if len({(*_BRACKETS.findall(text), _NUMBER.sub("#", text)) for text in texts}) == 1:
            break
    columns = iter(list(zip(*map(_NUMBER.findall, texts), strict=True)))

    def span(found: re.Match[str]) -> str:
        numbers = sorted(set(next(columns)), key=float)
        return numbers[0] if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"

    return _NUMBER.sub(span, texts[0])


def _cause(diagnosis: str) -> str:
    """A diagnosis without what is the single case's."""
    return _NUMBER.sub("#", _without_brackets(diagnosis))


def _without_brackets(text: str) -> str:
    while (outer := _BRACKETS.sub("", text)) != text:
        text = outer
    return text


def first_diagnosis(result: Result) -> str:
    """The diagnosis of the most serious difference, which mostly explains the rest."""
    return result.main.diagnosis if result.main else result.reason


Totals = dict[tuple[str, bool], Counter[tuple[str, str]]]


def count_labels(report: Report) -> Totals:
    """Count the labels of the compared cases, by operation and whether the reference accepts."""
    found: Totals = {}
    for result in report.results:
        if result.verdict != "unsupported":
            key = result.case.op, result.accepted
            found.setdefault(key, Counter()).update((*result.case.labels, _EVERY))
    return found


#: Counted for every case.
_EVERY = ("", "")


def find_telling(totals: Totals, results: Sequence[Result]) -> tuple[tuple[str, str, int], ...]:
    """Find labels that all of these cases have and few of the others that could show the same.

    A label that hardly any other such case has is telling however many cases have it.
    """
    alike = sum((totals[key] for key in {(r.case.op, r.accepted) for r in results}), Counter())
    shared = set(results[0].case.labels).intersection(*(r.case.labels for r in results))
    found = [
        (argument, value, alike[argument, value])
        for argument, value in shared
        if len(results) > 1 and argument != "op" and alike[argument, value] < alike[_EVERY]
        and (NEARLY_ALL * alike[argument, value] <= len(results)
             or alike[_EVERY] >= CONCENTRATION * alike[argument, value])
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda label: (label[2], label[0]))[:TELLING])


def list_separators(report: Report) -> list[str]:
    """Say of which value of an argument (nearly) all cases have wrong values, and no other has.

    Not all: of silence, for one, many wrong functions give silence.
    """
    said, totals = [], count_labels(report)
    for op in dict.fromkeys(result.case.op for result in report.results):
        wrong = [r for r in report.failures if r.case.op == op and r.failing == "wrong values"]
        told = find_telling(totals, wrong) if wrong else ()
        said += [
            f"torch.{op}: values are wrong in {len(wrong):,} of the {total:,} cases with "
            f"{argument}={value}, and in no other"
            for argument, value, total in told
            if NEARLY_ALL * total <= len(wrong)
        ]
    return said


def headline(report: Report) -> str:
    """Answer first whether the values are right, then what else differs; one line."""
    failing, unsupported = report.failing(), report.counts()["unsupported"]
    compared = sum(result.valued for result in report.results)
    known = sum(
        result.verdict == "known" and any(d.aspect in VALUES for d in result.differences)
        for result in report.results
    )
    said = [f"values: compared in {count_cases(compared)}, wrong in {failing['wrong values']:,}"]
    said[0] += f" besides {known:,} known" if known else ""
    if not compared:
        said = ["values: compared in no case"]
    if report.refuses_all:
        said = ["no ordinary call was compared: each that the reference accepts is unsupported"]
    said += [f"{what} in {failing[what]:,}" for what in ("raised", "fell back") if failing[what]]
    kinds = report.conventions()
    if kinds:
        number = sum(any(d.aspect in CONVENTIONS for d in r.differences) for r in report.failures
                     if r.verdict == "differs")  # fmt: skip
        names = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
        said.append(f"conventions: {number:,} differ ({names})")
    if unsupported:
        said.append(f"unsupported: {count_cases(unsupported)}")
    return "; ".join(said)


def count_cases(number: int) -> str:
    """So many cases, in words."""
    return f"{number:,} case" if number == 1 else f"{number:,} cases"


def conclude(report: Report) -> str:
    """Say in a few words what came of the run; as exit codes tell it apart."""
    if not is_compared(report):
        return "nothing was compared"
    if report.refuses_all:
        return "no ordinary call was compared"
    if report.exit_code == 3 and any(result.valued for result in report.results):
        return "the reference's values, NOT its conventions"
    return "as the reference" if report.ok else "NOT as the reference"


def reasons(report: Report, verdict: str) -> Counter[str]:
    """Why cases have a verdict such as ``"unsupported"``, and how many have it for this reason."""
    return Counter(
        result.reason or "no reason given" for result in report.results if result.verdict == verdict
    )
