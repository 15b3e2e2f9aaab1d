"""Memory that a process has left after many calls of random sizes by several threads.

python benchmarks/cpu_memory.py [--calls 10000] [--threads 8] [--samples 1500000] [--kept]

The same calls by native torch and by ``cpu``, each in a process of its own: stft, istft and both
with gradients, of up to some 90 MB. Told is the resident memory beyond that after one small call:
when all threads have ended and all results are deleted; how much of that the C library has lent
(the rest is free, in heaps that it has not given back to the system); and what is left after
``clear_caches()``. Exit code 1 where ``cpu`` has more left than native and the limit of result
memory together.

--kept: the threads do not end before memory is measured.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import random
import subprocess
import sys
import threading
from contextlib import suppress

import torch

import torch_mlx_spectro as tms

#: Of signals: n_fft and hop of each call are among these.
SIZES = ((256, 64), (512, 128), (1024, 256), (2048, 441), (2048, 512), (4096, 1024), (6144, 1024))
MIB = 1 << 20
#: Of glibc's ``struct mallinfo2``.
FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


def measure_resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


class Mallinfo(ctypes.Structure):
    """What glibc says of its heaps: ``uordblks`` are lent, ``hblkhd`` were mapped by themselves."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in FIELDS.split())


def measure_lent() -> int:
    """Bytes that the C library has lent; 0 where it does not tell."""
    with suppress(OSError, AttributeError):
        ask = ctypes.CDLL(None).mallinfo2
        ask.restype = Mallinfo
        found = ask()
        return int(found.uordblks + found.hblkhd)
    return 0


def call_once(draw: random.Random, most: int) -> None:
    """A transform of a random size, there and back, one time in four with gradients.

    Args:
        most: samples of its rows together.
    """
    n_fft, hop = draw.choice(SIZES)
    rows = draw.choice((1, 1, 2, 4, 8))
    samples = n_fft + int(most / rows * draw.random() ** 4)
    window = torch.hann_window(n_fft)
    differentiated = draw.random() < 0.25
    signal = torch.ones(rows, samples).requires_grad_(differentiated)
    spectrum = tms.stft(signal, n_fft, hop, window=window, return_complex=True)
    back = tms.istft(spectrum, n_fft, hop, window=window)
    if differentiated:
        back.sum().backward()


def run_calls(backend: str, given: argparse.Namespace) -> dict[str, int]:
    """Resident bytes that are left of all calls, by what was done about it."""
    torch.set_num_threads(given.torch_threads)

    def work(number: int, calls: int) -> None:
        draw = random.Random(number)
        with tms.backend(backend):
            for _ in range(calls):
                call_once(draw, given.samples)
        done.wait()
        ends.wait()

    done, ends = threading.Barrier(given.threads + 1), threading.Event()
    with tms.backend(backend):
        for _ in range(3):
            signal = torch.ones(1, 4096).requires_grad_()
            window = torch.hann_window(512)
            spectrum = tms.stft(signal, 512, window=window, return_complex=True)
            tms.istft(spectrum, 512, window=window).sum().backward()
    del signal, window, spectrum
    gc.collect()
    before, lent = measure_resident(), measure_lent()
    each = -(-given.calls // given.threads)
    threads = [threading.Thread(target=work, args=(n, each)) for n in range(given.threads)]
    for thread in threads:
        thread.start()
    done.wait()
    if not given.kept:
        ends.set()
        for thread in threads:
            thread.join()
    gc.collect()
    left = {"deleted": measure_resident() - before, "lent": measure_lent() - lent}
    tms.clear_caches()
    left["clear_caches"] = measure_resident() - before
    ends.set()
    return left


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--samples", type=int, default=1_500_000, help="of a call, at most")
    parser.add_argument("--torch-threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--kept", action="store_true", help="measure before the threads end")
    parser.add_argument("--by", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.by:
        print(json.dumps(run_calls(given.by, given)))
        return 0
    left: dict[str, dict[str, int]] = {}
    print(f"{given.calls} calls, {given.threads} threads; MiB left after")
    for backend in ("native", "cpu"):
        command = [sys.executable, *sys.argv, "--by", backend]
        found = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        left[backend] = json.loads(found.stdout)
        cells = (f"{what} {count / MIB:.0f}" for what, count in left[backend].items())
        print(f"{backend:8}", ", ".join(cells), flush=True)
    limit = tms.set_result_memory(0)
    is_within = left["cpu"]["deleted"] <= left["native"]["deleted"] + limit
    print(f"cpu is {'within' if is_within else 'ABOVE'} native's + {limit / MIB:.0f} MiB")
    return 0 if is_within else 1


if __name__ == "__main__":
    sys.exit(main())
