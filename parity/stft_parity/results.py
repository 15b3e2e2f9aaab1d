"""What a run found: differences, the verdict of each case, and the tables that reports show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stft_parity.cases import Case

#: Of the report as JSON; it rises when a name is taken away or means something else.
SCHEMA = 2
#: What is compared, in the order in which a call's differences are listed.
ASPECTS = (
    "exception",
    "warnings",
    "warning line",
    "type",
    "shape",
    "dtype",
    "device",
    "layout",
    "strides",
    "requires_grad",
    "bits",
    "values",
    "gradient of input",
    "gradient of window",
    "gradient strides",
    "changed before backward",
    "repeatability",
    "writability",
    "aliasing",
    "view",
    "arguments",
    "state",
    "route",
)
#: Aspects in which a difference means that the numbers of a result or of a gradient are wrong, or
#: cannot be laid upon the reference's; the most serious first.
VALUES = (
    "values",
    "shape",
    "gradient of input",
    "gradient of window",
    "repeatability",
)
#: All others are conventions, the most serious first: what corrupts a caller's data, what breaks a
#: program, what only reads otherwise.
CONVENTIONS = (
    "arguments",
    "aliasing",
    "state",
    # The gradient of the call as it was made is right; what differs is what is saved for it.
    "changed before backward",
    "type",
    "dtype",
    "device",
    "layout",
    "requires_grad",
    "writability",
    "exception",
    "bits",
    "view",
    "strides",
    "gradient strides",
    "warnings",
    "warning line",
    "route",
)
#: How an exception may differ, which is the most serious first.
EXCEPTIONS = {
    "refusals": "the candidate rejects what the reference accepts",
    "missing errors": "the candidate accepts what the reference rejects",
    "error types": "the exception is of another type",
    "error texts": "the exception has another text",
}
#: What is wrong with a failing case, the most serious first.
FAILING = ("wrong values", "raised", "fell back", "other conventions")
#: "raised": the candidate raised where the reference does not.
VERDICTS = ("pass", "known", "unsupported", "differs", "raised", "fell back")
#: Verdicts with which no run is well.
FAILURES = ("differs", "raised", "fell back")
#: Verdicts of cases in which nothing failed and that were compared: without one, no run is well.
COMPARED = ("pass", "known")


@dataclass(frozen=True)
class Difference:
    """One thing that tells the candidate from the reference.

    Attributes:
        aspect: one of ``ASPECTS``.
        diagnosis: one sentence that says what is wrong, as specifically as is known.
        expected: what the reference gave.
        actual: what the candidate gave.
        kind: of an exception, which of ``EXCEPTIONS`` it is; else the aspect.
    """

    aspect: str
    diagnosis: str
    expected: str
    actual: str
    kind: str = ""

    def __post_init__(self) -> None:
        if self.aspect not in ASPECTS:
            raise ValueError(f"unknown aspect {self.aspect!r}; known: {', '.join(ASPECTS)}")
        object.__setattr__(self, "kind", self.kind or self.aspect)

    @property
    def rank(self) -> tuple[int, int]:
        """Its place among differences, the most serious first."""
        kinds = tuple(EXCEPTIONS)
        return (*VALUES, *CONVENTIONS).index(self.aspect), (
            kinds.index(self.kind) if self.kind in kinds else 0
        )


@dataclass(frozen=True)
class Result:
    """One compared case.

    Attributes:
        case: the call.
        verdict: one of ``VERDICTS``.
        accepted: whether the reference accepts the call.
        differences: all that were found, also those that are known.
        reason: why unsupported, fell back or known; empty otherwise.
        error: largest error against the oracle in units of the reference's own error, which has
            a floor (``tolerances``); None where no values were compared.
        route: what computed it, as the candidate's hook says.
    """

    case: Case
    verdict: str
    accepted: bool
    differences: tuple[Difference, ...] = ()
    reason: str = ""
    error: float | None = None
    route: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"unknown verdict {self.verdict!r}; known: {', '.join(VERDICTS)}")

    @property
    def failed(self) -> bool:
        return self.verdict in FAILURES

    @property
    def main(self) -> Difference | None:
        """The most serious difference; None where there is none."""
        return min(self.differences, key=lambda found: found.rank, default=None)

    @property
    def valued(self) -> bool:
        """Whether the candidate's values were compared, or cannot be since they are wrong."""
        return self.error is not None or self.failing == "wrong values"

    @property
    def failing(self) -> str:
        """What is wrong, one of ``FAILING``; empty where the case does not fail.

        A result of which no values could be compared, an array or a magnitude say, is as wrong as
        one of wrong values.
        """
        if not self.failed or self.verdict in FAILING:
            return self.verdict if self.failed else ""
        incomparable = self.accepted and self.error is None
        wrong = incomparable or any(found.aspect in VALUES for found in self.differences)
        return "wrong values" if wrong else "other conventions"

    def reproducer(self, device: str = "cpu") -> str:
        """A program of five lines that makes the call and shows the most serious difference."""
        return self.case.reproducer(device, self.main.aspect if self.main else "")

    def as_dict(self) -> dict[str, Any]:
        """The result in types that JSON has."""
        return {
            "labels": dict(self.case.labels),
            "reproducer": self.reproducer(),
            "verdict": self.verdict,
            "failing": self.failing,
            "accepted": self.accepted,
            "differences": [asdict(difference) for difference in self.differences],
            "reason": self.reason,
            "error": self.error,
            "route": self.route,
        }


@dataclass(frozen=True)
class Report:
    """A whole run.

    Attributes:
        candidate: its name.
        reference: name of what it was compared with.
        device: where the tensors were.
        selection: which cases were asked for, in words.
        seed: of the drawn cases.
        results: one per case, in the order of the cases.
        seconds: wall time of the run.
        versions: release of each library that took part.
        machine: platform and processor.
        problems: what is wrong with the list of known differences: entries that apply to no case,
            or to none that still differs.
    """

    candidate: str
    reference: str
    device: str
    selection: str
    seed: int
    results: tuple[Result, ...]
    seconds: float
    versions: Mapping[str, str]
    machine: str
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Something was compared, nothing differs but what is known, and that still differs."""
        compared = any(result.verdict in COMPARED for result in self.results)
        if not compared or self.refuses_all:
            return False
        return not self.problems and not any(r.failed for r in self.results)

    @property
    def ordinary(self) -> int:
        """How many calls that the reference accepts were compared."""
        return sum(one.accepted and one.verdict != "unsupported" for one in self.results)

    @property
    def refuses_all(self) -> bool:
        """Whether the candidate refuses every call that the reference accepts.

        What is left are calls that the reference rejects: nothing can be learned of them.
        """
        return self.ordinary == 0 and any(one.accepted for one in self.results)

    @property
    def failures(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.failed)

    def counts(self) -> dict[str, int]:
        """How many cases have each verdict; every verdict is there."""
        found = Counter(result.verdict for result in self.results)
        return {verdict: found[verdict] for verdict in VERDICTS}

    def by_argument(self) -> dict[str, dict[str, Counter[str]]]:
        """Argument -> label of its value -> how many cases have each verdict."""
        table: dict[str, dict[str, Counter[str]]] = {}
        for result in self.results:
            for argument, value in result.case.labels:
                table.setdefault(argument, {}).setdefault(value, Counter())[result.verdict] += 1
        return table

    def aspects(self) -> Counter[str]:
        """How many failing cases differ in each aspect."""
        return Counter(
            aspect
            for result in self.failures
            for aspect in {difference.aspect for difference in result.differences}
        )

    def failing(self) -> dict[str, int]:
        """How many cases fail by each of ``FAILING``; each is there."""
        found = Counter(result.failing for result in self.results)
        return {what: found[what] for what in FAILING}

    def conventions(self) -> Counter[str]:
        """How many failing cases differ in each convention, whether or not their values do."""
        return Counter(
            kind
            for result in self.failures
            if result.verdict == "differs"
            for kind in {found.kind for found in result.differences if found.aspect in CONVENTIONS}
        )

    @property
    def exit_code(self) -> int:
        """What a program should end with.

        Returns:
            0 where nothing differs but what is known; 1 where values are wrong, calls raise or
            fall back, or the list of known differences has problems; 3 where only conventions
            differ; 4 where nothing was compared, or no call that the reference accepts.
        """
        if self.ok:
            return 0
        if self.refuses_all:
            return 4
        failing = self.failing()
        if not any(failing.values()) and not self.problems:
            return 4
        return 3 if failing["other conventions"] == len(self.failures) and not self.problems else 1

    def routes(self) -> Counter[str]:
        """How many cases each route computed; cases without one are left out."""
        return Counter(result.route for result in self.results if result.route)

    def as_dict(self) -> dict[str, Any]:
        """The report in types that JSON has."""
        return {
            "schema": SCHEMA,
            "candidate": self.candidate,
            "reference": self.reference,
            "device": self.device,
            "selection": self.selection,
            "seed": self.seed,
            "ok": self.ok,
            "exit_code": self.exit_code,
            "counts": self.counts(),
            "values_compared": sum(result.valued for result in self.results),
            "failing": self.failing(),
            "conventions": self.conventions(),
            "aspects": self.aspects(),
            "routes": self.routes(),
            "by_argument": self.by_argument(),
            "problems": list(self.problems),
            "seconds": self.seconds,
            "versions": dict(self.versions),
            "machine": self.machine,
            "results": [result.as_dict() for result in self.results],
        }


def sort_differences(differences: Iterable[Difference]) -> tuple[Difference, ...]:
    """Differences in the order of ``ASPECTS``."""
    return tuple(sorted(differences, key=lambda difference: ASPECTS.index(difference.aspect)))
