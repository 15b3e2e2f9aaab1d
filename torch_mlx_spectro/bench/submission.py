"""``bench --submit-file``: one file with what an issue about a machine's speed needs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ..doctor.anonymous import anonymise, find_revealing
from ..errors import Problem
from ..terminal import write_file
from .running import AUTO
from .schema import Invalid, Report, check, to_json

SCHEMA, VERSION = "torch-mlx-spectro-submission", 1


class ParityFacts(TypedDict):
    """The quick parity cases by one backend, strict; ``failures`` has each case that failed."""

    backend: str
    ok: bool
    counts: dict[str, int]
    routes: dict[str, int]
    problems: list[str]
    failures: list[dict[str, Any]]


class Submission(TypedDict):
    """What the file holds; ``doctor`` is the object that ``doctor --json`` prints."""

    schema: str
    version: int
    bench: Report
    parity: list[ParityFacts]
    doctor: dict[str, Any]


def submit(options: argparse.Namespace, report: Report) -> int:
    """Add parity and doctor's findings to a report, write the file and say what to do with it.

    Returns:
        0 when every backend passed, 1 when one did not: the file is written all the same.

    Raises:
        Problem: the file cannot be written, or would not be what it has to be.
    """
    from ..doctor.command import examine

    backends = [name for name in report["settings"]["backends"] if name != AUTO]
    parity = [_parity(name, report["machine"]["device"]) for name in backends]
    text = submission_text(report, parity, examine())
    write_file("submit-file", options.submit_file, text)
    told = sys.stderr if options.json == "-" else sys.stdout
    for facts in parity:
        counts = ", ".join(
            f"{count} {verdict}" for verdict, count in facts["counts"].items() if count
        )
        print(f"parity of {facts['backend']}: {counts}", file=told)
    print(
        f"Wrote {options.submit_file}. It has no names of users, hosts or folders; look through it"
        " if you like. To submit it, open an issue in this project's tracker and attach the file.",
        file=told,
    )
    return 0 if all(facts["ok"] for facts in parity) else 1


def submission_text(
    report: Report, parity: Sequence[ParityFacts], findings: Mapping[str, Any]
) -> str:
    """The file's text, checked by reading it back.

    Args:
        report: of bench.
        parity: of each backend.
        findings: of doctor.

    Raises:
        Problem: it would not be valid, or would tell what it should not.
    """
    submission = {
        "schema": SCHEMA,
        "version": VERSION,
        "bench": report,
        "parity": list(parity),
        "doctor": dict(findings),
    }
    text = to_json(anonymise(submission))
    try:
        check(json.loads(text), Submission, "submission")
    except Invalid as error:
        raise Problem(f"--submit-file: not written, it would not be valid: {error}", 1) from None
    if told := find_revealing(text):
        raise Problem(f"--submit-file: not written, it would have {told[0]!r} in it", 1)
    return text


def _parity(backend: str, device: str) -> ParityFacts:
    """What a submission tells of the quick parity cases by a backend, strict."""
    import stft_parity

    from ..doctor.candidates import KNOWN, progress, strictly

    with progress() as show:
        report = stft_parity.run(
            candidate=strictly(backend), device=device, cases="quick", known=KNOWN, progress=show
        )
    return {
        "backend": backend,
        "ok": report.ok,
        "counts": report.counts(),
        "routes": dict(report.routes()),
        "problems": list(report.problems),
        "failures": [result.as_dict() for result in report.failures],
    }
