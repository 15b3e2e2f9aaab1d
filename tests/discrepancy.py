"""An assertion that a candidate answers a call as native torch does, for tests."""

from __future__ import annotations

from stft_parity.adapting import Function
from stft_parity.cases import Case
from stft_parity.compare.comparison import compare_case
from stft_parity.compare.observing import Outcome


class Discrepancy(AssertionError):
    """The candidate does not behave as the reference; the text tells how to reproduce it."""


def compare(case: Case, candidate: Function, native: Function) -> Outcome:
    """Assert that ``candidate`` answers ``case`` as ``native`` does.

    Returns:
        What native did.

    Raises:
        Discrepancy: the two differ in something that a program can see.
        Unsupported, FellBack: the candidate has raised it.
    """
    found = compare_case(case, candidate, native)
    if found.refused is not None:
        raise found.refused
    if found.differences:
        told = "\n".join(
            f"{one.diagnosis}\n  native:    {one.expected}\n  candidate: {one.actual}"
            for one in found.differences
        )
        text = f"{told}\n\nto reproduce:\n{case.reproducer()}"
        raise Discrepancy(text) from found.actual.error
    return found.expected
