"""Whether MLX can be used, and parts computed ahead over several streams."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from reference import runtime_of, stft_params

from torch_mlx_spectro.backends.mlx.bridge import host_view
from torch_mlx_spectro.mlx import runtime
from torch_mlx_spectro.mlx.blocks import stft_blocks
from torch_mlx_spectro.mlx.runtime import Part


def reason_with(monkeypatch: pytest.MonkeyPatch, module: Any) -> str | None:
    """Why MLX cannot be used in a fresh process that imports ``module`` as ``mlx.core``."""

    def load(name: str) -> Any:
        assert name == "mlx.core"
        if isinstance(module, Exception):
            raise module
        return module

    monkeypatch.setattr(importlib, "import_module", load)
    found = runtime._Process().resolve()
    return found if isinstance(found, str) else None


@pytest.mark.parametrize("error", [ImportError("no such file"), OSError("bad library")])
def test_a_missing_or_broken_mlx_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    assert reason_with(monkeypatch, error) == f"mlx cannot be imported: {error}"


def test_a_program_named_mlx_is_told_that_it_hides_mlx(tmp_path: Path) -> None:
    """``import mlx`` runs the program itself, which comes to us again while we wait for it."""
    program = tmp_path / "mlx.py"
    program.write_text(
        "import torch, torch_mlx_spectro as tms\n"
        "tms.patch('mlx')\n"
        "x, w = torch.ones(64), torch.ones(16)\n"
        "torch.stft(x, 16, window=w, return_complex=True)\n"
        "if __name__ == '__main__':\n"
        "    print(tms.explain(torch.stft, x, 16, window=w, return_complex=True).reasons)\n"
    )
    done = subprocess.run(
        [sys.executable, program.name], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "'mlx' is not a package" in done.stdout
    assert f"({program} has its name)" in done.stdout


def test_an_old_mlx_is_a_reason_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(__version__="0.31.9")
    wanted = "mlx 0.31.9 is older than 0.32.4: pip install -U mlx"
    assert reason_with(monkeypatch, old) == wanted


def test_a_development_version_counts_by_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    new = SimpleNamespace(
        __version__="0.33.0.dev1+gabc",
        cpu="cpu",
        new_thread_unsafe_stream=lambda device: made.append(device),
    )
    assert reason_with(monkeypatch, new) is None
    assert 1 <= len(made) <= runtime.MAX_STREAMS


@pytest.mark.parametrize(
    ("text", "numbers"), [("0.32.4", (0, 32, 4)), ("1.2rc1.5", (1, 2, 5)), ("7", (7,))]
)
def test_version_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert runtime.version_numbers(text) == numbers


def test_a_forked_child_has_no_mlx(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.runtime()  # the test process has loaded MLX
    process = runtime._Process()
    process.after_fork_in_child()
    monkeypatch.setattr(runtime, "_process", process)
    assert process.found == runtime.FORKED
    assert runtime.unavailable_reason() == runtime.FORKED
    with pytest.raises(RuntimeError, match="forked"):
        runtime.runtime()


def test_parts_go_where_they_belong() -> None:
    used = runtime_of(2)
    plain, offset, added = np.zeros((2, 3)), np.zeros(4), np.ones(6)

    def produce(stream: Any) -> Iterator[Part]:
        def values(shape: tuple[int, ...]) -> Any:
            flat = used.mx.arange(6, stream=stream)
            return used.mx.reshape(flat, shape, stream=stream)

        yield Part(values((2, 3)), plain)
        yield Part(values((3, 2)), offset, 1)
        yield Part(values((2, 3)), added, 0, add=True)

    used.run([produce(used.streams[0])], depth=1)
    np.testing.assert_array_equal(plain, np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(offset, [1, 2, 3, 4])
    np.testing.assert_array_equal(added, 1 + np.arange(6))


def test_only_so_many_parts_are_ahead() -> None:
    used = runtime_of(2)
    made, stored = [], []

    class Target(np.ndarray):
        def __setitem__(self, key: Any, value: Any) -> None:
            stored.append(len(made))

    def produce(stream: Any) -> Iterator[Part]:
        for _ in range(20):
            made.append(stream)
            yield Part(used.mx.zeros(3, stream=stream), np.zeros(3).view(Target))

    used.run([produce(stream) for stream in used.streams], depth=2)
    assert len(stored) == len(made) == 40
    assert max(ahead - done for done, ahead in enumerate(stored)) <= 2 * 2 + 2


def test_a_producer_that_fails_leaves_a_usable_runtime() -> None:
    used = runtime_of(1)
    target = np.zeros(3)

    def broken() -> Iterator[Part]:
        yield Part(used.mx.ones(3, stream=used.streams[0]), target)
        raise KeyError("broken")

    with pytest.raises(KeyError), used.lock:
        used.run([broken()], depth=4)
    assert not used.lock.locked()
    used.run([iter([Part(used.mx.ones(3, stream=used.streams[0]), target)])], depth=1)
    np.testing.assert_array_equal(target, 1)


def test_a_child_forked_before_mlx_was_loaded_may_load_it(monkeypatch: pytest.MonkeyPatch) -> None:
    process = runtime._Process()
    held = process.lock  # by a thread of the parent that was just loading it
    monkeypatch.delitem(sys.modules, "mlx.core")
    process.after_fork_in_child()
    assert process.found is None
    assert process.lock is not held


def test_mlx_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def load(name: str) -> Any:
        tried.append(name)
        raise ImportError("no such file")

    monkeypatch.setattr(importlib, "import_module", load)
    monkeypatch.setattr(runtime, "_process", runtime._Process())
    reasons = {runtime.unavailable_reason() for _ in range(3)}
    assert reasons == {"mlx cannot be imported: no such file"}
    assert tried == ["mlx.core"]
    with pytest.raises(RuntimeError, match="MLX cannot be used: mlx cannot be imported"):
        runtime.runtime()


def test_streams_are_as_many_as_usable_cpus_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    mlx = SimpleNamespace(__version__="1.0", cpu="cpu", new_thread_unsafe_stream=lambda _: object())
    for cpus, streams in [(1, 1), (3, 3), (64, runtime.MAX_STREAMS)]:
        monkeypatch.setattr(runtime, "usable_cpus", lambda cpus=cpus: cpus)
        monkeypatch.setattr(importlib, "import_module", lambda _: mlx)
        found = runtime._Process().resolve()
        assert isinstance(found, runtime.Runtime)
        assert len(found.streams) == streams


def test_usable_cpus_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container or taskset may grant fewer than the machine has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    assert runtime.usable_cpus() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert runtime.usable_cpus() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert runtime.usable_cpus() == 1


def test_a_computation_that_fails_frees_the_lock_and_the_next_one_works() -> None:
    signal, window = torch.ones(400), None
    params = stft_params(signal, window, n_fft=16)
    view = host_view(signal.unsqueeze(0))
    out = np.empty((1, params.frames, params.bins), np.complex64)
    used = runtime.runtime()
    with pytest.raises(ValueError, match="broadcast"):
        stft_blocks(used, params, view, window, out[:, :, :-1])
    assert not used.lock.locked()
    stft_blocks(used, params, view, window, out)
    assert np.isfinite(out).all()


def test_has_gpu_asks_mlx(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in (True, False):
        mlx = SimpleNamespace(metal=SimpleNamespace(is_available=lambda answer=answer: answer))
        monkeypatch.setattr(runtime, "runtime", lambda mlx=mlx: SimpleNamespace(mx=mlx))
        assert runtime.has_gpu() is answer


class Bounded(SimpleNamespace):
    """An MLX on a Mac of 16 GB, whose cache has a limit."""

    def __init__(self, limit: int, has_metal: bool = True) -> None:
        super().__init__(
            __version__="0.32.4",
            cpu=None,
            metal=SimpleNamespace(is_available=lambda: has_metal),
            device_info=lambda: {"memory_size": 16 << 30},
            new_thread_unsafe_stream=lambda device: device,
        )
        self.limit = limit

    def set_cache_limit(self, limit: int) -> int:
        before, self.limit = self.limit, limit
        return before


@pytest.mark.parametrize(
    ("limit", "has_metal", "is_the_programs", "expected"),
    [
        (15 << 30, True, False, 512 << 20),
        (15 << 30, True, True, 15 << 30),  # the program's own MLX
        (100 << 20, True, False, 100 << 20),  # somebody was stricter
        (0, True, False, 0),  # keeps nothing
        (15 << 30, False, False, 15 << 30),
    ],
)
def test_memory_that_mlx_keeps_beside_torch_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    has_metal: bool,
    is_the_programs: bool,
    expected: int,
) -> None:
    """By default MLX keeps nearly all memory of a Mac, and torch keeps what it has freed, too."""
    if not is_the_programs:
        monkeypatch.delitem(sys.modules, "mlx.core")
    module = Bounded(limit, has_metal)
    assert reason_with(monkeypatch, module) is None
    assert module.limit == expected
