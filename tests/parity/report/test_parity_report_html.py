"""The page: what is on it, and that a real browser shows it and asks for nothing else."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import browser
import matplotlib.image
import numpy as np
import pytest
from reports import AWKWARD, mixed, report, result, well

from stft_parity import VERDICTS, Report
from stft_parity.report.html import CASES, GROUPS, to_html

VOID = {"meta", "link", "path", "use", "br"}


class Page(HTMLParser):
    """Elements with their attributes, the text of each kind, and whether all are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], "elements are left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.append((self._open[-1], data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def said(self, tag: str) -> list[str]:
        return [text.strip() for name, text in self.texts if name == tag and text.strip()]


@pytest.fixture(scope="module")
def text() -> str:
    return to_html(mixed())


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def rows(text: str) -> dict[tuple[str, str], list[int]]:
    """The table: argument and value -> numbers."""
    table = text[text.index('<table id="by-argument">') :]
    table = table[: table.index("</table>")]
    found = {}
    for body in table.split("<tbody>")[1:]:
        (argument,) = re.findall(r"<th scope=\"?rowgroup\"?[^>]*>([^<]*)<", body)
        for row in re.findall(r'<th scope="row">.*?</tr>', body, re.DOTALL):
            (value,) = re.findall(r'<th scope="row">([^<]*)<', row)
            found[argument, value] = [int(n) for n in re.findall(r"<td[^>]*>([\d,]+)</td>", row)]
    return found


def test_the_table_has_the_counts_of_every_value(text: str) -> None:
    found = rows(text)
    expected = {
        (argument, value): [counts[verdict] for verdict in VERDICTS]
        for argument, values in mixed().by_argument().items()
        for value, counts in values.items()
    }
    assert found == expected
    assert found["pad_mode", "replicate"] == [0, 0, 0, 4, 0, 0]


def test_failing_cases_are_there_with_diagnosis_and_reproducer(page: Page, text: str) -> None:
    code = "".join(page.said("code"))
    for failing in mixed().failures:
        assert failing.case.reproducer() in code
    assert "the candidate rejects what the reference accepts" in page.said("p")
    assert "contiguous is enough" in text
    assert "no values differs any more" in text


def test_what_candidates_say_is_no_markup(page: Page, text: str) -> None:
    assert page.all("script") == []
    assert "&lt;script&gt;" in text
    shown = AWKWARD.replace("\0", "\ufffd").replace("\x1b", "\ufffd")
    assert shown in "".join(text for _, text in page.texts)


def test_nothing_is_referred_to_outside_the_page(page: Page) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            value = attributes.get(name) or "#"
            assert value.startswith("#") or value == "data:,", (tag, value)
    for style in [*page.said("style"), *(a.get("style") or "" for _, a in page.elements)]:
        assert "@import" not in style
        assert re.findall(r"url\((?!#)", style) == []


def test_anchors_lead_somewhere_and_no_id_comes_twice(page: Page) -> None:
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    targets = [a.get("href") or a.get("xlink:href") for _, a in page.elements]
    assert {t[1:] for t in targets if t and t.startswith("#")} <= set(ids)
    clips = [a["clip-path"] for _, a in page.elements if a.get("clip-path")]
    assert {str(c)[5:-1] for c in clips} <= set(ids)


def test_those_who_do_not_see_it_are_told(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert all(a.get("scope") in ("col", "row", "rowgroup") for a in page.all("th"))
    pictures = page.all("svg")
    assert len(pictures) == 2
    assert len(page.all("desc")) == 2
    ids = {a.get("id") for _, a in page.elements}
    for picture in pictures:
        assert picture["role"] == "img"
        assert {picture["aria-labelledby"], picture["aria-describedby"]} <= ids


def test_colours_are_the_page_s_in_light_and_dark(text: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert 'class="bad"' in drawn
    assert re.findall(r"#[0-9a-f]{6}", drawn) == []
    styles = text[text.index("<style>") : text.index("</style>")]
    assert "svg .bad { stroke: var(--differs)" in styles
    assert "prefers-color-scheme: dark" in text


def test_a_good_run_has_no_failing_section() -> None:
    page = to_html(well())
    assert "No difference." in page
    assert 'id="failing"' not in page
    assert "values: compared in 59 cases, wrong in 0" in page


@pytest.mark.parametrize(
    "made",
    [report(), report(result(error=None)), report(result(n_fft="other", error=0.0))],
    ids=["no case", "no error", "no size"],
)
def test_a_page_is_made_of_little(made: Report) -> None:
    Page(to_html(made))


def test_a_run_that_compared_nothing_does_not_claim_anything() -> None:
    (banner,) = [said for said in Page(to_html(report())).said("p") if "Nothing" in said]
    assert banner == "Nothing was compared."
    assert "Nothing was compared: the candidate" in to_html(report(result("unsupported")))


def test_what_does_not_fit_is_counted() -> None:
    found = [result("differs", diagnosis=f"cause {chr(65 + n)}", seed=n) for n in range(GROUPS + 3)]
    found += [result("differs", diagnosis="alike", seed=100 + n) for n in range(CASES + 4)]
    text = to_html(report(*found))
    assert "4 more kinds of failing cases" in text
    assert "and 4 cases like these" in text
    assert text.count("<article") == GROUPS


def test_the_smallest_case_is_shown_in_place_of_the_first() -> None:
    first, small = result("differs", seed=111), result("differs", seed=222)
    text = to_html(report(first), smaller={first.case: small})
    assert "Smallest case" in text
    assert "manual_seed(222)" in text
    assert "manual_seed(111)" not in text


def written(text: str, folder: Path) -> Path:
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    return path


@browser.needs_browser
def test_a_browser_shows_table_and_plots_and_asks_for_nothing(text: str, tmp_path: Path) -> None:
    seen = browser.visit(written(text, tmp_path), tmp_path)
    assert seen.console == ()
    assert seen.requests == ()
    assert rows(seen.dom) == rows(text)
    assert seen.dom.count("<svg") == seen.dom.count("</svg>") == 2
    assert seen.dom.count("<article") == text.count("<article")


@browser.needs_browser
def test_a_page_that_asks_for_something_would_be_noticed(tmp_path: Path) -> None:
    loading = '<img src="http://example.invalid/x.png"><script>console.error("wrong")</script>'
    seen = browser.visit(written(f"<!DOCTYPE html>{loading}", tmp_path), tmp_path)
    assert seen.requests == ("http://example.invalid/x.png",)
    assert "wrong" in seen.console[0]


@browser.needs_browser
def test_the_page_forbids_what_it_does_not_need(text: str, tmp_path: Path) -> None:
    loading = '<img src="http://example.invalid/x.png"><script>console.error("wrong")</script>'
    seen = browser.visit(written(text.replace("<main>", f"<main>{loading}"), tmp_path), tmp_path)
    assert seen.requests == ()
    assert all("Content Security Policy" in line for line in seen.console)
    assert len(seen.console) == 2


@browser.needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_plots_are_painted(scheme: str, text: str, tmp_path: Path) -> None:
    """Of the page reduced to a plot; the picture has to have its colours and its background."""
    drawn = re.findall(r"<svg.*?</svg>", text, re.DOTALL)[0]
    shown = f"<body><figure>{drawn}</figure></body>"
    only = re.sub(r"<body>.*</body>", lambda _: shown, text, flags=re.DOTALL)
    options = [f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"]
    path = browser.screenshot(written(only, tmp_path), tmp_path, *options, size=(900, 600))
    pixels = matplotlib.image.imread(path)[..., :3]
    corner = pixels[-1, -1]
    assert corner.mean() > 0.9 if scheme == "light" else corner.mean() < 0.2
    painted = np.abs(pixels - corner).max(-1) > 0.1
    assert painted.mean() > 0.01
    colours = {"light": (212, 72, 15), "dark": (255, 126, 74)}
    assert (np.abs(pixels * 255 - colours[scheme]).max(-1) < 8).sum() > 20  # failing cases


MEASURING = """<!DOCTYPE html><body>
<iframe src="page.html" style="width: {width}px; height: 900px; border: 0"></iframe>
<p id="told"></p><script>onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  const wide = [...page.querySelectorAll("body *")].filter(one => !one.closest(".scroll, pre"));
  const beyond = wide.filter(one => one.getBoundingClientRect().right > {width});
  document.querySelector("#told").textContent = "width " + page.documentElement.scrollWidth +
    ", beyond " + beyond.map(one => one.tagName + "." + one.className).join(" ") + ";";
}}</script>"""


@browser.needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(width: int, text: str, tmp_path: Path) -> None:
    """Only tables and programs are, which scroll by themselves."""
    written(text, tmp_path)
    frame = tmp_path / "frame.html"
    frame.write_text(MEASURING.format(width=width), encoding="utf-8")
    seen = browser.visit(frame, tmp_path, "--allow-file-access-from-files")
    assert f"width {width}, beyond ;" in seen.dom
