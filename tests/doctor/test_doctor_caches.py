"""What is told of files: verdicts, and folders of compiled kernels."""

from __future__ import annotations

import os
import warnings

import pytest

from torch_mlx_spectro.doctor import state
from torch_mlx_spectro.store.verdicts import Store
from torch_mlx_spectro.verify.ledger import QUARANTINED


def test_verdicts_are_counted_and_the_wrong_ones_told(tmp_path):
    store = Store(tmp_path / "verdicts.json")
    store.put("routes", "a", "mlx")
    store.put("routes", "b", "native")
    store.put(QUARANTINED, "c", {"why": "its largest error is 1"})
    kept = state.read_verdicts(store)
    assert kept["path"] == str(tmp_path / "verdicts.json")
    assert kept["counts"] == {"routes": 2, QUARANTINED: 1}
    assert kept["quarantined"] == {"c": '{"why": "its largest error is 1"}'}
    assert kept["warning"] == ""


def test_a_damaged_file_is_told_and_not_warned_of(tmp_path):
    path = tmp_path / "verdicts.json"
    path.write_text("{", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = state.read_verdicts(Store(path))
    assert str(path) in kept["warning"]
    assert kept["counts"] == {}


def test_a_bad_variable_is_told(monkeypatch):
    def refuse():
        raise ValueError("SPEC_MLX_AUTOTUNE must be one")

    monkeypatch.setattr(state.verdicts, "store", refuse)
    assert state.read_verdicts()["warning"] == "SPEC_MLX_AUTOTUNE must be one"


def told(path: str = "", files: int = 0, size: int = 0) -> dict:
    """What is told of a folder whose code is run."""
    return {"name": "kernels", "path": path, "files": files, "bytes": size, "problem": ""}


def test_a_folder_is_measured(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kernel").write_bytes(bytes(100))
    (tmp_path / "kernel").write_bytes(bytes(11))
    folder = state._measure_folder("kernels", tmp_path)
    assert folder == told(str(tmp_path), 2, 111)
    missing = tmp_path / "nowhere"
    assert state._measure_folder("kernels", missing) == told(str(missing))


def test_a_folder_that_is_not_known_is_told():
    assert state._measure_folder("kernels", None) == told()


def test_both_folders_are_looked_for():
    assert [folder["name"] for folder in state.measure_folders()] == [
        "CUDA kernels",
        "emulated Metal kernels",
    ]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there are no owners here")
def test_a_folder_that_others_may_write_is_told(tmp_path):
    tmp_path.chmod(0o777)
    folder = state._measure_folder("kernels", tmp_path)
    assert f"no compiled code from {tmp_path}: every user may write it" in folder["problem"]
