"""Trials of groups' shapes: by a clock that is not real, on kernels that are emulated."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import needs_emulator
from reference import stft_params

from torch_mlx_spectro import emulator
from torch_mlx_spectro.backends.mps.launcher import MpsKernels
from torch_mlx_spectro.kernels import describe
from torch_mlx_spectro.kernels import radices as plans
from torch_mlx_spectro.kernels.launches import Launch
from torch_mlx_spectro.kernels.tuning import SECTION, Tuning, shape_of
from torch_mlx_spectro.mlx.metal_kernels import MetalKernels
from torch_mlx_spectro.settings import AutotuneSettings
from torch_mlx_spectro.store.verdicts import Store

MEASURING = AutotuneSettings(measure=True, persist=True, cache_path=None, threads={})
VERSIONS = {"test": "1"}


@dataclass
class Clock:
    """Advances where work is done, and counts how often it is looked at."""

    now: float = 0.0
    looks: int = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.now


@dataclass
class Gpu:
    """Launches that take as long as ``cost`` says, by the threads of their groups."""

    clock: Clock
    cost: Callable[[int], float]
    launched: list[int] = field(default_factory=list)

    def factory(self, make: Callable[..., Any]) -> Callable[..., Any]:
        def made(**arguments: Any) -> Callable[..., Any]:
            kernel = make(**arguments)

            def call(**given: Any) -> Any:
                group = given["threadgroup"][0]
                self.launched.append(group)
                self.clock.now += self.cost(group)
                return kernel(**given)

            return call

        return made


def params(samples: int = 300, n_fft: int = 16) -> Any:
    return stft_params(torch.empty(1, samples), None, n_fft=n_fft, hop_length=4)


def launches(samples: int = 300) -> list[Launch]:
    described = (params(samples), False, False)
    return [describe.analysis(*described)[0], *describe.analysis_shapes(*described)]


def new(clock: Clock, store: Store, settings: AutotuneSettings = MEASURING) -> Tuning:
    return Tuning(lambda: "a GPU", verdicts=lambda: store, clock=clock, settings=settings)


def memory() -> Store:
    return Store(None, versions=VERSIONS)


def trial(
    tuned: Tuning, clock: Clock, cost: Callable[[int], float], *, seconds: float = 0.0
) -> int | None:
    """A trial of launches that take so long, and compute nothing."""

    def run(launch: Launch, count: int) -> list[Any]:
        clock.now += count * cost(launch.threadgroup[0])
        return [np.zeros(2)] * count

    some = launches()
    return tuned.best(tuned.key(some[0]), some, seconds, run, np.array_equal)


def groups() -> list[int]:
    return [launch.threadgroup[0] for launch in launches()]


@pytest.mark.parametrize("fastest", range(3))
def test_the_fastest_shape_is_taken_and_kept(fastest: int) -> None:
    clock, store = Clock(), memory()
    tuned, wanted = new(clock, store), launches()[fastest]
    times = {tuple(shape_of(launch)): 1e-4 for launch in launches()}
    times[tuple(shape_of(wanted))] = 5e-5

    def run(launch: Launch, count: int) -> list[Any]:
        clock.now += count * times[tuple(shape_of(launch))]
        return [np.zeros(2)] * count

    key = tuned.key(wanted)
    assert tuned.best(key, launches(), 0.0, run, np.array_equal) == fastest
    assert store.get(SECTION, key) == shape_of(wanted)
    assert new(Clock(), store).known(key, launches()) == fastest


def test_a_shape_that_is_hardly_faster_is_not_taken() -> None:
    clock = Clock()
    first = groups()[0]
    assert (
        trial(new(clock, memory()), clock, lambda group: 1.0e-4 if group == first else 0.98e-4) == 0
    )


def test_a_shape_of_other_bits_is_never_taken() -> None:
    clock, store = Clock(), memory()
    first = groups()[0]

    def run(launch: Launch, count: int) -> list[Any]:
        is_first = launch.threadgroup[0] == first
        clock.now += count * (1e-3 if is_first else 1e-6)
        return [np.full(2, float(not is_first))] * count

    assert new(clock, store).best("key", launches(), 0.0, run, np.array_equal) == 0


def test_a_trial_is_bounded_in_seconds() -> None:
    clock, ran = Clock(), []

    def run(launch: Launch, count: int) -> list[Any]:
        ran.append(launch)
        clock.now += 0.6 if count == 1 else 1e-3  # compilation
        return [np.zeros(2)] * count

    tuned = new(clock, memory())
    tuned.best("key", launches(), 0.1, run, np.array_equal)
    assert len(set(ran)) == 2  # the second began before the deadline, a third would not
    tuned._left = 0.0
    ran.clear()
    assert tuned.best("key", launches(), 0.1, run, np.array_equal) is None
    assert not ran


def test_nothing_is_timed_where_that_is_off_or_compilation_takes_long() -> None:
    clock = Clock()
    off = AutotuneSettings(measure=False, persist=True, cache_path=None, threads={})
    store = memory()
    assert trial(new(clock, store, off), clock, lambda group: 1e-3) is None
    assert trial(new(clock, store), clock, lambda group: 1e-3, seconds=3.0) is None
    assert clock.now == 0.0
    assert store.sections() == {}
    store.put(SECTION, new(clock, store).key(launches()[0]), shape_of(launches()[1]))
    assert new(clock, store, off).known(new(clock, store).key(launches()[0]), launches()) is None


def test_two_threads_do_not_try_at_once() -> None:
    clock, store = Clock(), memory()
    tuned, begun, go = new(clock, store), threading.Event(), threading.Event()
    found: list[int | None] = []

    def run(launch: Launch, count: int) -> list[Any]:
        begun.set()
        assert go.wait(10)
        clock.now += count * launch.threadgroup[0] * 1e-6
        return [np.zeros(2)] * count

    def first() -> None:
        found.append(tuned.best("key", launches(), 0.0, run, np.array_equal))

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(10)
    assert tuned.best("key", launches(), 0.0, run, np.array_equal) is None
    go.set()
    thread.join()
    assert found == [groups().index(min(groups()))]


@pytest.mark.parametrize("damaged", ["x", 7, [], [7, 7], {"threads": 1}, [[1], 2]])
def test_a_verdict_that_means_nothing_is_ignored(damaged: Any) -> None:
    store = memory()
    tuned = new(Clock(), store)
    store.put(SECTION, tuned.key(launches()[0]), damaged)
    assert tuned.known(tuned.key(launches()[0]), launches()) is None


@settings(max_examples=200)  # a plan takes milliseconds to make
@given(points=st.integers(1, plans.MAX_POINTS).filter(plans.analysis_radices), many=st.booleans())
def test_every_shape_fits_a_group_and_transforms_alike(points: int, many: bool) -> None:
    best = plans.analysis_plans(points, 10**6 if many else 1)[0]
    found = plans.shapes(best)
    assert found[0] == best
    assert len(set(found)) == len(found) <= plans.MAX_SHAPES
    for plan in found:
        assert plan.radices == best.radices
        assert 0 < plan.group <= plans.MAX_GROUP_THREADS
        assert plan.memory_bytes <= plans.GROUP_MEMORY_BYTES
        assert plans.of_group(best, plan.group).group == plan.group


class Emulated:
    """Kernels that are emulated, and tuned by a clock of their own."""

    def __init__(self, folder: Path, store: Store, cost: Callable[[int], float]) -> None:
        self.machine = emulator.Machine(cache_dir=folder, orders=("ascending",))
        self.clock = Clock()
        self.gpu = Gpu(self.clock, cost)
        factory = self.gpu.factory(self.machine.metal_kernel)
        self.kernels = MetalKernels(mx, factory, new(self.clock, store))

    def analyse(self, samples: int = 300) -> np.ndarray:
        signal = mx.array(np.random.default_rng(samples).standard_normal((1, samples), np.float32))
        window = mx.array(np.linspace(0.1, 1.0, 16, dtype=np.float32))
        return np.array(self.kernels.analysis(params(samples), signal, window, None))


@needs_emulator
def test_kernels_are_tried_once_and_the_next_process_does_not_try(
    metal_cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "verdicts.json"
    slowest = groups()[0]
    wanted = max(group for group in groups() if group != slowest)

    def cost(group: int) -> float:
        return {slowest: 2e-4, wanted: 1e-5}.get(group, 1e-4)

    store = Store(path, versions=VERSIONS)
    first = Emulated(metal_cache, store, cost)
    expected = first.analyse()
    assert len(set(first.gpu.launched)) > 2
    tried = len(first.gpu.launched)
    np.testing.assert_array_equal(first.analyse(), expected)
    first.analyse(500)  # another length, the same kernel
    assert first.gpu.launched[tried:] == [wanted, wanted]
    assert store.flush()
    second = Emulated(metal_cache, Store(path, versions=VERSIONS), cost)
    np.testing.assert_array_equal(second.analyse(), expected)
    np.testing.assert_array_equal(second.analyse(), expected)
    assert second.gpu.launched == [wanted, wanted]


@needs_emulator
def test_a_shape_that_the_gpu_refuses_is_passed_over(metal_cache: Path) -> None:
    limit = groups()[0]
    tuned = Emulated(metal_cache, memory(), lambda group: 1e-3 / group)
    tuned.machine.max_threads = limit
    tuned.analyse()
    tuned.analyse()
    assert max(tuned.gpu.launched) > limit  # it was tried
    assert tuned.gpu.launched[-1] <= limit
    kept = Emulated(metal_cache, memory(), lambda group: 1e-3)
    kept.kernels._tuning._verdicts().put(  # type: ignore[union-attr]
        SECTION, new(Clock(), memory()).key(launches()[0]), shape_of(launches()[1])
    )
    kept.machine.max_threads = limit  # of another driver, perhaps: what was kept does not run
    kept.analyse()
    kept.analyse()
    assert kept.gpu.launched[-1] <= limit


@needs_emulator
@pytest.mark.parametrize("text", ["64", "analysis:64", "synthesis:512,analysis:64"])
def test_the_environment_demands_a_group(
    metal_cache: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SPEC_MLX_TGX", text)
    forced = Emulated(metal_cache, memory(), lambda group: 1e-3)
    forced.analyse()
    assert forced.gpu.launched == [64]
    forced.machine.max_threads = 32
    forced.kernels._running.clear()
    with pytest.raises(ValueError, match="SPEC_MLX_TGX"):
        forced.analyse()


@needs_emulator
def test_a_group_that_cannot_be_is_an_error_that_names_the_variable(
    metal_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEC_MLX_TGX", "analysis:1023")
    with pytest.raises(ValueError, match=r"SPEC_MLX_TGX cannot be satisfied: no group of 1023"):
        Emulated(metal_cache, memory(), lambda group: 1e-3).analyse()


class Shader:
    """``torch.mps.compile_shader`` of a GPU whose launches take as long as ``cost`` says."""

    def __init__(self, folder: Path, gpu: Gpu) -> None:
        self._machine = emulator.Machine(cache_dir=folder, orders=("ascending",))
        self._gpu = gpu

    def __call__(self, text: str) -> Any:
        library, gpu = self._machine.compile_shader(text), self._gpu

        class Kernel:
            max_threads_per_threadgroup = library.spectro_analysis.max_threads_per_threadgroup

            def __call__(self, *arguments: Any, group_size: Any, **more: Any) -> None:
                gpu.launched.append(group_size[0])
                gpu.clock.now += gpu.cost(group_size[0])
                library.spectro_analysis(*arguments, group_size=group_size, **more)

        return SimpleNamespace(spectro_analysis=Kernel())


@needs_emulator
def test_shapes_are_tried_on_torchs_own_stream_too(
    metal_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[None] = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append(None))
    slowest, store = groups()[0], memory()
    wanted = max(group for group in groups() if group != slowest)

    def cost(group: int) -> float:
        return {slowest: 2e-4, wanted: 1e-5}.get(group, 1e-4)

    def analyse(kernels: MpsKernels, samples: int) -> torch.Tensor:
        signal = torch.linspace(-1, 1, samples).square()[None]
        found = kernels.analysis(params(samples), signal, torch.hann_window(16))
        assert found is not None
        return found

    gpu = Gpu(Clock(), cost)
    kernels = MpsKernels(Shader(metal_cache, gpu), new(gpu.clock, store))
    expected = analyse(kernels, 300)
    assert len(set(gpu.launched)) > 2
    assert waited
    tried = len(gpu.launched)
    with pytest.MonkeyPatch.context() as settled:  # nobody is asked any more
        settled.setattr(kernels, "_tuning", None)
        torch.testing.assert_close(analyse(kernels, 300), expected, rtol=0, atol=0)
    analyse(kernels, 500)  # of another length the first call is by the first plan
    analyse(kernels, 500)
    assert gpu.launched[tried:] == [wanted, slowest, wanted]
    again = Gpu(Clock(), cost)
    second = MpsKernels(Shader(metal_cache, again), new(again.clock, store))
    for _ in range(2):
        torch.testing.assert_close(analyse(second, 300), expected, rtol=0, atol=0)
    assert again.launched == [slowest, wanted]
    plain = Gpu(Clock(), cost)
    untuned = MpsKernels(Shader(metal_cache, plain))
    torch.testing.assert_close(analyse(untuned, 300), expected, rtol=0, atol=0)
    monkeypatch.setenv("SPEC_MLX_TGX", "64")
    forced = MpsKernels(Shader(metal_cache, plain), new(plain.clock, memory()))
    torch.testing.assert_close(analyse(forced, 300), expected, rtol=0, atol=0)
    assert plain.launched == [slowest, 64]


def test_nothing_is_timed_in_a_trace_and_a_plan_that_runs_is_found_there() -> None:
    clock, store = Clock(), memory()
    gpu = Gpu(clock, lambda group: 1e-3)
    made = gpu.factory(lambda **_: _Late())
    kernels = MetalKernels(mx, made, new(clock, store))
    window = mx.ones((16,))

    def analyse(signal: Any) -> Any:
        return kernels.analysis(params(), signal, window, None)

    compiled = mx.compile(analyse)
    group = float(np.array(compiled(mx.zeros((1, 300))))[0, 0, 0].real)
    assert group <= _Late.LIMIT
    assert store.sections() == {}
    analyse(mx.zeros((1, 300)))
    assert SECTION in store.sections()  # with values it is timed


class _Late:
    """A kernel of an MLX with a GPU: lazy, and refused when it is evaluated with values."""

    LIMIT = 100

    def __call__(self, **given: Any) -> list[Any]:
        signal, group = given["inputs"][0], given["threadgroup"][0]
        if group > self.LIMIT:
            mx.eval(signal)  # a trace's error comes first, as it does in MLX
            raise ValueError("Thread group size is greater than the pipeline allows")
        lazy = mx.sum(signal) * 0 + group
        return [mx.broadcast_to(lazy, given["output_shapes"][0]).astype(mx.complex64)]
