"""The launcher for MPS: the text that it compiles, what it binds, and what it does when refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from needs import needs_emulator
from reference import istft_params, random_tensor, stft_params

from torch_mlx_spectro import emulator
from torch_mlx_spectro.backends.mps import launcher as mps
from torch_mlx_spectro.backends.mps.launcher import MpsKernels, MpsProblem, mps_kernels
from torch_mlx_spectro.kernels import describe, framing
from torch_mlx_spectro.kernels.arguments import INPUTS
from torch_mlx_spectro.kernels.describe import Adjoint, Launch
from torch_mlx_spectro.kernels.texts.mps import list_arguments, write_text
from torch_mlx_spectro.native import functions as native
from torch_mlx_spectro.native import private_state as torch_state
from torch_mlx_spectro.store.sources import source

SIGNAL = random_tensor(0, 2, 100)
WINDOW = torch.hann_window(16)
PARAMS = stft_params(SIGNAL, WINDOW, n_fft=16, hop_length=5, return_complex=True)


class Recorder:
    """Stands in for ``torch.mps.compile_shader``: notes texts and calls, computes nothing."""

    def __init__(self, allowed: Callable[[str], int] = lambda text: 1024) -> None:
        self.texts: list[str] = []
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._allowed = allowed

    def __call__(self, text: str) -> Any:
        self.texts.append(text)
        recorder, allowed = self, self._allowed(text)

        class Kernel:
            max_threads_per_threadgroup = allowed

            def __call__(self, *args: Any, **sizes: Any) -> None:
                recorder.calls.append((args, sizes))

        return SimpleNamespace(**{f"spectro_{name}": Kernel() for name in INPUTS})


def launches() -> list[Launch]:
    """One launch of each kernel."""
    params = istft_params(torch.zeros(1, 513, 400, dtype=torch.complex64), None, n_fft=1024)
    small = istft_params(torch.zeros(1, 9, 5, dtype=torch.complex64), None, n_fft=16)
    return [
        describe.list_analyses(PARAMS, False, False)[0],
        describe.list_syntheses(small, True, False)[0],
        describe.list_syntheses(params, False, False)[0],
        framing.cut_frames(PARAMS, True, False),
        framing.add_frames(small, False, Adjoint(8, "reflect", False)),
    ]


def test_every_kernel_is_among_the_launches() -> None:
    assert {launch.kernel for launch in launches()} == set(INPUTS)


@pytest.mark.parametrize("launch", launches(), ids=lambda launch: launch.kernel)
def test_the_text_of_a_launch(launch: Launch) -> None:
    text = write_text(launch.kernel, launch.template)
    assert text.isascii()  # torch hands it on as ASCII
    assert text.startswith("#include <metal_stdlib>\n#pragma METAL fp math_mode(safe)\n")
    assert "#include" not in text[10:]
    # Strides and integers are copied into the command: constant memory, everywhere.
    assert "device long" not in text
    assert text.count("constant long* parameters [[buffer(") == 1
    assert text.count("[[kernel]]") == 1
    for name, value in launch.template:
        kind = "bool" if isinstance(value, bool) else "int"
        assert f"  constexpr {kind} {name} = {int(value)};\n" in text
    arguments = list_arguments(launch.kernel)
    assert ("strides" in arguments) == ("_strides[" in source(f"{launch.kernel}.metal"))
    for index, name in enumerate(arguments):
        spelled = f"{arguments[0]}_strides" if name == "strides" else name
        assert f" {spelled} [[buffer({index})]]" in text


def test_constants_are_the_only_difference_of_variants() -> None:
    template = framing.cut_frames(PARAMS, False, False).template
    changed = (template[0], ("COMPLEX_WINDOW", True), *template[2:])
    plain, complex_window = (
        write_text("cut_frames", given).splitlines() for given in (template, changed)
    )
    different = [pair for pair in zip(plain, complex_window, strict=True) if pair[0] != pair[1]]
    assert different == [
        ("  constexpr bool COMPLEX_WINDOW = 0;", "  constexpr bool COMPLEX_WINDOW = 1;")
    ]


def test_what_is_bound() -> None:
    recorder = Recorder()
    kernels = MpsKernels(recorder)
    strided = SIGNAL.t().contiguous().t()
    result = kernels.compute_analysis(PARAMS, strided, WINDOW, edge=2)
    assert result is not None
    ((args, sizes),) = recorder.calls
    launch = describe.list_analyses(PARAMS, False, False)[0]
    signal, strides, window, table, parameters, edge, output = args
    assert signal is strided
    assert strides == [1, 2]
    assert window is WINDOW
    assert table.dtype == torch.complex64
    assert parameters == list(launch.integers)
    assert (edge, type(edge)) == (2.0, float)
    assert output is result
    assert (result.shape, result.dtype) == ((2, 21, 9), torch.complex64)
    assert sizes == {"threads": launch.grid, "group_size": launch.threadgroup}
    assert all(type(one) is int for one in (*strides, *parameters))


def test_a_new_length_compiles_nothing() -> None:
    recorder = Recorder()
    kernels = MpsKernels(recorder)
    for samples in (100, 300, 100):
        signal = torch.zeros(2, samples)
        params = stft_params(signal, WINDOW, n_fft=16, hop_length=5, return_complex=True)
        kernels.compute_analysis(params, signal, WINDOW)
    assert len(recorder.texts) == 1
    assert len({id(args[3]) for args, _ in recorder.calls}) == 1  # the table
    assert len(recorder.calls) == 3


def test_an_empty_result_is_not_launched() -> None:
    recorder = Recorder()
    signal = torch.zeros(0, 100)
    params = stft_params(signal[:1].new_zeros(1, 100), WINDOW, n_fft=16, return_complex=True)
    empty = Launch("analysis", (), (), (0, 0, 1), (1, 1, 1), (0, params.frames, 9), True)
    result = MpsKernels(recorder).run((empty,), signal, WINDOW)
    assert result.shape == (0, params.frames, 9)
    assert not recorder.calls


def test_the_first_plan_that_the_gpu_accepts_is_taken() -> None:
    params = stft_params(torch.zeros(1, 9000), None, n_fft=2048, return_complex=True)
    plans = describe.list_analyses(params, False, False)
    groups = [launch.threadgroup[0] for launch in plans]
    fewest = min(groups)
    assert groups[0] > fewest
    recorder = Recorder(lambda text: fewest)
    kernels = MpsKernels(recorder)
    kernels.compute_analysis(params, torch.zeros(1, 9000), torch.ones(2048))
    taken = groups.index(fewest)
    assert len(recorder.texts) == taken + 1
    (((args, sizes)),) = recorder.calls
    assert sizes["group_size"] == plans[taken].threadgroup
    assert args[4] == list(plans[taken].integers)
    assert kernels.refusal(plans, torch.device("cpu")) is None


def test_no_plan_is_a_reason_told_without_compiling_again() -> None:
    recorder = Recorder(lambda text: 1)
    kernels = MpsKernels(recorder)
    signal = torch.zeros(1, 9000)
    params = stft_params(signal, None, n_fft=2048, return_complex=True)
    plans = describe.list_analyses(params, False, False)
    for _ in range(2):
        reason = kernels.refusal(plans, torch.device("cpu"))
        assert reason is not None
        assert "allows 1 threads" in reason
        assert len(recorder.texts) == len({launch.template for launch in plans})
    with pytest.raises(MpsProblem, match="allows 1 threads"):
        kernels.compute_analysis(params, signal, torch.ones(2048))
    # Threads that do not cooperate come in smaller groups.
    kernels.cut_frames(PARAMS, SIGNAL, WINDOW)
    assert recorder.calls[-1][1]["group_size"] == (1, 1, 1)


def test_more_threads_than_metal_counts() -> None:
    recorder = Recorder()
    launch = replace(framing.cut_frames(PARAMS, False, False), grid=(1 << 31, 1, 1))
    reason = MpsKernels(recorder).refusal((launch,), torch.device("cpu"))
    assert reason == "more threads than Metal counts"
    assert not recorder.texts


@pytest.mark.parametrize("error", [SyntaxError, RuntimeError])
def test_what_metal_does_not_compile_is_a_reason(error: type[Exception]) -> None:
    asked: list[str] = []

    def refuses(text: str) -> Any:
        asked.append(text)
        raise error("2 warnings\nprogram_source:3:1: error: no such thing\nmore")

    kernels = MpsKernels(refuses)
    plans = describe.list_analyses(PARAMS, False, False)
    for _ in range(2):
        reason = kernels.refusal(plans, torch.device("cpu"))
        expected = "Metal refuses spectro_analysis: program_source:3:1: error: no such thing"
        assert reason == expected
    assert len(asked) == len({launch.template for launch in plans})  # another might be taken

    def broken(text: str) -> Any:
        raise KeyError("a bug of ours")

    with pytest.raises(KeyError):
        MpsKernels(broken).refusal(plans, torch.device("cpu"))


def test_caches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mps, "CACHE_ENTRIES", 2)
    kernels = MpsKernels(Recorder())
    for n_fft in (8, 16, 32, 64):
        params = stft_params(SIGNAL, None, n_fft=n_fft, return_complex=True)
        kernels.compute_analysis(params, SIGNAL, torch.ones(n_fft))
    for cache in (kernels._kernels, kernels._ready, kernels._constants):
        assert len(cache) == 2


def test_many_threads_compile_once() -> None:
    recorder = Recorder()
    kernels = MpsKernels(recorder)
    ready = threading.Barrier(4)

    def call() -> None:
        ready.wait()
        kernels.compute_analysis(PARAMS, SIGNAL, WINDOW)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(recorder.texts) == 1
    assert len(recorder.calls) == 4


@needs_emulator
def test_the_kernels_are_those_of_the_function_in_place(metal_cache: Path) -> None:
    before = mps_kernels()
    with emulator.Machine(cache_dir=metal_cache).installed():
        inside = mps_kernels()
        assert inside is not before
        assert inside is mps_kernels()
    assert mps_kernels() is before


def computed(metal_cache: Path, transform: Callable[[str], str] | None = None) -> float:
    """The largest error of an emulated analysis."""
    machine = emulator.Machine(cache_dir=metal_cache, checked=True, transform=transform)
    window = WINDOW * PARAMS.scale
    result = MpsKernels(machine.compile_shader).compute_analysis(PARAMS, SIGNAL, window)
    assert result is not None
    assert [launch.kernel for launch in machine.launches] == ["spectro_analysis"]
    expected = native.stft(SIGNAL, 16, 5, window=WINDOW, return_complex=True)
    return float((result.transpose(1, 2) - expected).abs().max())


@needs_emulator
def test_the_text_computes(metal_cache: Path) -> None:
    assert computed(metal_cache) < 2e-6


@needs_emulator
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("constant long* signal_strides [[buffer(1)]]", "constant long* unused [[buffer(1)]]"),
        ("const device float* table [[buffer(3)]]", "const device float* table [[buffer(2)]]"),
        ("constexpr int POINTS = 8;", "constexpr int POINTS = 4;"),
        ("constant float& edge", "constant long& edge"),
    ],
)
def test_a_text_that_is_not_bound_so_fails(metal_cache: Path, old: str, new: str) -> None:
    def transform(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    with pytest.raises((emulator.EmulatorError, MpsProblem)):
        computed(metal_cache, transform)


@pytest.mark.parametrize("emulated", [False, True])
def test_runs_are_for_the_cores_at_hand(monkeypatch: pytest.MonkeyPatch, emulated: bool) -> None:
    recorder: Any = Recorder()
    recorder.emulated = emulated
    monkeypatch.setattr(torch.mps, "compile_shader", recorder)
    monkeypatch.setattr(torch.backends.mps, "get_core_count", lambda: 8, raising=False)
    monkeypatch.setenv("SPEC_MLX_AUTOTUNE", "0")
    kernels = mps_kernels()
    assert kernels.cores == (10 if emulated else 8)
    spectrum, window = torch.zeros(1, 1700, 513, dtype=torch.complex64), torch.ones(1024)
    params = istft_params(spectrum.transpose(1, 2), window, n_fft=1024, hop_length=256)
    kernels.compute_synthesis(params, spectrum, window)
    ((_, sizes),) = recorder.calls
    launch = describe.list_syntheses(params, False, False, cores=kernels.cores)[0]
    assert sizes["threads"] == launch.grid
    assert launch.grid < describe.list_syntheses(params, False, False)[0].grid


@pytest.mark.parametrize("error", [RuntimeError, AttributeError])
def test_cores_that_torch_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse() -> int:
        raise error

    monkeypatch.setattr(torch.backends.mps, "get_core_count", refuse, raising=False)
    assert torch_state.mps_cores() is None
