"""The CPU's transforms of this package beside native torch's and those of other libraries.

python benchmarks/cpu.py [--threads 2] [--seconds 2] [--keep] [--backward] [--busy 2] [--cpu-time]

All take turns, so that a busy minute meets each; in a turn each is called a few times in a row, as
a program does, and the median of all but the first counts. Told are medians of the ratios of
native's time to theirs within a turn, and its milliseconds. Accuracy: the root mean square of the
error against double precision, over native's. Libraries that are not installed are left out. Arrays
of libraries that compute by NumPy begin and end as such.

--keep holds the results of a turn until its end; else a result is let go of before the next call.
--busy starts as many processes that keep a core busy each, and ends them.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch

import torch_mlx_spectro as tms

SIZES = [
    (1, 16000, 512, 128),
    (4, 160000, 1024, 256),
    (8, 160000, 1024, 256),
    (2, 352800, 2048, 441),
    (2, 441000, 6144, 1024),
    (2, 343980, 4096, 1024),
    (8, 480000, 1024, 256),
    (4, 1300000, 1024, 256),
]
#: Calls in a row, in a turn.
IN_A_ROW = 5
#: Calls until ``auto`` has chosen, at most.
SETTLING = 24


class Size(NamedTuple):
    rows: int
    samples: int
    n_fft: int
    hop: int


class Data(NamedTuple):
    """What all transform: a signal, its spectrum and the window."""

    size: Size
    signal: torch.Tensor
    spectrum: torch.Tensor
    window: torch.Tensor

    @property
    def length(self) -> int:
        """Samples that native's istft returns."""
        return (self.spectrum.shape[-1] - 1) * self.size.hop


#: Both functions, of the data.
Pair = tuple[Callable[[], Any], Callable[[], Any]]


def by_torch(data: Data, stft: Any, istft: Any) -> Pair:
    _, _, n_fft, hop = data.size
    return (
        lambda: stft(data.signal, n_fft, hop, window=data.window, return_complex=True),
        lambda: istft(data.spectrum, n_fft, hop, window=data.window),
    )


def by_backend(data: Data, name: str) -> Pair:
    def choose(function: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            with tms.backend(name):
                return function()

        return call

    stft, istft = by_torch(data, tms.stft, tms.istft)
    return choose(stft), choose(istft)


def by_mlx_itself(data: Data) -> Pair:
    """MLX's own function; it has no inverse that divides by an envelope as torch's does."""
    import mlx.core as mx

    if not hasattr(mx.fft, "stft"):
        raise ImportError
    signal, window = mx.array(data.signal.numpy()), mx.array(data.window.numpy())
    _, _, n_fft, hop = data.size
    cpu = mx.cpu

    def stft() -> Any:
        with mx.stream(cpu):
            found = mx.fft.stft(signal, n_fft=n_fft, hop_length=hop, window=window, center=True)
            mx.eval(found)
        return np.asarray(found)

    def istft() -> Any:
        raise NotImplementedError

    return stft, istft


def by_librosa(data: Data) -> Pair:
    import librosa

    signal, spectrum, window = (one.numpy() for one in (data.signal, data.spectrum, data.window))
    _, _, n_fft, hop = data.size
    given = {"n_fft": n_fft, "hop_length": hop, "window": window}
    return (
        lambda: librosa.stft(signal, pad_mode="reflect", **given),
        lambda: librosa.istft(spectrum, length=data.length, **given),
    )


def by_scipy(data: Data) -> Pair:
    from scipy.signal import ShortTimeFFT

    signal, spectrum = data.signal.numpy(), data.spectrum.numpy()
    transform = ShortTimeFFT(data.window.numpy(), data.size.hop, 1.0, phase_shift=None)
    frames = data.spectrum.shape[-1]
    return (
        lambda: transform.stft(signal, 0, frames, padding="even"),
        lambda: transform.istft(spectrum, 0, data.length),
    )


def by_auvux(data: Data) -> Pair:
    import auvux.dsp

    signal, spectrum, window = (one.numpy() for one in (data.signal, data.spectrum, data.window))
    _, _, n_fft, hop = data.size
    given: dict[str, Any] = {"sr": 1.0, "n_fft": n_fft, "hop_length": hop, "window": window}
    forward = auvux.dsp.STFT(pad_mode="reflect", backend="cpu", **given)
    back = auvux.dsp.ISTFT(backend="cpu", **given)
    with suppress(Exception):
        auvux.dsp.set_num_threads(torch.get_num_threads())
    return lambda: forward(signal), lambda: back(spectrum)


PEERS: dict[str, Callable[[Data], Pair]] = {
    "native": lambda data: by_torch(data, torch.stft, torch.istft),
    "auto": lambda data: by_torch(data, tms.stft, tms.istft),
    "cpu": lambda data: by_backend(data, "cpu"),
    "mlx": lambda data: by_backend(data, "mlx"),
    "mx.fft.stft": by_mlx_itself,
    "librosa": by_librosa,
    "SciPy ShortTimeFFT": by_scipy,
    "auvux-dsp": by_auvux,
}


def with_backward(data: Data, name: str, op: str) -> Callable[[], Any]:
    """A call and its gradient in the input, there and back."""
    _, _, n_fft, hop = data.size
    tensor = (data.signal if op == "stft" else data.spectrum).clone().requires_grad_()
    given = {"window": data.window} | ({"return_complex": True} if op == "stft" else {})
    module: Any = torch if name == "native" else tms
    cotangent = torch.ones_like(getattr(torch, op)(tensor.detach(), n_fft, hop, **given))

    def call() -> Any:
        with tms.backend("native" if name == "native" else name):
            result = getattr(module, op)(tensor, n_fft, hop, **given)
        return torch.autograd.grad(result, tensor, cotangent)

    return call


def prepare(size: Size) -> Data:
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(size.rows, size.samples, generator=generator)
    window = torch.hann_window(size.n_fft)
    spectrum = torch.stft(signal, size.n_fft, size.hop, window=window, return_complex=True)
    return Data(size, signal, spectrum, window)


def find_exact(data: Data, op: str) -> torch.Tensor:
    """Native's result in double precision."""
    _, _, n_fft, hop = data.size
    if op == "stft":
        given = {"window": data.window.double(), "return_complex": True}
        return torch.stft(data.signal.double(), n_fft, hop, **given)
    spectrum = data.spectrum.to(torch.complex128)
    return torch.istft(spectrum, n_fft, hop, window=data.window.double())


def measure_error(result: Any, exact: torch.Tensor) -> float | None:
    """The root mean square of the error; None where a result is another thing than torch's."""
    found = torch.as_tensor(np.array(result)) if not torch.is_tensor(result) else result
    if found.shape != exact.shape:
        found = found[..., : exact.shape[-1]]
    if found.shape != exact.shape:
        return None
    error = float((found.to(exact.dtype) - exact).abs().square().mean().sqrt())
    return error if error < 1e-3 * float(exact.abs().max()) else None


def take_turns(
    calls: dict[str, Callable[[], Any]],
    seconds: float,
    keep: bool,
    clock: Callable[[], float],
) -> dict[str, list[float]]:
    """Seconds of each call in each turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["native"]) < 2:
        for name, call in calls.items():
            held, taken = [], []
            for _ in range(IN_A_ROW):
                begin = clock()
                result = call()
                taken.append(clock() - begin)
                if keep:
                    held.append(result)
                del result
            times[name].append(statistics.median(taken[1:]))
            del held
    return times


def list_calls(data: Data, op: str, names: list[str]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Those that are installed, and have the function."""
    for name in names:
        try:
            call = PEERS[name](data)[op == "istft"]
            for _ in range(SETTLING if name == "auto" else 2):
                call()
        except (ImportError, NotImplementedError):
            continue
        yield name, call


def report(size: Size, op: str, given: argparse.Namespace) -> str:
    """A row of the table."""
    data = prepare(size)
    if given.backward:
        names = [name for name in given.peers if name in ("native", "auto", "cpu", "mlx")]
        calls = {name: with_backward(data, name, op) for name in names}
        for call in calls.values():
            for _ in range(SETTLING):
                call()
        errors: dict[str, float | None] = {}
    else:
        calls = dict(list_calls(data, op, given.peers))
        exact = find_exact(data, op)
        errors = {name: measure_error(call(), exact) for name, call in calls.items()}
    gc.collect()
    clock = time.process_time if given.cpu_time else time.perf_counter
    times = take_turns(calls, given.seconds, given.keep, clock)
    own = errors.get("native")
    cells = []
    for name in given.peers:
        if name not in calls:
            cells.append("")
        elif name == "native":
            cells.append(f"{statistics.median(times[name]) * 1e3:.3g} ms")
        else:
            pairs = zip(times["native"], times[name], strict=True)
            ratio = statistics.median(native / ours for native, ours in pairs)
            error = errors.get(name)
            accuracy = f", {error / own:.2f}" if own and error is not None else ""
            cells.append(f"{ratio:.2f}x{accuracy}")
    return f"| {', '.join(map(str, size))} | {op} | " + " | ".join(cells) + " |"


@contextmanager
def keep_cores_busy(processes: int) -> Iterator[None]:
    """Run processes that compute without end, beside what is measured."""
    begun = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in begun:
            one.kill()
            one.wait()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row")
    parser.add_argument(
        "--cpu-time", action="store_true", help="of this process, for one thread on a busy machine"
    )
    parser.add_argument("--keep", action="store_true", help="hold a turn's results to its end")
    parser.add_argument("--backward", action="store_true", help="with gradients in the input")
    parser.add_argument("--busy", type=int, default=0, help="processes that keep cores busy")
    parser.add_argument("--sizes", default="", help="numbers of sizes, from 0, with commas")
    parser.add_argument("--peers", default=",".join(PEERS), help="names, with commas")
    given = parser.parse_args()
    given.peers = given.peers.split(",")
    torch.set_num_threads(given.threads)
    chosen = [int(one) for one in given.sizes.split(",") if one] or range(len(SIZES))
    print(f"{platform.machine()}, {given.threads} threads, torch {torch.__version__}")
    print(f"| rows, samples, n_fft, hop | | {' | '.join(given.peers)} |")
    print("|---" * (2 + len(given.peers)) + "|")
    with keep_cores_busy(given.busy):
        for number in chosen:
            for op in ("stft", "istft"):
                print(report(Size(*SIZES[number]), op, given), flush=True)


if __name__ == "__main__":
    main()
