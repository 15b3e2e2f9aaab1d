"""What became slower or faster between two reports, told apart from noise.

Ratios to native torch of the same run are compared, never times of two runs: a machine that is
slower today makes both sides slower. A cell (an operation on a size by a backend) is a regression
when

1. its ratio fell so far that a call takes at least ``THRESHOLD`` longer beside native's, and
2. chance does not explain that (:func:`estimate_chances`), at a level that holds for all cells
   together (:func:`apply_holm`).

The statistics are of passes, not of samples. Samples of a few milliseconds share whatever the
machine was doing just then, so they would make a chance look certain.

A cell has only a few passes in each run, too few to estimate its own noise well. So its noise is
estimated as something between its own and that of all cells; the more alike the cells are, the
closer to that of all. This is a moderated t-test.

Source: G. K. Smyth, "Linear models and empirical Bayes methods for assessing differential
expression in microarray experiments", 2004, section 4 and 6.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, variance

import numpy as np
import torch

from .cases import Case, Table
from .measuring import summarise
from .running import NATIVE
from .schema import Accuracy, CaseFacts, Location, Machine, Report

#: How much longer a call takes before it is called slower.
THRESHOLD = 0.10
#: Chance of any false regression in a whole comparison, if all that differs is noise.
LEVEL = 0.05
#: An error that grew by this factor is a regression. Errors are the largest over very many values,
#: and the input is always the same, so another order of additions moves them by a few percent.
ERROR_FACTOR = 1.5

#: Facts of the machines that have to be the same for times of two reports to be compared.
SAME = ("processor", "cpus", "threads", "device", "device_name", "system")

#: Relative deviation of a ratio from run to run that the passes of one run cannot show: where
#: memory was allocated, the state of this process's allocators and threads. Assumed, not estimated.
RUN_DEVIATION = 0.02
#: The least number of cells from which their common noise can be estimated.
LEAST_CELLS = 4
#: Degrees of freedom beyond this change no chance that matters.
_MOST_DEGREES = 1e4

Key = tuple[str, str, Case, str]
Pair = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Change:
    """One cell in both reports.

    Attributes:
        table, operation, case, backend: the cell.
        old, new: its ratios; in the table of errors, its errors.
        slower: how much longer a call takes beside native's: 0.2 is 20 %; negative when faster.
        chance: how likely noise alone makes it at least this much slower (or faster, if it is
            faster); 1 where it cannot be known.
        verdict: ``"regression"``, ``"improvement"``, ``"unclear"`` (far enough, but noise may have
            done it) or ``"same"``.
    """

    table: str
    operation: str
    case: Case
    backend: str
    old: float
    new: float
    slower: float
    chance: float
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Two reports beside each other.

    Attributes:
        changes: every cell that both reports have.
        missing: cells that only the old report has, in words.
        broken: failures in the new report.
        machines: how the machines differ; empty when times may be compared.
        versions: the versions in both reports, by package, where they differ.
    """

    changes: tuple[Change, ...]
    missing: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    versions: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def regressions(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.verdict == "regression")

    @property
    def ok(self) -> bool:
        return not self.regressions and not self.broken


def compare(old: Report, new: Report) -> Comparison:
    """Compare two reports cell by cell.

    Args:
        old: the earlier report.
        new: the later report.
    """
    before, after = _cells(old), _cells(new)
    common = [key for key in after if key in before]
    pairs = [(before[key], after[key]) for key in common]
    # Each direction is a family of tests of its own.
    falls = estimate_chances(pairs)
    gains = [1 - chance for chance in falls]
    sure_falls = zip(falls, apply_holm(falls, LEVEL), strict=True)
    sure_gains = zip(gains, apply_holm(gains, LEVEL), strict=True)
    changes = []
    for key, (a, b), fall, gain in zip(common, pairs, sure_falls, sure_gains, strict=True):
        was, now = fmean(a), fmean(b)  # of logarithms of ratios
        slower = math.expm1(was - now)
        chance, sure = fall if slower >= 0 else gain
        verdict = _verdict(slower, sure)
        changes.append(Change(*key, math.exp(was), math.exp(now), slower, chance, verdict))
    own, other = (
        report["machine"]["versions"] | {"torch_mlx_spectro": report["package"]}
        for report in (old, new)
    )
    return Comparison(
        changes=(*changes, *_errors(old.get("accuracy", []), new["accuracy"])),
        missing=tuple(_words(key) for key in before if key not in after),
        broken=tuple(f"{_words(_cell(found))}: {found['reason']}" for found in new["failures"]),
        machines=tuple(list_differences(old["machine"], new["machine"])),
        versions={
            name: (own.get(name, "?"), other.get(name, "?"))
            for name in sorted(own.keys() | other.keys())
            if own.get(name) != other.get(name)
        },
    )


def confirm(first: Comparison, again: Comparison) -> Comparison:
    """Return the first comparison without regressions that a second measurement does not show."""
    seen = {_key(change) for change in again.regressions}
    changes = tuple(
        replace(change, verdict="unclear")
        if change.verdict == "regression" and _key(change) not in seen
        else change
        for change in first.changes
    )
    return replace(first, changes=changes)


def cut_tables(changes: Sequence[Change], tables: Mapping[str, Table]) -> dict[str, Table]:
    """Return the tables with only the cases of some changes, to measure these again."""
    wanted = {
        name: dict.fromkeys(change.case for change in changes if change.table == name)
        for name in tables
    }
    return {
        name: replace(tables[name], cases=tuple(cases)) for name, cases in wanted.items() if cases
    }


def read_case(facts: CaseFacts) -> Case:
    """Read the case that a report describes."""
    return Case(facts["rows"], facts["samples"], facts["n_fft"], facts["hop_length"])


def list_differences(old: Machine, new: Machine) -> list[str]:
    """List how two machines differ, as far as times depend on it."""
    before, now = dict(old), dict(new)
    return [f"{key}: {before[key]!r} and {now[key]!r}" for key in SAME if before[key] != now[key]]


def _cells(report: Report) -> dict[Key, list[float]]:
    """Return for each cell the logarithm of the ratio in each of its passes.

    It is the ratio of lower quartiles. A pause can only make a call longer, and two of a pass's
    four samples may have had one.
    """
    timings = report["timings"]
    beside = {_cell(timing)[:3]: timing["passes"] for timing in timings if timing["ratio"] is None}
    return {
        _cell(timing): [
            math.log(summarise(theirs)["low"] / summarise(own)["low"])
            for theirs, own in zip(beside[_cell(timing)[:3]], timing["passes"], strict=True)
        ]
        for timing in timings
        if timing["ratio"] is not None and _cell(timing)[:3] in beside
    }


def _cell(facts: Location) -> Key:
    return facts["table"], facts["operation"], read_case(facts["case"]), facts["backend"]


def _verdict(slower: float, certain: bool) -> str:
    if -THRESHOLD / (1 + THRESHOLD) < slower < THRESHOLD:
        return "same"
    if not certain:
        return "unclear"
    return "regression" if slower > 0 else "improvement"


def _errors(old: Sequence[Accuracy], new: Sequence[Accuracy]) -> list[Change]:
    """Compare errors, which have no noise: the same signals are computed every time."""
    before, after = (
        {
            ("accuracy", f"error, {kind}", read_case(found["case"]), found["backend"]): error
            for found in side
            if found["backend"] != NATIVE
            for kind, error in (
                ("round_trip", found["round_trip"]),
                ("stft", found["stft"]),
                ("istft", found["istft"]),
            )
        }
        for side in (old, new)
    )
    changes = []
    for key in (key for key in after if key in before):
        was, now = before[key], after[key]
        grown, shrunk = now > ERROR_FACTOR * was, was > ERROR_FACTOR * now
        verdict = "regression" if grown else "improvement" if shrunk else "same"
        changes.append(Change(*key, was, now, 0.0, 0.0, verdict))
    return changes


def _key(change: Change) -> Key:
    return change.table, change.operation, change.case, change.backend


def _words(key: Key) -> str:
    return ", ".join(map(str, key[1:]))


def estimate_chances(pairs: Sequence[Pair]) -> list[float]:
    """Estimate for each pair how likely noise alone puts the first mean so far above the second.

    Args:
        pairs: logarithms of ratios of the passes of two runs. The chance is 0.5 for a pair with
            fewer than two on a side, since nothing can be said of it.
    """
    several = [pair for pair in pairs if min(map(len, pair)) > 1]
    degrees = [len(a) + len(b) - 2 for a, b in several]
    variances = [
        ((len(a) - 1) * variance(a) + (len(b) - 1) * variance(b)) / free
        for (a, b), free in zip(several, degrees, strict=True)
    ]
    usual, weight = estimate_usual_variance(variances, degrees)
    own = iter(zip(variances, degrees, strict=True))
    return [
        _estimate_chance(pair, *next(own), usual, weight) if min(map(len, pair)) > 1 else 0.5
        for pair in pairs
    ]


def _estimate_chance(pair: Pair, own: float, free: int, usual: float, weight: float) -> float:
    first, second = pair
    moderated = (weight * usual + free * own) / (weight + free)
    seen = moderated * (1 / len(first) + 1 / len(second))
    squared = seen + 2 * RUN_DEVIATION**2
    # Degrees of freedom of the sum, whose assumed part has no error.
    degrees = (weight + free) * (squared / max(seen, 1e-30)) ** 2
    t = (fmean(first) - fmean(second)) / math.sqrt(squared)
    return compute_student_tail(t, min(degrees, _MOST_DEGREES))


def estimate_usual_variance(
    variances: Sequence[float], degrees: Sequence[int]
) -> tuple[float, float]:
    """Estimate the variance that cells share, and how many degrees of freedom that is worth.

    The logarithm of a variance that is estimated with d degrees of freedom has the variance
    trigamma(d / 2) if all cells are alike. Variance beyond that comes from cells that differ.

    Args:
        variances: the variance of each cell.
        degrees: the degrees of freedom of each.

    Returns:
        Both; 0 degrees where there are too few cells.
    """
    given = [(s, d) for s, d in zip(variances, degrees, strict=True) if s > 0]
    if len(given) < LEAST_CELLS:
        return 0.0, 0.0
    halves = torch.tensor([d / 2 for _, d in given], dtype=torch.float64)
    logs = torch.tensor([math.log(s) for s, _ in given], dtype=torch.float64)
    centred = logs - torch.special.digamma(halves) + halves.log()
    # Trigamma falls from infinity to 0. Find where it falls below that value, to a part in 4,000.
    grid = torch.logspace(-6, math.log10(_MOST_DEGREES / 2), 100_000, dtype=torch.float64)
    beyond = centred.var() - torch.special.polygamma(1, halves).mean()
    index = torch.searchsorted(-torch.special.polygamma(1, grid), -beyond)
    half = grid[index.clamp(max=len(grid) - 1)]
    shift = torch.special.digamma(half) - half.log()
    return math.exp(centred.mean() + shift), 2 * float(half)


def apply_holm(chances: Sequence[float], level: float) -> list[bool]:
    """Say which of several tests hold, so that the chance of any false one is at most ``level``.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = sorted(range(len(chances)), key=chances.__getitem__)
    holds = [False] * len(chances)
    for rank, index in enumerate(order):
        if chances[index] > level / (len(chances) - rank):
            break
        holds[index] = True
    return holds


def compute_student_tail(t: float, degrees: float) -> float:
    """Compute the probability of more than ``t`` in Student's distribution, by Simpson's rule.

    The substitution x = sqrt(degrees) tan(angle) makes the density cos(angle) to the power of
    degrees - 1, over a finite range.
    """
    start = math.atan(t / math.sqrt(degrees))
    angles = np.linspace(start, math.pi / 2, 2001)
    density = np.cos(angles).clip(0) ** (degrees - 1)
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2))
    weights = np.full(len(angles), 2.0)
    weights[1::2], weights[[0, -1]] = 4.0, 1.0
    area = float(weights @ density) * (math.pi / 2 - start) / (len(angles) - 1) / 3
    return min(1.0, scale / math.sqrt(math.pi) * area)
