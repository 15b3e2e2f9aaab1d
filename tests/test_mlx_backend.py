"""The backend on torch tensors: results that are torch's own, caches that see every change."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from reference import (
    close,
    istft_params,
    native_istft,
    native_stft,
    random_array,
    random_tensor,
    stft_params,
)

from torch_mlx_spectro import emulator, mlx_backend
from torch_mlx_spectro.mlx_backend import _Cache
from torch_mlx_spectro.runtime import runtime


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch) -> _Cache:
    """An empty cache of this test's own."""
    fresh = _Cache(mlx_backend.CACHE_ENTRIES)
    monkeypatch.setattr(mlx_backend, "_prepared", fresh)
    return fresh


def stft_of(signal: torch.Tensor, window: torch.Tensor | None, **arguments: Any) -> torch.Tensor:
    return mlx_backend.stft(stft_params(signal, window, **arguments), signal, window)


def istft_of(spectrum: torch.Tensor, window: torch.Tensor | None, **arguments: Any) -> torch.Tensor:
    return mlx_backend.istft(istft_params(spectrum, window, **arguments), spectrum, window)


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


def count_preparations(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    made = {"padded_window": 0, "resolve_envelope": 0}

    def counted(name: str) -> Any:
        original = getattr(mlx_backend, name)

        def call(*args: Any) -> Any:
            made[name] += 1
            return original(*args)

        return call

    for name in made:
        monkeypatch.setattr(mlx_backend, name, counted(name))
    return made


def test_equal_windows_and_envelopes_are_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = count_preparations(monkeypatch)
    for _ in range(3):  # programs make the same window anew for every call
        spectrum = stft_of(random_tensor(0, 300), torch.hann_window(16), n_fft=16)
        istft_of(spectrum, torch.hann_window(16), n_fft=16)
    assert made == {"padded_window": 1, "resolve_envelope": 1}


def test_what_the_preparation_depends_on_is_in_its_key() -> None:
    """Same window values, other sizes, kinds, scales: nothing may be taken for another."""
    signal, values = random_tensor(0, 600), torch.ones(16)
    spectrum = random_tensor(1, 17, 20, complex_values=True)
    windows = [values, values.to(torch.complex64), torch.ones(8, dtype=torch.complex64)]
    for window in windows:
        for n_fft in (16, 32):
            for normalized in (False, True):
                call = {"n_fft": n_fft, "win_length": len(window), "normalized": normalized}
                got = stft_of(signal, window, **call)
                close(got, native_stft(signal, window=window, **call))
    for call in (
        {"hop_length": 8},
        {"hop_length": 4},
        {"hop_length": 4, "normalized": True},
        {"hop_length": 4, "length": 50},
        {"hop_length": 4, "center": False, "length": 50},
    ):
        window = torch.hann_window(32)[1:].roll(3)
        call = {"n_fft": 32, "win_length": 31} | call
        close(
            istft_of(spectrum, window, **call), native_istft(spectrum, window=window, **call), 5e-6
        )


def test_frames_of_another_number_have_their_own_envelope() -> None:
    window = torch.hamming_window(32)
    for frames in (2, 9, 40):
        spectrum = random_tensor(frames, 17, frames, complex_values=True)
        call = {"n_fft": 32, "hop_length": 4}
        expected = native_istft(spectrum, window=window, **call)
        close(istft_of(spectrum, window, **call), expected, 5e-6)


def test_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    bounded = _Cache(3)
    for key in ("a", "b", "c"):
        bounded.get(key, lambda key=key: key.upper())
    assert bounded.get("a", lambda: "made again") == "A"
    bounded.get("d", lambda: "D")
    assert len(bounded._values) == 3
    assert bounded.get("a", lambda: "made again") == "A"
    assert bounded.get("b", lambda: "made again") == "made again"


def test_programs_of_many_windows_do_not_fill_the_memory(cache: _Cache) -> None:
    signal = random_tensor(0, 64)
    for seed in range(mlx_backend.CACHE_ENTRIES + 20):
        stft_of(signal, random_tensor(seed, 8), n_fft=8)
    assert len(cache._values) == mlx_backend.CACHE_ENTRIES


def test_what_one_thread_prepared_another_may_use() -> None:
    """Lazy MLX arrays belong to their thread; prepared ones must not be lazy."""
    signal, window = random_tensor(0, 300), torch.hann_window(16)
    got: list[torch.Tensor] = []

    def work() -> None:
        spectrum = stft_of(signal, window, n_fft=16)
        got.append(istft_of(spectrum, window, n_fft=16, length=300))

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    work()
    assert len(got) == 3
    assert all(torch.equal(signal, got[0]) for signal in got)
    close(got[0], signal, 5e-6)


class OnDevice(torch.Tensor):
    """Stands in for a tensor on another device: there is none here."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self) -> Any:
        return SimpleNamespace(type="mps")


def on_device(tensor: torch.Tensor) -> torch.Tensor:
    return torch.Tensor._make_subclass(OnDevice, tensor)


def test_device_windows_are_read_once_for_each_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading one waits for the device, which a call in a loop must not."""
    read: list[int] = []
    original = mlx_backend.window_values

    def counted(window: torch.Tensor | None) -> Any:
        read.append(1)
        return original(window)

    monkeypatch.setattr(mlx_backend, "window_values", counted)
    window = on_device(torch.hann_window(16))
    first, _ = mlx_backend._window_content(window)
    assert mlx_backend._window_content(window)[0] == first
    assert len(read) == 1
    window.mul_(2)
    changed, values = mlx_backend._window_content(window)
    assert len(read) == 2
    assert changed != first
    np.testing.assert_array_equal(values, 2 * torch.hann_window(16).numpy())
    kept = len(mlx_backend._device_windows)
    del window
    gc.collect()
    assert len(mlx_backend._device_windows) == kept - 1


def test_inference_windows_have_no_version_and_are_read_every_time() -> None:
    with torch.inference_mode():
        window = on_device(torch.hann_window(16))
        first, _ = mlx_backend._window_content(window)
        window.mul_(2)
        assert mlx_backend._window_content(window)[0] != first


@pytest.fixture(params=["operations", "kernels"])
def whole(request: pytest.FixtureRequest, metal_cache: Path) -> Iterator[None]:
    """What computes whole arrays: MLX's operations, or the Metal kernels in their emulator."""
    if request.param == "operations":
        yield
    else:
        with emulator.Machine(cache_dir=metal_cache).installed():
            yield


@pytest.mark.usefixtures("whole")
def test_device_tensors_go_whole_to_the_gpu_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of MPS tensors, computed by a CPU stream that stands in for the GPU's."""
    used = runtime()

    class Module:
        gpu = used.streams[0]

        def __getattr__(self, name: str) -> Any:
            return getattr(used.mx, name)

    synchronized: list[int] = []
    stand_in = SimpleNamespace(mx=Module(), streams=used.streams, lock=used.lock)
    monkeypatch.setattr(mlx_backend, "runtime", lambda: stand_in)
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
