"""Compiled programs on a real device, Inductor's CUDA graphs among them; skipped where none is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
import torch._dynamo.utils
from compiling import fresh_compiler
from gradients import check_close, wide
from torch.utils._triton import has_triton

import torch_mlx_spectro as tms
from torch_mlx_spectro.native import functions as native

CUDA = tms.available_backends()["cuda"]
pytestmark = [
    pytest.mark.skipif(not CUDA.available, reason=f"no CUDA kernels: {CUDA.reason}"),
    pytest.mark.skipif(CUDA.available and not has_triton(), reason="inductor needs triton"),
    pytest.mark.filterwarnings("ignore"),  # what inductor says of a device is torch's affair
]

ROWS, SAMPLES, N_FFT, HOP = 2, 16_000, 512, 128
#: The first calls of a graph warm up and record; what comes later is replayed.
WARM_UP, STEPS = 3, 8

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def spectral_loss(namespace: ModuleType) -> Loss:
    """An stft, a loss of it."""

    def loss(signal: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        z = namespace.stft(signal, N_FFT, HOP, window=window, return_complex=True)
        pairs = torch.view_as_real(z)
        return pairs.square().mean() + pairs.abs().mean()

    return loss


def filtered_loss(namespace: ModuleType) -> Loss:
    """There and back: the istft waits to hear of a new window's envelope."""

    def loss(signal: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        z = namespace.stft(signal, N_FFT, HOP, window=window, return_complex=True)
        pairs = torch.view_as_real(z)
        louder = torch.view_as_complex(pairs * pairs.abs())
        back = namespace.istft(louder, N_FFT, HOP, window=window, length=SAMPLES)
        return torch.square(back).mean()

    return loss


def own_window_loss(namespace: ModuleType) -> Loss:
    """As many programs do: its window is made in the program."""
    inner = filtered_loss(namespace)

    def loss(signal: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        return inner(signal, torch.hann_window(N_FFT, device="cuda") + 0.1)

    return loss


LOSSES = {
    "stft": (spectral_loss, 1),
    "stft and istft": (filtered_loss, 2),
    "a window of its own": (own_window_loss, 2),
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    with fresh_compiler():
        yield


def inputs() -> Iterator[torch.Tensor]:
    """Another one for each step, in memory of its own."""
    generator = torch.Generator("cuda").manual_seed(3)
    for step in range(STEPS):
        noise = torch.randn(ROWS, SAMPLES, generator=generator, device="cuda")
        yield (1 + step) * noise


def differentiate(loss: Loss, signal: torch.Tensor, window: torch.Tensor) -> list[torch.Tensor]:
    """Loss and gradient, out of the memory that the next step writes to."""
    leaf = signal.clone().requires_grad_()
    value = loss(leaf, window)
    value.backward()
    assert leaf.grad is not None
    return [value.detach().clone(), leaf.grad.clone()]


def graphs_left_out() -> int:
    return int(torch._dynamo.utils.counters["inductor"]["cudagraph_skips"])


def run(make: Any, namespace: ModuleType, mode: str, window: Any) -> Iterator[list[torch.Tensor]]:
    compiled = torch.compile(make(namespace), fullgraph=namespace is tms, mode=mode)
    for signal in inputs():
        torch.compiler.cudagraph_mark_step_begin()
        yield differentiate(compiled, signal, window)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_training_step_is_natives_while_inputs_change(name: str, mode: str) -> None:
    make, calls = LOSSES[name]
    window = torch.hann_window(N_FFT, device="cuda") + 0.1
    plain = make(native)
    tms.reset_stats()
    with tms.backend("cuda", strict=True):
        found = list(run(make, tms, mode, window))
    counted = tms.stats()
    assert {backend for _, backend in counted.calls} == {"cuda"}
    assert len(counted.calls) == calls
    for step, (signal, pair) in enumerate(zip(inputs(), found, strict=True)):
        expected = differentiate(plain, signal, window)
        exact = differentiate(plain, wide(signal), wide(window))
        for what, *triple in zip(("loss", "gradient"), pair, expected, exact, strict=True):
            check_close(f"{what} of step {step}", *triple)


def test_what_is_recorded_is_replayed_and_not_called_again() -> None:
    """As far as inductor records native's own program."""
    window = torch.hann_window(N_FFT, device="cuda") + 0.1
    list(run(spectral_loss, native, "reduce-overhead", window))
    natives = graphs_left_out()
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    with tms.backend("cuda", strict=True):
        steps = run(spectral_loss, tms, "reduce-overhead", window)
        for _ in range(WARM_UP):
            next(steps)
        assert graphs_left_out() <= natives
        if graphs_left_out():
            pytest.skip("this inductor records no program of complex values")
        tms.reset_stats()
        assert len(list(steps)) == STEPS - WARM_UP
    assert tms.stats().calls == {}


def test_a_window_whose_envelope_vanishes_is_refused_in_every_step() -> None:
    """What is recorded could not tell: the istft is not."""
    good = torch.hann_window(N_FFT, device="cuda") + 0.1
    with tms.backend("cuda", strict=True):
        compiled = torch.compile(filtered_loss(tms), fullgraph=True, mode="reduce-overhead")
        signal = next(inputs())
        for _ in range(WARM_UP):
            torch.compiler.cudagraph_mark_step_begin()
            differentiate(compiled, signal, good)
        with pytest.raises(RuntimeError, match="window overlap add min"):
            differentiate(compiled, signal, torch.zeros_like(good))


def test_what_auto_records_is_natives_too() -> None:
    window = torch.hann_window(N_FFT, device="cuda") + 0.1
    plain = filtered_loss(native)
    with tms.backend("auto"):
        found = list(run(filtered_loss, tms, "reduce-overhead", window))
    for signal, pair in zip(inputs(), found, strict=True):
        exact = differentiate(plain, wide(signal), wide(window))
        for what, *triple in zip(
            ("loss", "gradient"), pair, differentiate(plain, signal, window), exact, strict=True
        ):
            check_close(what, *triple)
