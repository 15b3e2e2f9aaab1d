"""The gallery's examples run, are accelerated, and gain what their pages say; small ones here."""

from __future__ import annotations

import importlib
import json
import re
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from checkout import EXAMPLES, ROOT
from cli_process import RUN, python
from needs import needs_mlx

pytest.importorskip("matplotlib", reason="the examples draw pictures")

GALLERY = ROOT / "docs" / "gallery"
EXAMPLE_NAMES = ("separation", "denoising", "training_loss", "streaming", "corpus")


@pytest.fixture
def _examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules of the examples' folder can be imported."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine, threads that wait for each other take seconds
    yield
    torch.set_num_threads(threads)
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    """Run an example in this process."""
    given = [f"{name}.py", "--output", str(folder), "--backend", "cpu", *options]
    monkeypatch.setattr(sys, "argv", given)
    importlib.import_module(name).main()


def read_numbers(label: str, printed: str) -> list[float]:
    """Read the numbers of a line that an example printed."""
    (line,) = (line for line in printed.splitlines() if line.startswith(f"{label}:"))
    return [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e-\d+)?", line)]


def read_labels(printed: str) -> list[str]:
    """Read what the lines are about."""
    lines = printed.strip().splitlines()
    return [line.partition(":")[0] for line in lines if not line.startswith("wrote ")]


def read_outputs(name: str) -> list[str]:
    """Read what the page of an example shows of its commands' outputs."""
    page = (GALLERY / f"{name.replace('_', '-')}.md").read_text(encoding="utf-8")
    return [output.strip() for output in re.findall(r"(?ms)^```console\n\$ .*?\n(.*?)^```$", page)]


def check_files(folder: Path, sounds: int) -> None:
    """Every sound can be heard, and there is a picture."""
    assert list(folder.glob("*.png"))
    found = list(folder.glob("*.wav"))
    assert len(found) == sounds
    for path in found:
        with wave.open(str(path)) as file:
            samples = torch.frombuffer(
                bytearray(file.readframes(file.getnframes())), dtype=torch.int16
            )
        # Neither silent nor clipped.
        assert 1_000 < int(samples.abs().max()) < 32_767, path.name


@pytest.mark.parametrize(
    ("name", "label", "gain", "sounds"),
    [("separation", "voice", 6.0, 3), ("denoising", "signal", 6.0, 2)],
)
@pytest.mark.usefixtures("_examples")
def test_what_is_cleaned_is_closer_to_the_truth(
    name: str,
    label: str,
    gain: float,
    sounds: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(name, tmp_path, monkeypatch, "--seconds", "4")
    printed = capsys.readouterr().out
    before, after = read_numbers(label, printed)
    assert after > before + gain
    assert "computed by:  istft cpu (1), stft cpu (1)" in printed
    assert read_numbers("difference", printed)[0] < 1e-6
    assert read_labels(printed) == read_labels(*read_outputs(name))
    check_files(tmp_path, sounds)


@pytest.mark.usefixtures("_examples")
def test_the_bell_is_learned_alike_by_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("training_loss", tmp_path, monkeypatch, "--seconds", "0.25", "--steps", "20")
    printed = capsys.readouterr().out
    first, last = read_numbers("loss", printed)
    assert last < 0.5 * first
    assert "computed by:  stft cpu (120)" in printed
    assert read_numbers("difference", printed)[0] < 1e-2
    assert read_labels(printed) == read_labels(*read_outputs("training_loss"))
    check_files(tmp_path, 3)


@needs_mlx
@pytest.mark.usefixtures("_examples")
def test_streams_give_what_the_whole_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import streaming

    monkeypatch.setattr(streaming, "BLOCK", 100 * streaming.HOP)
    run("streaming", tmp_path, monkeypatch, "--seconds", "4")
    printed = capsys.readouterr().out
    assert read_numbers("in blocks", printed)[0] < 1e-6
    assert read_numbers("live", printed)[0] < 1e-6
    assert read_labels(printed) == read_labels(*read_outputs("streaming"))
    check_files(tmp_path, 2)


def test_workers_of_the_corpus_are_accelerated(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ("--clips", "2", "--workers", "1", "--seconds", "2", "--output", str(tmp_path))
    found = python(
        *RUN, "--children", "--backend", "cpu", "--stats-file", str(report),
        str(EXAMPLES / "corpus.py"), *options, cwd=tmp_path,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    alone, accelerated = read_outputs("corpus")
    assert re.sub(r"\d+", "N", alone) == re.sub(r"\d+", "N", found.stdout.splitlines()[0])
    assert "torch_mlx_spectro: " in accelerated
    assert "2 clips of 2 s" in found.stdout
    calls = json.loads(report.read_text())["calls"]
    assert calls == {"stft/cpu": 4, "istft/cpu": 2}
    assert (tmp_path / "corpus.png").exists()


def test_pages_show_what_is_there_and_small() -> None:
    pages = {page.stem: page.read_text(encoding="utf-8") for page in GALLERY.glob("*.md")}
    assert pages.keys() == {"index", *(name.replace("_", "-") for name in EXAMPLE_NAMES)}
    files = [file for file in GALLERY.iterdir() if file.suffix != ".md"]
    for name in EXAMPLE_NAMES:
        assert f'--8<-- "examples/{name}.py"' in pages[name.replace("_", "-")]
    shown = {
        name
        for text in pages.values()
        for name in re.findall(r'(?:\(|src=")([\w-]+\.(?:png|flac))', text)
    }
    assert shown == {file.name for file in files}
    for file in files:
        assert file.stat().st_size < {".png": 100_000, ".flac": 150_000}[file.suffix], file.name
