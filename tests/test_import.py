"""Importing the package does nothing but define names, with MLX and without it."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest
import torch
from cli_process import python

import torch_mlx_spectro as tms
from torch_mlx_spectro.native import private_state

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
import sys, warnings, torch, torch_mlx_spectro as tms
signal, window = torch.randn(200), torch.hann_window(16)
expected = torch.stft(signal, 16, window=window, return_complex=True)
with warnings.catch_warnings(record=True) as given:
    warnings.simplefilter("always")
    tms.patch(backend="mlx")
(warning,) = given
assert "patch('mlx'): mlx cannot be imported: there is no mlx" in str(warning.message)
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
    program = "import torch, torch_mlx_spectro.functional"
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


def test_importing_loads_no_torch_and_names_load_what_they_need(tmp_path: Path) -> None:
    program = """\
import sys
import torch_mlx_spectro as tms
assert not {"torch", "numpy", "mlx"} & set(sys.modules)
assert tms.SpectralTransform.__module__ == "torch_mlx_spectro.mlx_api.transform"
assert "torch" not in sys.modules
tms.stft
assert "torch" in sys.modules
"""
    finished = python("-W", "error", "-c", program, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr


def test_the_public_names_are_those_listed() -> None:
    public = {name for name in dir(tms) if not name.startswith("_")}
    modules = {name for name in public if inspect.ismodule(getattr(tms, name))}
    assert sorted(tms.__all__) == sorted(public - modules)
    assert len(tms.__all__) == len(set(tms.__all__))
    assert tms.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="has no attribute 'stfft'"):
        _ = tms.stfft


def test_type_checkers_and_programs_see_the_same_names() -> None:
    """The package says twice where a name lives: once for type checkers, once for programs."""
    tree = ast.parse(Path(tms.__file__).read_text())
    (branch,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: f"torch_mlx_spectro.{node.module}"
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(tms.__all__)
    for name, home in seen.items():
        assert getattr(importlib.import_module(home), name) is getattr(tms, name)


def test_patching_does_not_import_torchs_compiler(tmp_path):
    lines = (
        "import sys, torch, torch_mlx_spectro as tms",
        "tms.patch(); torch.stft(torch.ones(64), 16, window=torch.ones(16), return_complex=True)",
        "assert tms.stats().native + tms.stats().accelerated == 1",
        "sys.exit('torch._dynamo' in sys.modules)",
    )
    result = python("-c", "\n".join(lines), cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_computing_does_not_import_torchs_compiler(tmp_path):
    lines = (
        "import sys, torch, torch_mlx_spectro as tms",
        "signal, window = torch.ones(2, 64).requires_grad_(), torch.ones(16)",
        "with tms.patch('cpu', strict=True):",
        "    spectrum = torch.stft(signal, 16, window=window, return_complex=True)",
        "    torch.istft(spectrum, 16, window=window).sum().backward()",
        "assert tms.stats().accelerated == 2",
        "sys.exit('torch._dynamo' in sys.modules)",
    )
    result = python("-c", "\n".join(lines), cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_constants_of_compiled_programs_are_marked_as_torch_marks_them():
    ours = private_state.mark_constant(lambda: None)
    torchs = torch.compiler.assume_constant_result(lambda: None)
    assert vars(ours) == vars(torchs) != {}
