"""Train two small models natively and with torch.stft and torch.istft computed by MLX; compare.

    python examples/training.py [--plot FILE.png] [--loss auraloss] [--json]

One model removes noise from a waveform and learns from a multi-resolution STFT loss; the other
separates two sources by masks on a spectrum. Each is trained from the same seed three times, step
by step in turns: by native torch, under ``torch_mlx_spectro.patch("mlx", strict=True)``, and, as a
control, by native torch from weights that are off by one rounding.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from operator import truediv
from pathlib import Path
from typing import Any

import torch
from losses import MultiResolutionStftLoss
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from torch import nn

import torch_mlx_spectro as tms

RATE = 16_000
#: Amplitude of the noise that clean recordings have, and of what the enhancer is to remove.
OWN_NOISE, NOISE = 0.03, 0.1
#: The loss's least power of a bin: what OWN_NOISE leaves in most is more.
FLOOR = 0.03
#: Two curves of one seed may differ by this much of the loss, or by CONTROLS times the control's
#: difference, whichever is larger: both sides round, differently, and training amplifies that. A
#: gradient that is wrong by 1% moves the enhancer's curve by 1e-3 or more.
TOLERANCE = 1e-4
CONTROLS = 10.0
#: Steps of one side before it is the next one's turn.
TURN = 5

Batch = tuple[torch.Tensor, torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Missing(Exception):
    """Something that an option needs is not installed."""


class Enhancer(nn.Module):
    """Waveform to waveform: dilated convolutions whose output is added to the input."""

    def __init__(self, channels: int = 16, dilations: tuple[int, ...] = (1, 3, 9)) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, channels, 9, padding=4)
        self.blocks = nn.ModuleList(
            nn.Conv1d(channels, channels, 9, padding=4 * d, dilation=d) for d in dilations
        )
        self.leave = nn.Conv1d(channels, 1, 9, padding=4)
        with torch.no_grad():
            self.leave.weight *= 0.1  # begin near the identity

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        hidden = self.enter(noisy[:, None])
        for block in self.blocks:
            hidden = hidden + torch.tanh(block(hidden))
        cleaned: torch.Tensor = noisy + self.leave(hidden)[:, 0]
        return cleaned


class MaskSeparator(nn.Module):
    """A mixture to two sources: stft, masks by convolutions over time, istft."""

    def __init__(self, n_fft: int = 512, hop: int = 128, hidden: int = 64) -> None:
        super().__init__()
        self.n_fft, self.hop, bins = n_fft, hop, n_fft // 2 + 1
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.masks = nn.Sequential(
            nn.Conv1d(bins, hidden, 3, padding=1),
            nn.Tanh(),
            nn.Conv1d(hidden, hidden, 3, padding=1),
            nn.Tanh(),
            nn.Conv1d(hidden, 2 * bins, 3, padding=1),
        )

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        sizes: dict[str, Any] = {"n_fft": self.n_fft, "hop_length": self.hop, "window": self.window}
        spectrum = torch.stft(mixture, **sizes, return_complex=True)
        rows, bins, frames = spectrum.shape
        masks = self.masks(torch.log1p(spectrum.abs())).reshape(rows, 2, bins, frames).softmax(1)
        parts = (masks * spectrum[:, None]).reshape(2 * rows, bins, frames)
        samples = mixture.shape[-1]
        return torch.istft(parts, **sizes, length=samples).reshape(rows, 2, samples)


def sources(rows: int, samples: int, generator: torch.Generator) -> torch.Tensor:
    """Sines with a chirp, and bursts of noise that decay: (rows, 2, samples)."""

    def between(low: float, high: float, count: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(rows, count, 1, generator=generator)

    seconds = torch.arange(samples) / RATE
    sines = torch.sin(2 * torch.pi * between(100, 2000, 3) * seconds + between(0, 6, 3)).sum(1)
    chirp = torch.sin(2 * torch.pi * (between(200, 800, 1) + 1500 * seconds) * seconds).sum(1)
    since = seconds - between(0, samples / RATE, 4)
    decay = torch.where(since > 0, torch.exp(-since.clamp(min=0) * between(20, 80, 4)), 0).sum(1)
    bursts = decay * torch.randn(rows, samples, generator=generator)
    return torch.stack([0.1 * (sines + chirp), 0.3 * bursts], dim=1)


def noisy_and_clean(rows: int, samples: int, generator: torch.Generator) -> Batch:
    """What the enhancer learns from."""
    clean = sources(rows, samples, generator).sum(1)
    clean = clean + OWN_NOISE * torch.randn(clean.shape, generator=generator)
    return clean + NOISE * torch.randn(clean.shape, generator=generator), clean


def mixture_and_sources(rows: int, samples: int, generator: torch.Generator) -> Batch:
    """What the separator learns from."""
    parts = sources(rows, samples, generator)
    return parts.sum(1), parts


@dataclass(frozen=True)
class Task:
    """Something to train.

    Attributes:
        rate: of SGD with momentum. Adam would hide a gradient that is wrong by a factor.
    """

    name: str
    make: Callable[[], nn.Module]
    batch: Callable[[int, int, torch.Generator], Batch]
    loss: Loss
    rate: float
    rows: int = 2
    samples: int = RATE // 2
    batches: int = 4


@dataclass
class Curve:
    """The loss and the seconds of every step; ``calls`` are those that the package answered."""

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)


class Training:
    """One model in training. Everything random comes from ``seed``.

    Args:
        task: what to train.
        seed: of weights and batches.
        nudge: relative size of a random change of the initial weights.
    """

    def __init__(self, task: Task, seed: int, nudge: float = 0.0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = task.make()
        generator = torch.Generator().manual_seed(seed + 1)
        self.batches = [task.batch(task.rows, task.samples, generator) for _ in range(task.batches)]
        with torch.no_grad():
            for weights in self.model.parameters() if nudge else ():
                sign = torch.randint(0, 2, weights.shape, generator=generator) * 2 - 1
                weights.add_(nudge * sign * weights.abs())
        self.loss = task.loss
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=task.rate, momentum=0.9)
        self.curve = Curve()

    def step(self) -> None:
        """One step; its loss and its time go to the curve."""
        given, wanted = self.batches[len(self.curve.losses) % len(self.batches)]
        start = time.perf_counter()
        self.optimiser.zero_grad()
        loss = self.loss(self.model(given), wanted)
        torch.autograd.backward(loss)
        self.optimiser.step()
        self.curve.seconds.append(time.perf_counter() - start)
        self.curve.losses.append(float(loss.detach()))


def train(
    task: Task,
    steps: int,
    seed: int,
    strict: bool = True,
    progress: Callable[[int], None] = lambda steps: None,
) -> dict[str, Curve]:
    """Train natively, by MLX, and natively from nudged weights, in turns.

    In turns, because the speed of a machine changes while it runs; of several steps, because
    patch() looks through every loaded module, which takes tens of milliseconds.

    Raises:
        tms.NotAccelerated: ``strict``, and a call would have gone to native torch.
    """
    ulp = torch.finfo(torch.float32).eps
    sides: dict[str, tuple[Training, Callable[[], AbstractContextManager[Any]]]] = {
        "native": (Training(task, seed), nullcontext),
        "mlx": (Training(task, seed), lambda: tms.patch(backend="mlx", strict=strict)),
        "control": (Training(task, seed, nudge=ulp), nullcontext),
    }
    tms.reset_stats()
    for begin in range(0, steps, TURN):
        turn = min(TURN, steps - begin)
        for training, context in sides.values():
            with context():
                for _ in range(turn):
                    training.step()
        progress(turn)
    # torch's own functions, which the two other sides call, count nothing.
    sides["mlx"][0].curve.calls = tms.stats().as_dict()["calls"]
    return {name: training.curve for name, (training, _) in sides.items()}


def largest_difference(curve: Curve, reference: Curve) -> float:
    """The largest relative difference of two loss curves."""
    pairs = zip(curve.losses, reference.losses, strict=True)
    # Not a number must not pass for a small one.
    found = [abs(ours - theirs) / abs(theirs) for ours, theirs in pairs]
    return max((value if value == value else float("inf") for value in found), default=0.0)


def tolerance_of(curves: dict[str, Curve]) -> float:
    """How far the curve by MLX may be from native's."""
    return max(TOLERANCE, CONTROLS * largest_difference(curves["control"], curves["native"]))


def tasks(loss: str, floor: float, seconds: float) -> list[Task]:
    """What this program trains.

    Raises:
        Missing: auraloss is asked for and not installed.
    """
    samples = int(seconds * RATE)
    criterion = auraloss(floor) if loss == "auraloss" else MultiResolutionStftLoss(floor=floor)
    return [
        Task("enhancer", Enhancer, noisy_and_clean, criterion, 2.5e-4, samples=samples),
        Task("separator", MaskSeparator, mixture_and_sources, nn.MSELoss(), 10.0, samples=samples),
    ]


def auraloss(floor: float) -> Loss:
    """The multi-resolution STFT loss of auraloss, which has the resolutions of ours."""
    try:
        freq = importlib.import_module("auraloss.freq")
    except ImportError:
        raise Missing("--loss auraloss: pip install auraloss") from None
    criterion: Loss = freq.MultiResolutionSTFTLoss(eps=floor)
    return lambda estimate, target: criterion(estimate[:, None], target[:, None])


def report_of(task: Task, curves: dict[str, Curve]) -> dict[str, Any]:
    """What is printed of one model."""
    native, mlx = curves["native"], curves["mlx"]
    difference, tolerance = largest_difference(mlx, native), tolerance_of(curves)
    return {
        "ok": difference <= tolerance,
        "difference": difference,
        "control_difference": largest_difference(curves["control"], native),
        "tolerance": tolerance,
        "calls": mlx.calls,
        "native_ms": 1e3 * statistics.median(native.seconds),
        "mlx_ms": 1e3 * statistics.median(mlx.seconds),
        # Step by step: both of a pair ran within a moment of each other.
        "ratio": statistics.median(map(truediv, native.seconds, mlx.seconds)),
        "losses": {side: curve.losses for side, curve in curves.items()},
    }


def print_report(console: Console, name: str, report: dict[str, Any]) -> None:
    """Print the table of one model."""
    table = Table(box=box.SIMPLE_HEAD, title=name, title_justify="left")
    for column in ("", "native torch", "by MLX", "control"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    losses = report["losses"]
    last = len(losses["native"]) - 1
    for step in sorted({0, last // 4, last // 2, 3 * last // 4, last}):
        shown = (f"{losses[side][step]:.6f}" for side in ("native", "mlx", "control"))
        table.add_row(f"loss at step {step + 1}", *shown)
    difference, control = report["difference"], report["control_difference"]
    table.add_row("largest relative difference", "", f"{difference:.1e}", f"{control:.1e}")
    table.add_row("ms a step, median", f"{report['native_ms']:.1f}", f"{report['mlx_ms']:.1f}")
    table.add_row("native's time over MLX's", "", f"{report['ratio']:.2f}x")
    for call, count in sorted(report["calls"].items()):
        table.add_row(f"calls of {call}", "", str(count))
    console.print(table)
    verdict = "within" if report["ok"] else "BEYOND"
    console.print(f"{name}: {verdict} the tolerance of {report['tolerance']:.1e}")
    if report["tolerance"] > 10 * TOLERANCE:
        console.print("It is wide because rounding alone moves the control: this shows little.")


def plot(path: Path, reports: dict[str, dict[str, Any]]) -> None:
    """Draw the curves of all models into one picture.

    Raises:
        Missing: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise Missing("--plot: pip install matplotlib") from None
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (name, report) in zip(figure.subplots(1, len(reports)), reports.items(), strict=True):
        steps = range(1, len(report["losses"]["native"]) + 1)
        # The wide pale line stays visible below the other, on which it should lie.
        axis.plot(steps, report["losses"]["native"], "C0", linewidth=6, alpha=0.35, label="native")
        axis.plot(steps, report["losses"]["mlx"], "C3", linewidth=1.2, label="by MLX")
        axis.set_title(f"{name}: curves differ by {report['difference']:.1e} at most")
        axis.set_xlabel("step")
        axis.set_ylabel("loss")
        axis.legend()
    figure.savefig(path, dpi=90)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description="Train two small models natively and by MLX, and compare the loss curves.",
        epilog="Exit codes: 0 all is well, 1 the curves differ or MLX did not compute a call,"
        " 2 wrong usage or something is not installed.",
    )
    parser.add_argument("--steps", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="of audio in an example (default: %(default)s)"
    )
    parser.add_argument(
        "--loss", choices=("own", "auraloss"), default="own", help="the enhancer's loss"
    )
    parser.add_argument(
        "--floor", type=float, default=FLOOR, help="its least power of a bin (default: %(default)s)"
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the curves")
    parser.add_argument("--json", action="store_true", help="print one JSON object, no table")
    options = parser.parse_args(arguments)
    if options.steps < 1 or options.seconds < 0.1:
        parser.error("--steps must be at least 1, --seconds at least 0.1")
    return options


def run(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Train everything; shows progress on stderr, where it does not get into the JSON."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    reports = {}
    todo = tasks(options.loss, options.floor, options.seconds)
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for task in todo:
            bar = progress.add_task(task.name, total=options.steps)
            advance = partial(progress.advance, bar)
            curves = train(task, options.steps, options.seed, progress=advance)
            reports[task.name] = report_of(task, curves)
    return reports


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options, console = parse(arguments), Console(stderr=True, highlight=False, markup=False)
    mlx = tms.available_backends()["mlx"]
    if not mlx.available:
        console.print(f"error: MLX is not available: {mlx.reason}")
        return 2
    try:
        reports = run(options)
        if options.plot is not None:
            plot(options.plot, reports)
    except (Missing, OSError) as error:
        console.print(f"error: {error}")
        return 2
    except tms.NotAccelerated as error:
        console.print(f"error: {error}")
        return 1
    ok = all(report["ok"] for report in reports.values())
    if options.json:
        print(json.dumps({"ok": ok, "torch": torch.__version__, "models": reports}, indent=2))
    else:
        shown = Console(highlight=False, markup=False)
        for name, report in reports.items():
            print_report(shown, name, report)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
