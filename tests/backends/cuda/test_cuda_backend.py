"""The ``cuda`` backend's own code, on host tensors that stand in for a device's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cuda_stand_in import Emulated, Recorder, StandIn, recording, standing_in
from needs import ONCE_ONLY, needs_emulator
from reference import istft_params, random_tensor, stft_params

from torch_mlx_spectro.backends.cuda import backend as cuda_backend
from torch_mlx_spectro.backends.cuda import nvrtc as cubins
from torch_mlx_spectro.backends.cuda.backend import CUDA, CudaBackend
from torch_mlx_spectro.calls.operation import Call
from torch_mlx_spectro.errors import UnresolvedArguments
from torch_mlx_spectro.native import functions as native

pytestmark = ONCE_ONLY


@pytest.fixture(scope="module")
def kernels(metal_cache: Path) -> Emulated:
    return Emulated(metal_cache)


@pytest.fixture
def backend(kernels: Emulated) -> Iterator[StandIn]:
    with standing_in(kernels) as found:
        yield found


@needs_emulator
@pytest.mark.parametrize("n_fft", [128, 16, 22])
def test_a_vanishing_envelope_is_torchs_to_report(
    backend: StandIn, kernels: Emulated, n_fft: int
) -> None:
    """By a kernel that walks, a general one, and the one around another transform."""
    spectrum = random_tensor(0, 1, n_fft // 2 + 1, 5, complex_values=True)
    window = torch.hann_window(n_fft)
    params = istft_params(spectrum, window, n_fft=n_fft, hop_length=n_fft)
    launched = kernels.machine.launches
    launched.clear()
    for _ in range(2):
        with pytest.raises(UnresolvedArguments):
            backend.istft(params, spectrum, window)
    assert len(launched) == 2  # the kernel is asked each time
    window.add_(0.1)
    found = backend.istft(params, spectrum, window)
    expected = native.istft(spectrum, n_fft, n_fft, window=window)
    assert torch.allclose(found, expected, atol=1e-4)


@needs_emulator
def test_of_one_window_only_the_first_call_waits(backend: StandIn) -> None:
    waited: list[Any] = []
    backend.listen = lambda *given: waited.append(given) or 0
    window = torch.hann_window(16) + 0.1
    for frames in (20, 20, 21, 30):
        spectrum = random_tensor(0, 1, 9, frames, complex_values=True)
        params = istft_params(spectrum, window, n_fft=16, hop_length=4)
        backend.istft(params, spectrum, window)
        assert backend.is_envelope_checked(params, window)
        assert len(waited) == 1
    window.mul_(2)
    assert not backend.is_envelope_checked(params, window)
    backend.istft(params, spectrum, window)
    assert len(waited) == 2


def test_what_computes_and_why_not() -> None:
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
    with standing_in(recording(Recorder())) as backend:

        def computation(*call: Any) -> tuple[str, str | None]:
            given = Call(*call)
            return backend.name_kernel(given), backend.explain_refusal(given)

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
        backend.capturing = True
        assert computation(stft, signal, window)[1] == cuda_backend.NOT_PREPARED


def test_a_device_that_nvrtc_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_backend, "find_architecture", lambda device: 130)
    monkeypatch.setattr(cubins, "architectures", lambda: (80, 90))
    monkeypatch.setattr(cubins, "nvrtc_version", lambda: (13, 0))
    reason = CUDA.explain_device(0)
    assert reason == "NVRTC 13.0 does not compile for compute capability 13.0"
    monkeypatch.setattr(cuda_backend, "find_architecture", lambda device: 90)
    assert CUDA.explain_device(0) is None


def test_why_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(kernels: Any = None) -> str | None:
        """Of a backend that has not been asked yet."""

        class New(CudaBackend):
            def kernels(self) -> Any:
                return kernels() if kernels else None

        return New().explain_absence()

    def missing() -> None:
        raise cubins.CudaProblem("not installed")

    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in str(reason())
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in str(reason())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda_backend, "sys", SimpleNamespace(platform="win32"))
    assert "Linux" in str(reason())
    monkeypatch.setattr(cuda_backend, "sys", SimpleNamespace(platform="linux"))
    assert reason(missing) == "not installed"
    assert reason() is None
