"""What is the ``cpu`` backend's alone; what all have to be is in test_backend_contract.py."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

import pytest
import torch
from cli_process import python
from reference import random_tensor, stft_params

import torch_mlx_spectro as tms
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.backends.cpu import windows
from torch_mlx_spectro.backends.cpu.backend import CPU
from torch_mlx_spectro.core.linear import Analysis

WINDOW = torch.hann_window(16)


def test_it_is_always_here_and_auto_asks_it_first() -> None:
    assert tms.available_backends()["cpu"] == tms.Availability(True)
    assert "cpu" in registry.list_backends("cpu")
    assert registry.list_candidates("cpu")[0] == "cpu"
    with tms.backend("cpu"):
        route = tms.explain("stft", torch.zeros(400), 16, window=WINDOW, return_complex=True)
    assert (route.backend, route.kernel, route.reasons) == ("cpu", "torch operations", ())


def test_it_needs_no_mlx(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['mlx'] = sys.modules['mlx.core'] = None\n"
        "import torch, torch_mlx_spectro as tms\n"
        "with tms.backend('cpu', strict=True):\n"
        "    x, w = torch.ones(400).requires_grad_(), torch.hann_window(16)\n"
        "    z = tms.stft(x, 16, window=w, return_complex=True)\n"
        "    tms.istft(z, 16, window=w).sum().backward()\n"
        "print(dict(tms.stats().calls), tms.available_backends()['mlx'].available)\n"
    )
    finished = python("-c", program, cwd=tmp_path)
    expected = "{('stft', 'cpu'): 1, ('istft', 'cpu'): 1} False"
    assert finished.stdout.strip() == expected, finished.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_it_goes_on_after_a_fork(tmp_path: Path) -> None:
    """It has no threads of its own that a child would miss."""
    program = (
        "import os, torch, torch_mlx_spectro as tms\n"
        "torch.set_num_threads(1)\n"
        "def compute():\n"
        "    with tms.backend('cpu', strict=True):\n"
        "        x = torch.arange(400.0).requires_grad_()\n"
        "        w = torch.hann_window(16)\n"
        "        z = tms.stft(x, 16, window=w, return_complex=True)\n"
        "        tms.istft(z, 16, window=w).sum().backward()\n"
        "    assert tms.available_backends()['cpu'].available\n"
        "    return x.grad.tolist()\n"
        "before = compute()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if compute() == before and not tms.stats().fallbacks else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), dict(tms.stats().calls))\n"
    )
    finished = python("-W", "ignore", "-c", program, cwd=tmp_path)
    assert finished.stdout.strip() == "0 {('stft', 'cpu'): 1, ('istft', 'cpu'): 1}", finished.stderr


@pytest.mark.parametrize("is_complex", [False, True])
def test_gradients_of_windows_are_summed_in_double_precision(is_complex: bool) -> None:
    signal = random_tensor(0, 2, 100, complex_values=is_complex)
    params = stft_params(signal, None, n_fft=16, hop_length=4)
    spectrum = random_tensor(1, 2, params.bins, params.frames, complex_values=True)
    found = CPU.differentiate_window(Analysis(params, is_complex, False), signal, spectrum)
    assert found.dtype == (torch.complex128 if is_complex else torch.float64)


@pytest.mark.parametrize("n_fft", [*range(1, 34), 61, 64, 77, 100, 1000, 1024, 1155, 2048, 4099])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_torchs_transform_ignores_what_is_not_read(n_fft: int, dtype: torch.dtype) -> None:
    """The imaginary parts of DC and Nyquist, which native leaves to the same transform."""
    spectrum = torch.randn(3, n_fft // 2 + 1, dtype=dtype)
    zeroed = spectrum.clone()
    zeroed[:, 0].imag.zero_()
    if n_fft % 2 == 0:
        zeroed[:, -1].imag.zero_()
    assert torch.equal(torch.fft.irfft(spectrum, n_fft), torch.fft.irfft(zeroed, n_fft))


def test_hops_far_beyond_the_signal_take_no_memory() -> None:
    signal, window = random_tensor(0, 1, 16).requires_grad_(), torch.ones(16)
    with tms.backend("cpu", strict=True):
        found = tms.stft(signal, 16, 1 << 40, window=window, center=False, return_complex=True)
        found.abs().sum().backward()
    assert found.shape == (1, 9, 1)
    assert signal.grad is not None
    assert signal.grad.shape == (1, 16)


def measure_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.detach() - exact).abs().max() / exact.abs().max())


def test_a_trained_window_of_single_precision_does_not_round_doubles() -> None:
    """Neither is its envelope rounded, which natively it is."""
    spectrum = random_tensor(0, 2, 11, 9, complex_values=True).to(torch.complex128)
    window = torch.hann_window(20) + 0.1
    exact = torch.istft(spectrum, 20, 5, window=window.double())
    for trained in (False, True):
        used = window.clone().requires_grad_(trained)
        with tms.backend("cpu", strict=True):
            found = tms.istft(spectrum, 20, 5, window=used)
        assert found.dtype == torch.float64
        assert measure_error(found, exact) < 1e-14
        if trained:
            found.sum().backward()
            assert used.grad is not None
            assert used.grad.dtype == torch.float32


def test_denormals_keep_their_digits_where_the_window_is_of_double_precision() -> None:
    spectrum = random_tensor(0, 2, 11, 9, complex_values=True) * 1e-39
    window = torch.hann_window(20, dtype=torch.float64) + 0.1
    given = {"n_fft": 20, "hop_length": 5, "window": window, "normalized": True}
    exact = torch.istft(spectrum.to(torch.complex128), **given)
    with tms.backend("cpu", strict=True):
        for _ in range(2):  # the second by a plan
            assert measure_error(tms.istft(spectrum, **given), exact) < 1e-12


def test_plans_remember_few_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "CACHE_ENTRIES", 3)
    monkeypatch.setattr(windows, "_remembering", deque())
    made: list[torch.Tensor] = []
    plans = [windows.LastWindow(lambda window: made.append(window) or len(made)) for _ in range(5)]
    first = [plan.find(WINDOW) for plan in plans]
    assert [plan._last is not None for plan in plans] == [False, False, True, True, True]
    assert [plan.find(WINDOW) for plan in plans[2:]] == first[2:]
    assert len(made) == 5
    assert plans[0].find(WINDOW) == 6  # and now it is remembered instead of another
    assert [plan._last is not None for plan in plans] == [True, False, False, True, True]


def test_calls_of_other_lengths_keep_nothing_new() -> None:
    """Neither an envelope nor parts of it: a program of whole songs would never use them again."""
    tms.clear_caches()
    counts = []
    with tms.backend("cpu", strict=True):
        for frames in range(20, 40):
            spectrum = random_tensor(frames, 9, frames, complex_values=True)
            expected = torch.istft(spectrum, 16, 4, window=WINDOW)
            assert torch.allclose(tms.istft(spectrum, 16, 4, window=WINDOW), expected, atol=1e-6)
            counts.append(len(windows._prepared))
    assert set(counts) == {2}


@pytest.mark.parametrize(("n_fft", "hop"), [(16, 4), (31, 5), (210, 3), (2, 1), (4, 1)])
def test_a_first_call_has_the_bits_of_later_ones(n_fft: int, hop: int) -> None:
    """Products of complex windows differ in vector and scalar code, so parts must be the same."""
    spectrum = random_tensor(0, 3, n_fft, 60, complex_values=True)
    window = random_tensor(1, n_fft, complex_values=True)
    with tms.backend("cpu", strict=True):
        found = [
            tms.istft(spectrum, n_fft, hop, window=window, return_complex=True) for _ in range(3)
        ]
    assert all(torch.equal(one, found[0]) for one in found)
