"""A run of ``parity``: the comparison that its options ask for, and its reports."""

from __future__ import annotations

import argparse
import functools
import pkgutil
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import stft_parity
import torch_mlx_spectro as tms
from stft_parity import Candidate, Case, Judge, Misstated, Report, Result, known
from stft_parity.report import junit, machine, summary, tables
from stft_parity.running import read_choices

from .. import emulator
from ..doctor.candidates import list_known_differences, make_strict, progress
from ..errors import Problem
from ..terminal import make_console, write_file

#: Failing cases that ``--minimise`` shrinks: the first of a group, in the most serious groups.
MINIMISED = 10


def run(options: argparse.Namespace, own: str | None) -> int:
    """Run the comparison and report it; return the exit code of what it found.

    Args:
        options: the command's options.
        own: the backend of this package that is the candidate; None if another one is named.

    Raises:
        Problem: what was asked for is not available, or is misstated.
    """
    aspects = options.aspects or stft_parity.ASPECTS
    accepted = options.known or (() if own is None else list_known_differences(own))
    try:
        entries = known.read(accepted)
    except OSError as error:
        raise Problem(f"--known {accepted}: {error.strerror}") from None
    except Misstated as error:
        raise Problem(f"--known: {error}") from None
    with _emulate(options):
        candidate = _find_candidate(options, own)
        report = _compare(options, candidate, own, entries)
        smaller: dict[Case, Result] = {}
        if options.minimise and report.failures:
            judge = functools.partial(
                Judge,
                candidate,
                options.reference,
                device=options.device,
                gradients=not options.no_gradients,
                known=known.limit(entries, aspects),
                aspects=aspects,
            )
            # Smaller cases that are only tried are not diagnosed; the last one is.
            trying, final = judge(diagnosed=0), judge()
            firsts = [group.results[0] for group in tables.groups(report)[:MINIMISED]]
            smaller = {one.case: final(stft_parity.minimise(one, trying).case) for one in firsts}
    _report(options, report, smaller)
    return report.exit_code


def _emulate(options: argparse.Namespace) -> AbstractContextManager[object]:
    """Emulate Metal in this process, if the options ask for it."""
    if not options.emulate_metal:
        return nullcontext()
    if reason := emulator.available():
        raise Problem(f"--emulate-metal: {reason}", 1)
    return emulator.Machine().installed()


def _find_candidate(options: argparse.Namespace, own: str | None) -> Candidate:
    """Find the candidate in this process.

    Raises:
        Problem: there is no candidate of that name, or its backend cannot be used here.
    """
    if own:
        found = tms.available_backends()[own]
        if not found.available:
            raise Problem(f"{own} is not available: {found.reason}", 1)
        return make_strict(own)
    # As `python -m` does: a candidate is usually a file in the current folder.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        if options.candidate:
            return stft_parity.load(options.candidate)
        named = (options.stft, options.istft)
        stft, istft = (_find_function(path) if path else None for path in named)
        return Candidate(stft, istft, " and ".join(filter(None, named)))
    except ValueError as error:
        raise Problem(str(error)) from None


def _find_function(path: str) -> Callable[..., Any]:
    """Find the function that an import path names."""
    try:
        found = pkgutil.resolve_name(path if ":" in path else f"{path}:")
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no function at {path!r}: {error}") from error
    if not callable(found):
        raise ValueError(f"{path!r} is no function; write it as package.module:function")
    return cast(Callable[..., Any], found)


def _compare(
    options: argparse.Namespace, candidate: Candidate, own: str | None, entries: Any
) -> Report:
    """Run the comparison, with a progress bar.

    Raises:
        Problem: there is nothing to compare, or no such reference.
    """
    try:
        chosen = read_choices(options.select)
    except ValueError as error:
        raise Problem(str(error)) from None
    given: Candidate | str = candidate
    if options.processes > 1:
        name = f"emulated_{own}" if options.emulate_metal else own
        given = options.candidate or f"torch_mlx_spectro.doctor.candidates:{name}"
    try:
        with progress() as show:
            report = stft_parity.run(
                candidate=given,
                reference=options.reference,
                device=options.device,
                cases=options.cases,
                seed=options.seed,
                known=entries,
                gradients=not options.no_gradients,
                processes=options.processes,
                progress=show,
                select=chosen,
                aspects=options.aspects or stft_parity.ASPECTS,
            )
    except ValueError as error:  # about aspects or the reference; all else was checked before
        raise Problem(str(error)) from None
    if not report.results:
        raise Problem(f"no case of {options.cases!r} has {' and '.join(options.select)}")
    return report


def _report(options: argparse.Namespace, report: Report, smaller: Mapping[Case, Result]) -> None:
    """Write the reports that were asked for, and print one."""
    if options.junit:
        write_file("junit", options.junit, junit.to_junit(report, smaller=smaller))
    if options.html:
        from stft_parity.report.html import to_html  # needs jinja2, which comes with an extra

        write_file("html", options.html, to_html(report, smaller=smaller))
    if options.json:
        print(machine.to_json(report, smaller=smaller))
    else:
        summary.print_summary(report, make_console(sys.stdout), smaller=smaller)
