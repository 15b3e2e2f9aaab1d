"""Trials of groups' shapes: by a clock that is not real, on kernels that are emulated."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
from reference import istft_params, stft_params

from torch_mlx_spectro import emulator
from torch_mlx_spectro.backends.mps.launcher import MpsKernels
from torch_mlx_spectro.errors import KernelRefused
from torch_mlx_spectro.kernels import describe
from torch_mlx_spectro.kernels import radices as plans
from torch_mlx_spectro.kernels.chooser import SECTION, Chooser, describe_shape
from torch_mlx_spectro.kernels.launches import Launch
from torch_mlx_spectro.mlx.launcher import MetalKernels
from torch_mlx_spectro.settings import AutotuneSettings, autotune_settings
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
    best = describe.list_analyses(params(samples), False, False)[0]
    return [best, *describe.list_shapes(best)]


def new(clock: Clock, store: Store, settings: AutotuneSettings = MEASURING) -> Chooser:
    """A chooser of one GPU; groups are as the environment demands."""
    settings = replace(settings, threads=autotune_settings().threads)
    return Chooser(lambda: "a GPU", verdicts=lambda: store, clock=clock, settings=settings)


def memory() -> Store:
    return Store(None, versions=VERSIONS)


Run = Callable[[Launch, int], list[Any]]


def name(launch: Launch) -> str:
    """What a verdict is kept under."""
    return new(Clock(), memory())._name(launch)


def choose(chooser: Chooser, run: Run, accept: Callable[[Launch], Any] = id) -> int:
    """The index of the launch that is chosen, of launches that ``run`` computes."""
    taken, _ = chooser.choose(launches()[:1], accept, run, np.array_equal)
    return launches().index(taken)


def timed(clock: Clock, cost: Callable[[int], float]) -> Run:
    """Launches that take so long, by the threads of a group, and compute nothing."""

    def run(launch: Launch, count: int) -> list[Any]:
        clock.now += count * cost(launch.threadgroup[0])
        return [np.zeros(2)] * count

    return run


def never(*_: Any) -> Any:
    raise AssertionError("nothing is to be tried")


def groups() -> list[int]:
    return [launch.threadgroup[0] for launch in launches()]


@pytest.mark.parametrize("fastest", range(3))
def test_the_fastest_shape_is_taken_and_kept(fastest: int) -> None:
    clock, store = Clock(), memory()
    chooser, wanted = new(clock, store), launches()[fastest]
    times = {tuple(describe_shape(launch)): 1e-4 for launch in launches()}
    times[tuple(describe_shape(wanted))] = 5e-5

    def run(launch: Launch, count: int) -> list[Any]:
        clock.now += count * times[tuple(describe_shape(launch))]
        return [np.zeros(2)] * count

    assert choose(chooser, run) == fastest
    assert store.get(SECTION, name(launches()[0])) == describe_shape(wanted)
    assert choose(chooser, never, never) == fastest
    assert choose(new(Clock(), store), never) == fastest


def test_a_choice_is_for_all_lengths_and_one_place() -> None:
    clock = Clock()
    chooser, last = new(clock, memory()), min(groups())
    run = timed(clock, lambda group: 1e-6 * group)
    for place in ("a GPU", "another"):
        for samples in (300, 500):
            first, *others = launches(samples)
            accept = id if samples == 300 else never
            taken, _ = chooser.choose([first], accept, run, np.array_equal, place)
            assert taken.threadgroup[0] == last
            assert taken in others
            assert chooser.find([first], place) is taken


def test_a_shape_that_is_hardly_faster_is_not_taken() -> None:
    clock, first = Clock(), groups()[0]
    run = timed(clock, lambda group: 1.0e-4 if group == first else 0.98e-4)
    assert choose(new(clock, memory()), run) == 0


def test_a_shape_of_other_bits_is_never_taken() -> None:
    clock, store = Clock(), memory()
    first = groups()[0]

    def run(launch: Launch, count: int) -> list[Any]:
        is_first = launch.threadgroup[0] == first
        clock.now += count * (1e-3 if is_first else 1e-6)
        return [np.full(2, float(not is_first))] * count

    assert choose(new(clock, store), run) == 0


def test_a_trial_is_bounded_in_seconds() -> None:
    clock, ran = Clock(), []

    def run(launch: Launch, count: int) -> list[Any]:
        ran.append(launch)
        clock.now += 0.6 if count == 1 else 1e-3  # compilation
        return [np.zeros(2)] * count

    chooser = new(clock, memory())
    choose(chooser, run)
    assert len(set(ran)) == 2  # the second began before the deadline, a third would not
    chooser._left = 0.0
    chooser._taken.clear()
    assert choose(chooser, never) == 0


def test_nothing_is_timed_where_that_is_off_or_compilation_takes_long() -> None:
    clock, store = Clock(), memory()

    def compile_slowly(launch: Launch) -> Launch:
        clock.now += 3.0
        return launch

    off = AutotuneSettings(measure=False, persist=True, cache_path=None, threads={})
    assert choose(new(clock, store, off), never) == 0
    assert choose(new(clock, store), never, compile_slowly) == 0
    assert choose(Chooser(clock=clock, verdicts=lambda: store), never) == 0
    assert store.sections() == {}
    store.put(SECTION, name(launches()[0]), describe_shape(launches()[1]))
    assert choose(new(clock, store, off), never) == 0


def test_two_threads_do_not_try_at_once() -> None:
    clock, store = Clock(), memory()
    chooser, begun, go = new(clock, store), threading.Event(), threading.Event()
    found: list[int] = []

    def run(launch: Launch, count: int) -> list[Any]:
        begun.set()
        assert go.wait(10)
        clock.now += count * launch.threadgroup[0] * 1e-6
        return [np.zeros(2)] * count

    thread = threading.Thread(target=lambda: found.append(choose(chooser, run)))
    thread.start()
    assert begun.wait(10)
    assert choose(chooser, never) == 0
    go.set()
    thread.join()
    assert found == [groups().index(min(groups()))]
    assert choose(chooser, never, never) == found[0]  # the first plan gave way


def test_the_first_launch_that_is_accepted_is_taken() -> None:
    few = launches()[2].threadgroup[0]

    def accept(launch: Launch) -> str:
        if launch.threadgroup[0] > few:
            raise KernelRefused(f"not {launch.threadgroup[0]}")
        return "made"

    chooser, some = Chooser(), sorted(launches(), key=lambda launch: -launch.threadgroup[0])
    assert some[0].threadgroup[0] > few
    taken, made = chooser.choose(some, accept, never, never)
    assert (taken.threadgroup[0], made) == (few, "made")
    assert chooser.choose(some, never, never, never) == (taken, None)
    with pytest.raises(KernelRefused, match=f"not {some[0].threadgroup[0]}"):
        Chooser().choose(some[:1], accept, never, never)


def test_what_is_made_without_values_is_not_kept() -> None:
    chooser, asked = Chooser(), []

    def accept(launch: Launch) -> Any:
        asked.append(launch)
        return "made" if len(asked) == 3 else None

    assert [chooser.choose(launches()[:1], accept, never, never)[1] for _ in range(4)] == [
        *(None, None),
        *("made", None),
    ]
    assert len(asked) == 3


def walks(samples: int = 5000) -> tuple[Launch, ...]:
    """Launches of one synthesis on an Apple GPU: walks, then others."""
    spectrum = torch.empty(1, 513, 1 + samples // 256, dtype=torch.complex64)
    sizes = istft_params(spectrum, torch.ones(1024), n_fft=1024, hop_length=256)
    return describe.list_syntheses(sizes, False, False, cores=10)


WALKS = [launch for launch in walks() if launch.kernel == "synthesis_walk"]


def time_walks(clock: Clock, fastest: int, results: Callable[[Launch], Any]) -> Run:
    """Launches of which one takes half as long, with these results."""

    def run(launch: Launch, count: int) -> list[Any]:
        clock.now += count * (5e-5 if launch.template == WALKS[fastest].template else 1e-4)
        return [results(launch)] * count

    return run


def choose_walk(chooser: Chooser, run: Run, accept: Any = id, samples: int = 5000) -> int:
    every = walks(samples)
    taken, made = chooser.choose(every, accept, run, lambda *pair: np.allclose(*pair, atol=1e-4))
    assert made is None or every.index(taken) == 0  # the result of the one that is taken
    return every.index(taken)


@pytest.mark.parametrize("fastest", range(len(WALKS)))
def test_the_fastest_walk_is_taken_and_kept(fastest: int) -> None:
    """Their results differ by rounding; whatever is taken computes every call of the process."""
    assert len(WALKS) == 4
    clock, store = Clock(), memory()
    chooser = new(clock, store)
    run = time_walks(clock, fastest, lambda launch: np.full(2, 1 + 1e-7 * launch.threadgroup[0]))
    assert choose_walk(chooser, run) == fastest
    assert store.get(SECTION, name(WALKS[0])) == describe_shape(WALKS[fastest])
    assert choose_walk(chooser, never, never) == fastest
    assert choose_walk(chooser, never, never, 9000) == fastest  # another length
    again = new(Clock(), store)
    taken, _ = again.choose(walks(), id, never, never)
    assert taken.template == WALKS[fastest].template


def test_shapes_of_walks_are_told_apart() -> None:
    for n in (400, 1024, 4096, 6144, 8192):
        spectrum = torch.empty(1, n // 2 + 1, 20, dtype=torch.complex64)
        sizes = istft_params(spectrum, torch.ones(n), n_fft=n, hop_length=n // 4)
        for fastest in (False, True):
            every = describe.list_syntheses(sizes, False, fastest, cores=10)
            shapes = [describe_shape(one) for one in every if one.kernel == "synthesis_walk"]
            assert len({*map(tuple, shapes)}) == len(shapes) > 2


def test_deterministic_programs_have_one_walk() -> None:
    """Neither a trial nor what an earlier one found changes the bits of their results."""
    wanted = [True]
    for found in (None, describe_shape(WALKS[2])):
        clock, store = Clock(), memory()
        if found is not None:
            store.put(SECTION, name(WALKS[0]), found)
        chooser = Chooser(
            lambda: "a GPU",
            verdicts=lambda store=store: store,  # type: ignore[misc]
            clock=clock,
            settings=MEASURING,
            is_deterministic=lambda: wanted[0],
        )
        wanted[0] = True
        assert choose_walk(chooser, never) == 0
        wanted[0] = False
        run = time_walks(clock, 2, lambda launch: np.ones(2))
        taken, _ = chooser.choose(walks(), id, run, np.array_equal)
        assert taken.template == WALKS[2].template
        wanted[0] = True
        assert choose_walk(chooser, never, never) == 0
        assert choose(chooser, timed(clock, lambda group: 1e-6 * group)) > 0  # the same bits


def test_a_walk_of_another_result_is_never_taken() -> None:
    clock, store = Clock(), memory()
    run = time_walks(clock, 1, lambda launch: np.full(2, float(launch == walks()[1])))
    assert choose_walk(new(clock, store), run) == 0


def test_walks_that_take_long_to_compile_are_tried_and_compilation_is_no_time() -> None:
    """As a Mac may take a second for each; the whole trial is bounded."""
    clock, compiled = Clock(), set[Any]()

    def run(launch: Launch, count: int) -> list[Any]:
        if launch.template not in compiled:
            compiled.add(launch.template)
            clock.now += 0.9
        clock.now += count * (5e-5 if launch.template == WALKS[3].template else 1e-4)
        return [np.ones(2)] * count

    def accept(launch: Launch) -> Any:
        return run(launch, 1)

    assert choose_walk(new(clock, memory()), run, accept) == 3
    assert clock.now < 4.0
    compiled.clear()
    slow = Clock()

    def run_slowly(launch: Launch, count: int) -> list[Any]:
        slow.now += 2.5 if count == 1 else 1e-3
        compiled.add(launch.template)
        return [np.ones(2)] * count

    assert choose_walk(new(slow, memory()), run_slowly) == 0
    assert len(compiled) == 2  # the third would have begun behind the deadline


def test_smaller_walks_come_before_the_general_kernel() -> None:
    """On a GPU that refuses the first one; a trial goes over what it refuses."""
    clock, allowed = Clock(), 0

    def accept(launch: Launch) -> Any:
        if launch.threadgroup[0] > allowed:
            raise KernelRefused("too many threads")
        return [np.ones(2)]

    def run(launch: Launch, count: int) -> list[Any]:
        clock.now += count * 1e-4
        return [*accept(launch) * count]

    for allowed in (100, 64, 32):
        for chooser in (Chooser(), new(clock, memory())):
            taken, _ = chooser.choose(walks(), accept, run, np.array_equal)
            assert (taken.kernel == "synthesis_walk") == (allowed >= 64)
            assert taken.threadgroup[0] <= allowed


@pytest.mark.parametrize("damaged", ["x", 7, [], [7, 7], {"threads": 1}, [[1], 2]])
def test_a_verdict_that_means_nothing_is_ignored(damaged: Any) -> None:
    store = memory()
    store.put(SECTION, name(launches()[0]), damaged)
    assert new(Clock(), store)._recall(launches()) is None


@settings(max_examples=200)  # a plan takes milliseconds to make
@given(
    points=st.integers(1, plans.MAX_POINTS).filter(plans.find_analysis_radices), many=st.booleans()
)
def test_every_shape_fits_a_group_and_transforms_alike(points: int, many: bool) -> None:
    best = plans.list_analysis_plans(points, 10**6 if many else 1)[0]
    found = plans.list_plan_shapes(best)
    assert found[0] == best
    assert len(set(found)) == len(found) <= plans.MAX_SHAPES
    for plan in found:
        assert plan.radices == best.radices
        assert 0 < plan.group <= plans.MAX_GROUP_THREADS
        assert plan.memory_bytes <= plans.GROUP_MEMORY_BYTES
        assert plans.resize_group(best, plan.group).group == plan.group


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
        return np.array(self.kernels.compute_analysis(params(samples), signal, window, None))


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
    kept.kernels.chooser._verdicts().put(
        SECTION, name(launches()[0]), describe_shape(launches()[1])
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
    forced.kernels.chooser._taken.clear()
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
        found = kernels.compute_analysis(params(samples), signal, torch.hann_window(16))
        assert found is not None
        return found

    gpu = Gpu(Clock(), cost)
    kernels = MpsKernels(Shader(metal_cache, gpu), new(gpu.clock, store))
    expected = analyse(kernels, 300)
    assert len(set(gpu.launched)) > 2
    assert waited
    tried = len(gpu.launched)
    for samples in (300, 500):  # of another length, too
        assert torch.equal(analyse(kernels, samples), analyse(kernels, samples))
    torch.testing.assert_close(analyse(kernels, 300), expected, rtol=0, atol=0)
    assert set(gpu.launched[tried:]) == {wanted}
    again = Gpu(Clock(), cost)
    second = MpsKernels(Shader(metal_cache, again), new(again.clock, store))
    for _ in range(2):
        torch.testing.assert_close(analyse(second, 300), expected, rtol=0, atol=0)
    assert again.launched == [wanted, wanted]
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
        return kernels.compute_analysis(params(), signal, window, None)

    compiled = mx.compile(analyse)
    group = float(np.array(compiled(mx.zeros((1, 300))))[0, 0, 0].real)
    assert group <= _Late.LIMIT
    assert store.sections() == {}
    analyse(mx.zeros((1, 300)))
    assert SECTION in store.sections()  # with values it is timed


def test_after_a_trace_a_choice_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each later call waited for its result, where a trace came before calls with values."""
    kernels = MetalKernels(mx, lambda **_: _Late())
    window = mx.ones((16,))

    def analyse(signal: Any) -> Any:
        return kernels.compute_analysis(params(), signal, window, None)

    mx.eval(mx.compile(analyse)(mx.zeros((1, 300))), analyse(mx.zeros((1, 300))))
    monkeypatch.setattr(kernels, "_evaluate", never)
    analyse(mx.zeros((1, 300)))


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
