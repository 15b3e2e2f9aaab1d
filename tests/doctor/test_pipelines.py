"""The kernels' texts as files, and what each compiled kernel allows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from needs import needs_emulator

from torch_mlx_spectro import emulator
from torch_mlx_spectro.doctor import pipelines, show
from torch_mlx_spectro.errors import Problem
from torch_mlx_spectro.kernels.texts.mps import write_text
from torch_mlx_spectro.kernels.variants import list_usual_variants, list_variants


def test_there_are_hundreds_of_variants_and_a_few_usual_ones() -> None:
    every, usual = list_variants(), list_usual_variants()
    assert len(every) > 500
    assert usual.items() <= every.items()
    assert 20 < len(usual) < 60
    kinds = {(launch.kernel, launch.template) for launch in every.values()}
    assert len(kinds) == len(every)
    assert {launch.kernel for launch in usual.values()} == {"analysis", "synthesis_walk"}


def test_every_text_is_written_as_it_is_compiled(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "kernels"
    assert pipelines.write_kernels(folder) == len(list(folder.iterdir())) > 1000
    for name, launch in list_variants().items():
        text = (folder / f"torch-{name}.metal").read_text(encoding="ascii")
        assert text == write_text(launch.kernel, launch.template)
    of_mlx = list(folder.glob("mlx-*.metal"))
    assert len(of_mlx) > 500
    for path in of_mlx:
        text = path.read_text(encoding="ascii")
        assert text.startswith(pipelines.MLX_BEGIN)
        assert text.count("[[kernel]] void custom_kernel_spectro_") == 1


@needs_emulator
def test_a_text_of_mlx_is_what_the_emulator_is_given(tmp_path: Path, metal_cache: Path) -> None:
    pipelines.write_kernels(tmp_path)
    texts: list[str] = []
    machine = emulator.Machine(
        cache_dir=metal_cache,
        orders=("ascending",),
        transform=lambda text: texts.append(text) or text,
    )
    from torch_mlx_spectro.doctor import golden

    with machine.installed():
        probes = golden.list_probes()
        probe = probes["synthesis_walk 1024"]
        golden.list_runs()["mlx"](probe.launch, probe.first, probe.window)
    (text,) = texts
    written = [path.read_text() for path in tmp_path.glob("mlx-synthesis_walk_512_*")]
    assert pipelines.MLX_BEGIN + text in written


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Problem, match="cannot be written"):
        pipelines.write_kernels(tmp_path / "file")


class Library:
    """What torch compiles, on a GPU that allows few threads and refuses what the test says."""

    compiled = 0

    def __init__(self, text: str) -> None:
        Library.compiled += 1
        if "spectro_analysis" in text:
            raise SyntaxError("error: not this one")

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(max_threads_per_threadgroup=384, thread_execution_width=32)


def test_each_pipeline_tells_what_it_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "compile_shader", Library)
    now = iter(range(10**6))
    found = pipelines.examine_pipelines(clock=lambda: float(next(now)))
    assert 0 < len(found) < len(list_usual_variants())  # bounded in seconds
    found = pipelines.examine_pipelines(clock=lambda: 0.0)
    assert [one["name"] for one in found] == list(list_usual_variants())
    refused = [one for one in found if one["error"]]
    assert {one["error"] for one in refused} == {"SyntaxError: error: not this one"}
    assert all(one["allowed"] == 384 for one in found if not one["error"])
    rows = [show._pipeline(one) for one in found]
    assert {row[2] for row in rows} >= {
        "REFUSED: SyntaxError: error: not this one",
        "384",
        "384, too few",
    }
    Library.compiled = 0
    assert len(pipelines.examine_pipelines(every=True, clock=lambda: 0.0)) == Library.compiled
    assert Library.compiled == len(list_variants())


def test_without_mps_there_are_no_pipelines() -> None:
    if torch.backends.mps.is_available():
        pytest.skip("there is MPS")
    assert pipelines.examine_pipelines() == []
