from __future__ import annotations

import json
import subprocess
import sys

import pytest

import torch_mlx_spectro as tms
from torch_mlx_spectro.cli import main as cli
from torch_mlx_spectro.doctor import command as doctor
from torch_mlx_spectro.errors import Problem


def test_version_is_the_package_s(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"torch-mlx-spectro {tms.__version__}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["doctor", "--nonsense"], ["demo", "x"]])
def test_wrong_usage_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: torch-mlx-spectro" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "doctor", "demo", "parity", "bench"])
def test_every_command_has_help_and_json(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("as_json", [False, True])
def test_problem_is_told_without_traceback(as_json, monkeypatch, capsys):
    def fail(options):
        raise Problem("no such thing", 1)

    monkeypatch.setattr(doctor, "command", fail)
    assert cli.main(["doctor", *(["--json"] if as_json else [])]) == 1
    printed = capsys.readouterr()
    assert printed.err == "torch-mlx-spectro doctor: error: no such thing\n"
    if as_json:
        assert json.loads(printed.out) == {"ok": False, "error": "no such thing"}
    else:
        assert printed.out == ""


def test_command_line_loads_neither_rich_nor_matplotlib_before_it_needs_them():
    code = (
        "import sys; from torch_mlx_spectro.cli.main import build_parser; build_parser();"
        "print([name for name in ('rich', 'matplotlib') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
