"""What a run found: differences, the verdict of each case, and the tables that reports show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stft_parity.cases import Case

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
    """

    aspect: str
    diagnosis: str
    expected: str
    actual: str

    def __post_init__(self) -> None:
        if self.aspect not in ASPECTS:
            raise ValueError(f"unknown aspect {self.aspect!r}; known: {', '.join(ASPECTS)}")


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

    def reproducer(self, device: str = "cpu") -> str:
        """A program of five lines that makes the call and shows what differs first."""
        aspect = self.differences[0].aspect if self.differences else ""
        return self.case.reproducer(device, aspect)

    def as_dict(self) -> dict[str, Any]:
        """The result in types that JSON has."""
        return {
            "labels": dict(self.case.labels),
            "reproducer": self.reproducer(),
            "verdict": self.verdict,
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
        return compared and not self.problems and not any(r.failed for r in self.results)

    @property
    def ordinary(self) -> int:
        """How many calls that the reference accepts were compared.

        With none, an adapter refuses whatever programs call: what is left are calls that both
        reject, of which nothing can be learned.
        """
        return sum(one.accepted and one.verdict != "unsupported" for one in self.results)

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

    def pairs(self, first: str, second: str) -> dict[tuple[str, str], Counter[str]]:
        """Labels of two arguments that occur together -> how many cases have each verdict."""
        table: dict[tuple[str, str], Counter[str]] = {}
        for result in self.results:
            labels = dict(result.case.labels)
            if first in labels and second in labels:
                pair = labels[first], labels[second]
                table.setdefault(pair, Counter())[result.verdict] += 1
        return table

    def aspects(self) -> Counter[str]:
        """How many failing cases differ in each aspect."""
        return Counter(
            aspect
            for result in self.failures
            for aspect in {difference.aspect for difference in result.differences}
        )

    def routes(self) -> Counter[str]:
        """How many cases each route computed; cases without one are left out."""
        return Counter(result.route for result in self.results if result.route)

    def as_dict(self) -> dict[str, Any]:
        """The report in types that JSON has."""
        return {
            "candidate": self.candidate,
            "reference": self.reference,
            "device": self.device,
            "selection": self.selection,
            "seed": self.seed,
            "ok": self.ok,
            "counts": self.counts(),
            "aspects": dict(self.aspects()),
            "routes": dict(self.routes()),
            "by_argument": _plain(self.by_argument()),
            "problems": list(self.problems),
            "seconds": self.seconds,
            "versions": dict(self.versions),
            "machine": self.machine,
            "results": [result.as_dict() for result in self.results],
        }


def _plain(table: dict[str, dict[str, Counter[str]]]) -> dict[str, dict[str, dict[str, int]]]:
    return {
        argument: {value: dict(counts) for value, counts in values.items()}
        for argument, values in table.items()
    }


def sort_differences(differences: Iterable[Difference]) -> tuple[Difference, ...]:
    """Differences in the order of ``ASPECTS``."""
    return tuple(sorted(differences, key=lambda difference: ASPECTS.index(difference.aspect)))
