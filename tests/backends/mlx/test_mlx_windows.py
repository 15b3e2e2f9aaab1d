"""What is prepared once: caches that see every change, of a bounded size."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
import torch
from device import on_device
from reference import (
    close,
    istft_params,
    native_istft,
    native_stft,
    random_tensor,
    stft_params,
)
from window_changes import HOST_CHANGES

from torch_mlx_spectro.backends.mlx import backend as mlx_backend
from torch_mlx_spectro.backends.mlx import windows as prepared
from torch_mlx_spectro.store.caches import Cache


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty cache of this test's own."""
    fresh = Cache(prepared.CACHE_ENTRIES)
    monkeypatch.setattr(prepared, "_prepared", fresh)
    return fresh


def stft_of(signal: torch.Tensor, window: torch.Tensor | None, **arguments: Any) -> torch.Tensor:
    return mlx_backend.MLX.stft(stft_params(signal, window, **arguments), signal, window)


def istft_of(spectrum: torch.Tensor, window: torch.Tensor | None, **arguments: Any) -> torch.Tensor:
    return mlx_backend.MLX.istft(istft_params(spectrum, window, **arguments), spectrum, window)


PARAMS = stft_params(torch.zeros(1, 64), None, n_fft=16)


def key_of(window: torch.Tensor) -> Hashable:
    return prepared.read_window(PARAMS, window).key


def count_preparations(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    made = {"pad_window": 0, "resolve_envelope": 0}

    def counted(name: str) -> Any:
        original = getattr(prepared, name)

        def call(*args: Any) -> Any:
            made[name] += 1
            return original(*args)

        return call

    for name in made:
        monkeypatch.setattr(prepared, name, counted(name))
    return made


def test_equal_windows_and_envelopes_are_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = count_preparations(monkeypatch)
    for _ in range(3):  # programs make the same window anew for every call
        spectrum = stft_of(random_tensor(0, 300), torch.hann_window(16), n_fft=16)
        istft_of(spectrum, torch.hann_window(16), n_fft=16)
    assert made == {"pad_window": 1, "resolve_envelope": 1}


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


def test_programs_of_many_windows_do_not_fill_the_memory(cache: Cache) -> None:
    signal = random_tensor(0, 64)
    for seed in range(prepared.CACHE_ENTRIES + 20):
        stft_of(signal, random_tensor(seed, 8), n_fft=8)
    assert len(cache) == prepared.CACHE_ENTRIES


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


@pytest.mark.parametrize("change", HOST_CHANGES)
def test_device_windows_are_read_in_every_call(change: str) -> None:
    """No version tells of all that may happen to them."""
    host = torch.hann_window(16)
    first = key_of(on_device(host))
    assert key_of(on_device(host)) == first
    HOST_CHANGES[change](host)
    changed = prepared.read_window(PARAMS, on_device(host))
    assert changed.key != first
    np.testing.assert_array_equal(changed.values, host.numpy())
