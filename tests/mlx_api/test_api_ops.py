"""The MLX maps by the project's Metal kernels, emulated: forward, gradients, vmap."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import metal
import mlx.core as mx
import numpy as np
import pytest
from mlx_cases import LAZILY, close, computed, dot, noise
from needs import needs_emulator

from torch_mlx_spectro import SpectralTransform, emulator
from torch_mlx_spectro.mlx_api import ops as mlx_maps

pytestmark = needs_emulator


@pytest.fixture
def machine(metal_cache: Path) -> Iterator[emulator.Machine]:
    machine = emulator.Machine(checked=True, cache_dir=metal_cache)
    with machine.installed():
        yield machine
    metal.LAUNCHES.update(launch.kernel for launch in machine.launches)


def launched(machine: emulator.Machine) -> Counter[str]:
    return Counter(launch.kernel for launch in machine.launches)


#: n_fft, hop_length, padding; two with a fused kernel and one without.
CALLS = [(32, 8, "reflect"), (15, 4, "circular"), (22, 5, "replicate")]


@pytest.mark.parametrize(("n_fft", "hop", "pad_mode"), CALLS)
@pytest.mark.parametrize("kind", [np.float32, np.complex64])
def test_kernels_compute_what_operations_do(
    machine: emulator.Machine, n_fft: int, hop: int, pad_mode: str, kind: type
) -> None:
    is_real = kind is np.float32
    transform = SpectralTransform(n_fft, hop, pad_mode=pad_mode, normalized=True, onesided=is_real)
    signal = mx.array(noise(1, 2, 70, kind=kind))
    fused = n_fft != 22

    def back(z: mx.array) -> mx.array:
        return transform.istft(z, 60, return_complex=not is_real)

    def values() -> list[np.ndarray]:
        spectrum = transform.stft(signal)
        cotangent = noise(2, *spectrum.shape, kind=np.complex64)
        of_signal = mx.grad(lambda x: dot(cotangent, transform.stft(x)))(signal)
        kept = noise(3, 2, 60, kind=kind)
        of_spectrum = mx.grad(lambda z: dot(kept, back(z)))(spectrum)
        window = mx.array(np.abs(noise(4, n_fft)) + np.float32(0.5))
        of_window = mx.grad(lambda w: dot(cotangent, transform.with_window(w).stft(signal)))(window)
        each = mx.vmap(transform.stft)(signal)
        return [
            np.array(found)
            for found in (spectrum, back(spectrum), of_signal, of_spectrum, of_window, each)
        ]

    assert mlx_maps.kernels() is not None
    found = values()
    counts = launched(machine)
    names = ("analysis", "synthesis") if fused else ("cut_frames", "add_frames")
    for name in names:
        assert sum(n for kernel, n in counts.items() if name in kernel) >= 2, counts
    with pytest.MonkeyPatch.context() as patch, computed(LAZILY):
        patch.setattr(mlx_maps, "kernels", lambda: None)
        expected = values()
    for ours, operations in zip(found, expected, strict=True):
        close(ours, operations, 4e-6)


@pytest.mark.filterwarnings("ignore:istft. the window overlap-add envelope:RuntimeWarning")
@pytest.mark.parametrize("sizes", [(16, 20, 16), (64, 48, 32), (22, 31, 22)])
def test_kernels_invert_hops_above_the_window(
    machine: emulator.Machine, sizes: tuple[int, int, int]
) -> None:
    transform = SpectralTransform(*sizes, "hamming")
    spectrum = mx.array(noise(8, 2, sizes[0] // 2 + 1, 6, kind=np.complex64))
    found = np.array(transform.istft(spectrum))
    assert machine.launches
    with pytest.MonkeyPatch.context() as patch, computed(LAZILY):
        patch.setattr(mlx_maps, "kernels", lambda: None)
        close(found, np.array(transform.istft(spectrum)))


def test_emulated_kernels_are_no_part_of_a_compiled_graph(machine: emulator.Machine) -> None:
    transform = SpectralTransform(32, 8)
    signal = mx.array(noise(5, 1, 70))
    compiled = mx.compile(transform.stft)(signal)
    assert not machine.launches
    close(compiled, np.array(transform.stft(signal)))
    assert len(machine.launches) == 1
    stft, istft = transform.compiled_pair(70)
    close(istft(stft(signal)), np.array(signal), 4e-6)


def test_the_metal_policy_is_satisfied_where_there_are_kernels(machine: emulator.Machine) -> None:
    transform = SpectralTransform(32, 8, istft_backend_policy="metal")
    signal = mx.array(noise(6, 1, 70))
    close(transform.istft(transform.stft(signal), 70), np.array(signal), 4e-6)
    assert machine.launches


@pytest.mark.parametrize("told", [mlx_maps.is_traced, mlx_maps.has_placeholder])
@pytest.mark.parametrize("lazily", [False, True])
def test_tracing_is_told_from_differentiation(told: Callable[..., bool], lazily: bool) -> None:
    seen: list[bool] = []

    def look(x: mx.array) -> mx.array:
        seen.append(told(mx.sin(x) if lazily else x, mx.ones((2,))))
        return x.sum()

    signal = mx.zeros((2, 3))
    for call in (look, mx.grad(look), mx.compile(look), mx.vmap(look)):
        call(signal)
    mx.jvp(look, [signal], [signal])
    assert seen == [False, False, True, True, False]


def test_a_stand_in_is_told_without_evaluation() -> None:
    def graph(array: mx.array) -> str:
        text = io.StringIO()
        mx.export_to_dot(text, array)
        return text.getvalue()

    lazy = mx.sin(mx.ones((3, 5)))
    assert not mlx_maps.has_placeholder(lazy)
    assert "Sin" in graph(lazy)
    mx.eval(lazy)
    assert "Sin" not in graph(lazy)
