"""The report in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stft_parity.report import tables
from stft_parity.report.tables import count_cases
from stft_parity.results import Report, Result

if TYPE_CHECKING:
    from rich.console import Console

#: Failing cases that are printed of each group, and groups, unless told otherwise.
CASES, GROUPS = 1, 20

_STYLES = {
    "wrong values": "bold red",
    "raised": "bold magenta",
    "fell back": "bold yellow",
    "other conventions": "bold cyan",
}


def print_summary(
    report: Report,
    console: Console,
    *,
    smaller: tables.Smaller | None = None,
    cases: int = CASES,
    groups: int = GROUPS,
) -> None:
    """Print whether values are right, then what fails with reproducers, then all else.

    Args:
        report: of a run.
        console: where to; a program's own, or ``rich.console.Console()``.
        smaller: of failing cases, the smallest that fail alike, which are printed in their place.
        cases: how many failing cases to print of each group of alike ones.
        groups: how many groups to print, the most serious first.
    """
    style = "bold green" if report.ok else "bold red"
    _line(console, tables.headline(report), style)
    for text in (*tables.list_separators(report), *report.problems):
        _line(console, text, "red")
    _print_failures(report, console, smaller or {}, cases, groups)
    _print_arguments(report, console)
    for verdict in ("unsupported", "known"):
        found = tables.reasons(report, verdict).most_common()
        for reason, count in found[:groups]:
            _line(console, f"{verdict}, {count_cases(count)}: {reason}")
        if len(found) > groups:
            _line(console, f"{verdict}: {len(found) - groups} more reasons")
    for route, count in report.routes().most_common():
        _line(console, f"computed by {route}: {count_cases(count)}")
    counts = ", ".join(
        f"{number:,} {verdict}" for verdict, number in report.counts().items() if number
    )
    _line(
        console,
        f"{report.candidate} against {report.reference} on {report.device}, {report.selection}: "
        f"{tables.conclude(report)}; {count_cases(len(report.results))} in {report.seconds:.1f} s"
        + (f" ({counts})" if counts else ""),
        style,
    )


def _line(console: Console, text: str, style: str | None = None) -> None:
    # Diagnoses have brackets, which are no markup; a line is not folded where it goes to a file.
    text = tables.printable(text)
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _print_arguments(report: Report, console: Console) -> None:
    """Print counts by function, and by value where more cases fail than of other values."""
    share = len(report.failures) / max(1, len(report.results))
    passing: list[str] = []  # arguments of which no value is printed
    _line(console, "\nBy argument", "bold")
    for argument, values in tables.by_argument(report).items():
        rows = {
            value: ", ".join(f"{counts[v]:,} {v}" for v in report.counts() if counts[v])
            for value, counts in values.items()
            if argument == "op" or not counts["pass"] or tables.is_distinctive(counts, share)
        }
        if not rows:
            passing.append(argument)
            continue
        _line(console, f"  {argument}", "bold")
        widest = max(map(len, rows))
        for value, told in rows.items():
            console.print(tables.printable(f"    {value:{widest}}  {told}"),
                          markup=False, highlight=False)  # fmt: skip
        if len(rows) < len(values):
            _line(console, f"    ({len(values) - len(rows)} more)")
    if passing:
        _line(console, f"  cases fail no more than others with any value of {', '.join(passing)}")


def _print_failures(
    report: Report, console: Console, smaller: tables.Smaller, cases: int, groups: int
) -> None:
    found = tables.groups(report)
    for group in found[:groups]:
        number = count_cases(len(group.results))
        _line(console, f"\n{group.failing}, {group.op}, {number}: {group.diagnosis}",
              _STYLES[group.failing])  # fmt: skip
        for text in (f"differs in {', '.join(group.aspects)}", *group.list_telling()):
            _line(console, f"  {text}")
        for result in group.shown(smaller, cases):
            print_case(result, console, report.device)
    if len(found) > groups:
        _line(console, f"{len(found) - groups} more kinds of failing cases; --html shows more")


def print_case(result: Result, console: Console, device: str = "cpu") -> None:
    """Print what differs in a case, and the program of five lines that makes the call."""
    for difference in result.differences:
        _line(console, f"  {difference.aspect}: {difference.diagnosis}")
        _line(console, f"    reference: {difference.expected}")
        _line(console, f"    candidate: {difference.actual}")
    _line(console, "  to reproduce:")
    for line in result.reproducer(device).splitlines():
        _line(console, f"    {line}")
