"""``run --children``: processes that a program starts are patched, and counted in one report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from checkout import EXAMPLES
from cli_process import CLI, RUN, python

TRANSFORM = """\
import torch

def transform(size):
    window = torch.hann_window(64)
    spectrum = torch.stft(torch.ones(size), 64, window=window, return_complex=True)
    return torch.istft(spectrum, 64, window=window).numel()
"""
#: Its argument is how processes are started. Pools end their workers by a signal.
POOL = """\
import multiprocessing, sys, task

if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        print(sum(pool.map(task.transform, [640] * 6, chunksize=1)))
    assert len(multiprocessing.active_children()) == 0
"""
LOADER = """\
import sys, task, torch

class Examples(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return task.transform(640)

if __name__ == "__main__":
    loader = torch.utils.data.DataLoader(
        Examples(), batch_size=2, num_workers=2, multiprocessing_context=sys.argv[1]
    )
    print(sum(int(batch.sum()) for batch in loader))
"""
#: The barrier is for torch: a thread of gloo lets go of the tensor, for which it takes Python's
#: lock, and aborts the process if Python has ended by then.
RANKS = """\
import task, torch
import torch.distributed as dist

dist.init_process_group("gloo")
total = torch.tensor(task.transform(640 * (1 + dist.get_rank())))
dist.all_reduce(total)
assert total == 3 * 640
dist.barrier()
dist.destroy_process_group()
"""
KILLED = """\
import os, signal, subprocess, sys

CHILD = "import os, signal, task; task.transform(640); os.kill(os.getpid(), signal.SIGKILL)"
assert subprocess.run([sys.executable, "-c", CHILD]).returncode == -signal.SIGKILL
"""
STARTS = [
    pytest.param(start, marks=pytest.mark.skipif(os.name == "nt", reason="no fork on this system"))
    if start != "spawn"
    else start
    for start in ("spawn", "fork")
]
#: Bare "cpu" backend calls: every one is accelerated, whatever its size.
CHILDREN = (*RUN, "--children", "--json", "--backend", "cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {"task.py": TRANSFORM, "pool.py": POOL, "loader.py": LOADER, "ranks.py": RANKS}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def report(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Read the one line of JSON among what a program has written to stderr."""
    assert result.returncode == 0, result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("{"))
    content: dict[str, Any] = json.loads(line)
    return content


@pytest.mark.parametrize("start", STARTS)
def test_workers_of_a_pool_are_patched_and_counted(folder: Path, start: str) -> None:
    result = python(*CHILDREN, "pool.py", start, cwd=folder)
    told = report(result)
    assert result.stdout == f"{6 * 640}\n"
    assert (told["accelerated"], told["native"]) == (12, 0)
    assert told["calls"] == {"stft/cpu": 6, "istft/cpu": 6}
    assert sum(child["accelerated"] for child in told["children"]) == 12
    assert all("PoolWorker-" in child["name"] for child in told["children"])


def test_workers_of_a_loader_are_patched_and_counted(folder: Path) -> None:
    result = python(*CHILDREN, "loader.py", "spawn", cwd=folder)
    told = report(result)
    assert result.stdout == f"{8 * 640}\n"
    assert (told["accelerated"], told["native"]) == (16, 0)
    assert sorted(child["accelerated"] for child in told["children"]) == [8, 8]


def test_ranks_of_torchrun_are_patched_and_counted(folder: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    told = report(python(*CHILDREN, *launcher, "ranks.py", cwd=folder))
    assert [child["name"] for child in told["children"]] == ["ranks.py, rank 0", "ranks.py, rank 1"]
    assert [child["accelerated"] for child in told["children"]] == [2, 2]
    assert told["native"] == 0


def test_the_example_of_a_corpus_is_accelerated_in_every_worker(folder: Path) -> None:
    pytest.importorskip("distributed")
    example = str(EXAMPLES / "corpus_dask.py")
    result = python(*CHILDREN, example, "--clips", "6", cwd=folder)
    told = report(result)
    assert result.stdout.startswith("6 clips, ")
    assert (told["calls"], told["native"]) == ({"stft/cpu": 6, "istft/cpu": 6}, 0)
    assert {child["accelerated"] > 0 for child in told["children"]} == {True}


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on this system")
def test_calls_of_a_killed_process_are_counted(folder: Path) -> None:
    told = report(python(*CHILDREN, "-c", KILLED, cwd=folder))
    assert [child["accelerated"] for child in told["children"]] == [2]


def test_a_child_of_a_child_is_patched(folder: Path) -> None:
    inner = (
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, 'pool.py', 'spawn']))"
    )
    told = report(python(*CHILDREN, "-c", inner, cwd=folder))
    assert told["accelerated"] == 12


def test_without_the_option_children_are_as_they_were(folder: Path) -> None:
    told = report(python(*RUN, "--json", "--backend", "cpu", "pool.py", "spawn", cwd=folder))
    assert (told["accelerated"], told["native"], told["children"]) == (0, 0, [])


def test_the_report_shows_the_processes(folder: Path) -> None:
    arguments = (*RUN, "--children", "--stats", "--backend", "cpu", "pool.py", "spawn")
    lines = [line.split() for line in python(*arguments, cwd=folder).stderr.splitlines()]
    assert lines[0][1:] == ["12", "calls", "accelerated,", "0", "native"]
    assert any(line[:1] == ["pool.py"] and line[2:] == ["0", "0"] for line in lines)
    # One worker may have done all parts before the other had started.
    assert any(line[:1] in (["SpawnPoolWorker-1"], ["SpawnPoolWorker-2"]) for line in lines)


def variables(folder: Path, *options: str) -> dict[str, str]:
    """Return what ``--environment`` prints, read by a shell."""
    printed = python(*RUN, "--children", "--environment", *options, cwd=folder)
    assert printed.returncode == 0, printed.stderr
    show = f"{printed.stdout}\nenv -0"
    shown = subprocess.run(["sh", "-c", show], capture_output=True, text=True, check=True)
    pairs = (entry.split("=", 1) for entry in shown.stdout.split("\0") if "=" in entry)
    # python() drops what the tests' own environment has of our variables, and adds its path.
    return {name: value for name, value in pairs if name.startswith(("TORCH_MLX_", "PYTHONPATH"))}


needs_shell = pytest.mark.skipif(os.name == "nt", reason="no POSIX shell on this system")


@needs_shell
def test_programs_that_start_otherwise_are_patched_by_variables(folder: Path) -> None:
    program = (
        "import torch_mlx_spectro as tms, task\n"
        "assert tms.is_patched()\n"
        "task.transform(640)\n"
        "assert tms.stats().calls == {('stft', 'cpu'): 1, ('istft', 'cpu'): 1}, tms.stats()\n"
    )
    result = python("-c", program, cwd=folder, variables=variables(folder, "--backend", "cpu"))
    assert result.returncode == 0, result.stderr


@needs_shell
@pytest.mark.parametrize(
    "first",
    [
        "import torch.nn.functional",
        "import torch_mlx_spectro as tms; tms.stats()",
        "from torch_mlx_spectro import patching",
    ],
)
def test_whatever_imports_torch_first(folder: Path, first: str) -> None:
    end = "import torch_mlx_spectro; assert torch_mlx_spectro.is_patched()"
    result = python("-c", f"{first}\n{end}", cwd=folder, variables=variables(folder))
    assert (result.returncode, result.stderr) == (0, "")


@needs_shell
def test_a_process_without_torch_imports_nothing(folder: Path) -> None:
    show = "import sys; print(*sorted(sys.modules), sep='\\n')"
    plain = python("-c", show, cwd=folder).stdout.split()
    under = python("-c", show, cwd=folder, variables=variables(folder)).stdout.split()
    assert set(under) - set(plain) <= {"sitecustomize"}


@needs_shell
def test_another_environments_python_is_left_alone(folder: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "other")
    other = tmp_path / "other" / "bin" / "python"
    given = variables(folder)
    (folder / "torch.py").write_text("NAME = 'not the torch that we know'\n")
    result = subprocess.run(
        [other, "-c", "import sys, torch; print(torch.NAME, 'torch_mlx_spectro' in sys.modules)"],
        env={**os.environ, **given},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (result.stdout, result.stderr) == ("not the torch that we know False\n", "")


@needs_shell
def test_a_sitecustomize_that_was_there_still_runs(folder: Path) -> None:
    there = folder / "site"
    there.mkdir()
    (there / "sitecustomize.py").write_text("import sys; sys.was_there = __file__\n")
    given = variables(folder)
    given["PYTHONPATH"] += os.pathsep + str(there)
    show = (
        "import sys, sitecustomize, torch, torch_mlx_spectro as tms\n"
        "print(sys.was_there == sitecustomize.__file__, tms.is_patched())"
    )
    result = python("-c", show, cwd=folder, variables=given)
    assert result.stdout == "True True\n", result.stderr


@needs_shell
def test_what_fails_in_a_child_is_told_and_the_child_runs(folder: Path) -> None:
    given = variables(folder) | {"SPEC_MLX_AUTOTUNE": "maybe"}
    result = python("-c", "import torch; print(torch.ones(1).item())", cwd=folder, variables=given)
    assert result.stdout == "1.0\n"
    assert "is not patched: SPEC_MLX_AUTOTUNE must be one of" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--environment"], "give --children, too"),
        (["--children", "--environment", "a.py"], "name no program"),
        (["--children", "--environment", "--stats"], "no statistics"),
    ],
)
def test_what_an_environment_cannot_have_is_told(
    folder: Path, arguments: list[str], message: str
) -> None:
    result = python(*CLI, "run", *arguments, cwd=folder)
    assert result.returncode == 2
    assert message in result.stderr


def test_only_the_first_process_tells_that_a_backend_is_not_here(folder: Path) -> None:
    missing = "cuda" if sys.platform == "darwin" else "mps"
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import torch'])"
    result = python(*RUN, "--children", "--backend", missing, "-c", child, cwd=folder)
    (told,) = result.stderr.splitlines()
    reason = f"this torch is built without {missing.upper()}"
    assert told.startswith(f"torch-mlx-spectro run: patch('{missing}'): {reason}")
