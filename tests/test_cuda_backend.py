"""The ``cuda`` backend's own code, on host tensors that stand in for a device's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cuda_stand_in import Emulated, Recorder, recording, standing_in
from reference import istft_params, random_tensor, stft_params
from test_adjoints import ISTFTS, KINDS, check_identities, check_istft

from torch_mlx_spectro import (
    adjoints,
    cuda_backend,
    cuda_prepared,
    derivatives,
    emulator,
    mlx_backend,
    native,
    torch_state,
)
from torch_mlx_spectro.errors import UnresolvedArguments
from torch_mlx_spectro.kernels import cubins
from torch_mlx_spectro.prepared import window_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*A window was not provided"),
    pytest.mark.filterwarnings("ignore:.*stft with return_complex=False is deprecated"),
    pytest.mark.filterwarnings("ignore:.*The length of signal is shorter than the length"),
]
needs_emulator = pytest.mark.skipif(
    emulator.available() is not None, reason=str(emulator.available())
)


@pytest.fixture(scope="module")
def kernels(metal_cache: Path) -> Emulated:
    return Emulated(metal_cache)


@pytest.fixture
def emulated(kernels: Emulated) -> Iterator[Emulated]:
    with standing_in(kernels):
        yield kernels


STFTS: list[dict[str, Any]] = [
    {"n_fft": 16, "hop_length": 5},
    {"n_fft": 15, "hop_length": 4, "normalized": True},
    {"n_fft": 22, "hop_length": 7, "onesided": False},
    {"n_fft": 22, "hop_length": 30, "win_length": 9, "pad_mode": "circular"},
    {"n_fft": 16, "hop_length": 5, "center": False},
    {"n_fft": 16, "hop_length": 5, "return_complex": False},
]


@needs_emulator
@pytest.mark.parametrize("arguments", STFTS, ids=str)
@pytest.mark.parametrize("is_complex", [False, True])
def test_stft_is_natives(emulated: Emulated, arguments: dict[str, Any], is_complex: bool) -> None:
    if is_complex and "onesided" in arguments:
        arguments = {**arguments, "onesided": None}
    window = random_tensor(1, arguments.get("win_length", arguments["n_fft"]))
    given = {"return_complex": True, **arguments}
    batch = random_tensor(0, 3, 100, complex_values=is_complex)
    for signal in (batch, batch[0], batch[:, ::2], batch[:1].expand(3, 100)):
        for used in (window, None):
            params = stft_params(signal, used, **given)
            found = cuda_backend.stft(params, signal, used)
            expected = native.stft(signal, window=used, **given)
            assert found.stride() == expected.stride()
            assert torch.allclose(found, expected, atol=2e-5)


@needs_emulator
@pytest.mark.parametrize("arguments", ISTFTS, ids=str)
@pytest.mark.parametrize("is_complex", [False, True])
def test_istft_is_natives(emulated: Emulated, arguments: dict[str, Any], is_complex: bool) -> None:
    n_fft = arguments["n_fft"]
    bins = n_fft if is_complex else n_fft // 2 + 1
    given = {**arguments, "onesided": not is_complex, "return_complex": is_complex}
    spectrum = random_tensor(0, 2, bins, 9, complex_values=True)
    window = random_tensor(1, arguments.get("win_length", n_fft), complex_values=is_complex) + 3
    for values in (spectrum, spectrum.conj(), spectrum[0]):
        params = istft_params(values, window, **given)
        found = cuda_backend.istft(params, values, window)
        expected = native.istft(values, window=window, **given)
        assert found.stride() == expected.stride()
        assert torch.allclose(found, expected, atol=2e-5)


@needs_emulator
def test_a_two_sided_spectrum_of_a_real_signal(emulated: Emulated) -> None:
    window = torch.hann_window(22) + 0.1
    spectrum = torch.fft.fft(random_tensor(0, 2, 9, 22)).transpose(1, 2)
    params = istft_params(spectrum, window, n_fft=22, hop_length=7, onesided=False)
    found = cuda_backend.istft(params, spectrum, window)
    expected = native.istft(spectrum, 22, 7, window=window, onesided=False)
    assert torch.allclose(found, expected, atol=1e-5)


@needs_emulator
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_fft", [16, 15, 22], ids=lambda n: f"n{n}")
@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_identities(emulated: Emulated, kind: str, n_fft: int, mode: str) -> None:
    check_identities(kind, n_fft, n_fft // 3, n_fft - 3, 2 * n_fft + 7, pad_mode=mode)


@needs_emulator
@pytest.mark.parametrize("arguments", ISTFTS, ids=str)
@pytest.mark.parametrize("is_complex", [False, True])
def test_adjoints_of_istft(
    emulated: Emulated, monkeypatch: pytest.MonkeyPatch, arguments: Any, is_complex: bool
) -> None:
    monkeypatch.setattr(mlx_backend, "istft", cuda_backend.istft)
    check_istft(arguments, is_complex)


@needs_emulator
def test_gradients_come_from_the_device(emulated: Emulated) -> None:
    signal = random_tensor(0, 2, 100).requires_grad_()
    window = (torch.hann_window(16) + 0.1).requires_grad_()
    params = stft_params(signal, window, n_fft=16, hop_length=4, return_complex=True)
    weight = random_tensor(2, 2, 9, 26, complex_values=True)
    found = torch.autograd.grad(derivatives.stft(params, signal, window), (signal, window), weight)
    result = native.stft(signal, 16, 4, window=window, return_complex=True)
    for ours, theirs in zip(
        found, torch.autograd.grad(result, (signal, window), weight), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-4)
    assert {launch.kernel for launch in emulated.machine.launches} >= {"spectro_analysis"}


def test_a_vanishing_envelope_is_torchs_to_report() -> None:
    spectrum = random_tensor(0, 1, 9, 5, complex_values=True)
    window = torch.hann_window(16)
    params = istft_params(spectrum, window, n_fft=16, hop_length=16)
    with standing_in(recording(Recorder())), pytest.raises(UnresolvedArguments):
        cuda_backend.istft(params, spectrum, window)


def test_a_scaled_window_is_kept_while_it_is_the_same() -> None:
    device, window = torch.device("cpu"), torch.rand(10)

    def scaled(**more: Any) -> torch.Tensor:
        return cuda_prepared.scaled_window(window, 10, 16, 0.5, device, **more)

    with standing_in(recording(Recorder())):
        first = scaled()
        assert torch.equal(first, torch.nn.functional.pad(window * 0.5, (3, 3)))
        assert scaled() is first
        window.mul_(2)
        second = scaled()
        assert torch.equal(second, first * 2)
        window.data = torch.ones(10)
        assert torch.equal(scaled()[3:13], torch.full((10,), 0.5))
        ones = cuda_prepared.scaled_window(None, 10, 16, 2.0, device)
        assert torch.equal(ones[3:13], torch.full((10,), 2.0))
        assert ones is cuda_prepared.scaled_window(None, 10, 16, 2.0, device)
        complex_window = torch.randn(16, dtype=torch.complex64)
        conjugate = cuda_prepared.scaled_window(complex_window, 16, 16, 1.0, device, True)
        assert not conjugate.is_conj()
        assert torch.equal(conjugate, complex_window.conj())


def test_kernels_read_single_precision_whatever_the_default_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spectrum = torch.zeros(1, 9, 5, dtype=torch.complex64)
    params = istft_params(spectrum, None, n_fft=16)
    device = torch.device("cpu")
    torch.set_default_dtype(torch.float64)
    try:
        with standing_in(recording(Recorder())):
            ones = cuda_prepared.scaled_window(None, 16, 16, 0.5, device)
            monkeypatch.setattr(torch_state, "is_capturing", lambda: True)
            rows = cuda_prepared.device_envelope(params, None, window_of(None, 16, 16), device)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (ones.dtype, rows.dtype) == (torch.float32, torch.float32)


def test_a_window_without_versions_and_a_captured_one_are_scaled_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = torch.device("cpu")
    with torch.inference_mode():
        unversioned = torch.ones(16)
    ordinary = torch.ones(16)
    with standing_in(recording(Recorder())):
        for window in (unversioned, ordinary, None):
            if window is not unversioned:
                monkeypatch.setattr(torch_state, "is_capturing", lambda: True)
            first = cuda_prepared.scaled_window(window, 16, 16, 1.0, device)
            again = cuda_prepared.scaled_window(window, 16, 16, 1.0, device)
            assert first is not again
            assert torch.equal(first, again)


@pytest.mark.parametrize("frames", [1, 2, 9])
@pytest.mark.parametrize("hop", [3, 8, 16])
def test_a_graphs_envelope_is_the_one_of_the_values(
    monkeypatch: pytest.MonkeyPatch, frames: int, hop: int
) -> None:
    device = torch.device("cpu")
    for window in (torch.rand(14) + 0.5, torch.randn(14, dtype=torch.complex64) + 2, None):
        is_complex = window is not None and window.is_complex()
        spectrum = torch.zeros(1, 16 if is_complex else 9, frames, dtype=torch.complex64)
        arguments = {"n_fft": 16, "hop_length": hop, "win_length": 14, "normalized": True}
        if hop > 14:
            arguments["win_length"], window = 16, None
        params = istft_params(
            spectrum, window, center=False, **arguments, return_complex=is_complex
        )
        values = window_of(window, params.win_length, 16)
        for conjugate in (False, True):
            with standing_in(recording(Recorder())):
                kept = cuda_prepared.device_envelope(params, window, values, device, conjugate)
                monkeypatch.setattr(torch_state, "is_capturing", lambda: True)
                made = cuda_prepared.device_envelope(params, window, values, device, conjugate)
                monkeypatch.setattr(torch_state, "is_capturing", lambda: False)
            assert made.dtype == kept.dtype
            assert torch.allclose(made, kept, rtol=1e-6)


def test_what_computes_and_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    signal, window = torch.zeros(2, 100), torch.ones(16)
    stft = stft_params(signal, window, n_fft=16, return_complex=True)
    prime = stft_params(signal, None, n_fft=11, return_complex=True)
    spectrum = torch.zeros(2, 9, 5, dtype=torch.complex64)
    istft = istft_params(spectrum, window, n_fft=16)
    odd = istft_params(torch.zeros(2, 6, 5, dtype=torch.complex64), None, n_fft=11)
    huge = stft_params(
        torch.zeros(1, 1).expand(1_000_000, 1 << 20),
        window,
        n_fft=16,
        hop_length=1,
        return_complex=True,
    )
    with standing_in(recording(Recorder())):
        computation: Callable[..., Any] = cuda_backend.computation
        assert computation(stft, signal, window) == ("cuda analysis", None)
        assert computation(prime, signal, None) == ("cuda cut_frames + cufft", None)
        assert computation(istft, spectrum, window)[0].startswith("cuda synthesis")
        assert computation(odd, spectrum, None) == ("cufft + cuda add_frames", None)
        assert "thread blocks" in computation(huge, signal, window)[1]
        many = stft_params(
            torch.zeros(1).expand(1 << 31, 16),
            window,
            n_fft=16,
            hop_length=16,
            return_complex=True,
        )
        assert "dimension" in computation(many, signal, window)[1]
        monkeypatch.setattr(torch_state, "is_capturing", lambda: True)
        assert computation(stft, signal, window)[1] == cuda_backend.NOT_PREPARED


def test_a_device_that_nvrtc_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_backend, "architecture_of", lambda device: 130)
    monkeypatch.setattr(cubins, "architectures", lambda: (80, 90))
    monkeypatch.setattr(cubins, "nvrtc_version", lambda: (13, 0))
    reason = cuda_backend.device_reason.__wrapped__(0)
    assert reason == "NVRTC 13.0 does not compile for compute capability 13.0"
    monkeypatch.setattr(cuda_backend, "architecture_of", lambda device: 90)
    assert cuda_backend.device_reason.__wrapped__(0) is None


def test_why_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = cuda_backend.unavailable_reason.__wrapped__
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in reason()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in reason()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda_backend, "sys", SimpleNamespace(platform="win32"))
    assert "Linux" in reason()
    monkeypatch.setattr(cuda_backend, "sys", SimpleNamespace(platform="linux"))

    def missing() -> None:
        raise cubins.CudaProblem("not installed")

    monkeypatch.setattr(cuda_backend, "cuda_kernels", missing)
    assert reason() == "not installed"
    monkeypatch.setattr(cuda_backend, "cuda_kernels", lambda: None)
    assert reason() is None


def test_the_maps_are_chosen_by_backend_and_else_by_device() -> None:
    def chosen(backend: str | None, device: str) -> str:
        tensor = SimpleNamespace(device=SimpleNamespace(type=device))
        return adjoints._maps(backend, tensor).__name__.rpartition(".")[2]  # type: ignore[attr-defined,arg-type]

    assert chosen(None, "cuda") == "cuda_adjoints"
    assert chosen(None, "cpu") == chosen(None, "mps") == chosen("mlx", "mps") == "mlx_adjoints"
    assert chosen("mps", "mps") == chosen("mps", "cpu") == "mps_adjoints"
