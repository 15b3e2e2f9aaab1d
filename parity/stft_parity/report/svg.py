"""Figures of matplotlib as SVG that belongs to a page: its colours, fonts, alternative text.

matplotlib writes colours as numbers, and a page that is light or dark has them as variables. So a
figure is drawn in stand-ins, colours that nobody would choose, and these are replaced by the
page's.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Stand-ins for the page's colours.
INK, MUTED, LINE = "#010101", "#010102", "#010103"
_VERDICT_COLOURS = {
    "pass": "#010104",
    "known": "#010105",
    "unsupported": "#010106",
    "differs": "#010107",
    "raised": "#010108",
    "fell back": "#010109",
}
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    **{colour: f"var(--{name.replace(' ', '-')})" for name, colour in _VERDICT_COLOURS.items()},
}
#: Stand-ins for the steps between no and full strength of a colour.
STEPS = 20
#: Percentage of full strength, beyond which text would be hard to read on a dark page or a light.
STRONGEST = 65
_SHADES = {
    kind: [f"#0{number}02{step:02x}" for step in range(STEPS + 1)]
    for number, kind in enumerate(("differs", "pass"), 1)
}


@dataclass(frozen=True)
class Picture:
    """A figure for a page.

    Attributes:
        title: heading.
        description: what it shows, for those who do not see it.
        svg: the element; it refers to nothing outside of it.
    """

    title: str
    description: str
    svg: str


def verdict_colour(verdict: str) -> str:
    """The stand-in for the colour of a verdict."""
    return _VERDICT_COLOURS[verdict]


def shade(kind: str, share: float) -> str:
    """The stand-in for a colour between the page's own and that of a verdict.

    Args:
        kind: ``"differs"`` or ``"pass"``.
        share: of the verdict's colour, from 0 to 1; anything but 0 can be told from it.
    """
    step = 0 if share <= 0 else max(1, round(share * STEPS))
    return _SHADES[kind][min(STEPS, step)]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in the page's colours; sizes in inches of 72 points.

    No pyplot: the program that compares may have figures of its own.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="none")


def picture(figure: Figure, title: str, description: str) -> Picture:
    """The figure as an element of a page."""
    import matplotlib

    written = io.StringIO()
    name = "plot-" + hashlib.sha256(title.encode()).hexdigest()[:8]
    # Text as text: it can be read out, searched and enlarged. The salt makes the ids the figure's
    # own, of which several are on a page, and the same in each run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    text = written.getvalue()
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # Ids that are not hashed, such as figure_1, would be on the page once for every figure.
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    for stand_in, variable in _colours().items():
        body = body.replace(stand_in, variable)
    opening, rest = body.split(">", 1)
    labelled = (
        f'<svg viewBox="{_view_box(opening)}" style="max-width: {_view_box(opening).split()[2]}pt"'
        f' role="img" aria-labelledby="{name}-title" aria-describedby="{name}-description">'
        f'<title id="{name}-title">{html.escape(title)}</title>'
        f'<desc id="{name}-description">{html.escape(description)}</desc>'
    )
    return Picture(title, description, labelled + rest)


def _view_box(opening: str) -> str:
    found = re.search(r'viewBox="([\d. -]+)"', opening)
    if found is None:
        raise ValueError(f"matplotlib wrote a figure without a size: {opening}")
    return found.group(1)


def _colours() -> dict[str, str]:
    mixed = {}
    for kind, stand_ins in _SHADES.items():
        for step, stand_in in enumerate(stand_ins):
            share = round(STRONGEST * step / STEPS)
            mixed[stand_in] = f"color-mix(in oklab, var(--{kind}) {share}%, var(--cell))"
    return _VARIABLES | mixed
