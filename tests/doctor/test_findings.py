"""Findings by what was found: their levels, their commands, their order."""

from __future__ import annotations

import copy
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.cli.main import build_parser
from torch_mlx_spectro.doctor import command as doctor
from torch_mlx_spectro.doctor import findings, show
from torch_mlx_spectro.doctor.findings import LEVELS, Finding, gather_findings

GOOD: dict[str, Any] = {
    "backends": {
        name: {"available": name in ("native", "cpu", "mlx"), "reason": f"no {name}"}
        for name in registry.names()
    },
    "devices": ["cpu"],
    "self_checks": [],
    "system": "Linux",
    "machine": "x86_64",
    "settings": {"values": {}, "error": ""},
    "versions": {"torch": "2.13.0", "mlx": "0.32.4", "macos": None},
    "mps_storage": {"expected": "no MPS device", "found": "no MPS device"},
    "verdicts": {"path": "", "counts": {}, "quarantined": {}, "warning": ""},
    "folders": [{"path": "/cache/cuda", "problem": ""}],
    "processes": {"forked": False},
    "left": [],
    "unread": [],
    "absent_names": {},
}


def found(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(GOOD) | changes


def backends(*available: str) -> dict[str, Any]:
    return {
        name: {"available": name in ("native", "cpu", *available), "reason": f"no {name} here"}
        for name in registry.names()
    }


def only(**changes: Any) -> Finding:
    (finding,) = gather_findings(found(**changes))
    return finding


def test_a_good_installation_has_none():
    assert gather_findings(GOOD) == ()


def test_what_is_examined_is_what_findings_read():
    assert set(GOOD) <= set(doctor.examine(self_check=False))


def test_private_names_that_torch_has_no_more_are_told():
    finding = only(absent_names={"torch._C._lost": "every call is native torch's"})
    assert finding.level == "warning"
    assert finding.text == "This torch has no torch._C._lost: every call is native torch's."


def test_without_mlx_other_backends_compute():
    finding = only(backends=backends())
    assert finding.level == "warning"
    assert "no mlx here" in finding.text
    assert "no backend 'mlx'" in finding.text


def test_a_cuda_device_without_the_extra_is_a_warning():
    finding = only(devices=["cpu", "cuda"])
    assert finding.level == "warning"
    assert finding.fix == ("python -m pip install cuda-core",)


def test_a_python_for_intel_on_a_mac_is_an_error():
    finding = only(system="Darwin")
    assert finding.level == "error"
    assert "arm64" in finding.text


def test_a_mac_without_mps_is_a_warning():
    finding = only(system="Darwin", machine="arm64")
    assert finding.level == "warning"
    assert "no MPS device" in finding.text


def test_a_mac_with_mps_has_notes_alone():
    on_a_mac = found(
        system="Darwin",
        machine="arm64",
        devices=["cpu", "mps"],
        backends=backends("mlx", "mps"),
        versions={"torch": "2.13.0", "mlx": "0.32.4", "macos": "26.1"},
        mps_storage={"expected": "shared", "found": "shared"},
    )
    assert {finding.level for finding in gather_findings(on_a_mac)} == {"note"}


def check(**changes: Any) -> dict[str, Any]:
    return {"backend": "mlx", "device": "cpu", "ok": False, "error": "lost"} | changes


def test_a_failed_self_check_is_an_error_with_the_way_out():
    finding = only(self_checks=[check(), check(ok=True)])
    assert finding.level == "error"
    assert "lost" in finding.text
    assert finding.fix[0] == "export TORCH_MLX_SPECTRO_BACKEND=native"


def test_native_torch_that_fails_is_not_our_error():
    finding = only(self_checks=[check(backend="native", device="mps")])
    assert finding.level == "warning"
    assert "Native torch fails on mps" in finding.text


@pytest.mark.parametrize("backend", registry.names())
def test_the_commands_that_find_out_more_are_some(backend):
    """What is told to be run can be run."""
    (finding,) = gather_findings(found(self_checks=[check(backend=backend)]))
    ours = [command.split() for command in finding.fix if command.startswith("torch-mlx")]
    assert any(words[1] == "parity" for words in ours)
    for words in ours:
        build_parser().parse_args(words[1:])


@pytest.mark.parametrize(
    ("storage", "level"),
    [
        ({"expected": "shared", "found": "shared"}, None),
        ({"expected": "copied", "found": "copied"}, None),
        ({"expected": "copied", "found": "shared"}, None),
        ({"expected": "shared", "found": "copied"}, "note"),
        ({"expected": "shared", "found": "not tried: this MLX has no GPU"}, None),
        ({"expected": "shared", "found": "RuntimeError: out of memory"}, "warning"),
        ({"expected": "shared", "found": "neither: MLX sees other memory"}, "warning"),
    ],
)
def test_storage_is_worth_a_finding_where_it_is_not_as_expected(storage, level):
    gathered = gather_findings(found(mps_storage=storage))
    assert [finding.level for finding in gathered] == ([level] if level else [])


def test_quarantined_routes_are_a_warning():
    kept = GOOD["verdicts"] | {"quarantined": {"stft on mps": "its largest error is 1"}}
    finding = only(verdicts=kept)
    assert (finding.level, finding.text[:7]) == ("warning", "1 kinds")


def test_a_damaged_file_of_verdicts_is_a_warning():
    assert only(verdicts=GOOD["verdicts"] | {"warning": "it is not JSON"}).level == "warning"


def test_a_folder_whose_code_is_not_run_is_a_warning():
    finding = only(folders=[{"path": "/a cache/cuda", "problem": "every user may write it"}])
    assert (finding.level, finding.text) == ("warning", "every user may write it.")
    assert finding.fix == ("rm -r '/a cache/cuda'",)


def test_a_forked_process_is_a_warning():
    assert "spawn" in only(processes={"forked": True}).text


def test_the_most_urgent_come_first():
    gathered = gather_findings(
        found(
            processes={"forked": True},
            settings={"values": {}, "error": "SPEC_MLX_TGX must be a number"},
            mps_storage={"expected": "shared", "found": "copied"},
            backends=backends(),
        )
    )
    levels = [LEVELS.index(finding.level) for finding in gathered]
    assert levels == sorted(levels)
    assert set(levels) == {0, 1, 2}
    assert gathered[0].fix == ("unset SPEC_MLX_TGX",)


def test_every_level_is_one():
    assert findings.LEVELS == ("error", "warning", "note")


def test_names_that_are_left_to_torch_are_a_note(monkeypatch):
    finding = only(left=["program.native", "program.inverse"])
    assert finding.level == "note"
    assert "program.native, program.inverse" in finding.text
    program = ModuleType("program_with_a_saved_native")
    program.native, program.stft = torch.stft, torch.stft
    monkeypatch.setitem(sys.modules, program.__name__, program)
    examined = doctor.examine(self_check=False)
    assert f"{program.__name__}.native" in examined["left"]
    assert f"{program.__name__}.stft" not in examined["left"]
    assert f"{program.__name__}.native" in show.write_markdown(examined)
