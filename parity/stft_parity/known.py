"""Differences that are accepted, as a strict list.

The list is TOML; each entry says which cases it is about, in what they differ, and why that is
right:

    [[difference]]
    where = { op = "stft", dtype = ["float64", "complex128"] }
    aspects = ["route"]
    diagnosis = "dtype"     # optional: each of these differences has this in its diagnosis
    reason = "..."

Strict: an entry with an unknown name, one which fits no case of the run although its arguments
were varied, and one that names an aspect in which no case differs any more are problems, and with
a problem no run is well.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stft_parity.cases import Case
from stft_parity.results import ASPECTS, Difference, Result

_FIELDS = {"where", "aspects", "reason", "diagnosis"}


class Misstated(ValueError):
    """The list itself is wrong; the text says where."""


@dataclass(frozen=True)
class Known:
    """One entry.

    Attributes:
        where: argument to the labels that are meant; all of them have to fit.
        aspects: in what the cases differ.
        reason: why that is right.
        diagnosis: what each of these differences has in its diagnosis.
    """

    where: tuple[tuple[str, tuple[str, ...]], ...]
    aspects: tuple[str, ...]
    reason: str
    diagnosis: str = ""

    def fits(self, case: Case) -> bool:
        labels = dict(case.labels)
        return all(labels.get(argument) in values for argument, values in self.where)

    def covers(self, difference: Difference) -> bool:
        return difference.aspect in self.aspects and self.diagnosis in difference.diagnosis

    def __str__(self) -> str:
        where = ", ".join(f"{argument}={'|'.join(values)}" for argument, values in self.where)
        said = f" ({self.diagnosis!r})" if self.diagnosis else ""
        return f"{', '.join(self.aspects)}{said} where {where or 'anything'}"


def read(source: str | Path | Iterable[Known]) -> tuple[Known, ...]:
    """The entries of a file.

    Args:
        source: path of the file; or the entries, if they are there.

    Raises:
        Misstated: the file is no such list.
        OSError: there is no file, or it cannot be read.
    """
    if not isinstance(source, (str, Path)):
        return tuple(source)
    # Python 3.10 has no tomllib; tomli is what it was made of.
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        table = toml.loads(Path(source).read_text())
    except toml.TOMLDecodeError as error:
        raise Misstated(f"{source}: {error}") from error
    if table.keys() - {"difference"}:
        raise Misstated(f"{source}: only [[difference]] is known, not {', '.join(table)}")
    entries = table.get("difference", [])
    return tuple(_entry(entry, f"{source}, entry {n}") for n, entry in enumerate(entries, 1))


def _entry(given: Mapping[str, Any], place: str) -> Known:
    unknown = given.keys() - _FIELDS
    if unknown:
        raise Misstated(f"{place}: unknown field {', '.join(sorted(unknown))}")
    reason, aspects = given.get("reason", ""), tuple(given.get("aspects", ()))
    if not isinstance(reason, str) or not reason.strip():
        raise Misstated(f"{place}: there is no reason")
    if not aspects or set(aspects) - set(ASPECTS):
        raise Misstated(f"{place}: aspects are one or more of {', '.join(ASPECTS)}")
    where = tuple(
        (argument, (value,) if isinstance(value, str) else tuple(value))
        for argument, value in given.get("where", {}).items()
    )
    return Known(where, aspects, reason.strip(), given.get("diagnosis", ""))


def limit(entries: Iterable[Known], aspects: Iterable[str]) -> tuple[Known, ...]:
    """The entries, each with those of its aspects that are compared; those without any go."""
    compared = set(aspects)
    limited = (
        replace(entry, aspects=tuple(a for a in entry.aspects if a in compared))
        for entry in entries
    )
    return tuple(entry for entry in limited if entry.aspects)


def apply_entries(result: Result, entries: Iterable[Known]) -> Result:
    """The result with the verdict ``"known"`` where all that differs is known."""
    if not result.failed:
        return result
    fitting = [entry for entry in entries if entry.fits(result.case)]
    used = [
        next((entry for entry in fitting if entry.covers(difference)), None)
        for difference in result.differences
    ]
    if not used or None in used:
        return result
    reasons = dict.fromkeys(entry.reason for entry in used if entry is not None)
    return replace(result, verdict="known", reason="; ".join(reasons))


def problems(
    entries: Iterable[Known], results: Iterable[Result], vocabulary: Mapping[str, Iterable[str]]
) -> tuple[str, ...]:
    """What is wrong with the entries after a run.

    Args:
        entries: of the list.
        results: of the run.
        vocabulary: argument to all values that any case has.
    """
    found = tuple(results)
    return tuple(
        f"known difference {entry}: {complaint}"
        for entry in entries
        for complaint in _complaints(entry, found, vocabulary)
    )


def _complaints(
    entry: Known, results: tuple[Result, ...], vocabulary: Mapping[str, Iterable[str]]
) -> list[str]:
    unknown = [
        f"there is no {argument}={value}"
        for argument, values in entry.where
        for value in values
        if value not in vocabulary.get(argument, ())
    ]
    fitting = [result for result in results if entry.fits(result.case)]
    # A run of some of the cases says nothing of entries about others.
    if unknown or not fitting:
        return unknown
    differing = {
        difference.aspect
        for result in fitting
        for difference in result.differences
        if entry.covers(difference)
    }
    return [f"no {aspect} differs any more" for aspect in entry.aspects if aspect not in differing]
