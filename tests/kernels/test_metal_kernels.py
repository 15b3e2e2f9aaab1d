"""The launcher, and what the kernels compute beyond torch's two functions: each other's adjoint."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from needs import needs_emulator
from reference import istft_params, random_array, random_tensor, stft_params

from torch_mlx_spectro import emulator
from torch_mlx_spectro.core.params import IstftParams, StftParams
from torch_mlx_spectro.emulator import execute
from torch_mlx_spectro.emulator.memory import Memory
from torch_mlx_spectro.errors import KernelRefused
from torch_mlx_spectro.kernels import describe
from torch_mlx_spectro.kernels.describe import Adjoint
from torch_mlx_spectro.kernels.launches import order_integers
from torch_mlx_spectro.kernels.radices import find_fused_points
from torch_mlx_spectro.mlx import launcher as metal
from torch_mlx_spectro.mlx.launcher import MetalKernels
from torch_mlx_spectro.mlx.runtime import runtime

pytestmark = needs_emulator


class Emulated:
    """Kernels of an emulator of their own, on numpy arrays."""

    def __init__(self, folder: Path, **options: Any) -> None:
        options = {"checked": True, **options}
        most = options.pop("max_threads", emulator.MAX_THREADS)
        self.machine = emulator.Machine(cache_dir=folder, **options)
        self.machine.max_threads = most
        self.mx = runtime().mx
        self.kernels = MetalKernels(self.mx, self.machine.metal_kernel)
        self.stream = runtime().streams[0]

    def call(self, name: str, params: Any, *arrays: Any, **options: Any) -> Any:
        given = [self.mx.array(arrays[0]), *map(self.kernels.constant, arrays[1:])]
        result = getattr(self.kernels, name)(params, *given, self.stream, **options)
        return None if result is None else np.array(result)


@pytest.fixture
def emulated(metal_cache: Path) -> Emulated:
    return Emulated(metal_cache)


@pytest.fixture
def make(metal_cache: Path) -> Callable[..., Emulated]:
    return lambda **options: Emulated(metal_cache, **options)


def adjoint_params(params: StftParams) -> IstftParams:
    """The synthesis whose output is the gradient of an analysis' signal."""
    return IstftParams(
        n_fft=params.n_fft,
        hop_length=params.hop_length,
        win_length=params.n_fft,
        scale=1.0,
        onesided=params.onesided,
        return_complex=params.complex_fft,
        batched=True,
        rows=params.rows,
        frames=params.frames,
        bins=params.bins,
        covered=(params.frames - 1) * params.hop_length + params.n_fft,
        start=params.padding,
        kept=params.samples,
        zero_tail=0,
    )


def inner(a: Any, b: Any) -> float:
    """The real inner product of complex arrays, in double precision."""
    wide = np.asarray(a, np.complex128), np.asarray(b, np.complex128)
    return float(np.sum(wide[0] * np.conj(wide[1])).real)


def agree(left: float, right: float, *arrays: Any) -> None:
    scale = np.prod([float(np.linalg.norm(array)) for array in arrays])
    assert abs(left - right) < 1e-5 * scale
    assert left != 0


@pytest.mark.parametrize("mode", ["reflect", "constant", "replicate", "circular"])
@pytest.mark.parametrize(
    ("kind", "n"),
    [
        *((kind, n) for kind in ("real", "two-sided", "complex") for n in (16, 15, 60, 1)),
        # Between these kernels stands MLX's own transform: backends/test_maps.py has the real ones.
        ("complex", 22),
        ("complex", 130),
    ],
)
def test_synthesis_is_the_adjoint_of_analysis(
    emulated: Emulated, n: int, mode: str, kind: str
) -> None:
    """<A x, y> = <x, A* y>, padding's transpose included."""
    hop, samples = max(1, n // 3), 2 * n + 7
    signal = random_tensor(0, 2, samples, complex_values=kind == "complex")
    params = stft_params(
        signal, None, n_fft=n, hop_length=hop, pad_mode=mode, onesided=kind == "real"
    )
    window = random_array(1, n, complex_values=kind == "complex")
    spectrum = random_array(2, 2, params.frames, params.bins, complex_values=True)
    back = adjoint_params(params)
    adjoint = Adjoint(params.padding, mode, both_halves=kind == "two-sided")
    if find_fused_points(params) is None:
        frames = emulated.call("cut_frames", params, signal.numpy(), window)
        transformed = np.fft.fft(frames)
        inverse = n * np.fft.ifft(spectrum.astype(np.complex128))
        signal_back = emulated.call(
            "add_frames",
            back,
            inverse.astype(np.complex64),
            window.conj(),
            adjoint=adjoint,
        )
    else:
        transformed = emulated.call("compute_analysis", params, signal.numpy(), window)
        if kind != "complex":
            adjoint = replace(adjoint, scale=0.5, edge=2.0)
        signal_back = emulated.call(
            "compute_synthesis", back, spectrum, window.conj(), adjoint=adjoint
        )
    agree(inner(transformed, spectrum), inner(signal.numpy(), signal_back), transformed, spectrum)


@pytest.mark.parametrize("n_fft", [8, 15, 16, 60, 512, 2048, 4096])
@pytest.mark.parametrize("onesided", [True, False])
def test_a_spectrum_is_written_in_either_order(
    emulated: Emulated, n_fft: int, onesided: bool
) -> None:
    """Bit by bit, also where the frames of a group are not all there."""
    for frames in (1, 7, 10):
        signal = random_tensor(0, 2, n_fft + (frames - 1) * 5)
        sizes = {"n_fft": n_fft, "hop_length": 5, "onesided": onesided, "center": False}
        params, window = stft_params(signal, None, **sizes), random_array(1, n_fft)
        found = emulated.call(
            "compute_analysis", params, signal.numpy(), window, frames_fastest=True
        )
        expected = emulated.call("compute_analysis", params, signal.numpy(), window)
        assert found.shape == (2, params.bins, frames)
        assert np.array_equal(found, expected.transpose(0, 2, 1))


@pytest.mark.parametrize(
    ("n", "hop"),
    # Hops that are multiples of what lies between the inputs of a butterfly, and others.
    [(16, 5), (16, 4), (16, 16), (15, 5), (15, 4), (60, 20), (60, 24), (60, 7)],
)
@pytest.mark.parametrize("length", [None, 30, 200])
@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("center", [True, False])
def test_analysis_is_the_adjoint_of_synthesis(
    emulated: Emulated, n: int, hop: int, length: int | None, kind: str, center: bool
) -> None:
    """The envelope is part of the map: the cotangent is divided by it."""
    is_complex = kind == "complex"
    bins = n if is_complex else n // 2 + 1
    spectrum = random_tensor(0, 2, bins, 60, complex_values=True)
    window = random_array(1, n, complex_values=is_complex) + 3
    params = istft_params(
        spectrum,
        random_tensor(1, n, complex_values=is_complex),
        n_fft=n,
        hop_length=hop,
        length=length,
        return_complex=is_complex,
        onesided=not is_complex,
        center=center,
    )
    by_frames = np.ascontiguousarray(spectrum.numpy().transpose(0, 2, 1))
    signal = emulated.call("compute_synthesis", params, by_frames, window)
    cotangent = random_array(3, *signal.shape, complex_values=is_complex)
    forward = stft_params(
        random_tensor(0, 2, params.kept + 2 * n, complex_values=is_complex),
        None,
        n_fft=n,
        hop_length=hop,
        onesided=not is_complex,
    )
    changes = {
        "samples": params.kept,
        "frames": params.frames,
        "padding": params.start,
        "pad_mode": "constant",
    }
    forward = StftParams(**{**vars(forward), **changes})
    spectrum_back = emulated.call(
        "compute_analysis",
        forward,
        cotangent,
        window.conj(),
        edge=1.0 if is_complex else 0.5,
        divisor=float(n if is_complex else n / 2),
    )
    agree(inner(signal, cotangent), inner(by_frames, spectrum_back), signal, cotangent)


def analyse(emulated: Emulated, samples: int, hop: int = 8, n: int = 32) -> Any:
    signal = random_tensor(0, 2, samples)
    params = stft_params(signal, None, n_fft=n, hop_length=hop)
    return emulated.call("compute_analysis", params, signal.numpy(), np.ones(n, np.float32))


def test_a_new_length_or_hop_compiles_nothing(make: Callable[..., Emulated]) -> None:
    texts: list[str] = []

    def note(text: str) -> str:
        texts.append(text)
        return text

    emulated = make(transform=note)
    for samples in (100, 1000, 64):
        for hop in (8, 3, 40):
            analyse(emulated, samples, hop)
    assert len(texts) == 9
    assert len(set(texts)) == 1


def test_a_gpu_that_allows_fewer_threads_gets_the_next_plan(make: Callable[..., Emulated]) -> None:
    expected = analyse(make(), 500)
    emulated = make(max_threads=40)
    np.testing.assert_allclose(analyse(emulated, 500), expected, atol=1e-5)
    group = emulated.machine.launches[-1].threadgroup[0]
    assert group <= 40
    analyse(emulated, 700)  # known by now: not tried again
    assert [launch.threadgroup[0] for launch in emulated.machine.launches] == [group, group]


def test_a_gpu_that_allows_no_plan_is_an_error(make: Callable[..., Emulated]) -> None:
    with pytest.raises(KernelRefused, match="hread group size"):
        analyse(make(max_threads=0), 500)


def test_tables_and_integers_are_made_once_and_bounded(
    emulated: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulated.kernels._tables, "most", 5)
    for samples in range(100, 120):
        analyse(emulated, samples)
    assert len(emulated.kernels._tables) == 5
    assert len(emulated.kernels.chooser._taken) == 1


@pytest.mark.parametrize("samples", [0, 1, 2, 3, 7])
def test_inputs_of_few_values_are_device_memory(emulated: Emulated, samples: int) -> None:
    """MLX passes fewer than eight elements in another address space."""
    signal = random_tensor(0, 1, samples)
    params = stft_params(signal, None, n_fft=2, hop_length=1, pad_mode="constant")
    spectrum = emulated.call("compute_analysis", params, signal.numpy(), np.ones(2, np.float32))
    padded = np.pad(signal.numpy(), [(0, 0), (1, 1)])
    frames = np.lib.stride_tricks.sliding_window_view(padded, 2, axis=1)
    np.testing.assert_allclose(spectrum, np.fft.rfft(frames), atol=1e-6)


def test_signals_of_any_strides_are_read_where_they_are(emulated: Emulated) -> None:
    mx, stream = emulated.mx, emulated.stream
    values = random_array(0, 50, 3)
    params = stft_params(random_tensor(0, 3, 50), None, n_fft=8, hop_length=2)
    window = emulated.kernels.constant(np.ones(8, np.float32))
    for view in (mx.array(values).T, mx.array(np.repeat(values.T, 2, axis=1))[:, ::2]):
        got = np.array(emulated.kernels.compute_analysis(params, view, window, stream))
        padded = np.pad(values.T, [(0, 0), (4, 4)], mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, 8, axis=1)[:, ::2]
        np.testing.assert_allclose(got, np.fft.rfft(frames), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"samples": 1 << 31}, "exceeds"),
        ({"frames": 1 << 31}, "exceeds"),
        ({"frames": 1 << 27, "n_fft": 64}, "exceeds"),
        ({"n_fft": 1 << 21, "bins": 1 + (1 << 20)}, "not computed by MLX"),
    ],
)
def test_what_32_bits_cannot_count_is_refused(changes: dict[str, Any], reason: str | None) -> None:
    params = stft_params(random_tensor(0, 2, 100), None, n_fft=16, hop_length=4)
    refused = metal.MetalKernels.refusal(StftParams(**{**vars(params), **changes}))
    assert (refused is None) == (reason is None)
    assert reason is None or reason in str(refused)


def host_memory(values: Any) -> Memory:
    return Memory(values, values.ctypes.data, values.ctypes.data, values.nbytes, 4)


def far_apart(monkeypatch: pytest.MonkeyPatch, name: str, row_stride: int) -> None:
    """Make the emulator keep the rows of an input that far apart, in memory that is never used."""
    original = execute.input_arguments

    def arguments(mx: Any, call: Any) -> Any:
        values = np.array(call.arrays[0])
        size = (len(values) - 1) * row_stride * values.itemsize + values[0].nbytes
        memory = np.frombuffer(mmap.mmap(-1, size), values.dtype)
        for row, content in enumerate(values):
            begin = row * row_stride
            memory[begin : begin + content.size] = content.reshape(-1)
        steps = [row_stride, *(step // values.itemsize for step in values.strides[1:])]
        found = original(mx, call)
        changed = {name: memory, f"{name}_strides": np.array(steps, np.int64)}
        return [
            replace(argument, memory=host_memory(changed[argument.name]))
            if argument.name in changed
            else argument
            for argument in found
        ]

    monkeypatch.setattr(execute, "input_arguments", arguments)


def test_offsets_have_64_bits(
    make: Callable[..., Emulated], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that lie more than 2^32 bytes and 2^31 elements apart."""
    emulated = make(orders=("ascending",), checked=False)
    expected = analyse(emulated, 64)
    window = np.ones(32, np.float32)
    params = istft_params(
        random_tensor(0, 2, 17, 9, complex_values=True), None, n_fft=32, hop_length=8
    )
    signal = emulated.call("compute_synthesis", params, expected, window)
    with monkeypatch.context() as patch:
        far_apart(patch, "signal", (1 << 31) + 3)
        np.testing.assert_array_equal(analyse(emulated, 64), expected)
    with monkeypatch.context() as patch:
        far_apart(patch, "spectrum", (1 << 31) + 3)
        got = emulated.call("compute_synthesis", params, expected, window)
        np.testing.assert_array_equal(got, signal)


@pytest.mark.parametrize("has_metal", [True, False])
def test_a_gpus_kernels_are_for_its_tensors_alone(
    monkeypatch: pytest.MonkeyPatch, has_metal: bool
) -> None:
    """A CPU tensor on a Mac is computed in blocks: a kernel cannot run on a CPU stream."""
    parts = {
        "fast": SimpleNamespace(metal_kernel=lambda **options: None),
        "metal": SimpleNamespace(is_available=lambda: has_metal),
        "device_info": staticmethod(lambda: {"device_name": "Apple M2 Max"}),
        "default_device": staticmethod(lambda: "gpu"),
    }
    mx = type("Module", (), parts)()
    monkeypatch.setattr(torch.backends.mps, "get_core_count", lambda: 38, raising=False)
    assert (metal.metal_kernels(mx, "mps") is not None) == has_metal
    assert metal.metal_kernels(mx, "cpu") is None
    assert metal._make_kernels(mx, mx.fast.metal_kernel).cores == 38
    mx.fast.metal_kernel.emulated = True
    again = type("Module", (), parts)()
    assert metal.metal_kernels(again, "cpu") is not None


@pytest.mark.parametrize("told", [None, 0, 19])
def test_cores_are_those_of_the_device_or_of_its_name(
    monkeypatch: pytest.MonkeyPatch, told: int | None
) -> None:
    """MLX tells the name alone; torch counts, if the program has imported it."""

    def count() -> int:
        if told is None:
            raise AttributeError
        return told

    monkeypatch.setattr(torch.backends.mps, "get_core_count", count, raising=False)
    for name, guessed in {
        "Apple M1": 10,
        "Apple M2 Pro": 20,
        "Apple M1 Max": 40,
        "Apple M3 Ultra": 80,
        "Apple Paravirtual device": 10,
        "": 10,
    }.items():
        found = metal.count_cores(name)
        assert found == ((19, "torch") if told else (guessed, "a table, by its name"))
    monkeypatch.delitem(sys.modules, "torch")
    assert metal.count_cores("Apple M1 Max") == (40, "a table, by its name")
    assert not metal.is_deterministic()


def test_launches_are_described_once() -> None:
    params = stft_params(random_tensor(0, 2, 100), None, n_fft=16, hop_length=4)
    launches = describe.list_analyses(params, False, False)
    assert describe.list_analyses(params, False, False) is launches
    with pytest.raises(ValueError, match="missing"):
        order_integers("analysis.h", "AnalysisParameter", samples=1)
