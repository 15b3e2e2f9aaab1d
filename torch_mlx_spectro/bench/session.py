"""A run of ``bench``: what its options ask for is measured, written, printed or submitted."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from ..backends import registry
from ..doctor.anonymous import anonymise, find_revealing
from ..errors import Problem, suggest
from ..terminal import STDOUT, make_console, progress, refuse, write_file
from ..version import __version__
from . import cases, comparing, costs, host, mlx_arrays, pipeline, programs, running, schema, tables

#: A name for --table besides the tables of cases: what a call costs besides its transform.
COSTS = "costs"
#: Timed runs of each model and backend.
PIPELINE_ROUNDS, QUICK_PIPELINE_ROUNDS = 5, 3


def run(options: argparse.Namespace) -> int:
    """Measure and report; return 0 when nothing failed and nothing became slower, else 1.

    Raises:
        Problem: what was asked for is not available.
    """
    if options.table == schema.METAL_TABLE:
        return _count_metal(options)
    reports = [_read(path) for path in options.compare or ()]
    if len(reports) == 2:
        return _report_comparison(options, _compare(options, *reports))
    old = reports[0] if reports else None
    with running.use_threads(options.threads):
        settings = _choose_settings(options)
        if options.pipeline:
            return _run_pipeline(options, settings)
        chosen = _choose_tables(options)
        if old is not None:  # checked before measuring takes minutes
            apart = comparing.list_differences(
                old["machine"], running.describe_machine(settings.device)
            )
            _check_machines(options, apart)
        report = _measure(options, settings, chosen)
        if options.submit_file:
            return max(submit(options, report), _report(options, report))
        code = _report(options, report)
        if old is None:
            return code
        comparison = _measure_again(settings, chosen, old, _compare(options, old, report))
        return max(code, _report_comparison(options, comparison))


def _choose_settings(options: argparse.Namespace) -> running.Settings:
    """Choose settings for the device that is asked for, or the first of cuda, mps and cpu here."""
    device = options.device or registry.list_present_devices()[-1]
    if not registry.is_present(device):
        raise Problem(f"--device {device}: torch has no such device here")
    found, reasons = running.find_backends(device)
    asked = found if options.backends is None else options.backends.split(",")
    others = f"for tensors on {device} there are {', '.join(found)}"
    refuse(
        (
            name not in found,
            f"--backends {name or repr(name)}:"
            f" {reasons.get(name) or f'{others}{suggest(name, found)}'}",
        )
        for name in asked
    )
    settings = running.Settings(device, tuple(dict.fromkeys(asked)))
    return running.quick(settings) if options.quick else settings


def _choose_tables(options: argparse.Namespace) -> dict[str, cases.Table]:
    """Choose the tables of cases that are asked for; the table of costs is not one of them."""
    names = list(cases.PUBLISHED) if options.table is None else options.table.split(",")
    if "all" in names:
        return dict(cases.TABLES)
    tables = (*cases.TABLES, COSTS)
    there = f"there are {', '.join(tables)} and all; metal goes with no other"
    refuse(
        (name not in tables, f"--table {name or repr(name)}: {there}{suggest(name, tables)}")
        for name in names
    )
    return {name: table for name, table in cases.TABLES.items() if name in names}


def _measure(
    options: argparse.Namespace, settings: running.Settings, chosen: dict[str, cases.Table]
) -> schema.Report:
    absent = programs.explain_absence(chosen)
    if cases.MLX_TABLE in chosen and (reason := mlx_arrays.explain_absence()):
        absent[cases.MLX_TABLE] = reason
    here = {name: table for name, table in chosen.items() if name not in absent}
    with progress("measuring") as show:
        report = _measure_tables(settings, here, show)
    report["unavailable"] = running.find_backends(settings.device)[1] | absent
    if {COSTS, "all"} & {*(options.table or "").split(",")}:
        report["costs"] = costs.measure_costs()
    return report


def _measure_tables(
    settings: running.Settings, chosen: Mapping[str, cases.Table], show: running.Progress
) -> schema.Report:
    """Measure tables; the host's time and MLX arrays have sides of their own."""
    apart = (cases.HOST_TABLE, cases.MLX_TABLE)
    others = {name: table for name, table in chosen.items() if name not in apart}
    report = running.measure(settings, others, show)
    for name in (name for name in apart if name in chosen):
        if name == cases.HOST_TABLE:
            added = host.measure_host(settings, show)
        else:
            sides = replace(settings, backends=(cases.OURS,))
            added = running.measure(sides, {name: chosen[name]}, show)
        report["timings"] += added["timings"]
        report["accuracy"] += added["accuracy"]
        report["failures"] += added["failures"]
        report["settings"]["tables"].append(name)
    return report


def _report(options: argparse.Namespace, report: schema.Report) -> int:
    """Write and print what was asked for; return 1 when something failed.

    If the run is compared, the comparison is printed instead of the report.
    """
    if options.plot:
        write_file("plot", options.plot, tables.draw(report, options.plot.suffix[1:]))
    if not options.compare:
        _tell(options.json, report, partial(tables.print_report, report))
    elif options.json not in (None, STDOUT):
        write_file("json", options.json, schema.to_json(report))
    return 1 if report["failures"] else 0


def _tell(path: str | None, found: Any, show: Callable[[Console], None]) -> None:
    """Write the findings as JSON, if that is asked for; print them unless the JSON is printed."""
    if path:
        write_file("json", path, schema.to_json(found))
    if path != STDOUT:
        show(make_console(sys.stdout))


def _read(path: Path) -> schema.Report:
    try:
        return schema.read_report(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: no text, no JSON, or no report
        message = error.strerror if isinstance(error, OSError) else error
        raise Problem(f"--compare {path}: {message}") from None


def _compare(
    options: argparse.Namespace, old: schema.Report, new: schema.Report
) -> comparing.Comparison:
    comparison = comparing.compare(old, new)
    _check_machines(options, comparison.machines)
    if not comparison.changes:
        raise Problem("the reports have no measurement in common")
    return comparison


def _check_machines(options: argparse.Namespace, apart: Sequence[str]) -> None:
    if apart and not options.force:
        raise Problem(
            "the reports are of different machines, whose ratios differ for that alone"
            f" ({'; '.join(apart)}); --force compares them nevertheless"
        )


def _measure_again(
    settings: running.Settings,
    chosen: dict[str, cases.Table],
    old: schema.Report,
    comparison: comparing.Comparison,
) -> comparing.Comparison:
    """Measure the regressions of this run once more; a regression has to show twice."""
    timed = [change for change in comparison.regressions if change.table != "accuracy"]
    if not timed:
        return comparison
    with progress("measuring again") as show:
        again = _measure_tables(settings, comparing.cut_tables(timed, chosen), show)
    return comparing.confirm(comparison, comparing.compare(old, again))


def _report_comparison(options: argparse.Namespace, comparison: comparing.Comparison) -> int:
    """Print a comparison; return 1 when something became slower, less exact, or failed."""
    # If a report was measured, the file has the report; else it has the comparison.
    path = options.json if options.json == STDOUT or len(options.compare) == 2 else None
    facts = {
        "ok": comparison.ok,
        "regressions": len(comparison.regressions),
        "threshold": comparing.THRESHOLD,
        "level": comparing.LEVEL,
        **asdict(comparison),
    }
    _tell(path, facts, partial(tables.print_comparison, comparison))
    return 0 if comparison.ok else 1


def _run_pipeline(options: argparse.Namespace, settings: running.Settings) -> int:
    """Measure the models of audio-separator and report; return 0.

    Raises:
        Problem: audio-separator, or what it needs, is not installed.
    """
    if absent := pipeline.list_missing():
        how = " and ".join(pipeline.INSTALL)
        raise Problem(f"--pipeline needs {', '.join(absent)}: in a checkout, {how}")
    where = running.describe_machine(settings.device)  # first: later its load would be ours
    rounds = QUICK_PIPELINE_ROUNDS if options.quick else PIPELINE_ROUNDS
    models = pipeline.list_components(options.quick)
    parts: list[dict[str, Any]] = []
    with progress("measuring") as show:
        for index, model in enumerate(models):
            show(index, len(models), model.name)
            parts += pipeline.measure_component(model, settings.device, settings.backends, rounds)
    report = {
        "schema": pipeline.SCHEMA,
        "version": pipeline.VERSION,
        "package": __version__,
        "machine": where,
        "sizes": "small" if options.quick else "as published",
        "parts": parts,
    }
    _tell(options.json, report, partial(tables.print_pipeline, report))
    return 0


def _count_metal(options: argparse.Namespace) -> int:
    """Count what Metal kernels move and report; return 0.

    Raises:
        Problem: there is no emulator or no MLX, or a kernel computed something wrong.
    """
    from . import metal  # MLX and the emulator

    with progress("counting") as show:
        report = metal.measure_metal(show)
    report["package"] = __version__
    _tell(options.json, report, partial(tables.print_metal, report))
    return 0


def submit(options: argparse.Namespace, report: schema.Report) -> int:
    """Add parity and doctor's findings to a report, write the file and say what to do with it.

    Returns:
        0 when every backend passed, 1 when one did not; the file is written in both cases.

    Raises:
        Problem: the file cannot be written, or its text would be invalid or reveal names.
    """
    from ..doctor.command import examine

    backends = [name for name in report["settings"]["backends"] if name != running.AUTO]
    parity = [_run_parity(name, report["machine"]["device"]) for name in backends]
    text = write_submission(report, parity, examine())
    write_file("submit-file", options.submit_file, text)
    output = sys.stderr if options.json == "-" else sys.stdout
    for facts in parity:
        counts = ", ".join(
            f"{count} {verdict}" for verdict, count in facts["counts"].items() if count
        )
        print(f"parity of {facts['backend']}: {counts}", file=output)
    print(
        f"Wrote {options.submit_file}. It has no names of users, hosts or folders; look through it"
        " if you like. To submit it, open an issue in this project's tracker and attach the file.",
        file=output,
    )
    return 0 if all(facts["ok"] for facts in parity) else 1


def write_submission(
    report: schema.Report, parity: Sequence[schema.ParityFacts], findings: Mapping[str, Any]
) -> str:
    """Write the file's text, and check it by reading it back.

    Args:
        report: the report of bench.
        parity: the results of each backend.
        findings: the findings of doctor.

    Raises:
        Problem: the text would not be valid, or would reveal names or paths.
    """
    submission = {
        "schema": schema.SUBMISSION_SCHEMA,
        "version": schema.SUBMISSION_VERSION,
        "bench": report,
        "parity": list(parity),
        "doctor": dict(findings),
    }
    text = schema.to_json(anonymise(submission))
    try:
        schema.check(json.loads(text), schema.Submission, "submission")
    except schema.Invalid as error:
        raise Problem(f"--submit-file: not written, it would not be valid: {error}", 1) from None
    if names := find_revealing(text):
        raise Problem(f"--submit-file: not written, it would have {names[0]!r} in it", 1)
    return text


def _run_parity(backend: str, device: str) -> schema.ParityFacts:
    """Run the quick parity cases by a backend, strict; return what a submission has of them."""
    import stft_parity

    from ..doctor.candidates import list_known_differences, make_strict, progress

    with progress() as show:
        report = stft_parity.run(
            candidate=make_strict(backend),
            device=device,
            cases="quick",
            known=list_known_differences(backend),
            progress=show,
        )
    return {
        "backend": backend,
        "ok": report.ok,
        "counts": report.counts(),
        "routes": dict(report.routes()),
        "problems": list(report.problems),
        "failures": [result.as_dict() for result in report.failures],
    }
