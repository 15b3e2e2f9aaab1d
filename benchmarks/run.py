"""Speed, memory and overhead against native torch, side by side in one run.

python benchmarks/run.py [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from cases import AUTO_CASES, AUTO_RATIO, AUTO_RATIO_SHORT, MLX_CASES, SHORT_SECONDS, Case
from measure import Timing, difference, machine, paired_ratio, peak_bytes_of, side_by_side
from rich.console import Console
from rich.progress import track
from rich.table import Table

import torch_mlx_spectro as tms
from torch_mlx_spectro import native

Row = dict[str, Any]
#: Calls that ``auto`` needs before it has decided.
WARM_UP_CALLS = 8


def operations(case: Case) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """The timed calls of a case: each takes a namespace with ``stft`` and ``istft``."""
    torch.manual_seed(0)
    signal = torch.randn(case.rows, case.samples)
    window = torch.hann_window(case.n_fft)
    sizes: dict[str, Any] = {"n_fft": case.n_fft, "hop_length": case.hop_length, "window": window}
    spectrum = native.stft(signal, **sizes, return_complex=True)
    packed = spectrum.contiguous()
    length = case.samples
    yield "stft", lambda ns: ns.stft(signal, **sizes, return_complex=True)
    yield "istft (frames, bins)", lambda ns: ns.istft(spectrum, **sizes, length=length)
    yield "istft (bins, frames)", lambda ns: ns.istft(packed, **sizes, length=length)
    leaf, cotangent = signal.clone().requires_grad_(), torch.randn_like(spectrum)
    yield (
        "stft + backward",
        lambda ns: gradient(ns.stft(leaf, **sizes, return_complex=True), leaf, cotangent),
    )
    of_spectrum, other = spectrum.clone().requires_grad_(), torch.randn_like(signal)
    yield (
        "istft + backward",
        lambda ns: gradient(ns.istft(of_spectrum, **sizes, length=length), of_spectrum, other),
    )


def gradient(result: torch.Tensor, leaf: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad(result, leaf, cotangent)
    return found


def time_backend(name: str, cases: tuple[Case, ...], seconds: float) -> list[Row]:
    """Time one backend against native on every case."""
    rows = []
    for case in track(cases, description=f"backend={name}", console=Console(stderr=True)):
        for operation, call in operations(case):
            with tms.backend(name):
                for _ in range(WARM_UP_CALLS):
                    call(tms)
                tms.reset_stats()
                plain, ours = (lambda c=call, ns=ns: c(ns) for ns in (native, tms))
                reference, taken, control = side_by_side([plain, ours, plain], seconds)
                used = sorted({backend for _, backend in tms.stats().calls})
            timing = Timing.of(taken)
            rows.append(
                {
                    "backend": name,
                    "case": case.name,
                    "operation": operation,
                    "native_ms": 1e3 * Timing.of(reference).median,
                    "ours_ms": 1e3 * timing.median,
                    "ours_quartiles_ms": [1e3 * timing.low, 1e3 * timing.high],
                    "ratio": paired_ratio(reference + control, taken + taken),
                    # Native against itself in the same rounds: what this machine calls equal.
                    "control": paired_ratio(reference, control),
                    "wanted": wanted(name, case, operation, Timing.of(reference).median),
                    "computed_by": "+".join(used),
                }
            )
    return rows


def wanted(name: str, case: Case, operation: str, native_seconds: float) -> float:
    """The ratio to reach; 0 where there is none."""
    if name == "auto":
        return AUTO_RATIO_SHORT if native_seconds < SHORT_SECONDS else AUTO_RATIO
    if "backward" in operation:
        return case.wanted_backward
    if "bins, frames" in operation:
        return 0.0
    return case.wanted_stft if operation == "stft" else case.wanted_istft


def overhead() -> list[Row]:
    """Microseconds that a patched call costs more than native, where native computes it."""
    signal, window = torch.randn(1, 16), torch.hann_window(4)
    spectrum = native.stft(signal, 4, 2, window=window, return_complex=True)
    rows = []
    for backend, train in (("auto", False), ("native", False), ("auto", True)):
        x = signal.clone().requires_grad_(train)
        z = spectrum.clone().requires_grad_(train)
        with tms.patch(backend):
            for operation, plain, patched in (
                (
                    "stft",
                    lambda x=x: native.stft(x, 4, 2, window=window, return_complex=True),
                    lambda x=x: torch.stft(x, 4, 2, window=window, return_complex=True),
                ),
                (
                    "istft",
                    lambda z=z: native.istft(z, 4, 2, window=window),
                    lambda z=z: torch.istft(z, 4, 2, window=window),
                ),
            ):
                seconds, more = difference(plain, patched, repeats=20, rounds=1500)
                _, control = difference(plain, plain, repeats=20, rounds=1500)
                why = f"backend={backend}" + (", requires grad" if train else "")
                rows.append(
                    {
                        "call": f"{operation}, {why}",
                        "native_us": 1e6 * seconds,
                        "extra_us": 1e6 * more,
                        "control_us": 1e6 * control,
                    }
                )
    return rows


def memory(operation: str) -> Row:
    """Peak memory of one call beyond its input and output; run in a fresh process."""
    case = MLX_CASES[0]
    window = torch.hann_window(case.n_fft)
    sizes: dict[str, Any] = {"n_fft": case.n_fft, "hop_length": case.hop_length, "window": window}
    with tms.backend("mlx", strict=True):
        small = tms.stft(torch.randn(1, 20_000), **sizes, return_complex=True)
        tms.istft(small, **sizes)  # loads MLX and starts its threads
        if operation == "stft":
            signal = torch.randn(case.rows, case.samples)
            grown, out = peak_bytes_of(lambda: tms.stft(signal, **sizes, return_complex=True))
        else:
            frames = case.samples // case.hop_length + 1
            shape = (case.rows, frames, case.n_fft // 2 + 1)
            spectrum = torch.randn(shape, dtype=torch.complex64).transpose(1, 2)
            grown, out = peak_bytes_of(lambda: tms.istft(spectrum, **sizes, length=case.samples))
    extra = grown - out.numel() * out.element_size()
    per_thread = extra / 2**20 / torch.get_num_threads()
    return {"operation": operation, "case": case.name, "extra_mib_per_thread": per_thread}


def backward_memory(operation: str) -> Row:
    """Peak memory of forward and backward beyond the leaf and the cotangent; in a fresh process."""
    name, which = operation.split("/")
    case = MLX_CASES[0]
    window = torch.hann_window(case.n_fft)
    sizes: dict[str, Any] = {"n_fft": case.n_fft, "hop_length": case.hop_length, "window": window}
    shape = (case.rows, case.samples // case.hop_length + 1, case.n_fft // 2 + 1)
    signal = torch.randn(case.rows, case.samples, requires_grad=True)
    spectrum = torch.randn(shape, dtype=torch.complex64).mT.requires_grad_()
    used = native if which == "native" else tms
    calls: dict[str, Callable[[], torch.Tensor]] = {
        "stft": lambda: gradient(
            used.stft(signal, **sizes, return_complex=True), signal, spectrum.detach()
        ),
        "istft": lambda: gradient(
            used.istft(spectrum, **sizes, length=case.samples), spectrum, signal.detach()
        ),
        "stft and istft": lambda: gradient(
            used.istft(
                used.stft(signal, **sizes, return_complex=True), **sizes, length=case.samples
            ),
            signal,
            signal.detach(),
        ),
    }
    with tms.backend("mlx", strict=True):
        # Loads MLX and what derivatives need, and starts the threads of both.
        short = torch.randn(1, 20_000, requires_grad=True)
        small = used.stft(short, **sizes, return_complex=True)
        gradient(used.istft(small, **sizes), short, torch.ones(1, 19_968))
        grown, _ = peak_bytes_of(calls[name])
    return {"operation": name, "case": case.name, "backend": which, "peak_mib": grown / 2**20}


def import_time(repeats: int = 7) -> float:
    """Median milliseconds of ``import torch_mlx_spectro`` after torch."""
    program = (
        "import torch, time; t = time.perf_counter(); import torch_mlx_spectro; "
        "print(time.perf_counter() - t)"
    )
    taken = []
    for _ in range(repeats):
        out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        taken.append(1e3 * float(out.stdout))
    return sorted(taken)[repeats // 2]


def in_fresh_process(operation: str) -> Row:
    """What :func:`memory` or :func:`backward_memory` finds in a process of its own."""
    command = [sys.executable, __file__, "--memory", operation]
    out = subprocess.run(command, capture_output=True, check=True, text=True)
    found: Row = json.loads(out.stdout)
    return found


def show(result: dict[str, Any], console: Console) -> None:
    """Print every table."""
    table = Table(title="native time / ours, medians")
    for column in ("backend", "rows, samples, n_fft, hop", "operation", "native", "ours"):
        table.add_column(column)
    for column in ("ratio", "wanted", "native / native", "computed by"):
        table.add_column(column)
    for row in result["speed"]:
        style = "red" if row["ratio"] < row["wanted"] else ""
        table.add_row(
            row["backend"],
            row["case"],
            row["operation"],
            f"{row['native_ms']:.3f} ms",
            f"{row['ours_ms']:.3f} ms",
            f"{row['ratio']:.2f}x",
            f"{row['wanted']:.2f}x" if row["wanted"] else "",
            f"{row['control']:.2f}x",
            row["computed_by"],
            style=style,
        )
    console.print(table)
    table = Table(title="patched calls that native computes")
    for column in ("call", "native", "extra (wanted: at most 3 us)", "native again"):
        table.add_column(column)
    for row in result["overhead"]:
        table.add_row(
            row["call"],
            f"{row['native_us']:.1f} us",
            f"{row['extra_us']:.2f} us",
            f"{row['control_us']:+.2f} us",
        )
    console.print(table)
    for row in result["memory"]:
        amount = f"{row['extra_mib_per_thread']:.1f} MiB"
        console.print(f"{row['operation']} {row['case']}: {amount} a thread beyond input, output")
    for native_row, row in zip(*[iter(result["backward_memory"])] * 2, strict=True):
        share = row["peak_mib"] / native_row["peak_mib"]
        console.print(
            f"{row['operation']} + backward {row['case']}: peak {row['peak_mib']:.0f} MiB, "
            f"native {native_row['peak_mib']:.0f} MiB, {share:.2f} of it"
        )
    console.print(f"import after torch: {result['import_ms']:.1f} ms")
    console.print(result["machine"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less time on each case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        measure = backward_memory if "/" in arguments.memory else memory
        print(json.dumps(measure(arguments.memory)))
        return 0
    seconds = 0.5 if arguments.quick else 2.0
    result: dict[str, Any] = {"machine": machine()}
    result["speed"] = time_backend("mlx", MLX_CASES, seconds)
    result["speed"] += time_backend("auto", AUTO_CASES, seconds)
    result["overhead"] = overhead()
    result["memory"], result["backward_memory"] = [], []
    if sys.platform.startswith("linux"):
        result["memory"] = [in_fresh_process(operation) for operation in ("stft", "istft")]
        result["backward_memory"] = [
            in_fresh_process(f"{operation}/{which}")
            for operation in ("stft", "istft", "stft and istft")
            for which in ("native", "mlx")
        ]
    result["import_ms"] = import_time()
    show(result, Console())
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
