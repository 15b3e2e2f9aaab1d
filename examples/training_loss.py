"""Learn the sound of a bell by a multi-resolution STFT loss.

    python examples/training_loss.py

A synthesiser of twelve partials starts with the same loudness and decay for all. Each step of
gradient descent compares STFTs of three sizes, and they become those of the bell that it hears. It
is trained twice from the same start, in turns: by torch alone, and with `patch()`.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import sounds
import torch
from losses import MultiResolutionStftLoss
from showing import INK, describe_calls, draw, finish_axis, make_figure, parse, save
from torch import nn

import torch_mlx_spectro as tms

#: A bell's partials are no multiples of its pitch.
PARTIALS = torch.tensor([0.5, 1, 1.2, 1.5, 2, 2.5, 2.67, 3, 4, 5.33, 6.67, 8])
#: Of the eight strokes of a batch, in semitones above A3.
PITCHES = (0, 2, 3, 5, 7, 8, 10, 12)
#: Steps of one training before it is the other's turn.
TURN = 5


class Bell(nn.Module):
    """Partials that die away; how loud each is, and how fast it dies, is learned."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.loudness = nn.Parameter(torch.full_like(PARTIALS, -3.0))
        self.decay = nn.Parameter(torch.full_like(PARTIALS, 1.0))
        pitches = torch.tensor([sounds.hertz(pitch) for pitch in PITCHES])
        frequencies = pitches[:, None, None] * PARTIALS[:, None]
        self.time = sounds.clock(seconds).float()
        # An alias would be heard: partials that the rate cannot hold are silent.
        audible = frequencies < 0.45 * sounds.RATE
        self.waves = audible * torch.sin(2 * torch.pi * frequencies * self.time)

    def forward(self) -> torch.Tensor:
        """One stroke at each pitch: (rows, samples)."""
        dying = torch.exp(self.loudness[:, None] - self.decay.exp()[:, None] * self.time)
        return (self.waves * dying).sum(1)


class Training:
    """A bell that is being learned, from the same start each time."""

    def __init__(self, heard: torch.Tensor, seconds: float) -> None:
        self.bell, self.heard = Bell(seconds), heard
        self.loss = MultiResolutionStftLoss(floor=1e-4)
        self.optimiser = torch.optim.Adam(self.bell.parameters(), 0.1)
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def step(self) -> None:
        """Learn a little, and note the loss and the time."""
        begin = time.perf_counter()
        self.optimiser.zero_grad()
        loss = self.loss(self.bell(), self.heard)
        loss.backward()
        self.optimiser.step()
        self.seconds.append(time.perf_counter() - begin)
        self.losses.append(float(loss.detach()))


def make_target(seconds: float) -> torch.Tensor:
    """The bell that is to be learned."""
    target = Bell(seconds)
    with torch.no_grad():
        step = torch.arange(len(PARTIALS))
        target.loudness.copy_(-1.8 - 0.25 * step + 0.8 * torch.cos(2.0 * step))
        target.decay.copy_(-0.5 + 0.22 * step)
        heard: torch.Tensor = target()
        return heard


def train(
    heard: torch.Tensor, seconds: float, steps: int, backend: Any
) -> tuple[Training, Training]:
    """Train by torch alone and with ``patch()``, in turns of a few steps."""
    alone, patched = Training(heard, seconds), Training(heard, seconds)
    tms.reset_stats()
    for begin in range(0, steps, TURN):
        turn = range(begin, min(steps, begin + TURN))
        for _ in turn:
            alone.step()
        with tms.patch(backend):
            for _ in turn:
                patched.step()
    return alone, patched


def report(alone: Training, patched: Training) -> None:
    """Print who computed, how fast, and what was learned."""
    last = slice(len(alone.losses) * 2 // 3, None)  # auto has chosen by then
    slow, fast = (statistics.median(side.seconds[last]) for side in (alone, patched))
    pairs = zip(alone.losses, patched.losses, strict=True)
    print(f"torch alone:  {1e3 * slow:.0f} ms a step")
    print(f"with patch(): {1e3 * fast:.0f} ms a step, {slow / fast:.2f} times as fast")
    print(f"computed by:  {describe_calls()}")
    print(f"difference:   {max(abs(a - b) / a for a, b in pairs):.0e} of the loss at most")
    print(f"loss:         {patched.losses[0]:.2f} at first, {patched.losses[-1]:.2f} at the end")


def draw_curves(path: Path, alone: Training, patched: Training) -> None:
    """Draw both loss curves."""
    figure = make_figure(5.4, 2.6)
    axis = figure.subplots()
    # The wide pale line stays visible below the other, on which it should lie.
    axis.plot(alone.losses, "#e69f00", linewidth=6, alpha=0.5, label="torch alone")
    axis.plot(patched.losses, "#0072b2", linewidth=1.5, label="with patch()")
    finish_axis(axis, "Loss by step", "loss")
    axis.set_xlabel("step", color=INK, fontsize=11)
    axis.legend(frameon=False, labelcolor=INK, fontsize=11)
    save(figure, path)


def main() -> None:
    """Train, tell what came of it, and write it."""
    parser = parse(__doc__, seconds=1.0)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    heard = make_target(options.seconds)
    with torch.no_grad():
        start = Bell(options.seconds)()
    alone, patched = train(heard, options.seconds, options.steps, options.backend)
    report(alone, patched)
    with torch.no_grad():
        learned = patched.bell()
    strokes = {"The bell": heard, "Before training": start, "After training": learned}
    joined = {title: rows.reshape(-1) for title, rows in strokes.items()}
    for name, sound in zip(("bell", "before", "after"), joined.values(), strict=True):
        sounds.write(options.output / f"training-loss-{name}.wav", sound)
    shown = 4 * heard.shape[-1]
    draw(
        options.output / "training-loss.png",
        {title: sound[:shown] for title, sound in joined.items()},
    )
    draw_curves(options.output / "training-loss-curve.png", alone, patched)


if __name__ == "__main__":
    main()
