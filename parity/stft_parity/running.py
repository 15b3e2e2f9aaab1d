"""Runs: which cases, with which candidate, in how many processes, and what came of it."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from stft_parity import known as known_differences
from stft_parity import workers
from stft_parity.candidates import Candidate, FellBack, Unsupported, load, native
from stft_parity.cases import Case, Unmakeable
from stft_parity.cases.choices import VALUES
from stft_parity.cases.draws import draws
from stft_parity.cases.grid import grid, quick
from stft_parity.cases.models import models
from stft_parity.compare.comparison import Comparison, compare_case
from stft_parity.diagnose import diagnose
from stft_parity.known import Known
from stft_parity.results import ASPECTS, Difference, Report, Result

#: What a result differs in where its values cannot be laid upon the reference's.
HINDERING = ("exception", "type", "shape", "dtype", "device", "layout")

SELECTIONS = ("quick", "grid", "draws", "models", "all")

#: How many failing cases a process looks into for the cause: each may take a second.
DIAGNOSED = 200

#: Cases that a process is given at a time: many, as each has to be sent, and few enough that the
#: progress moves and no process ends long after the other.
PORTION = 100

#: Called after each portion with how many cases are done, how many there are, and the results.
Progress = Callable[[int, int, Sequence[Result]], None]


#: What a process is told: the arguments of ``Judge`` by name.
Settings = tuple[tuple[str, Any], ...]


def select(cases: str | Iterable[Case], seed: int = 0) -> tuple[Case, ...]:
    """The cases of a selection.

    Raises:
        ValueError: there is no selection of that name.
    """
    if not isinstance(cases, str):
        return tuple(cases)
    makers: dict[str, Callable[[], tuple[Case, ...]]] = {
        "quick": quick,
        "grid": grid,
        "draws": lambda: draws(seed),
        "models": models,
        "all": lambda: tuple(dict.fromkeys((*grid(), *models(), *draws(seed)))),
    }
    if cases not in makers:
        raise ValueError(f"cases are one of {', '.join(SELECTIONS)}; got {cases!r}")
    return makers[cases]()


def read_choices(given: Iterable[str]) -> dict[str, list[str]]:
    """Read what :func:`run` takes as ``select`` out of texts such as ``"pad_mode=reflect"``.

    Raises:
        ValueError: one of them is no such text.
    """
    chosen: dict[str, list[str]] = {}
    for text in given:
        argument, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--select {text}: write it as argument=value")
        chosen.setdefault(argument, []).append(value)
    return chosen


def run(
    stft: Callable[..., Any] | None = None,
    istft: Callable[..., Any] | None = None,
    *,
    candidate: Candidate | str | None = None,
    reference: str = "torch",
    device: str = "cpu",
    cases: str | Iterable[Case] = "quick",
    seed: int = 0,
    known: str | Path | Iterable[Known] | None = None,
    gradients: bool = True,
    processes: int = 1,
    progress: Progress | None = None,
    select: Mapping[str, str | Iterable[str]] | None = None,
    aspects: Iterable[str] = ASPECTS,
) -> Report:
    """Compare a candidate with torch, case by case.

    Args:
        stft: takes the arguments of ``torch.stft``.
        istft: takes the arguments of ``torch.istft``.
        candidate: in place of both: a ``Candidate``, or its import path.
        reference: import path of what is taken for right; torch's own functions by default.
        device: where the tensors are made.
        cases: ``"quick"``, ``"grid"``, ``"draws"``, ``"models"``, ``"all"``, or the cases.
        seed: of the drawn cases.
        known: file of known differences, or its entries.
        gradients: whether gradients are compared, too.
        processes: how many to spawn; one is this process. More need a candidate by import path,
            and compute with one thread each.
        progress: called from time to time.
        select: argument to a label or labels: only the cases that have these.
        aspects: what is compared; a call that raises where the reference does not fails by any.

    Raises:
        ValueError: an argument is none of these.
        known.Misstated: the list of known differences is no such list.
    """
    started = time.perf_counter()
    compared = _check_aspects(aspects)
    entries = known_differences.limit(
        known_differences.read(known if known is not None else ()), compared
    )
    chosen = tuple(case for case in _selected(cases, seed) if _fits(case, select or {}))
    settings: Settings = (
        ("reference", reference),
        ("device", device),
        ("gradients", gradients),
        ("known", entries),
        ("aspects", compared),
    )
    used = _the_candidate(stft, istft, candidate)
    portions: Generator[list[Result], None, None]
    if processes > 1:
        if not isinstance(candidate, str):
            raise ValueError("several processes need a candidate by its import path")
        judge_portion = functools.partial(_portion, (("candidate", candidate), *settings))
        portions = workers.compute(judge_portion, _portions(chosen), processes)
    else:
        judge = Judge(used, **dict(settings))
        portions = ([judge(case) for case in portion] for portion in _portions(chosen))
    results: list[Result] = []
    with contextlib.closing(portions):
        for portion in portions:
            results += portion
            if progress is not None:
                progress(len(results), len(chosen), results)
    return Report(
        candidate=used.name,
        reference=reference,
        device=device,
        selection=_in_words(cases, select),
        seed=seed,
        results=tuple(results),
        seconds=time.perf_counter() - started,
        versions=_versions(),
        machine=f"{platform.system()} {platform.machine()}, {platform.processor() or 'CPU'}",
        problems=known_differences.problems(entries, results, vocabulary(chosen)),
    )


# The parameter of ``run`` has this name, too.
_selected = select


def _check_aspects(aspects: Iterable[str]) -> tuple[str, ...]:
    """The aspects in their order.

    Raises:
        ValueError: there is no such aspect, or none is given.
    """
    given = set(aspects)
    if not given or given - set(ASPECTS):
        raise ValueError(
            f"aspects are one or more of {', '.join(ASPECTS)}; got {', '.join(sorted(given))}"
        )
    return tuple(aspect for aspect in ASPECTS if aspect in given)


def _the_candidate(
    stft: Callable[..., Any] | None,
    istft: Callable[..., Any] | None,
    candidate: Candidate | str | None,
) -> Candidate:
    if candidate is None:
        if stft is None and istft is None:
            raise ValueError("no candidate: pass stft, istft or candidate")
        named = next(f for f in (stft, istft) if f is not None)
        return Candidate(stft, istft, getattr(named, "__module__", None) or "candidate")
    if stft is not None or istft is not None:
        raise ValueError("pass either a candidate or its functions")
    return load(candidate) if isinstance(candidate, str) else candidate


def _fits(case: Case, chosen: Mapping[str, str | Iterable[str]]) -> bool:
    labels = dict(case.labels)
    return all(
        labels.get(argument) in ((values,) if isinstance(values, str) else tuple(values))
        for argument, values in chosen.items()
    )


def vocabulary(cases: Iterable[Case]) -> dict[str, set[str]]:
    """All values of all arguments that these cases or the grid have."""
    found: dict[str, set[str]] = {"op": set(VALUES)}
    for arguments in VALUES.values():
        for argument, values in arguments.items():
            found.setdefault(argument, set()).update(values)
    for case in cases:
        for argument, value in case.labels:
            found.setdefault(argument, set()).add(value)
    return found


def _in_words(cases: str | Iterable[Case], chosen: Mapping[str, Any] | None) -> str:
    name = cases if isinstance(cases, str) else "given cases"
    return " ".join([name, *(f"{argument}={value}" for argument, value in (chosen or {}).items())])


class Judge:
    """Compares case after case with one candidate.

    Args:
        candidate: or its import path.
        reference: import path of what is taken for right, or ``"torch"``.
        device: where the tensors are made.
        gradients: whether gradients are compared, too.
        known: differences that are accepted.
        aspects: what is compared.
        diagnosed: how many failing cases are looked into for the cause.
    """

    def __init__(
        self,
        candidate: Candidate | str,
        reference: str = "torch",
        *,
        device: str = "cpu",
        gradients: bool = True,
        known: tuple[Known, ...] = (),
        aspects: tuple[str, ...] = ASPECTS,
        diagnosed: int = DIAGNOSED,
    ) -> None:
        # First the reference: a candidate that replaces torch's functions does not replace it.
        self._reference = native() if reference == "torch" else load(reference)
        self._candidate = load(candidate) if isinstance(candidate, str) else candidate
        self._device, self._gradients = device, gradients
        self._known, self._aspects, self._left = known, aspects, diagnosed

    def __call__(self, case: Case) -> Result:
        """Compare one case."""
        candidate = self._candidate.function(case.op)
        reference = self._reference.function(case.op)
        if candidate is None or reference is None:
            return Result(case, "unsupported", True, reason=f"there is no {case.op}")
        # An entry that asks for a diagnosis always gets one.
        asked = any(entry.diagnosis and entry.fits(case) for entry in self._known)
        try:
            found = compare_case(
                case,
                candidate,
                reference,
                device=self._device,
                gradients=self._gradients,
                diagnose=diagnose if asked or self._left > 0 else None,
            )
        except Unmakeable as error:
            return Result(case, "unsupported", False, reason=str(error))
        result = self._judge_case(case, found)
        self._left -= result.failed
        return known_differences.apply_entries(result, self._known)

    def _judge_case(self, case: Case, found: Comparison) -> Result:
        accepted = found.expected.error is None
        if isinstance(found.refused, Unsupported):
            return Result(case, "unsupported", accepted, reason=str(found.refused))
        # What torch rejects is rejected by torch: nobody has computed it.
        fallback = str(found.refused) if isinstance(found.refused, FellBack) else ""
        if accepted and not fallback and self._candidate.fallback is not None:
            fallback = self._candidate.fallback()
        route = ""
        if accepted and self._candidate.route is not None:
            route = self._candidate.route()
        differences = found.differences
        if self._aspects != ASPECTS:
            # Where values cannot be compared, what hinders it stays.
            hindered = "values" in self._aspects and accepted and found.error is None
            kept = (*self._aspects, *HINDERING) if hindered else self._aspects
            differences = tuple(d for d in differences if d.aspect in kept)
        verdict = "differs" if differences else "pass"
        if accepted and found.actual.error is not None:
            verdict = "raised"
        if fallback:
            verdict = "fell back"
            told = Difference("route", fallback, self._candidate.name, "not the candidate")
            differences = (*differences, told)
        return Result(case, verdict, accepted, differences, fallback, found.error, route)


def _portions(cases: Sequence[Case]) -> list[Sequence[Case]]:
    return [cases[start : start + PORTION] for start in range(0, len(cases), PORTION)]


@lru_cache(maxsize=1)
def _judge(settings: Settings) -> Judge:
    """The one of this process, which is one of several: a candidate is loaded once."""
    torch.set_num_threads(1)
    return Judge(**dict(settings))


def _portion(settings: Settings, cases: Sequence[Case]) -> list[Result]:
    judge = _judge(settings)
    return [judge(case) for case in cases]


def _versions() -> dict[str, str]:
    """Releases of what takes part, as far as it is installed."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("numpy", "mlx", "torch-mlx-spectro"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
