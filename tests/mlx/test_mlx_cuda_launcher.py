"""The MLX API on an MLX that has CUDA, by a stand-in with the rules of ``mx.fast.cuda_kernel``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import metal
import mlx.core as mx
import mlx_cuda_stand_in
import numpy as np
import pytest
from mlx_cases import LAZILY, close, computed, dot, noise
from mlx_cuda_stand_in import DECLARATIONS, CudaKernel
from needs import needs_emulator

from torch_mlx_spectro import SpectralTransform
from torch_mlx_spectro.backends.cuda import nvrtc as cubins
from torch_mlx_spectro.kernels.texts import cuda as cuda_text
from torch_mlx_spectro.mlx import launcher as mlx_cuda
from torch_mlx_spectro.mlx.launcher import MlxCudaKernels
from torch_mlx_spectro.mlx_api import ops as mlx_maps
from torch_mlx_spectro.mlx_api.arguments import Sizes, resolve_istft_call, resolve_stft_call


@pytest.fixture
def cuda(metal_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaKernel]:
    kernels, factory = mlx_cuda_stand_in.kernels(metal_cache)
    monkeypatch.setattr(mlx_maps, "kernels", lambda: kernels)
    # What runs here has values when it is launched, as the emulator needs it.
    monkeypatch.setattr(kernels, "emulated", True)
    yield factory
    metal.LAUNCHES.update(launch.kernel for launch in factory.machine.launches)


def launched(cuda: CudaKernel) -> set[str]:
    return {launch.kernel.removeprefix("spectro_") for launch in cuda.machine.launches}


def values(n_fft: int, hop: int) -> list[np.ndarray]:
    """A transform, its inverse, and their gradients."""
    transform = SpectralTransform(n_fft, hop, normalized=True)
    signal = mx.array(noise(1, 2, 1500))
    spectrum = transform.stft(signal)
    cotangent = noise(2, *spectrum.shape, kind=np.complex64)
    of_signal = mx.grad(lambda x: dot(cotangent, transform.stft(x)))(signal)
    kept = noise(3, 2, 1500)
    of_spectrum = mx.grad(lambda z: dot(kept, transform.istft(z, 1500)))(spectrum)
    back = transform.istft(spectrum, 1500)
    return [np.array(found) for found in (spectrum, back, of_signal, of_spectrum)]


SIZES = [
    (256, 64, {"analysis", "synthesis_walk"}),
    (15, 4, {"analysis", "synthesis"}),
    (22, 5, {"cut_frames", "add_frames"}),
]


@needs_emulator
@pytest.mark.parametrize(("n_fft", "hop", "names"), SIZES)
@pytest.mark.parametrize("rows", [cuda_text.MAX_ROWS, 1], ids=["three dimensions", "one"])
def test_kernels_compute_what_operations_do(
    cuda: CudaKernel,
    monkeypatch: pytest.MonkeyPatch,
    n_fft: int,
    hop: int,
    names: set[str],
    rows: int,
) -> None:
    monkeypatch.setattr(cuda_text, "MAX_ROWS", rows)
    found = values(n_fft, hop)
    assert launched(cuda) == names
    flat = {text.count("constexpr bool FLAT = true;") for text in cuda.texts}
    assert flat == {int(rows == 1)}
    with pytest.MonkeyPatch.context() as patch, computed(LAZILY):
        patch.setattr(mlx_maps, "kernels", lambda: None)
        expected = values(n_fft, hop)
    for ours, operations in zip(found, expected, strict=True):
        close(ours, operations, 4e-6)


def test_a_text_says_what_it_is_compiled_for() -> None:
    header = mlx_cuda.write_header("synthesis_walk", 128, 6)
    assert "#include" not in header
    assert header.endswith("#define __global__ __attribute__((global)) __launch_bounds__(128, 6)\n")
    source = mlx_cuda.write_source("synthesis_walk")
    assert "const float edge = edge_value[0];" in source
    assert "__shared__ __align__(128) float2 exchange[" in source
    assert "threadgroup float2" not in source
    assert "return;" not in source  # groups cooperate to the end
    assert "if (thread_position_in_grid.x >= threads_in_grid[0]) return;" in mlx_cuda.write_source(
        "cut_frames"
    )


@needs_emulator
def test_numbers_and_integers_are_arrays_that_are_made_once(metal_cache: Path) -> None:
    kernels, _ = mlx_cuda_stand_in.kernels(metal_cache)
    assert kernels._number(0.5) is kernels._number(0.5)
    assert float(np.array(kernels._number(0.5))[0]) == 0.5


def sizes(n_fft: int, hop: int) -> Sizes:
    return Sizes.resolve(
        n_fft,
        hop,
        None,
        center=True,
        pad_mode="reflect",
        tail_pad="symmetric",
        normalized=False,
        onesided=True,
    )


def test_grids_that_mlx_cannot_count_are_refused() -> None:
    kernels = MlxCudaKernels(mx, lambda **_: None)
    for n_fft in (64, 22):
        stft = resolve_stft_call(sizes(n_fft, n_fft // 2), 100_000, False)
        istft = resolve_istft_call(sizes(n_fft, n_fft // 2), stft.frames, 100_000, False)
        for call in (stft, istft):
            many = {"rows": cuda_text.MAX_ROWS + 1}
            assert kernels.refusal(_replaced(call, rows=cuda_text.MAX_ROWS)) is None
            assert "first dimension" in str(kernels.refusal(_replaced(call, **many)))
    long = resolve_stft_call(
        sizes(22, 5), 400_000_000, False
    )  # frames are rows of cut_frames' grid
    assert "first dimension" in str(kernels.refusal(_replaced(long, rows=2)))


def _replaced(call: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(call, **changes)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("has_cuda", [False, True])
def test_a_cuda_device_has_these_kernels(
    monkeypatch: pytest.MonkeyPatch, device: str, has_cuda: bool
) -> None:
    fake = SimpleNamespace(
        gpu="gpu",
        Device=lambda kind: kind,
        default_device=lambda: device,
        cuda=SimpleNamespace(is_available=lambda: has_cuda),
        metal=SimpleNamespace(is_available=lambda: False),
        fast=SimpleNamespace(cuda_kernel=lambda **_: None, metal_kernel=lambda **_: None),
    )
    fake = _Hashable(fake)
    monkeypatch.setattr(mlx_maps, "runtime", lambda: SimpleNamespace(mx=fake))
    found = mlx_maps.kernels()
    if device == "gpu" and has_cuda:
        assert isinstance(found, MlxCudaKernels)
        assert mlx_maps.kernels() is found
    else:
        assert found is None


class _Hashable:
    """A module is a key; a namespace is not."""

    def __init__(self, names: SimpleNamespace) -> None:
        vars(self).update(vars(names))


def _nvrtc() -> str:
    """Why nothing can be compiled here; empty where it can."""
    try:
        cubins.nvrtc_version()
    except cubins.CudaProblem as problem:
        return str(problem)
    return ""


@needs_emulator
@pytest.mark.skipif(bool(_nvrtc()), reason=_nvrtc())
def test_nvrtc_compiles_every_kernel(cuda: CudaKernel) -> None:
    for n_fft, hop, _ in SIZES:
        values(n_fft, hop)
    for text in sorted(set(cuda.texts)):
        name = re.search(r"void (custom_kernel_\w+)\(", text)
        assert name is not None
        assert cubins.compile_text(DECLARATIONS + text, 90)


class Lazy:
    """Kernels of an MLX with a GPU, in that they are part of graphs."""

    emulated = False

    def __init__(self) -> None:
        self.calls = 0

    def refusal(self, params: Any) -> None:
        return None

    def compute_analysis(self, params: Any, signal: Any, window: Any, stream: Any, **_: Any) -> Any:
        self.calls += 1
        shape = (params.rows, params.frames, params.bins)
        return mx.broadcast_to(mx.sum(signal) * 0, shape).astype(mx.complex64)

    def compute_synthesis(self, params: Any, spectrum: Any, *_: Any, **__: Any) -> Any:
        return mx.broadcast_to(mx.real(mx.sum(spectrum)), (params.rows, params.output_length))


@pytest.mark.parametrize(
    ("call", "launches"),
    [
        (lambda transform: transform.stft, 1),
        # In the trace, where MLX would have to vectorise it, there is none; in the rule there is.
        (lambda transform: mx.vmap(transform.stft), 1),
        (lambda transform: mx.compile(mx.vmap(transform.stft)), 0),
        (lambda transform: mx.compile(transform.stft), 0),
        (lambda transform: transform.compile(transform.stft), 1),
        (lambda transform: transform.get_compiled_stft(), 1),
        (lambda transform: mx.grad(lambda x: mx.abs(transform.stft(x)).sum()), 1),
    ],
    ids=["eager", "vmap", "vmap compiled", "compile", "ours", "compiled stft", "grad"],
)
def test_kernels_are_launched_where_mlx_takes_them(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[SpectralTransform], Any], launches: int
) -> None:
    lazy = Lazy()
    monkeypatch.setattr(mlx_maps, "kernels", lambda: lazy)
    mx.eval(call(SpectralTransform(16, 4))(mx.array(noise(1, 2, 300))))
    assert lazy.calls == launches
    assert mlx_maps._allowed.get() == "values"


def test_tangents_are_pushed_where_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    lazy, transform, signal = Lazy(), SpectralTransform(16, 4), mx.array(noise(1, 2, 300))
    monkeypatch.setattr(mlx_maps, "kernels", lambda: lazy)
    with transform.without_kernels():
        _, (tangent,) = mx.jvp(transform.stft, [signal], [signal])
        close(tangent, np.array(transform.stft(signal)))
    assert lazy.calls == 0
    assert mlx_maps._allowed.get() == "values"
