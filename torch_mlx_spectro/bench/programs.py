"""Parts of training programs that are timed whole: they call torch's own names."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from .measuring import Call
from .schema import CaseFacts

#: What is timed, by the names that reports use.
LOSS, STEPS = "multi-resolution loss + backward", "50 steps"
N_STEPS = 50
#: Learning rate and momentum of SGD, which shows when a gradient is wrong by a factor.
RATE, MOMENTUM = 0.1, 0.9
#: A package, and the table that needs it.
AURALOSS = "auraloss"


def explain_absence(tables: Iterable[str]) -> dict[str, str]:
    """Say why some of these tables cannot be measured here, by their names."""
    if AURALOSS not in tables or importlib.util.find_spec(AURALOSS) is not None:
        return {}
    return {AURALOSS: f"it is not installed: pip install {AURALOSS}"}


def _draw(case: CaseFacts, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw two signals for each row, (rows, samples), the same on every run."""
    generator = torch.Generator().manual_seed(2)
    shape = (2, case["rows"], case["samples"])
    first, second = torch.randn(shape, generator=generator).to(device)
    return first, second


def make_loss(case: CaseFacts, device: torch.device) -> Call:
    """Make a call that computes auraloss's multi-resolution STFT loss and its gradient.

    The call returns the loss.
    """
    criterion = importlib.import_module("auraloss.freq").MultiResolutionSTFTLoss().to(device)
    estimate, target = (signal[:, None] for signal in _draw(case, device))
    leaf = estimate.detach().requires_grad_()

    def call(number: int) -> torch.Tensor:
        loss: torch.Tensor = criterion(leaf, target)
        torch.autograd.grad(loss, leaf)
        return loss.detach()

    return call


class Separator(nn.Module):
    """Separates a mixture into two sources: stft, masks by convolutions over time, istft."""

    def __init__(self, n_fft: int, hop_length: int, hidden: int = 64) -> None:
        super().__init__()
        bins = n_fft // 2 + 1
        self.sizes: dict[str, Any] = {"n_fft": n_fft, "hop_length": hop_length}
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.masks = nn.Sequential(
            nn.Conv1d(bins, hidden, 3, padding=1),
            nn.Tanh(),
            nn.Conv1d(hidden, 2 * bins, 3, padding=1),
        )

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        """Separate signals (rows, samples) into sources (rows, 2, samples)."""
        window, samples = self.get_buffer("window"), mixture.shape[-1]
        spectrum = torch.stft(mixture, **self.sizes, window=window, return_complex=True)
        rows, bins, frames = spectrum.shape
        masks = self.masks(torch.log1p(spectrum.abs())).reshape(rows, 2, bins, frames).softmax(1)
        parts = (masks * spectrum[:, None]).reshape(2 * rows, bins, frames)
        found = torch.istft(parts, **self.sizes, window=window, length=samples)
        return found.reshape(rows, 2, samples)


def make_steps(case: CaseFacts, device: torch.device) -> Call:
    """Make a call that trains a small separator, from the same weights each time.

    The call returns the loss of every step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Separator(case["n_fft"], case["hop_length"]).to(device)
    sources = torch.stack(_draw(case, device), dim=1)
    mixture = sources.sum(1)
    weights = [parameter.detach().clone() for parameter in model.parameters()]

    def call(number: int) -> torch.Tensor:
        with torch.no_grad():
            for parameter, weight in zip(model.parameters(), weights, strict=True):
                parameter.copy_(weight)
        optimiser = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
        losses = []
        for _ in range(N_STEPS):
            optimiser.zero_grad()
            loss = nn.functional.mse_loss(model(mixture), sources)
            torch.autograd.backward(loss)
            optimiser.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    return call


#: The makers of calls, by the name of what is timed.
PROGRAMS: Mapping[str, Callable[[CaseFacts, torch.device], Call]] = MappingProxyType(
    {LOSS: make_loss, STEPS: make_steps}
)
