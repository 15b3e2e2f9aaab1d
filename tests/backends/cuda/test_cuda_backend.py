"""The ``cuda`` backend's own code, on host tensors that stand in for a device's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cuda_stand_in import Emulated, Recorder, recording, standing_in
from map_identities import ISTFTS, KINDS, check_identities, check_istft
from needs import ONCE_ONLY, needs_emulator
from reference import istft_params, random_tensor, stft_params

from torch_mlx_spectro.autograd import functions as derivatives
from torch_mlx_spectro.autograd import maps as adjoints
from torch_mlx_spectro.backends.cuda import backend as cuda_backend
from torch_mlx_spectro.backends.cuda import nvrtc as cubins
from torch_mlx_spectro.backends.cuda.backend import CUDA
from torch_mlx_spectro.backends.mlx import backend as mlx_backend
from torch_mlx_spectro.backends.mps import backend as mps_backend
from torch_mlx_spectro.errors import UnresolvedArguments
from torch_mlx_spectro.native import functions as native
from torch_mlx_spectro.native import state as torch_state

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
            found = CUDA.stft(params, signal, used)
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
        found = CUDA.istft(params, values, window)
        expected = native.istft(values, window=window, **given)
        assert found.stride() == expected.stride()
        assert torch.allclose(found, expected, atol=2e-5)


@needs_emulator
def test_a_two_sided_spectrum_of_a_real_signal(emulated: Emulated) -> None:
    window = torch.hann_window(22) + 0.1
    spectrum = torch.fft.fft(random_tensor(0, 2, 9, 22)).transpose(1, 2)
    params = istft_params(spectrum, window, n_fft=22, hop_length=7, onesided=False)
    found = CUDA.istft(params, spectrum, window)
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
    monkeypatch.setattr(mlx_backend.MLX, "synthesise", CUDA.synthesise)
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


@needs_emulator
@pytest.mark.parametrize("n_fft", [128, 16, 22])
def test_a_vanishing_envelope_is_torchs_to_report(emulated: Emulated, n_fft: int) -> None:
    """By a kernel that walks, a general one, and the one around another transform."""
    spectrum = random_tensor(0, 1, n_fft // 2 + 1, 5, complex_values=True)
    window = torch.hann_window(n_fft)
    params = istft_params(spectrum, window, n_fft=n_fft, hop_length=n_fft)
    launched = emulated.machine.launches
    launched.clear()
    for _ in range(2):
        with pytest.raises(UnresolvedArguments):
            CUDA.istft(params, spectrum, window)
    assert len(launched) == 2  # the kernel is asked each time
    window.add_(0.1)
    found = CUDA.istft(params, spectrum, window)
    expected = native.istft(spectrum, n_fft, n_fft, window=window)
    assert torch.allclose(found, expected, atol=1e-4)


@needs_emulator
@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("n_fft", [64, 60, 15, 22])
def test_vanishing_is_found_where_native_finds_it(
    emulated: Emulated, n_fft: int, is_complex: bool
) -> None:
    """At samples that are kept, and at no others: windows with holes, ends that are left out."""
    generator = torch.Generator().manual_seed(n_fft)
    bins = n_fft if is_complex else n_fft // 2 + 1
    refused = 0
    for turn in range(60):
        win, frames, hop = (
            n_fft - turn % 3,
            1 + turn % 7,
            (n_fft // 4, n_fft // 3, n_fft // 2)[turn % 3],
        )
        window = (torch.rand(win, generator=generator) > 0.2 * (turn % 4)).float()
        if is_complex:
            window = window.to(torch.complex64) * (1 + 0.5j)
        center = turn % 2 == 0 and frames > 2
        length = (None, hop + 1, n_fft, 10 * n_fft)[turn % 4]
        more: dict[str, Any] = {"center": center, "length": length, "return_complex": is_complex}
        spectrum = torch.ones(1, bins, frames, dtype=torch.complex64)
        sizes = {"n_fft": n_fft, "hop_length": hop, "win_length": win}
        try:
            expected = native.istft(spectrum, window=window, **sizes, **more)
        except RuntimeError:
            expected = None
        params = istft_params(spectrum, window, **sizes, **more)
        if expected is None:
            refused += 1
            with pytest.raises(UnresolvedArguments):
                CUDA.istft(params, spectrum, window)
        else:
            found = CUDA.istft(params, spectrum, window)
            assert torch.allclose(found, expected, atol=1e-4), (win, hop, frames, more)
    assert 5 < refused < 55


@needs_emulator
@pytest.mark.parametrize(("n_fft", "hop"), [(128, 2), (128, 33), (60, 1), (22, 1)])
def test_windows_of_many_pieces_lose_no_digits(emulated: Emulated, n_fft: int, hop: int) -> None:
    window = torch.hann_window(n_fft) + 0.1
    frames = 3 * n_fft // hop
    spectrum = torch.fft.rfft(random_tensor(0, 1, frames, n_fft)).transpose(1, 2)
    params = istft_params(spectrum, window, n_fft=n_fft, hop_length=hop)
    found = CUDA.istft(params, spectrum, window).double()
    expected = native.istft(spectrum, n_fft, hop, window=window).double()
    exact = native.istft(spectrum.to(torch.complex128), n_fft, hop, window=window.double())
    assert (found - exact).norm() <= max(2 * (expected - exact).norm(), 1.7e-7 * exact.norm())


@needs_emulator
def test_kernels_read_single_precision_whatever_the_default_is(emulated: Emulated) -> None:
    spectrum = random_tensor(0, 1, 9, 5, complex_values=True)
    params = istft_params(spectrum, None, n_fft=16)
    expected = CUDA.istft(params, spectrum, None)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(CUDA.istft(params, spectrum, None), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@needs_emulator
def test_of_one_window_only_the_first_call_waits(
    emulated: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []
    monkeypatch.setattr(cuda_backend.CHECKS, "_hear", lambda *given: waited.append(given) or 0)
    window = torch.hann_window(16) + 0.1
    for frames in (20, 20, 21, 30):
        spectrum = random_tensor(0, 1, 9, frames, complex_values=True)
        params = istft_params(spectrum, window, n_fft=16, hop_length=4)
        CUDA.istft(params, spectrum, window)
        assert cuda_backend.is_judged(params, window)
        assert len(waited) == 1
    window.mul_(2)
    assert not cuda_backend.is_judged(params, window)
    CUDA.istft(params, spectrum, window)
    assert len(waited) == 2


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
    def chosen(backend: str | None, device: str) -> Any:
        tensor = SimpleNamespace(device=SimpleNamespace(type=device))
        return adjoints._backend(backend, tensor)  # type: ignore[arg-type]

    assert chosen(None, "cuda") is CUDA
    assert chosen(None, "cpu") is chosen(None, "mps") is chosen("mlx", "mps") is mlx_backend.MLX
    assert chosen("mps", "mps") is chosen("mps", "cpu") is mps_backend.MPS
