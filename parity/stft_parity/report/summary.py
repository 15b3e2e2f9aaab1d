"""The report in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stft_parity.report import tables
from stft_parity.results import Report, Result

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Failing cases that are printed of each group, and groups, unless told otherwise.
CASES, GROUPS = 1, 20

_STYLES = {
    "pass": "green",
    "known": "cyan",
    "unsupported": "dim",
    "differs": "red",
    "raised": "magenta",
    "fell back": "yellow",
}


def print_summary(
    report: Report,
    console: Console,
    *,
    smaller: tables.Smaller | None = None,
    cases: int = CASES,
    groups: int = GROUPS,
) -> None:
    """Print counts, the table by argument value, and the failing cases with their reproducers.

    Args:
        report: of a run.
        console: where to; a program's own, or ``rich.console.Console()``.
        smaller: of failing cases, the smallest that fail alike, which are printed in their place.
        cases: how many failing cases to print of each group of alike ones.
        groups: how many groups to print, the largest first.
    """
    _print_arguments(report, console)
    for verdict in ("unsupported", "known"):
        found = tables.reasons(report, verdict).most_common()
        for reason, count in found[:groups]:
            _line(console, f"{verdict}, {_cases(count)}: {reason}")
        if len(found) > groups:
            _line(console, f"{verdict}: {len(found) - groups} more reasons")
    _print_failures(report, console, smaller or {}, cases, groups)
    for route, count in report.routes().most_common():
        _line(console, f"computed by {route}: {_cases(count)}")
    for problem in report.problems:
        _line(console, problem, "red")
    _print_verdict(report, console)


def _line(console: Console, text: str, style: str | None = None) -> None:
    # Diagnoses have brackets, which are no markup; a line is not folded where it goes to a file.
    text = tables.printable(text)
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _cases(number: int) -> str:
    return f"{number:,} case" if number == 1 else f"{number:,} cases"


def _print_verdict(report: Report, console: Console) -> None:
    counts = ", ".join(
        f"{number:,} {verdict}" for verdict, number in report.counts().items() if number
    )
    said = "as the reference" if report.ok else "NOT as the reference"
    if not tables.is_compared(report):
        said = "nothing was compared"
    _line(
        console,
        f"{report.candidate} against {report.reference} on {report.device}, {report.selection}: "
        f"{said}; {_cases(len(report.results))} in {report.seconds:.1f} s"
        + (f" ({counts})" if counts else ""),
        "bold green" if report.ok else "bold red",
    )


def _print_arguments(report: Report, console: Console) -> None:
    """A row for each function, and for each value of which more cases fail than of others."""
    from rich import box
    from rich.table import Table

    shown = [verdict for verdict, count in report.counts().items() if count]
    table = Table(box=box.SIMPLE_HEAD, title="By argument", title_justify="left")
    for heading in ("argument", "value"):
        table.add_column(heading, overflow="fold")
    for verdict in shown:
        table.add_column(verdict, justify="right", no_wrap=True, style=_STYLES[verdict])
    share = len(report.failures) / max(1, len(report.results))
    passing: list[str] = []  # arguments of which no value has a row
    for argument, values in tables.by_argument(report).items():
        rows = {
            value: counts
            for value, counts in values.items()
            if argument == "op" or not counts["pass"] or tables.is_distinctive(counts, share)
        }
        if not rows:
            passing.append(argument)
            continue
        first = argument
        for value, counts in rows.items():
            table.add_row(first, value, *(f"{counts[v]:,}" if counts[v] else "" for v in shown))
            first = ""
        if len(rows) < len(values):
            table.add_row("", f"({len(values) - len(rows)} more)")
        table.add_section()
    if table.row_count and _find_least_width(table) <= console.width:
        console.print(table)
    elif table.row_count:
        _list_arguments(table, console)
    if passing:
        _line(console, f"cases fail no more than others with any value of {', '.join(passing)}")


def _find_least_width(table: Table) -> int:
    """Find how wide the table is if it folds no word, and no column of numbers at all."""
    width = 1
    for column in table.columns:
        cells = [str(cell) for cell in (column.header, *column.cells)]
        pieces = cells if column.no_wrap else " ".join(cells).split()
        width += max(map(len, pieces)) + 3
    return width


def _list_arguments(table: Table, console: Console) -> None:
    """List the rows of the table where the terminal is too narrow for its columns."""
    headings = [str(column.header) for column in table.columns][2:]
    _line(console, "By argument")
    cells = [list(column.cells) for column in table.columns]
    for argument, value, *counts in zip(*cells, strict=True):
        if argument:
            _line(console, f"  {argument}", "bold")
        found = [f"{n} {name}" for n, name in zip(counts, headings, strict=True) if n]
        words = f"    {value}: {', '.join(found)}" if found else f"    {value}"
        console.print(tables.printable(words), markup=False, highlight=False)


def _print_failures(
    report: Report, console: Console, smaller: tables.Smaller, cases: int, groups: int
) -> None:
    found = tables.groups(report)
    for group in found[:groups]:
        _line(console, "")
        heading = (
            f"{group.op}, {group.verdict}, {_cases(len(group.results))}: {', '.join(group.aspects)}"
        )
        _line(console, heading, f"bold {_STYLES[group.verdict]}")
        for argument, value, share in group.telling:
            _line(console, f"  all have {argument}={value}: {share:.0%} of the cases with it")
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
