"""What people read of statistics: in a session, printed at 80 columns, and in a notebook."""

from __future__ import annotations

import html.parser
import os
import site
from pathlib import Path, PurePath, PurePosixPath

import pytest
import torch

import torch_mlx_spectro as tms
from torch_mlx_spectro import Stats
from torch_mlx_spectro.dispatch.snapshot import Estimate, shorten

REASON = "input is a <b>float16</b> tensor & this reason is so long that a line has no room for it"
INSTALLED = "/opt/venv/lib/python3.12/site-packages/separator/architectures/layers.py:1041"
STATS = Stats(
    accelerated=1200,
    native=34,
    calls={("stft", "cpu"): 700, ("istft", "cpu"): 500, ("stft", "native"): 34},
    fallbacks={REASON: 34},
    choices={"auto: being measured": 6},
    sites={INSTALLED: {"accelerated": 1200, "native": 34}},
    verified=3,
    estimated={("stft", "cpu"): Estimate(690, 0.5, 1.25), ("istft", "cpu"): Estimate(480, 4, 75)},
    left=("program.native",),
)
NONE = Stats(0, 0, {}, {}, {})


class Page(html.parser.HTMLParser):
    """The texts and the tags of a page, of which each is closed again."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_session_shows_a_few_lines() -> None:
    assert repr(STATS) == (
        "<Stats: 1200 calls accelerated, 34 native\n"
        "  torch.istft: 500 cpu\n"
        "  torch.stft: 700 cpu, 34 native\n"
        "  estimated for 1170 of 1234 calls: 4.5 s spent, 76.2 s saved\n"
        "  print() it for 2 reasons and the names left to torch>"
    )
    assert repr(NONE) == "<Stats: 0 calls accelerated, 0 native>"


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_what_is_printed_fits_and_is_whole(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = str(STATS)
    assert max(map(len, text.splitlines())) <= columns
    assert "mappingproxy" not in text + str(tms.stats()) + repr(tms.stats())
    words = " ".join(text.split())
    assert "34 native" in words
    assert "torch.istft cpu 500 4 s 75 s" in words
    assert "program.native" in words
    assert set(REASON.split()) <= set(words.split())
    assert " ".join(str(NONE).split()).endswith("nor torch.istft was called while patched.")


def test_a_notebook_shows_tables_whose_texts_are_escaped() -> None:
    page = Page(STATS._repr_html_())
    assert page.tags.count("table") == 4
    assert page.tags.count("b") == 1
    assert {REASON, "separator/architectures/layers.py:1041", "76.2 s"} - set(page.texts) == {
        "76.2 s"
    }
    assert Page(NONE._repr_html_()).tags.count("table") == 0


def test_paths_are_shortened_to_what_a_reader_knows(tmp_path: Path) -> None:
    here = PurePath(tmp_path)
    assert shorten(f"{tmp_path / 'a' / 'b.py'}:3", here) == f"{PurePath('a', 'b.py')}:3"
    other = f"{tmp_path.parent / 'c.py'}:3"
    assert shorten(other, here) == other
    assert shorten(other, None) == other
    packages = PurePath(site.getsitepackages()[0])
    assert shorten(f"{packages / 'x' / 'y.py'}:12", here) == f"{PurePath('x', 'y.py')}:12"
    # Also where the environment lies in the folder of the program.
    assert shorten(f"{packages / 'x.py'}:12", packages.parent) == "x.py:12"
    for name in ("(other call sites)", "<stdin>:1", "<ipython-input-1-0f>:2"):
        assert shorten(name, here) == name


def test_in_a_deleted_folder_paths_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanish() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", vanish)
    monkeypatch.setenv("COLUMNS", "200")
    path = PurePosixPath("/somewhere/program.py")
    sites = {f"{path}:1": {"accelerated": 1, "native": 0}}
    assert f"{path}:1" in str(Stats(1, 0, {("stft", "cpu"): 1}, {}, sites))


def test_the_snapshot_says_which_names_are_left() -> None:
    name = f"{__name__}.native"
    globals()["native"] = torch.stft
    try:
        assert tms.stats().left == ()
        with tms.patch("cpu"):
            stats = tms.stats()
        assert name in stats.left
        assert name in stats.as_dict()["left"]
        assert name in str(stats).replace("\n", "")
    finally:
        del globals()["native"]
