"""The report as one page of HTML that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stft_parity.report import plots, tables
from stft_parity.results import ASPECTS, VERDICTS, Report

#: Groups of failing cases on a page, and cases that it shows of each.
GROUPS, CASES = 60, 5

_TEMPLATE = "page.html.jinja"


def to_html(report: Report, *, smaller: tables.Smaller | None = None) -> str:
    """The page as text.

    Args:
        report: of a run.
        smaller: of failing cases, the smallest that fail alike, which are shown in their place.

    Raises:
        ImportError: jinja2 is not installed.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template(_TEMPLATE).render(_context(report, smaller or {}))
    return tables.printable(page)


def _context(report: Report, smaller: tables.Smaller) -> dict[str, Any]:
    found = tables.groups(report)
    aspects = report.aspects()
    return {
        "report": report,
        "counts": report.counts(),
        "verdicts": VERDICTS,
        "table": tables.by_argument(report),
        "failing": tables.count_failing,
        "compared": tables.is_compared(report),
        "groups": found[:GROUPS],
        "groups_left": len(found) - len(found[:GROUPS]),
        "smaller": smaller,
        "cases_shown": CASES,
        "aspects": [(name, aspects[name]) for name in ASPECTS if aspects[name]],
        "known": tables.reasons(report, "known").most_common(),
        "unsupported": tables.reasons(report, "unsupported").most_common(),
        "routes": report.routes().most_common(),
        "panels": plots.measure_errors(report),
        "headline": tables.headline(report),
        "separators": tables.list_separators(report),
        "number_cases": tables.count_cases,
    }
