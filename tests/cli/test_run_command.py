from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_process import RUN, python

from torch_mlx_spectro.cli import main as cli
from torch_mlx_spectro.cli.main import run

PROGRAM = """\
import sys, torch
window = torch.hann_window(64)
z = torch.stft(torch.ones(640), 64, window=window, return_complex=True)
torch.istft(z, 64, window=window)
torch.stft(torch.ones(640).double(), 64, window=window.double(), return_complex=True)
print("done")
if sys.argv[1:] == ["raise"]:
    raise ValueError("late")
if sys.argv[1:] == ["redirect"]:
    sys.stderr = sys.stdout
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize(
    ("arguments", "own", "program"),
    [
        (["a.py", "--stats"], [], ["a.py", "--stats"]),
        (["--stats", "a.py"], ["--stats"], ["a.py"]),
        (["--backend", "mlx", "-m", "m"], ["--backend", "mlx"], ["-m", "m"]),
        (["--backend=mlx", "-c", "code"], ["--backend=mlx"], ["-c", "code"]),
        (["--stats-file", "s", "--strict", "-"], ["--stats-file", "s", "--strict"], ["-"]),
        (["--strict", "--", "--odd.py"], ["--strict"], ["--odd.py"]),
        (["--strict"], ["--strict"], []),
    ],
)
def test_own_options_end_where_the_program_starts(arguments, own, program):
    assert run.split_arguments(arguments) == (own, program)


def test_statistics_go_to_stderr_even_when_the_program_raises(program):
    ended = python(*RUN, "--backend", "mlx", "--stats", str(program), "raise", cwd=program.parent)
    assert ended.returncode == 1
    assert ended.stdout == "done\n"
    assert "ValueError: late\ntorch_mlx_spectro: 2 calls accelerated, 1 native\n" in ended.stderr
    assert "dtype torch.float64" in ended.stderr
    assert ["program.py:5", "0", "1"] in [line.split() for line in ended.stderr.splitlines()]


def test_statistics_as_json(program):
    ended = python(*RUN, "--backend", "mlx", "--json", str(program), "redirect", cwd=program.parent)
    assert ended.returncode == 0
    assert ended.stdout == "done\n"
    stats = json.loads(ended.stderr)
    assert stats["calls"] == {"stft/mlx": 1, "istft/mlx": 1, "stft/native": 1}
    assert (stats["accelerated"], stats["native"]) == (2, 1)
    assert stats["sites"][f"{program}:4"] == {"accelerated": 1, "native": 0}


def test_statistics_in_a_file(program):
    ended = python(
        *RUN, "--stats-file", "stats.json", "-c", "import os; os.chdir('/')", cwd=program.parent
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert json.loads((program.parent / "stats.json").read_text())["calls"] == {}


def test_statistics_tell_what_keeps_torchs_own(program):
    # As a module does that is loaded before the program: whatever saves torch.stft later has ours.
    (program.parent / "early.py").write_text(
        "import torch\nnative, stft = torch.stft, torch.stft\n"
    )
    start = "import sys, early; from torch_mlx_spectro.cli.main import main; sys.exit(main())"
    for option in ("--json", "--stats"):
        ended = python("-c", start, "run", option, str(program), cwd=program.parent)
        assert ended.returncode == 0
        if option == "--json":
            assert json.loads(ended.stderr)["left"] == ["early.native"]
        else:
            (line,) = (x for x in ended.stderr.splitlines() if x.startswith("left to torch"))
            assert line.endswith(": early.native")


def test_strict_raises_at_the_call_that_would_fall_back(program):
    ended = python(*RUN, "--backend", "mlx", "--strict", str(program), cwd=program.parent)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert f'File "{program}", line 5' in ended.stderr
    assert "NotAccelerated: stft was not accelerated" in ended.stderr


def test_backend_comes_from_the_environment_unless_named(program):
    setting = {"TORCH_MLX_SPECTRO_BACKEND": "mlx"}
    ended = python(*RUN, "--json", str(program), cwd=program.parent, variables=setting)
    assert json.loads(ended.stderr)["calls"]["istft/mlx"] == 1
    ended = python(
        *RUN, "--backend", "native", "--json", "program.py", cwd=program.parent, variables=setting
    )
    assert json.loads(ended.stderr)["calls"] == {"stft/native": 2, "istft/native": 1}


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["no-such-program"], {}, "neither a file nor a console script"),
        (["-c", "1"], {"TORCH_MLX_SPECTRO_BACKEND": "odd"}, "TORCH_MLX_SPECTRO_BACKEND"),
        (["--stats-file", "/no/such/folder/x", "-c", "1"], {}, "--stats-file"),
        (["--stats-file", ".", "-c", "1"], {}, "--stats-file"),
    ],
)
def test_what_cannot_run_is_told_before_anything_is_run(
    arguments, variables, message, monkeypatch, capsys
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(run.launch, "launch", lambda program: pytest.fail("was launched"))
    assert cli.main(["run", *arguments]) == 2
    assert message in capsys.readouterr().err
