"""Interrupts (SIGINT) of the command line: exit code 130, at once, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_process import CLI, RUN, python

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")


@pytest.fixture(autouse=True)
def _interrupts_are_not_ignored() -> Iterator[None]:
    """As they are in a job of a shell's background, and in the processes that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


#: In the place of torch: notes every import of it, and is interrupted in its midst.
INTERRUPTED_TORCH = """\
import os, signal, time
with open(os.environ["NOTES"], "a") as notes:
    notes.write("imported\\n")
{what}
"""
INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)\n"


def run_with_torch(tmp_path: Path, what: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """End a run with statistics in which ``import torch`` does something; and what was noted."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(INTERRUPTED_TORCH.format(what=what))
    notes = tmp_path / "notes"
    variables = {
        "NOTES": str(notes),
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.pathsep.join(PATH)}",
    }
    ended = python(*RUN, "--stats", "-c", "print('ran')", cwd=tmp_path, variables=variables)
    return ended, notes.read_text()


PATH = [entry for entry in sys.path if entry]


def test_an_interrupt_while_torch_is_imported_ends_the_process_at_once(tmp_path: Path) -> None:
    ended, notes = run_with_torch(tmp_path, f"{INTERRUPT}time.sleep(0.1)\nopen('later', 'w')")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
    assert notes == "imported\n"
    assert not (tmp_path / "later").exists()


def test_torch_that_cannot_be_imported_is_not_imported_again_at_exit(tmp_path: Path) -> None:
    ended, notes = run_with_torch(tmp_path, "raise RuntimeError('half of torch')")
    assert (ended.returncode, ended.stdout, notes) == (1, "", "imported\n")
    assert ended.stderr.count("Traceback") == 1
    assert ended.stderr.endswith("RuntimeError: half of torch\n")


PROGRAM = f"""\
import os, signal, time, torch
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
torch.stft(torch.ones(64), 16, window=torch.ones(16), return_complex=True)
{INTERRUPT}time.sleep(60)
"""


def test_an_interrupted_program_is_shown_as_by_python_and_counted(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    ended = python(*RUN, "--stats", "program.py", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (130, "")
    first, _, rest = ended.stderr.partition("\nKeyboardInterrupt\n")
    assert first.startswith("Traceback (most recent call last):\n")
    assert "launch" not in first
    assert rest.startswith("torch_mlx_spectro: 0 calls accelerated, 1 native\n")


IGNORED = f"""\
import os, signal
signal.signal(signal.SIGINT, {{handler}})
from torch_mlx_spectro import interrupts
interrupts.end_at_once()
{INTERRUPT}
print("goes on")
interrupts.raise_again()
assert signal.getsignal(signal.SIGINT) is {{handler}}
"""


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "print"])
def test_what_a_process_was_told_to_do_with_interrupts_holds(handler: str, tmp_path: Path) -> None:
    ended = python("-c", IGNORED.format(handler=handler), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("goes on\n")


LIGHT = """\
import sys
before = set(sys.modules)
import torch_mlx_spectro.__main__
print(*sorted(set(sys.modules) - before))
"""


def test_nothing_is_imported_before_interrupts_are_looked_after(tmp_path: Path) -> None:
    ended = python("-c", LIGHT, cwd=tmp_path)
    names = ("torch_mlx_spectro.version", "torch_mlx_spectro", "torch_mlx_spectro.__main__")
    assert sorted(ended.stdout.split()) == sorted(names)


#: Interrupts all of its processes, as a terminal does, once a spawned one has been asked.
CANDIDATE = """\
import multiprocessing, os, signal, time

def stft(*args, **kwargs):
    if multiprocessing.parent_process() is not None:
        os.killpg(0, signal.SIGINT)
    time.sleep(60)

if {while_loading} and multiprocessing.parent_process() is not None:
    stft()
"""


@pytest.mark.parametrize("while_loading", [False, True])
def test_parity_of_several_processes_ends_with_all_of_them(
    while_loading: bool, tmp_path: Path
) -> None:
    text = CANDIDATE.format(while_loading=while_loading)
    (tmp_path / "candidate.py").write_text(text)
    arguments = ("parity", "--candidate", "candidate", "--processes", "2", "--no-gradients")
    process = subprocess.Popen(
        [sys.executable, *CLI, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *PATH])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        # Both streams end when no process has them any more.
        printed, told = process.communicate(timeout=110)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert (process.returncode, printed, told) == (130, "", "")
