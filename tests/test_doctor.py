from __future__ import annotations

import json

import pytest
import torch
from cli_process import python

import torch_mlx_spectro as tms
from torch_mlx_spectro import cli
from torch_mlx_spectro.cli import doctor
from torch_mlx_spectro.environment import RECOGNISED

WITHOUT_MLX = """\
import sys
sys.modules["mlx"] = sys.modules["mlx.core"] = None
from torch_mlx_spectro.cli import main
sys.exit(main(["doctor", "--json"]))
"""


def examined(capsys) -> tuple[int, dict]:
    code = cli.main(["doctor", "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_all_is_well_here(capsys):
    code, found = examined(capsys)
    assert found["self_check"] == {
        "ok": True,
        "error": "",
        "max_error": found["self_check"]["max_error"],
    }
    assert (code, found["ok"]) == (0, True)
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["torch_mlx_spectro"] == tms.__version__
    assert set(found["backends"]) == set(tms.available_backends())
    assert found["variables"] == RECOGNISED
    assert "All is well" in found["next"][0]


def test_self_check_is_computed_by_mlx(capsys):
    tms.reset_stats()
    assert doctor.self_check()["ok"]
    assert tms.stats().calls == {
        ("stft", "mlx"): 1,
        ("istft", "mlx"): 1,
        ("stft", "native"): 2,
        ("istft", "native"): 2,
    }


def test_table_says_the_same(capsys):
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    words = text.split()
    assert tms.__version__ in words
    assert "passed" in words
    for name in (*RECOGNISED, *tms.available_backends()):
        assert name in words


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (RuntimeError("kernel lost"), "RuntimeError: kernel lost"),
        ({"stft": {"native": 1e-7, "mlx": 1e-3}}, "errors above"),
        ({"stft": {"native": 1e-7, "mlx": float("nan")}}, "errors above"),
    ],
)
def test_failed_self_check_is_told_and_ends_with_1(outcome, message, monkeypatch, capsys):
    def measure():
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(doctor, "_measure_errors", measure)
    code, found = examined(capsys)
    assert code == 1
    assert message in found["self_check"]["error"]
    assert "TORCH_MLX_SPECTRO_BACKEND=native" in found["next"][0]
    assert cli.main(["doctor"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_bad_setting_is_told_and_ends_with_1(monkeypatch, capsys):
    monkeypatch.setenv("TORCH_MLX_SPECTRO_BACKEND", "odd")
    code, found = examined(capsys)
    assert code == 1
    assert found["self_check"]["ok"]
    assert "'odd'" in found["next"][0]
    assert cli.main(["doctor"]) == 1
    assert "'odd'" in capsys.readouterr().out


def test_missing_mlx_is_told_and_ends_with_1(tmp_path):
    ended = python("-c", WITHOUT_MLX, cwd=tmp_path)
    assert ended.stderr == ""
    assert ended.returncode == 1
    found = json.loads(ended.stdout)
    assert not found["backends"]["mlx"]["available"]
    assert found["backends"]["mlx"]["reason"]
    assert "Make MLX usable" in found["next"][0]
