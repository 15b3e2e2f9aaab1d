"""Training natively and by MLX: the same curves, in one process, in several, and with workers."""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from checkout import EXAMPLES
from cli_process import python
from needs import needs_emulator, needs_mlx
from torch.utils.checkpoint import checkpoint

import torch_mlx_spectro as tms

SEED, STEPS = 0, 50
#: Of the loss. Measured: 3e-7 with these sizes and rates, and as much for native torch against
#: itself from weights that are off by a rounding or three. The rest is room for other rounding:
#: the losses have thresholds, and a bin that crosses one moves the curve.
TOLERANCE = 1e-4

pytestmark = needs_mlx
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example program as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine, threads that wait for each other take seconds
    yield importlib.import_module("training")
    torch.set_num_threads(threads)
    for name in ("training", "losses"):
        sys.modules.pop(name, None)


def small(example: ModuleType, name: str, **changes: Any) -> Any:
    """A task of the example: short signals, and resolutions that fit them."""
    from losses import MultiResolutionStftLoss

    (task,) = (task for task in example.tasks("own", example.FLOOR, 0.1) if task.name == name)
    if name == "enhancer":
        sizes = ((256, 64, 256), (512, 120, 400), (128, 32, 100))
        changes["loss"] = MultiResolutionStftLoss(sizes, example.FLOOR)
    else:
        changes["rate"] = 3.0  # a smaller model takes smaller steps, or its curve is chaotic
    return replace(task, rows=2, **changes)


def with_learned_window(example: ModuleType) -> torch.nn.Module:
    model: torch.nn.Module = example.MaskSeparator(n_fft=128, hop=32)
    window = model.get_buffer("window")
    del model.window
    # Away from Hann's zeros, where the envelope's gradient is large.
    model.window = torch.nn.Parameter(0.1 + 0.9 * window)
    return model


class Recomputed(torch.nn.Module):
    """A separator that keeps nothing for its backward pass."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = checkpoint(self.model, mixture, use_reentrant=False)
        return result


#: The task, the model, and the calls of a step by operation. Checkpointing ends the second forward
#: pass where nothing more is needed of it: in its istft, which is not counted then.
MODELS: dict[str, tuple[str, Callable[[ModuleType], torch.nn.Module], dict[str, int]]] = {
    "enhancer": ("enhancer", lambda e: e.Enhancer(channels=4), {"stft": 6}),
    "separator": ("separator", lambda e: e.MaskSeparator(128, 32), {"stft": 1, "istft": 1}),
    "learned window": ("separator", with_learned_window, {"stft": 1, "istft": 1}),
    "checkpointed": (
        "separator",
        lambda e: Recomputed(with_learned_window(e)),
        {"stft": 2, "istft": 1},
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_curves_are_native_s(example: ModuleType, kind: str) -> None:
    name, make, calls = MODELS[kind]
    curves = example.train(small(example, name, make=lambda: make(example)), STEPS, SEED)
    assert example.largest_difference(curves["mlx"], curves["native"]) <= TOLERANCE
    assert curves["mlx"].calls == {f"{op}/mlx": STEPS * n for op, n in calls.items()}
    # It did learn, so there was something to get wrong.
    losses = curves["native"].losses
    assert len(losses) == len(curves["mlx"].losses) == STEPS
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])


@pytest.mark.parametrize("kind", ["enhancer", "separator"])
def test_a_gradient_wrong_by_a_percent_would_be_seen(example: ModuleType, kind: str) -> None:
    name, make, _ = MODELS[kind]
    task = small(example, name, make=lambda: make(example))
    right, wrong = example.Training(task, SEED), example.Training(task, SEED)
    for weights in wrong.model.parameters():
        weights.register_hook(lambda gradient: 1.01 * gradient)
    for _ in range(STEPS):
        right.step()
        wrong.step()
    assert example.largest_difference(wrong.curve, right.curve) > 3 * TOLERANCE


def test_a_curve_with_nan_differs(example: ModuleType) -> None:
    def curve(*losses: float) -> Any:
        return example.Curve(list(losses))

    assert example.largest_difference(curve(1.0, 2.0), curve(1.0, 2.5)) == pytest.approx(0.2)
    assert example.largest_difference(curve(1.0, math.nan), curve(1.0, 2.0)) == math.inf


def test_the_example_reports_draws_and_ends_with_0(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "curves.png"
    options = ["--steps", "3", "--seconds", "0.1", "--plot", str(picture)]
    assert example.main([*options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    calls = {name: model["calls"] for name, model in report["models"].items()}
    assert calls == {"enhancer": {"stft/mlx": 18}, "separator": {"istft/mlx": 3, "stft/mlx": 3}}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not tms.is_patched()
    assert example.main(options) == 0
    assert "separator: within the tolerance" in capsys.readouterr().out


def test_the_example_ends_with_1_when_curves_differ(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(example, "TOLERANCE", -1.0)
    monkeypatch.setattr(example, "CONTROLS", -1.0)
    assert example.main(["--steps", "2", "--seconds", "0.1"]) == 1
    assert "BEYOND the tolerance" in capsys.readouterr().out


def test_the_example_without_auraloss_says_so(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "auraloss.freq", None)
    assert example.main(["--loss", "auraloss", "--steps", "1"]) == 2
    assert "pip install auraloss" in capsys.readouterr().err


def test_auraloss_gives_native_s_curve(example: ModuleType) -> None:
    pytest.importorskip("auraloss")
    task = small(example, "enhancer", make=lambda: example.Enhancer(channels=4), samples=4000)
    task = replace(task, loss=example.auraloss(example.FLOOR))
    curves = example.train(task, 10, SEED)
    assert example.largest_difference(curves["mlx"], curves["native"]) <= TOLERANCE
    assert curves["mlx"].calls == {"stft/mlx": 60}


#: One of two processes; arguments: folder, rank, backend, folder of compiled kernels. The gradients
#: meet in a bucket that DDP reduces while the backward pass of the rest goes on.
DISTRIBUTED = """\
import json, sys
from contextlib import ExitStack
import torch, torch.distributed as dist
import torch_mlx_spectro as tms
from losses import MultiResolutionStftLoss
from torch.nn.parallel import DistributedDataParallel
from training import Enhancer, noisy_and_clean

folder, rank, (backend, _, emulated) = sys.argv[1], int(sys.argv[2]), sys.argv[3].partition("-")
torch.set_num_threads(1)
until_exit = ExitStack()
if emulated:
    from torch_mlx_spectro import emulator
    installed = emulator.Machine(cache_dir=sys.argv[4]).installed()
    machine = until_exit.enter_context(installed)
if backend != "native":
    tms.patch(backend=backend, strict=True)
store = dist.FileStore(f"{folder}/store", 2)
dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
torch.manual_seed(0)
model = DistributedDataParallel(Enhancer(channels=4), bucket_cap_mb=0.001)
criterion = MultiResolutionStftLoss(((256, 64, 256), (512, 120, 400)), floor=0.03)
optimiser = torch.optim.SGD(model.parameters(), lr=2.5e-4, momentum=0.9)
noisy, clean = noisy_and_clean(2, 1600, torch.Generator().manual_seed(1 + rank))
losses = []
for _ in range(2 if emulated else 20):
    optimiser.zero_grad()
    loss = criterion(model(noisy), clean)
    loss.backward()
    optimiser.step()
    losses.append(loss.item())
weights = float(sum(p.detach().double().abs().sum() for p in model.parameters()))
dist.destroy_process_group()
assert not emulated or machine.launches
until_exit.close()
print(json.dumps({"losses": losses, "weights": weights, "calls": tms.stats().as_dict()["calls"]}))
"""


@pytest.fixture
def distributed(tmp_path: Path, metal_cache: Path) -> Callable[[str], list[Any]]:
    """Trains by two processes over gloo; returns what each has told."""

    def train(backend: str) -> list[Any]:
        folder = tmp_path / backend
        folder.mkdir()
        (folder / "train.py").write_text(DISTRIBUTED)
        variables = {
            # Gloo would look for this machine's name, which not every machine can resolve.
            "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
            "PYTHONPATH": os.pathsep.join([str(Path(tms.__file__).parents[1]), str(EXAMPLES)]),
        }

        def process(rank: int) -> Any:
            arguments = ("-W", "error", str(folder / "train.py"), str(folder), str(rank), backend)
            arguments += (str(metal_cache),)
            return python(*arguments, cwd=folder, variables=variables)  # ended after a time

        with ThreadPoolExecutor(2) as threads:
            finished = list(threads.map(process, range(2)))
        assert [done.returncode for done in finished] == [0, 0], finished[0].stderr
        # gloo of torch 2.10 says on stdout that it is connected.
        return [json.loads(done.stdout.splitlines()[-1]) for done in finished]

    return train


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed")
@pytest.mark.parametrize(
    "backend", ["mlx", "cpu", pytest.param("mlx-emulated", marks=needs_emulator)]
)
def test_ddp_gives_native_s_curves(distributed: Callable[[str], list[Any]], backend: str) -> None:
    native, accelerated = distributed("native"), distributed(backend)
    name, _, emulated = backend.partition("-")
    steps = 2 if emulated else 20
    for theirs, ours in zip(native, accelerated, strict=True):
        assert theirs["calls"] == {}
        assert ours["calls"] == {f"stft/{name}": steps * 4}
        assert ours["losses"] == pytest.approx(theirs["losses"][:steps], rel=TOLERANCE)
        if steps == len(theirs["losses"]):
            assert ours["weights"] == pytest.approx(theirs["weights"], rel=TOLERANCE)
    # Each rank had its own examples, and both the mean of the gradients.
    assert accelerated[0]["losses"] != accelerated[1]["losses"]
    assert accelerated[0]["weights"] == accelerated[1]["weights"]


#: Trains from a loader whose workers transform. Arguments: how they start, and what they do first:
#: "nothing", "patch" or "unpatch".
LOADER = """\
import json, sys
import torch, torch_mlx_spectro as tms
from torch.utils.data import DataLoader, Dataset

WINDOW = torch.hann_window(64)


def spectrum(signal):
    return torch.stft(signal, 64, window=WINDOW, return_complex=True)


class Examples(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        tms.reset_stats()
        signal = torch.randn(800, generator=torch.Generator().manual_seed(index))
        magnitude = spectrum(signal).abs()
        return signal, magnitude, tms.is_patched(), tms.stats().accelerated


def patch(worker):
    tms.patch(backend="mlx")


def unpatch(worker):
    tms.unpatch()


def train(**options):
    signals, targets, patched, accelerated, losses = [], [], [], [], []
    scale = torch.nn.Parameter(torch.tensor(0.5))
    for signal, target, is_patched, count in DataLoader(Examples(), batch_size=2, **options):
        loss = (spectrum(scale * signal).abs() - target).square().mean()
        (gradient,) = torch.autograd.grad(loss, scale)
        with torch.no_grad():
            scale -= 0.01 * gradient
        losses.append(loss.item())
        targets.append(target)
        patched += is_patched.tolist()
        accelerated += count.tolist()
    return torch.cat(targets), losses, patched, accelerated


if __name__ == "__main__":
    context, first, strict = sys.argv[1], sys.argv[2], sys.argv[3] == "strict"
    torch.set_num_threads(1)  # as in workers; native torch's bits depend on it
    targets, losses, _, _ = train()
    tms.patch(backend="mlx", strict=strict)
    spectrum(torch.zeros(800))  # MLX is loaded before the workers start
    ours, our_losses, patched, accelerated = train(
        num_workers=2,
        multiprocessing_context=context,
        worker_init_fn={"patch": patch, "unpatch": unpatch}.get(first),
        timeout=60,
    )
    tms.reset_stats()
    spectrum(torch.zeros(800, requires_grad=True))
    assert tms.stats().accelerated == 1  # the parent goes on as before
    torch.testing.assert_close(ours, targets, rtol=0, atol=2e-5)
    torch.testing.assert_close(our_losses, losses, rtol=1e-4, atol=0)
    same = torch.equal(ours, targets)
    print(json.dumps([same, sorted(set(patched)), sorted(set(accelerated))]))
"""


def run_loader(tmp_path: Path, context: str, first: str, strict: bool) -> Any:
    script = tmp_path / "loader.py"
    script.write_text(LOADER)
    arguments = ("-W", "error", str(script), context, first, "strict" if strict else "lenient")
    return python(*arguments, cwd=tmp_path)


@pytest.mark.parametrize(
    ("context", "first", "strict", "bits_are_native_s", "patched", "accelerated"),
    [
        pytest.param("fork", "nothing", False, True, True, 0, marks=needs_fork),
        pytest.param("fork", "unpatch", True, True, False, 0, marks=needs_fork),
        ("spawn", "nothing", True, True, False, 0),
        ("spawn", "patch", True, False, True, 1),
    ],
)
def test_a_loader_s_workers(
    tmp_path: Path,
    context: str,
    first: str,
    strict: bool,
    bits_are_native_s: bool,
    patched: bool,
    accelerated: int,
) -> None:
    finished = run_loader(tmp_path, context, first, strict)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == [bits_are_native_s, [patched], [accelerated]]


@needs_fork
def test_a_forked_worker_inherits_strict_and_raises(tmp_path: Path) -> None:
    finished = run_loader(tmp_path, "fork", "nothing", True)
    assert finished.returncode == 1
    assert "NotAccelerated" in finished.stderr
    assert "forked" in finished.stderr


def test_threads_that_train_at_once_get_the_curves_of_one(example: ModuleType) -> None:
    name, make, _ = MODELS["separator"]
    task = small(example, name, make=lambda: make(example))

    def losses(training: Any) -> list[float]:
        for _ in range(10):
            training.step()
        curve: list[float] = training.curve.losses
        return curve

    with tms.patch(backend="mlx", strict=True):
        alone = [losses(example.Training(task, seed)) for seed in range(4)]
        again = [example.Training(task, seed) for seed in range(4)]  # seeding is the process's
        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(losses, again))
    for ours, expected in zip(together, alone, strict=True):
        assert ours == pytest.approx(expected, rel=TOLERANCE)
    assert tms.stats().calls == {("stft", "mlx"): 80, ("istft", "mlx"): 80}
