"""Importing the package does nothing but define names, with MLX and without it."""

from __future__ import annotations

import inspect
from pathlib import Path

from cli_process import python

import torch_mlx_spectro as tms

IMPORT = """\
import sys, threading, torch
before = threading.active_count()
open_files = []
sys.addaudithook(lambda event, args: open_files.append(args) if event == "open" else None)
import torch_mlx_spectro
sys.stdout.write("".join(
    f"{name}\\n" for name in sys.modules if name.partition(".")[0] in ("mlx", "rich", "matplotlib")
))
assert threading.active_count() == before, "a thread was started"
# Python's own reading of modules aside.
data = [name for name, *_ in open_files if not str(name).endswith((".py", ".pyc"))
        and ".pyc." not in str(name)]
assert data == [], data
assert torch.stft.__module__ == "torch.functional" and not torch_mlx_spectro.is_patched()
"""

#: Makes every import of MLX fail as it does where it is missing.
WITHOUT_MLX = """\
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mlx":
            raise ImportError("there is no mlx on this machine")

sys.meta_path.insert(0, Blocker())
"""

NATIVE_ONLY = """\
import sys, torch, torch_mlx_spectro as tms
signal, window = torch.randn(200), torch.hann_window(16)
expected = torch.stft(signal, 16, window=window, return_complex=True)
tms.patch(backend="mlx")
actual = torch.stft(signal, 16, window=window, return_complex=True)
torch.istft(actual, 16, window=window)
assert torch.equal(actual, expected)
stats = tms.stats()
assert (stats.accelerated, stats.native) == (0, 2), stats
(reason,) = stats.fallbacks
assert "there is no mlx on this machine" in reason, reason
mlx = tms.available_backends()["mlx"]
assert not mlx.available and mlx.reason == reason
assert tms.available_backends()["native"].available
assert tms.explain(torch.stft, signal, 16, window=window, return_complex=True).reasons == (reason,)
tms.patch(backend="mlx", strict=True)
try:
    torch.stft(signal, 16, window=window, return_complex=True)
except tms.NotAccelerated as refused:
    assert refused.reasons == (reason,)
else:
    raise AssertionError("strict mode fell back")
tms.unpatch()
assert not any(name.partition(".")[0] == "mlx" for name in sys.modules)
"""


def test_importing_loads_no_mlx_starts_no_thread_reads_no_file_prints_nothing(
    tmp_path: Path,
) -> None:
    finished = python("-W", "error", "-c", IMPORT, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == ""
    assert finished.stderr == ""


def test_the_time_of_imports_can_be_measured_and_mlx_takes_none(tmp_path: Path) -> None:
    program = "import torch, torch_mlx_spectro"
    finished = python("-W", "error", "-X", "importtime", "-c", program, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == ""
    imported = {line.rpartition("|")[2].strip() for line in finished.stderr.splitlines()}
    assert "torch_mlx_spectro.functional" in imported
    assert not {name for name in imported if name.partition(".")[0] == "mlx"}


def test_without_mlx_everything_is_native_and_says_why(tmp_path: Path) -> None:
    finished = python("-W", "error", "-c", WITHOUT_MLX + NATIVE_ONLY, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == ""


def test_the_public_names_are_those_listed() -> None:
    public = {
        name
        for name, value in vars(tms).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    # The annotations import is Python's, not ours.
    public.discard("annotations")
    assert sorted(tms.__all__) == sorted(public)
    assert tms.__all__ == sorted(tms.__all__)
    assert tms.__version__.count(".") == 2
