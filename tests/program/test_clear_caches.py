"""``clear_caches()``: everything is forgotten, and later calls give the same bits."""

from __future__ import annotations

import ast
import functools
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import metal
import mlx.core as mx
import numpy as np
import pytest
import torch
from cli_process import python

import torch_mlx_spectro as tms
from torch_mlx_spectro.backends.device.envelope_checks import EnvelopeChecks
from torch_mlx_spectro.core.params import TensorFacts, resolve_istft
from torch_mlx_spectro.dispatch import decide as deciding
from torch_mlx_spectro.dispatch.autotune import Trials
from torch_mlx_spectro.dispatch.plans import PlanTable, plans
from torch_mlx_spectro.mlx import runtime
from torch_mlx_spectro.store import caches
from torch_mlx_spectro.store.caches import Cache

PACKAGE = Path(tms.__file__).parent
WINDOW = torch.hann_window(16)
SIGNAL = torch.sin(torch.arange(200.0)).reshape(2, 100)

#: Functions of arguments that are not forgotten, and why.
LASTING = {("native.torchscript", "install"): "makes torch know our functions, once"}


def round_trip(signal: torch.Tensor = SIGNAL) -> list[torch.Tensor]:
    """A spectrum, the signal from it, and a gradient through both."""
    leaf = signal.clone().requires_grad_()
    spectrum = torch.stft(leaf, 16, 4, window=WINDOW, return_complex=True)
    back = torch.istft(spectrum * (1 + spectrum.abs()), 16, 4, window=WINDOW)
    (gradient,) = torch.autograd.grad(back.square().sum(), leaf)
    return [spectrum.detach(), back.detach(), gradient]


def kept_functions() -> list[Any]:
    """The functions of this package whose results are kept, whoever holds them."""
    return [
        one
        for one in gc.get_objects()
        if type(one) is functools._lru_cache_wrapper
        and one.__module__.startswith("torch_mlx_spectro.")
        and "emulator" not in one.__module__
        and one.__wrapped__.__code__.co_argcount
        and (one.__module__.partition(".")[2], one.__name__) not in LASTING
    ]


def sizes() -> dict[Any, int]:
    """How much every cache of this process has: those that have something."""
    found: dict[Any, int] = {
        f"{one.__module__}.{one.__qualname__}": one.cache_info().currsize
        for one in kept_functions()
    }
    found |= {one: len(one) for one in gc.get_objects() if type(one) is Cache}
    return {name: size for name, size in found.items() if size}


def assert_equal(actual: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


@pytest.fixture
def mlx_blocks() -> Iterator[None]:
    with tms.patch("mlx", strict=True):
        yield


def test_every_cache_is_emptied_and_results_are_the_same_bits(mlx_blocks: None) -> None:
    tms.clear_caches()  # what other tests have filled, this one does not fill again
    expected = round_trip()
    transform = tms.get_transform_mlx(n_fft=16, hop_length=4)
    array = mx.array(SIGNAL.numpy())
    compiled, plain = transform.stft_compiled(array), transform.stft(array)
    back = transform.istft(plain)
    filled = sizes()
    assert len(filled) >= 10
    before = tms.stats()
    tms.clear_caches()
    assert sizes() == {}
    assert tms.stats() == before
    assert_equal(round_trip(), expected)
    assert tms.stats().native == 0
    for actual, wanted in (
        (transform.stft_compiled(array), compiled),  # of a transform that the program holds
        (tms.get_transform_mlx(n_fft=16, hop_length=4).stft(array), plain),
        (transform.istft(plain), back),
    ):
        assert np.array_equal(np.asarray(actual), np.asarray(wanted))
    assert sizes().keys() >= {name for name in filled if isinstance(name, str)}


@pytest.mark.parametrize("backend", ["mlx", "mps"])
def test_kernels_are_compiled_again_on_demand(backend: str, metal_cache: Path) -> None:
    with metal.emulated(metal_cache, backend=backend) as machine:
        expected = round_trip()
        assert_equal(round_trip(), expected)  # the first backward pass of a kept plan prepares it
        made, launched = caches.preparations(), len(machine.launches)
        assert_equal(round_trip(), expected)
        assert caches.preparations() == made
        launched = len(machine.launches) - launched
        assert launched > 0
        tms.clear_caches()
        assert sizes() == {}
        machine.launches.clear()
        assert_equal(round_trip(), expected)
        assert caches.preparations() > made
        assert len(machine.launches) == launched
        assert tms.stats().native == 0


def test_graphs_and_compiled_programs_outlive_what_is_forgotten(mlx_blocks: None) -> None:
    leaf = SIGNAL.clone().requires_grad_()
    spectrum = torch.stft(leaf, 16, 4, window=WINDOW, return_complex=True)

    def program(signal: torch.Tensor) -> torch.Tensor:
        return torch.stft(signal, 16, 4, window=WINDOW, return_complex=True) * 2

    compiled = torch.compile(program, backend="aot_eager")
    expected = compiled(SIGNAL)
    (gradient,) = torch.autograd.grad(spectrum.abs().sum(), leaf, retain_graph=True)
    tms.clear_caches()
    assert torch.equal(torch.autograd.grad(spectrum.abs().sum(), leaf)[0], gradient)
    assert torch.equal(compiled(SIGNAL), expected)
    assert tms.stats().native == 0


def test_measurements_and_what_was_wrong_are_no_caches() -> None:
    trials, ledger = Trials(lambda: 1.0), deciding.ledger
    trials.time("kind", "native", lambda: None)
    epoch, loaded = ledger.epoch, tms.available_backends()
    tms.clear_caches()
    assert "kind" in trials._races
    assert ledger.epoch == epoch
    assert tms.available_backends() == loaded


def test_windows_are_asked_about_anew() -> None:
    checks = EnvelopeChecks(lambda device: torch.zeros((), dtype=torch.int32, device=device))
    params = resolve_istft(TensorFacts((9, 30), True), 16, 4)
    checks.check(params, WINDOW)
    assert checks.is_fine(params.geometry, WINDOW)
    tms.clear_caches()
    assert not checks.is_fine(params.geometry, WINDOW)


def test_threads_go_on_meanwhile(mlx_blocks: None) -> None:
    signals = [SIGNAL + number for number in range(4)]
    expected = [round_trip(signal) for signal in signals]
    stop, wrong = threading.Event(), list[str]()

    def compute(number: int) -> None:
        while not stop.is_set():
            try:
                assert_equal(round_trip(signals[number]), expected[number])
            except BaseException as error:
                wrong.append(repr(error))
                return

    threads = [threading.Thread(target=compute, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        tms.clear_caches()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert tms.stats().native == 0


def test_a_value_that_is_being_made_is_its_callers_and_may_be_kept() -> None:
    cache: Cache[str, str] = Cache(2)

    def make() -> str:
        tms.clear_caches()  # as another thread may; the lock is free while a value is made
        return "made"

    assert cache.get("key", make) == "made"
    tms.clear_caches()
    assert len(cache) == 0


def test_mlx_gives_its_memory_back_where_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(mx, "clear_cache", lambda: calls.append("cleared"))
    tms.clear_caches()
    cleared = len(calls)
    assert cleared > 0  # other tests may have left a runtime of theirs
    monkeypatch.setattr(runtime._process, "found", runtime.FORKED)  # MLX's threads are the parent's
    tms.clear_caches()
    assert len(calls) == cleared + cleared - 1


FRESH = """\
import sys, torch_mlx_spectro as tms
tms.clear_caches()
assert "torch" not in sys.modules and "mlx.core" not in sys.modules
import torch
tms.patch()
tms.clear_caches()
assert "mlx.core" not in sys.modules
torch.stft(torch.ones(64), 16, window=torch.ones(16), return_complex=True)
"""


def test_it_loads_nothing(tmp_path: Path) -> None:
    ended = python("-c", FRESH, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


FORKED = """\
import os, threading, torch, torch_mlx_spectro as tms
from torch_mlx_spectro.backends.mlx.windows import _prepared
from torch_mlx_spectro.store.caches import Cache
torch.set_num_threads(1)
tms.patch("mlx")
signal, window = torch.randn(100), torch.hann_window(16)
expected = torch.stft(signal, 16, window=window, return_complex=True)
assert len(_prepared) > 0
held, free = threading.Event(), threading.Event()
class Value:
    def __init__(self, maker):
        self.maker = maker
    def __del__(self):
        freed.append(self.maker)
freed = []
cache = Cache(4)
cache.put("a", Value("parent"))

def hold():
    with cache._lock:
        held.set()
        free.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    try:
        assert len(_prepared) == len(cache) == 0
        assert cache.get("a", lambda: Value("child")).maker == "child"
        for _ in range(2):
            actual = torch.stft(signal, 16, window=window, return_complex=True)
            torch.testing.assert_close(actual, expected)
            tms.clear_caches()
        assert len(cache) == 0 and tms.stats().native == 2
        assert freed == ["child"], freed
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
ended = os.waitpid(child, 0)[1]
free.set()
thread.join()
assert cache.find("a").maker == "parent"
raise SystemExit(os.waitstatus_to_exitcode(ended))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_locks_and_caches_of_its_own(tmp_path: Path) -> None:
    alone = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    ended = python("-c", FORKED, cwd=tmp_path, variables=alone)
    assert ended.returncode == 0, ended.stderr


def decorators() -> Iterator[tuple[str, ast.FunctionDef, str]]:
    """Module, function and decorator of everything in the package that is decorated."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "emulator":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for one in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                    assert isinstance(node, ast.FunctionDef)
                    yield ".".join(parts), node, ast.unparse(one)


def test_what_depends_on_arguments_is_kept_by_what_is_emptied() -> None:
    """``lru_cache`` is for facts of a process: functions without arguments."""
    found = {
        (module, function.name)
        for module, function, decorator in decorators()
        if decorator.partition("(")[0].rpartition(".")[2] in ("lru_cache", "cache")
        and ast.unparse(function.args)
    }
    assert found == set(LASTING)


@pytest.mark.parametrize(
    ("word", "home"), [("register_at_fork", "store/fork.py"), ("OrderedDict", "store/caches.py")]
)
def test_there_is_one_registry_of_forks_and_one_kind_of_cache(word: str, home: str) -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "emulator" not in path.parts and word in path.read_text(encoding="utf-8")
    }
    assert users == {home}


def test_every_table_says_that_it_is_a_cache() -> None:
    """What has a bound and a ``clear``, and is no part of another, is emptied, whatever it is."""
    tables = [one for one in gc.get_objects() if type(one) in (caches.Cache, PlanTable)]
    assert len(tables) > 1
    assert plans in tables
    owners = [owner() for _, owner in caches._clearings._entries.values() if owner is not None]
    assert [one for one in tables if all(one is not owner for owner in owners)] == []


def test_plans_are_emptied() -> None:
    with tms.patch("cpu", strict=True):
        round_trip()
    assert len(plans)
    tms.clear_caches()
    assert not len(plans)
