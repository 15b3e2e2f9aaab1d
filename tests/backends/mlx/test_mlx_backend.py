"""The backend on torch tensors: results that are torch's own, caches that see every change."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from device import on_device
from needs import needs_emulator
from reference import (
    close,
    istft_params,
    native_istft,
    native_stft,
    random_array,
    random_tensor,
    stft_params,
)

import torch_mlx_spectro as tms
from torch_mlx_spectro import emulator
from torch_mlx_spectro.autograd import derivatives
from torch_mlx_spectro.backends.mlx import backend as mlx_backend
from torch_mlx_spectro.calls.operation import Call
from torch_mlx_spectro.mlx.runtime import runtime


def stft_of(signal: torch.Tensor, window: torch.Tensor | None, **arguments: Any) -> torch.Tensor:
    return mlx_backend.MLX.stft(stft_params(signal, window, **arguments), signal, window)


def istft_of(spectrum: torch.Tensor, window: torch.Tensor | None, **arguments: Any) -> torch.Tensor:
    return mlx_backend.MLX.istft(istft_params(spectrum, window, **arguments), spectrum, window)


SIGNALS = [(900,), (1, 900), (3, 900)]


@pytest.mark.parametrize("shape", SIGNALS)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"return_complex": False},
        {"normalized": True, "onesided": False},
        {"win_length": 21, "pad_mode": "replicate"},
    ],
    ids=str,
)
@pytest.mark.parametrize("windowed", [True, False])
def test_spectra_are_natives_in_shape_values_and_strides(
    shape: tuple[int, ...], arguments: dict[str, Any], windowed: bool
) -> None:
    signal = random_tensor(0, *shape)
    window = torch.hann_window(arguments.get("win_length", 32)) if windowed else None
    got = stft_of(signal, window, n_fft=32, hop_length=9, **arguments)
    expected = native_stft(signal, window=window, n_fft=32, hop_length=9, **arguments)
    assert got.dtype == expected.dtype
    assert got.stride() == expected.stride()
    close(got, expected)


@pytest.mark.parametrize("rows", [(), (1,), (3,)])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"length": 70}, {"length": 400}, {"normalized": True}, {"win_length": 22}],
    ids=str,
)
@pytest.mark.parametrize("windowed", [True, False])
def test_signals_are_natives_in_shape_values_and_strides(
    rows: tuple[int, ...], arguments: dict[str, Any], windowed: bool
) -> None:
    spectrum = random_tensor(0, *rows, 17, 30, complex_values=True)
    window = torch.hamming_window(arguments.get("win_length", 32)) if windowed else None
    got = istft_of(spectrum, window, n_fft=32, hop_length=9, **arguments)
    expected = native_istft(spectrum, window=window, n_fft=32, hop_length=9, **arguments)
    assert got.dtype == expected.dtype
    assert got.stride() == expected.stride()
    close(got, expected, 5e-6)


@pytest.mark.parametrize("complex_window", [True, False])
def test_complex_calls(complex_window: bool) -> None:
    signal = random_tensor(0, 2, 400, complex_values=True)
    window = random_tensor(3, 24, complex_values=complex_window)
    spectrum = stft_of(signal, window, n_fft=24, hop_length=7)
    close(spectrum, native_stft(signal, window=window, n_fft=24, hop_length=7))
    call = {"n_fft": 24, "hop_length": 7, "onesided": False, "return_complex": True}
    expected = native_istft(spectrum.to(torch.complex128), window=window.to(torch.cdouble), **call)
    close(istft_of(spectrum, window, **call), expected, 2e-5)


def test_windows_with_lazy_bits_are_read_as_they_look() -> None:
    signal, base = random_tensor(0, 300), random_tensor(5, 16, complex_values=True)
    for window in (base.conj(), base.conj().imag, torch._neg_view(base), base.real[::2]):
        n_fft = len(window)
        got = stft_of(signal, window, n_fft=n_fft, hop_length=4)
        close(got, native_stft(signal, window=window, n_fft=n_fft, hop_length=4))


def results() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Results and the inputs they were computed from, small and of several huge pages."""
    for samples in (300, 600_000):
        signal = random_tensor(0, 1, samples)
        spectrum = stft_of(signal, torch.hann_window(32), n_fft=32, hop_length=16)
        yield spectrum, signal
        yield istft_of(spectrum, torch.hann_window(32), n_fft=32, hop_length=16), spectrum


def test_results_own_their_memory_and_may_be_changed() -> None:
    for result, source in results():
        kept = source.clone()
        assert result.is_contiguous() or result.mT.is_contiguous()
        assert result.untyped_storage().data_ptr() != source.untyped_storage().data_ptr()
        assert not result.requires_grad
        assert result._version == 0
        result.zero_()
        assert torch.equal(source, kept)


def test_results_and_inputs_can_be_resized_as_after_native() -> None:
    """``tensor.numpy()`` would forbid it for good, for every tensor that shares the memory."""
    signal, window = random_tensor(0, 300).clone(), torch.hann_window(32)
    spectrum = stft_of(signal, window, n_fft=32)
    back = istft_of(spectrum, window, n_fft=32)
    tensors = (signal, window, spectrum, back)
    assert [tensor.untyped_storage().resizable() for tensor in tensors] == 4 * [True]
    for tensor in tensors:
        tensor.resize_(10_000)


def test_results_survive_their_inputs_and_later_calls() -> None:
    signal, window = random_tensor(0, 2, 500), torch.hann_window(32)
    expected = native_stft(signal, window=window, n_fft=32)
    first = stft_of(signal, window, n_fft=32)
    signal.fill_(7)
    stft_of(signal, window, n_fft=32)
    del signal, window
    gc.collect()
    close(first, expected)


@pytest.mark.parametrize("write", ["torch", "numpy"])
def test_a_window_that_changes_in_place_is_seen(write: str) -> None:
    """Writes through numpy leave no trace in torch's version counter."""
    shared = random_array(1, 16)
    window, signal = torch.from_numpy(shared), random_tensor(0, 300)
    spectrum = stft_of(signal, window, n_fft=16, hop_length=4)
    istft_of(spectrum, window, n_fft=16, hop_length=4)
    if write == "numpy":
        shared[:] = np.arange(1, 17)
        assert window._version == 0
    else:
        window.copy_(torch.arange(1.0, 17))
    spectrum = stft_of(signal, window, n_fft=16, hop_length=4)
    close(spectrum, native_stft(signal, window=window, n_fft=16, hop_length=4))
    signal = istft_of(spectrum, window, n_fft=16, hop_length=4)
    close(signal, native_istft(spectrum, window=window, n_fft=16, hop_length=4), 5e-6)


@pytest.fixture
def kernels(metal_cache: Path) -> Iterator[None]:
    """The Metal kernels in their emulator."""
    with emulator.Machine(cache_dir=metal_cache).installed():
        yield


@pytest.mark.usefixtures("kernels")
def test_device_tensors_go_whole_to_the_gpu_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of MPS tensors, computed by a CPU stream that stands in for the GPU's."""
    used = runtime()

    class Module:
        gpu = used.streams[0]

        def __getattr__(self, name: str) -> Any:
            return getattr(used.mx, name)

    synchronized: list[int] = []
    stand_in = SimpleNamespace(mx=Module(), streams=used.streams, lock=used.lock)
    monkeypatch.setattr(mlx_backend.runtime, "runtime", lambda: stand_in)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: synchronized.append(1))
    window = torch.hann_window(32)
    for shape in SIGNALS:
        signal = random_tensor(0, *shape)
        for as_complex in (True, False):
            call = {"n_fft": 32, "hop_length": 9, "return_complex": as_complex}
            got = stft_of(on_device(signal), window, **call)
            close(got, native_stft(signal, window=window, **call))
        spectrum = native_stft(signal, window=window, n_fft=32, hop_length=9)
        for layout in (spectrum, spectrum.contiguous()):
            got = istft_of(on_device(layout), window, n_fft=32, hop_length=9, length=850)
            close(got, signal[..., :850], 5e-6)
    assert synchronized == []  # the stand-in is on the host, once detached


@pytest.fixture
def gpu(kernels: None, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """MLX says that it has a GPU, whose stream is one of the CPU's; notes what is asked of it."""
    used = runtime()
    asked: list[Any] = []

    class Module:
        gpu = used.streams[0]

        def __getattr__(self, name: str) -> Any:
            return getattr(used.mx, name)

        def from_dlpack(self, tensor: Any) -> Any:
            asked.append(("adopts", tensor.data_ptr()))
            return used.mx.from_dlpack(tensor)

    stand_in = SimpleNamespace(mx=Module(), streams=(), lock=None)
    monkeypatch.setattr(mlx_backend.runtime, "runtime", lambda: stand_in)
    monkeypatch.setattr(mlx_backend.runtime, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: asked.append("synchronized"))
    return asked


def test_host_tensors_are_lent_to_a_gpu(gpu: list[Any]) -> None:
    window = torch.hann_window(32)
    signal = random_tensor(0, 3, 900)
    params = stft_params(signal, window, n_fft=32, hop_length=9)
    call = Call(params, signal, window)
    assert mlx_backend.MLX.name_kernel(call) == "metal analysis"
    assert mlx_backend.MLX.explain_refusal(call) is None
    spectrum = mlx_backend.MLX.stft(params, signal, window)
    expected = native_stft(signal, window=window, n_fft=32, hop_length=9)
    assert spectrum.is_cpu
    assert spectrum.stride() == expected.stride()
    close(spectrum, expected)
    # Its own memory, in the order that it lies in, and a host tensor waits for no device.
    assert gpu == [("adopts", signal.data_ptr())]
    back = istft_of(spectrum, window, n_fft=32, hop_length=9)
    close(back, native_istft(spectrum, window=window, n_fft=32, hop_length=9), 5e-6)
    assert gpu[1:] == [("adopts", spectrum.data_ptr())]
    del spectrum
    back += 1  # it may be written


def test_gradients_of_host_tensors_on_a_gpu(gpu: list[Any]) -> None:
    signal = random_tensor(0, 2, 300).requires_grad_()
    window = (torch.hann_window(22) + 0.1).requires_grad_()
    weight = random_tensor(2, 2, 12, 43, complex_values=True)
    params = stft_params(signal, window, n_fft=22, hop_length=7)
    spectrum = derivatives.bind(params, mlx_backend.MLX, signal, window)(signal, window)
    found = torch.autograd.grad(spectrum, (signal, window), weight)
    result = native_stft(signal, window=window, n_fft=22, hop_length=7)
    expected = torch.autograd.grad(result, (signal, window), weight)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.is_cpu
        close(ours, theirs, 1e-4)
    assert len(gpu) == 4  # the call, the adjoint, and both tensors of the correlation


def test_what_a_gpu_cannot_count_is_computed_in_blocks(gpu: list[Any]) -> None:
    signal = torch.zeros(1 << 22)
    huge = stft_params(signal, None, n_fft=(1 << 20) + 7)
    call = Call(huge, signal, None)
    assert mlx_backend.MLX.name_kernel(call) == "mlx cpu blocks"
    assert mlx_backend.MLX.explain_refusal(call) is None
    elsewhere = call._replace(tensor=on_device(signal))
    assert "not computed by MLX" in str(mlx_backend.MLX.explain_refusal(elsewhere))


@needs_emulator
def test_a_gpu_that_allows_no_plan_leaves_a_call_to_native(metal_cache: Path) -> None:
    machine = emulator.Machine(cache_dir=metal_cache)
    machine.max_threads = 0
    signal, window = random_tensor(0, 900), torch.hann_window(32)
    tms.reset_stats()
    with machine.installed(), tms.backend("mlx"):
        got = tms.stft(signal, 32, window=window, return_complex=True)
    assert torch.equal(got, torch.stft(signal, 32, window=window, return_complex=True))
    ((reason, count),) = tms.stats().fallbacks.items()
    assert "hread group size" in reason
    assert (count, tms.stats().accelerated) == (1, 0)
