"""The command as a whole: what it finds here, its exit codes, and its forms."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys

import pytest
import torch
from cli_process import python

import torch_mlx_spectro as tms
from torch_mlx_spectro import emulator
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.cli import main as cli
from torch_mlx_spectro.doctor import checks, state
from torch_mlx_spectro.mlx.runtime import version_numbers
from torch_mlx_spectro.settings import RECOGNISED

WITHOUT_MLX = """\
import sys
sys.modules["mlx"] = sys.modules["mlx.core"] = None
from torch_mlx_spectro.cli.main import main
sys.exit(main(["doctor", "--json"]))
"""

WITHOUT_TORCH = """\
import sys
sys.modules["torch"] = None
from torch_mlx_spectro.cli.main import main
sys.exit(main(["doctor", *sys.argv[1:]]))
"""


def examined(capsys, *options: str) -> tuple[int, dict]:
    code = cli.main(["doctor", "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def test_all_is_well_here(capsys):
    code, found = examined(capsys)
    assert found["self_check"] == {
        "ok": True,
        "error": "",
        "max_error": found["self_check"]["max_error"],
    }
    assert (code, found["ok"]) == (0, True)
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert found["versions"]["torch_mlx_spectro"] == tms.__version__
    assert set(found["backends"]) == set(tms.available_backends())
    assert found["variables"] == RECOGNISED
    assert "All is well" in found["next"][-1]
    assert {cell["device"] for cell in found["matrix"]} == set(found["devices"])
    assert sorted(found["devices"] + found["absent"]) == ["cpu", "cuda", "mps"]


def test_what_earlier_versions_told_is_still_told(capsys):
    """Reports are compared across versions: names may be added, none may go."""
    _, found = examined(capsys, "--no-self-check")
    assert set(found) >= {
        *("versions", "package", "platform", "machine", "cpu_count", "backends", "variables"),
        *("settings", "self_check", "ok", "next"),
    }
    assert set(found["self_check"]) == {"ok", "error", "max_error"}
    assert set(found["settings"]) == {"values", "error"}
    assert found["settings"]["values"]["backend"] == "auto"


def test_the_verdict_and_the_next_step_come_first(capsys):
    assert cli.main(["doctor"]) == 0
    # Other tests of this process may leave something to note.
    verdict, *others = capsys.readouterr().out.splitlines()
    assert verdict.startswith("All is well")
    first = next(line for line in others if not line.startswith(("note", " ")))
    assert first.startswith("Next: Call torch_mlx_spectro.patch() at the start of a program")
    text = "\n".join(others)
    assert "small calls on the CPU" in text
    assert f"torch {torch.__version__}" in text
    rows = [line.split() for line in others]
    assert ["cpu", "yes", "passed", "on", "cpu"] in rows
    assert len(others) < 20  # details are asked for


def test_what_is_wrong_comes_before_all_else(monkeypatch, capsys):
    monkeypatch.setenv("TORCH_MLX_SPECTRO_BACKEND", "metall")
    monkeypatch.setenv("TORCH_MLX_SPECTRO_BAKEND", "mlx")
    assert cli.main(["doctor", "--no-self-check"]) == 1
    verdict, error, fix, warning, *_ = capsys.readouterr().out.splitlines()
    assert verdict.startswith("Not all is well: 1 error, 1 warning")
    assert "TORCH_MLX_SPECTRO_BACKEND must be one of auto, native" in error
    assert fix == "    unset TORCH_MLX_SPECTRO_BACKEND"
    assert warning == (
        "warning: Nothing reads the environment variable TORCH_MLX_SPECTRO_BAKEND; did you mean"
        " 'TORCH_MLX_SPECTRO_BACKEND'?"
    )


def test_missing_torch_is_told_with_what_installs_it(tmp_path):
    ended = python("-c", WITHOUT_TORCH, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (1, "")
    verdict, error, fix, versions = ended.stdout.splitlines()
    assert verdict == "Not all is well: 1 error."
    assert error.startswith("error: PyTorch is not installed (")
    assert sys.executable in error
    assert fix.endswith(" -m pip install --upgrade torch")
    assert f"torch_mlx_spectro {tms.__version__}, " in versions


@pytest.mark.parametrize("form", ["--json", "--fix", "--report"])
def test_missing_torch_is_told_in_every_form(form, tmp_path):
    ended = python("-c", WITHOUT_TORCH, form, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "PyTorch is not installed" in ended.stdout
    if form == "--json":
        assert json.loads(ended.stdout)["ok"] is False


@pytest.mark.parametrize("command", [("demo",), ("bench",), ("parity",), ("run", "-c", "1")])
def test_commands_that_need_torch_say_so(command, tmp_path):
    ended = python("-c", WITHOUT_TORCH.replace('"doctor", ', ""), *command, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(
        f"torch-mlx-spectro {command[0]}: error: PyTorch is not installed"
    )
    assert "pip install" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_verbose_shows_everything(capsys):
    assert cli.main(["doctor", "--verbose"]) == 0
    text = capsys.readouterr().out
    words = text.split()
    assert tms.__version__ in words
    assert "passed" in words
    for name in (*RECOGNISED, *tms.available_backends()):
        assert name in words
    assert "mlx cpu blocks" in text
    assert "All is well" in text


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (RuntimeError("kernel lost"), "RuntimeError: kernel lost"),
        ({"stft": {"native": 1e-7, "mlx": 1e-3}}, "errors of stft are more than rounding"),
        ({"stft": {"native": 1e-7, "mlx": float("nan")}}, "errors of stft are more than rounding"),
    ],
)
def test_failed_self_check_is_told_and_ends_with_1(outcome, message, monkeypatch, capsys):
    def measure(backend, device):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome, {"stft": 1.0}

    monkeypatch.setattr(checks, "measure", measure)
    monkeypatch.setattr(checks, "list_pairs", lambda: (("mlx", "cpu"),))
    code, found = examined(capsys)
    assert code == 1
    assert message in found["self_check"]["error"]
    assert "TORCH_MLX_SPECTRO_BACKEND=native" in found["next"][0]
    assert cli.main(["doctor"]) == 1
    assert "FAILED" in capsys.readouterr().out
    assert cli.main(["doctor", "--fix"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("# error: The self-check of mlx on cpu failed")
    assert "export TORCH_MLX_SPECTRO_BACKEND=native" in lines
    assert "torch-mlx-spectro parity --backend mlx --device cpu --minimise" in lines


def test_self_check_can_be_left_out(monkeypatch, capsys):
    monkeypatch.setattr(checks, "measure", lambda backend, device: pytest.fail("computed"))
    code, found = examined(capsys, "--no-self-check")
    assert (code, found["self_checks"]) == (0, [])
    assert found["self_check"]["error"] == "not run: it was left out"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TORCH_MLX_SPECTRO_BACKEND", "odd"),
        ("TORCH_MLX_SPECTRO_VERIFY", "-odd"),
        ("MLX_OLA_FUSE_NORM", "oddly"),
        ("SPEC_MLX_AUTOTUNE", "oddly"),
    ],
)
def test_bad_setting_is_told_and_ends_with_1(name, value, monkeypatch, capsys):
    monkeypatch.setenv(name, value)
    code, found = examined(capsys, "--no-self-check")
    assert code == 1
    assert repr(value) in found["next"][0]
    assert found["findings"][0]["fix"] == [f"unset {name}"]
    assert cli.main(["doctor", "--no-self-check"]) == 1
    assert repr(value) in capsys.readouterr().out


def test_missing_mlx_is_told_while_others_compute(tmp_path):
    ended = python("-c", WITHOUT_MLX, cwd=tmp_path)
    assert ended.stderr == ""
    assert ended.returncode == 0
    found = json.loads(ended.stdout)
    assert not found["backends"]["mlx"]["available"]
    assert found["backends"]["mlx"]["reason"]
    assert "Make MLX usable" in found["next"][0]
    (fix,) = found["findings"][0]["fix"]
    assert fix.startswith("python -m pip install --upgrade 'mlx")


def test_report_is_written(tmp_path, capsys):
    path = tmp_path / "report.md"
    assert cli.main(["doctor", "--no-self-check", "--report", str(path)]) == 0
    assert capsys.readouterr().out == f"written: {path}\n"
    assert cli.main(["doctor", "--no-self-check", "--report"]) == 0
    printed = capsys.readouterr().out
    assert printed == path.read_text(encoding="utf-8")
    assert printed.startswith("### torch-mlx-spectro doctor: all is well\n")


def test_report_that_cannot_be_written_is_told(tmp_path, capsys):
    assert cli.main(["doctor", "--no-self-check", "--report", str(tmp_path)]) == 2
    assert f"--report {tmp_path}: " in capsys.readouterr().err


@pytest.mark.parametrize("forms", [("--json", "--fix"), ("--report", "--json")])
def test_one_form_at_a_time(forms, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["doctor", *forms])
    assert "not allowed with" in capsys.readouterr().err


@pytest.fixture
def as_on_a_mac(monkeypatch, metal_cache):
    """What a Mac has, MPS tensors on the CPU, and Metal kernels in the emulator."""
    machine = emulator.Machine(checked=False, cache_dir=metal_cache)  # looks at the platform
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("26.1", ("", "", ""), "arm64"))
    monkeypatch.setattr(registry, "is_present", lambda device: device in ("cpu", "mps"))
    shared = {"expected": "shared", "found": "shared"}
    monkeypatch.setattr(state, "examine_mps_storage", lambda: shared)
    pairs = (("mlx", "cpu"), ("native", "mps"), ("mlx", "mps"))
    monkeypatch.setattr(checks, "list_pairs", lambda: pairs)
    compute, stft, istft = checks._compute, checks._stft, checks._istft
    monkeypatch.setattr(checks, "_compute", lambda name, device, dtype: compute(name, "cpu", dtype))
    disturbed = checks.find_disturbed
    monkeypatch.setattr(checks, "find_disturbed", lambda name, device: disturbed(name, "cpu"))
    monkeypatch.setattr(checks, "_stft", lambda kind, device: stft(kind, "cpu"))
    monkeypatch.setattr(checks, "_istft", lambda kind, device: istft(kind, "cpu"))
    with machine.installed():
        yield


def test_a_mac_is_told_with_its_device_and_notes(as_on_a_mac, capsys):
    code, found = examined(capsys)
    assert (code, found["ok"]) == (0, True)
    old = {"warning"} if version_numbers(torch.__version__) < (2, 13) else set()
    assert {finding["level"] for finding in found["findings"]} == {"note", *old}
    assert [(one["backend"], one["device"]) for one in found["self_checks"]] == [
        ("mlx", "cpu"),
        ("native", "mps"),
        ("mlx", "mps"),
    ]
    assert all(check["ok"] for check in found["self_checks"])
    kernels = {
        (cell["op"], cell["kind"]): cell["kernel"]
        for cell in found["matrix"]
        if (cell["device"], cell["asked"]) == ("mps", "mlx")
    }
    assert kernels["stft", "n_fft 1024"] == "metal analysis"
    assert not any("float64" in kind for _, kind in kernels)
    for form in (["--verbose"], ["--report"]):
        assert cli.main(["doctor", "--no-self-check", *form]) == 0
        text = capsys.readouterr().out
        assert "Who computes mps tensors" in text
        assert "pytorch/pytorch#126649" in text
        assert "actions/runner-images#14380" in text
        assert "26.1" in text


HANGING = """\
import sys, time
from torch_mlx_spectro.cli.main import main; from torch_mlx_spectro.doctor import command as doctor
doctor.HANGS_AFTER = 0.2
doctor.examine = lambda **options: time.sleep(100)
sys.exit(main(["doctor"]))
"""


def test_a_check_that_hangs_ends_with_1_and_the_stacks(tmp_path):
    ended = python("-c", HANGING, cwd=tmp_path)
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
    assert "in command" in ended.stderr


def test_documented_exit_codes_are_in_the_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["doctor", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Exit code 0 when all is well; 1 when something is wrong" in text


def test_importing_the_command_line_loads_no_torch(tmp_path):
    """``--help`` of any command is printed at once."""
    code = "import sys, torch_mlx_spectro.cli; print('torch' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout == "False\n"
