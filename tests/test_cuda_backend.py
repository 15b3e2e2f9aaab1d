"""The ``cuda`` backend's own code, on host tensors that stand in for a device's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cuda_stand_in import Emulated, Recorder, recording, standing_in
from needs import ONCE_ONLY, needs_emulator
from reference import istft_params, random_tensor, stft_params
from test_adjoints import ISTFTS, KINDS, check_identities, check_istft

from torch_mlx_spectro import (
    adjoints,
    cuda_backend,
    derivatives,
    known_windows,
    mlx_backend,
    native,
    nola,
    torch_state,
)
from torch_mlx_spectro.cuda_prepared import WINDOWS
from torch_mlx_spectro.errors import UnresolvedArguments
from torch_mlx_spectro.kernels import cubins

pytestmark = ONCE_ONLY


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
    launched = Recorder()
    with standing_in(recording(launched)):
        for _ in range(2):
            with pytest.raises(UnresolvedArguments):
                cuda_backend.istft(params, spectrum, window)
        # The device is asked each time, and nobody waits for it before the call is launched.
        assert len(launched.launched) == 2


def scaled(window: Any, factor: float, conjugate: bool = False) -> torch.Tensor:
    """A window of length 10 for 16 points, as the kernels in force prepare it."""
    return WINDOWS.scaled(window, 10, 16, factor, torch.device("cpu"), conjugate)


def test_a_scaled_window_is_kept_while_it_is_the_same() -> None:
    window = torch.rand(10)
    with standing_in(recording(Recorder())):
        first = scaled(window, 0.5)
        assert torch.equal(first[:16], torch.nn.functional.pad(window * 0.5, (3, 3)))
        assert scaled(window, 0.5) is first
        window.mul_(2)
        second = scaled(window, 0.5)
        assert torch.equal(second, first * 2)
        window.data = torch.ones(10)
        assert torch.equal(scaled(window, 0.5)[3:13], torch.full((10,), 0.5))
        ones = scaled(None, 2.0)
        assert torch.equal(ones[3:13], torch.full((10,), 2.0))
        assert ones is scaled(None, 2.0)
        complex_window = torch.randn(10, dtype=torch.complex64)
        conjugate = scaled(complex_window, 1.0, True)
        assert not conjugate.is_conj()
        assert torch.equal(conjugate[3:13], complex_window.conj())


def test_kernels_read_single_precision_whatever_the_default_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spectrum = torch.zeros(1, 9, 5, dtype=torch.complex64)
    params = istft_params(spectrum, None, n_fft=16)
    device = torch.device("cpu")
    torch.set_default_dtype(torch.float64)
    try:
        with standing_in(recording(Recorder())):
            ones = WINDOWS.scaled(None, 16, 16, 0.5, device)
            monkeypatch.setattr(torch_state, "is_capturing", lambda: True)
            rows = WINDOWS.envelope(params, None, device)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (ones.dtype, rows.dtype) == (torch.float32, torch.float32)


def test_a_window_without_versions_and_a_captured_one_are_scaled_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with torch.inference_mode():
        unversioned = torch.ones(10)
    ordinary = torch.ones(10)
    with standing_in(recording(Recorder())):
        for window in (unversioned, ordinary, None):
            if window is not unversioned:
                monkeypatch.setattr(torch_state, "is_capturing", lambda: True)
            first, again = scaled(window, 1.0), scaled(window, 1.0)
            assert first is not again
            assert torch.equal(first, again)


def test_nothing_is_kept_of_a_window_that_is_gone() -> None:
    with standing_in(recording(Recorder())):
        for _ in range(2 * known_windows.MAX_WINDOWS):
            scaled(torch.rand(10), 1.0)
        assert len(WINDOWS.known) == 0
        kept = [torch.rand(10) for _ in range(known_windows.MAX_WINDOWS + 3)]
        for window in kept:
            scaled(window, 1.0)
        assert 0 < len(WINDOWS.known) <= known_windows.MAX_WINDOWS
        for factor in range(2 * known_windows.MAX_OF_A_WINDOW):
            scaled(kept[-1], float(factor))
        known = WINDOWS.known.find(kept[-1])
        assert known is not None
        assert 0 < len(known.made) <= known_windows.MAX_OF_A_WINDOW


def test_a_known_window_is_judged_without_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one window only the first call waits, whatever the lengths of the others."""
    asked: list[int] = []
    take = nola._pool.take
    monkeypatch.setattr(nola._pool, "take", lambda *given: asked.append(given[0]) or take(*given))
    window = torch.hann_window(16) + 0.1
    device = torch.device("cpu")
    with standing_in(recording(Recorder())):
        for frames in (9, 9, 10, 11):
            spectrum = torch.zeros(1, 9, frames, dtype=torch.complex64)
            params = istft_params(spectrum, window, n_fft=16, hop_length=4)
            read = cuda_backend.what_is_read(params, window, device)
            read.settle()
            assert WINDOWS.is_judged(params, window)
            assert asked == [4]
        vanishing = torch.hann_window(16)
        for frames in (9, 10):  # centred, then not
            spectrum = torch.zeros(1, 9, frames, dtype=torch.complex64)
            params = istft_params(spectrum, vanishing, n_fft=16, hop_length=4, center=frames == 9)
            assert not WINDOWS.is_judged(params, vanishing)
            if frames == 9:
                cuda_backend.what_is_read(params, vanishing, device).settle()
            else:
                with pytest.raises(UnresolvedArguments):
                    cuda_backend.what_is_read(params, vanishing, device)


@pytest.mark.parametrize("frames", [1, 2, 9])
@pytest.mark.parametrize("hop", [3, 8, 16])
def test_a_graphs_complex_envelope_is_the_one_of_the_values(
    monkeypatch: pytest.MonkeyPatch, frames: int, hop: int
) -> None:
    window = torch.randn(16, dtype=torch.complex64) + 2
    spectrum = torch.zeros(1, 16, frames, dtype=torch.complex64)
    params = istft_params(
        spectrum, window, center=False, n_fft=16, hop_length=hop, return_complex=True
    )
    device = torch.device("cpu")
    for conjugate in (False, True):
        with standing_in(recording(Recorder())):
            given = (params, window, device, conjugate)
            kept = WINDOWS.envelope(*given)
            monkeypatch.setattr(torch_state, "is_capturing", lambda: True)
            made = WINDOWS.envelope(*given)
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
