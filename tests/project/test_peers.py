"""The runner of mlx-spectro's tests, on a source distribution of three tests."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from checkout import ROOT
from cli_process import python
from needs import needs_emulator

RUNNER = ROOT / "tests" / "peers" / "run_peers.py"
PACKAGE = """\
import mlx.core as mx

kernel = mx.fast.metal_kernel(
    name="double", input_names=["x"], output_names=["y"],
    source="uint i = thread_position_in_grid.x; y[i] = 2.0f * x[i];",
)

def double(x):
    return kernel(
        inputs=[x], grid=(x.size, 1, 1), threadgroup=(8, 1, 1),
        output_shapes=[x.shape], output_dtypes=[x.dtype],
    )[0]
"""
TESTS = """\
import mlx.core as mx
import pytest
from peer import double

def test_compiled():
    compiled = mx.compile(lambda x: double(x + 1) * 2)
    assert compiled(mx.ones(16)).tolist() == [8.0] * 16

def test_wrong():
    assert double(mx.ones(16)).tolist() == [3.0] * 16

def test_lacks():
    pytest.importorskip("torchaudio_of_nobody")
"""
KNOWN = '[[known]]\ntest = "tests/test_peer.py::test_wrong"\nreason = "it is wrong"\n'


@pytest.fixture
def sdist(tmp_path: Path) -> Path:
    return pack(tmp_path, TESTS)


def pack(folder: Path, tests: str) -> Path:
    path = folder / "peer-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in (("src/peer.py", PACKAGE), ("tests/test_peer.py", tests)):
            member = tarfile.TarInfo(f"peer-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def run(
    sdist: Path, known: str, *arguments: str, least: int = 1
) -> subprocess.CompletedProcess[str]:
    listed = sdist.parent / "known.toml"
    listed.write_text(known)
    given = ("--known", str(listed), "--least", str(least), *arguments)
    return python(str(RUNNER), str(sdist), *given, cwd=sdist.parent)


@needs_emulator
def test_listed_failures_are_allowed_and_the_summary_tells_what_was_compiled(sdist: Path) -> None:
    done = run(sdist, KNOWN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests: 1 passed, 1 known, 1 skipped" in done.stdout
    assert "mx.compile: 1 functions with 1 kernels were compiled, 1 in all" in done.stdout
    assert "2 launches of" in done.stdout
    assert not list(sdist.parent.glob("peer-1.0"))  # unpacked elsewhere, and gone


@needs_emulator
@pytest.mark.parametrize(
    ("known", "least", "says"),
    [
        ("", 1, "FAILED tests/test_peer.py::test_wrong"),
        (KNOWN.replace("test_wrong", "test_compiled"), 0, "[XPASS(strict)] it is wrong"),
        (KNOWN + KNOWN.replace("test_wrong", "test_gone"), 1, "test_gone' fits no collected test"),
        (KNOWN, 2, "fewer than 2 tests passed"),
    ],
)
def test_anything_else_fails(sdist: Path, known: str, least: int, says: str) -> None:
    done = run(sdist, known, least=least)
    assert done.returncode == 1
    assert says in done.stdout


@needs_emulator
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "mx.compile(lambda x: double(x + 1) * 2)",
            "lambda x: double(x + 1) * 2",
            "MLX compiled no",
        ),
        ("torchaudio_of_nobody", "nothing_of_nobody", "is skipped"),
    ],
)
def test_what_shows_nothing_fails(tmp_path: Path, old: str, new: str, says: str) -> None:
    done = run(pack(tmp_path, TESTS.replace(old, new)), KNOWN)
    assert done.returncode == 1
    assert f"ERROR {says}" in done.stdout or says in done.stdout


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    done = run(tmp_path / "none.tar.gz", "")
    assert done.returncode == 2
    assert "none.tar.gz is not a file" in done.stderr
