"""Values show themselves in a session and in notebooks: short, whole, and in words of users."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import mlx.core as mx
import pytest
import torch
from browser import needs_browser, visit

import torch_mlx_spectro as tms
from torch_mlx_spectro.terminal import WIDTH, Rows, Shown, fold, show_seconds, write_html

WINDOW = torch.hann_window(64)
MEL = {"n_fft": 512, "hop_length": 160, "n_mels": 64}
VALUES = {
    "a transform": (
        lambda: tms.SpectralTransform(1024, 256),
        "SpectralTransform(n_fft=1024, hop_length=256, win_length=1024, window_fn='hann')",
    ),
    "its own window": (
        lambda: tms.SpectralTransform(512, window=mx.ones(512), pad_mode="constant"),
        "SpectralTransform(n_fft=512, hop_length=128, win_length=512,\n"
        "    window=<512 values>, pad_mode='constant')",
    ),
    "a window with a parameter": (
        lambda: tms.SpectralTransform(512, window_fn=("kaiser", 14.0), center=False),
        "SpectralTransform(n_fft=512, hop_length=128, win_length=512,\n"
        "    window_fn=('kaiser', 14.0), center=False)",
    ),
    "a spectrogram": (
        lambda: tms.Spectrogram(512, power=None, pad=3, normalized=True),
        "Spectrogram(n_fft=512, hop_length=256, win_length=512, window_fn='hann',\n"
        "    power=None, pad=3, normalized=True)",
    ),
    "mel coefficients": (
        lambda: tms.MFCC(melkwargs=MEL),
        "MFCC(n_mfcc=40, norm='ortho', log_mels=False,\n"
        "    mel=MelSpectrogram(sample_rate=16000, n_fft=512, hop_length=160,\n"
        "    win_length=512, window_fn='hann', power=2.0, n_mels=64, f_min=0.0,\n"
        "    f_max=8000.0, norm=None, mel_scale='htk'))",
    ),
    "a signal of a spectrogram": (
        lambda: tms.GriffinLim(512, momentum=0.5),
        "GriffinLim(n_fft=512, hop_length=256, win_length=512, window_fn='hann',\n"
        "    n_iter=32, power=2.0, momentum=0.5, length=None, rand_init=True)",
    ),
    "a route": (
        lambda: tms.Route("stft", "native", "torch", ("a first reason that is long", "x" * 30)),
        "Route(op='stft', backend='native', kernel='torch',\n"
        "    reasons=('a first reason that is long', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'))",
    ),
    "a short route": (
        lambda: tms.Route("stft", "cpu", "torch operations"),
        "Route(op='stft', backend='cpu', kernel='torch operations', reasons=())",
    ),
}


def read_texts(page: str) -> list[str]:
    texts: list[str] = []
    parser = HTMLParser()
    parser.handle_data = texts.append  # type: ignore[method-assign]
    parser.feed(page)
    return [text for text in texts if text.strip()]


@pytest.mark.parametrize("name", VALUES)
def test_a_value_shows_what_it_was_made_with(name: str) -> None:
    make, expected = VALUES[name]
    value: Any = make()
    assert repr(value) == expected
    texts = read_texts(value._repr_html_())
    assert texts[0] == type(value).__name__
    # The table has the same names in the same order.
    assert texts[1::2] == list(value._list_shown())


def test_a_patch_shows_its_state_and_what_it_left() -> None:
    with tms.patch("cpu", strict=True, verify=3) as patch:
        assert "<torch_mlx_spectro.patch('cpu', strict=True, verify=3): in force" in repr(patch)
        assert max(map(len, repr(patch).splitlines())) <= WIDTH
        texts = read_texts(patch._repr_html_())
        assert texts[0] == "torch_mlx_spectro.patch('cpu', strict=True, verify=3)"
        assert texts[1:4] == ["state", "in force", "left to torch"]
    assert read_texts(patch._repr_html_())[1:] == ["state", "ended", "left to torch", "none"]


def test_lines_end_between_pieces_alone() -> None:
    assert fold(["a" * 40, "b" * 39, "c"]) == f"{'a' * 40} {'b' * 39}\n    c"
    assert fold(["a", "b" * 200, "c"]) == f"a\n    {'b' * 200}\n    c"


def test_all_text_is_escaped() -> None:
    class Odd(Shown):
        def _list_shown(self) -> dict[str, object]:
            return {"<i>": "<b>&", "two": ("<u>", "y")}

    found = Odd()._repr_html_()
    assert read_texts(found) == ["Odd", "<i>", "<b>&", "two", "<u>; y"]
    assert "<i>" not in found
    assert "<u>" not in found


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0 s"),
        (2e-9, "2 ns"),
        (2.5e-5, "25 µs"),
        (0.00123, "1.23 ms"),
        (1.5, "1.5 s"),
        (599.4, "599 s"),
        (7200.0, "120 min"),
    ],
)
def test_seconds_have_a_unit_that_people_read(seconds: float, shown: str) -> None:
    assert show_seconds(seconds) == shown


@needs_browser
def test_a_browser_reads_the_tables_as_they_are(tmp_path: Any) -> None:
    rows = [("a <script>alert(1)</script>", "3")]
    page = tmp_path / "page.html"
    page.write_text(write_html(["<title>"], [Rows(("what",), ("how many",), rows)]))
    seen = visit(page, tmp_path)
    assert "&lt;script&gt;alert(1)" in seen.dom
    assert not seen.console
    assert not seen.requests
