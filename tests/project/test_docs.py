"""What the pages say can be run; what they say of Apple hardware is marked as not measured."""

from __future__ import annotations

import contextlib
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT
from code_blocks import find_blocks

import torch_mlx_spectro as tms
from torch_mlx_spectro.cli import main as cli

ON_A_MAC = ROOT / "docs" / "on-a-mac.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: Put behind each statement on Apple hardware that nobody has put to the test.
MARKER = re.compile(r"\*\(designed for, unmeasured: `([^`]+)`\)\*")
APPLE = re.compile(r"\b(?:Apple|Macs?|MPS|MacBook|M[1-9](?: (?:Pro|Max|Ultra))?)\b")
#: What a page on other machines says; it is no claim.
DISCLAIMER = re.compile(r"Nothing[^.]*\b(?:measured|run) on Apple hardware")
#: A number with a unit of speed. Versions, sizes and bits have none.
SPEED = re.compile(
    r"\b\d[\d.,]*\s?(?:x|times (?:faster|slower|as fast)|ms|us|µs|ns|[GT]B/s|[GT]FLOPS|GHz)\b"
    r"|\b\d[\d.,]*\s?% (?:faster|slower|of the bandwidth)"
)


def name_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


def statements(text: str) -> Iterator[str]:
    """Paragraphs, items of lists and rows of tables, each as one line; no code."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for block in re.split(r"\n\s*\n", text):
        for part in re.split(r"\n(?=\s*(?:[-*] |\||\d+\. ))", block):
            if part.strip():
                yield " ".join(part.split())


def unmarked(text: str) -> list[str]:
    """Statements on the speed of Apple hardware that look like measurements."""
    return [
        statement
        for statement in statements(text)
        if APPLE.search(DISCLAIMER.sub("", statement))
        and SPEED.search(statement)
        and not MARKER.search(statement)
    ]


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_no_page_has_a_number_of_apple_hardware_without_the_marker(page: Path):
    assert unmarked(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("On an M2 Pro it is 3x as fast.", True),
        ("| MPS | 0.2 ms |", True),
        ("A Mac needs 12% faster memory.", True),
        ("On MPS it is\nabout 2.5 times faster.", True),
        ("On MPS it is 3x *(designed for, unmeasured: `torch-mlx-spectro bench`)*.", False),
        ("On an H100 it is 3x. Nothing was run on Apple hardware.", False),
        ("On an H100 it is 3x. A Mac is slower.", True),
        ("- On an H100: 3x.\n- On a Mac: unknown.", False),
        ("macOS 14 on a Mac, MLX 0.32.4, MPS since 2.12, M1", False),
        ("```\nMPS 3x\n```", False),
    ],
)
def test_numbers_are_told_from_other_text(text: str, found: bool):
    assert bool(unmarked(text)) is found


def marked() -> list[str]:
    return [
        command
        for page in PAGES
        for command in MARKER.findall(" ".join(page.read_text(encoding="utf-8").split()))
    ]


def test_every_marker_has_a_command_that_measures():
    assert len(marked()) >= 10
    for command in marked():
        program, *arguments = shlex.split(command)
        if command == "command":  # where the marker is explained
            continue
        assert program == "torch-mlx-spectro"
        assert arguments[0] in {"bench", "parity", "doctor", "run"}


def test_the_page_on_macs_marks_what_it_promises():
    text = ON_A_MAC.read_text(encoding="utf-8")
    assert "Nothing of this package was run on a Mac" in text
    promises = [
        statement
        for statement in statements(text)
        if re.search(r"\b(?:faster than|in one launch|nothing waits|without a hop)\b", statement)
    ]
    assert promises
    assert [statement for statement in promises if not MARKER.search(statement)] == []


def test_the_program_of_the_page_on_macs_runs(capsys):
    (program,) = re.findall(
        r"^```python\n(.*?)^```", ON_A_MAC.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    try:
        exec(program, {})
        assert sum(tms.stats().calls.values()) == 2
    finally:
        tms.unpatch()
    assert "Route(op='stft'" in capsys.readouterr().out


def our_commands(text: str) -> Iterator[str]:
    """The command lines of ours in a page, from blocks of shell and from backticks in its text."""
    for block in find_blocks(text):
        for line in block.text.replace("\\\n", " ").splitlines():
            command = line.removeprefix("$ ")
            if block.language in ("sh", "console") and command.startswith("torch-mlx-spectro "):
                yield command
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`(torch-mlx-spectro [^`]+)`", " ".join(prose.split()))


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_every_command_of_a_page_is_one(page: Path):
    for line in our_commands(page.read_text(encoding="utf-8")):
        _, name, *arguments = shlex.split(line, comments=True)
        if name == "run":
            arguments, _ = cli.run.split_arguments(arguments)
        try:
            with contextlib.redirect_stderr(None):
                cli.build_parser().parse_args([name, *arguments])
        except SystemExit:
            pytest.fail(f"{name_page(page)}: {line}")


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_every_link_to_a_file_leads_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]+)?\)", text):
        assert (page.parent / target).exists(), target
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for anchor in re.findall(r"\]\(#([\w-]+)\)", text):
        assert anchor in anchors


def test_the_picture_of_speed_shows_the_numbers_of_its_page():
    drawing = runpy.run_path(str(ROOT / "docs" / "assets" / "draw_speed.py"))
    rows, where = drawing["read_page"]((ROOT / "docs" / "measured.md").read_text(encoding="utf-8"))
    assert len(rows) == 16
    picture = (ROOT / "docs" / "assets" / "speed.svg").read_text(encoding="utf-8")
    assert drawing["draw"](rows, where) == picture
