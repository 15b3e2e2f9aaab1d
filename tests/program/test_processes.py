"""Forked and spawned workers, threads, interrupts and failures in the middle of a call.

What may hang runs in a process of its own that is given up after a time.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_process import python

import torch_mlx_spectro as tms

#: A data set that transforms in its workers. Its arguments: how the workers start, the backend.
LOADER = """\
import json, sys
import torch, torch_mlx_spectro as tms

OWN = {"stft": torch.stft, "istft": torch.istft}
WINDOW = torch.hann_window(16)


def signal(index):
    return torch.randn(400, generator=torch.Generator().manual_seed(index))


def example(index, stft, istft):
    spectrum = stft(signal(index), 16, window=WINDOW, return_complex=True)
    return istft(spectrum * 0.5, 16, window=WINDOW)


class Examples(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        tms.patch(backend=sys.argv[2])  # a spawned worker has yet to
        tms.reset_stats()
        result = example(index, torch.stft, torch.istft)
        stats = tms.stats()
        reasons = tms.explain(torch.stft, signal(0), 16, return_complex=True).reasons
        return result, json.dumps([stats.accelerated, stats.native, stats.fallbacks | {}, reasons])


if __name__ == "__main__":
    torch.set_num_threads(1)  # as in workers: native's last bits depend on it
    expected = [example(index, **OWN) for index in range(6)]
    tms.patch(backend=sys.argv[2], strict=True)
    example(0, torch.stft, torch.istft)
    assert tms.stats().accelerated == 2
    loader = torch.utils.data.DataLoader(
        Examples(), batch_size=None, num_workers=2, multiprocessing_context=sys.argv[1]
    )
    tolerance = 0 if sys.argv[1:] == ["fork", "mlx"] else 1e-6  # native computes there
    for (actual, told), wanted in zip(loader, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=tolerance)
        print(told)
    # The parent goes on as before.
    tms.reset_stats()
    example(0, torch.stft, torch.istft)
    assert tms.stats().accelerated == 2
"""


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def loader(tmp_path: Path) -> Path:
    path = tmp_path / "loader.py"
    path.write_text(LOADER)
    return path


def told_by_workers(loader: Path, context: str, backend: str) -> list[Any]:
    finished = python("-W", "error", str(loader), context, backend, cwd=loader.parent)
    assert finished.returncode == 0, finished.stderr
    return [json.loads(line) for line in finished.stdout.splitlines()]


@needs_fork
def test_forked_workers_compute_natively_and_say_why(loader: Path) -> None:
    told = told_by_workers(loader, "fork", "mlx")
    assert len(told) == 6
    for accelerated, native, fallbacks, reasons in told:
        assert (accelerated, native) == (0, 2)
        (reason,) = reasons
        assert "forked" in reason
        assert fallbacks == {reason: 2}


@pytest.mark.parametrize(
    ("context", "backend"),
    [("spawn", "mlx"), ("spawn", "cpu"), pytest.param("fork", "cpu", marks=needs_fork)],
)
def test_workers_are_accelerated(loader: Path, context: str, backend: str) -> None:
    told = told_by_workers(loader, context, backend)
    assert told == 6 * [[2, 0, {}, []]]


FORKED_BEFORE_MLX = """\
import os, torch, torch_mlx_spectro as tms
tms.patch(backend="mlx", strict=True)
child = os.fork()
torch.stft(torch.ones(64), 16, window=torch.ones(16), return_complex=True)
assert tms.stats().accelerated == 1
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    os._exit(0)
"""


FORKED_AFTER_CALLS = """\
import os, torch, torch_mlx_spectro as tms
tms.patch("native")
def transform():
    torch.stft(torch.ones(64), 16, window=torch.ones(16), return_complex=True)
for _ in range(3):
    transform()
child = os.fork()
if child == 0:
    assert tms.stats() == tms.stats().__class__(0, 0, {}, {}, {})
transform()
assert tms.stats().native == (4 if child else 1)
assert list(tms.stats().sites.values()) == [{"accelerated": 0, "native": 4 if child else 1}]
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    os._exit(0)
"""


@needs_fork
def test_a_forked_child_counts_its_own_calls_alone(tmp_path: Path) -> None:
    alone = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # threads do not survive a fork
    finished = python("-c", FORKED_AFTER_CALLS, cwd=tmp_path, variables=alone)
    assert finished.returncode == 0, finished.stderr


@needs_fork
def test_a_child_forked_before_the_first_call_is_accelerated(tmp_path: Path) -> None:
    finished = python("-c", FORKED_BEFORE_MLX, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr


#: Its arguments: the backend, and calls of a child that it computes.
FORKED_WHILE_COMPUTING = """\
import os, sys, threading, torch, torch_mlx_spectro as tms
from torch_mlx_spectro.backends.cpu import memory
memory.MIN_BYTES = 1 << 20  # results of this size are made of memory that is kept
backend, accelerated = sys.argv[1], int(sys.argv[2])
tms.patch(backend=backend)
signal, window = torch.randn(4, 200_000), torch.hann_window(512)
stop = threading.Event()

def transform():
    return torch.stft(signal, 512, window=window, return_complex=True)

def busy():
    while not stop.is_set():
        transform()
        tms.stats()

expected = transform()
threads = [threading.Thread(target=busy) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        # Any lock of ours may have been held by a thread that is not here.
        torch.set_num_threads(1)
        tms.reset_stats()
        first, second = transform(), transform()
        torch.testing.assert_close(first, expected)
        assert torch.equal(first, second) and first.data_ptr() != second.data_ptr()
        assert (tms.stats().accelerated, tms.stats().native) == (accelerated, 2 - accelerated)
        tms.unpatch()
        tms.patch(backend=backend)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
assert torch.equal(transform(), expected)
"""


@needs_fork
@pytest.mark.parametrize(("backend", "accelerated"), [("mlx", "0"), ("cpu", "2")])
def test_a_fork_in_the_middle_of_calls_leaves_no_lock_held(
    tmp_path: Path, backend: str, accelerated: str
) -> None:
    program = ("-c", FORKED_WHILE_COMPUTING, backend, accelerated)
    finished = python(*program, cwd=tmp_path, variables={"OMP_NUM_THREADS": "1"})
    assert finished.returncode == 0, finished.stderr


def test_many_threads_get_the_bits_of_one() -> None:
    generator = torch.Generator().manual_seed(9)
    signals = [torch.randn(2, 700 + 31 * n, generator=generator) for n in range(8)]
    window = torch.hann_window(64)

    def round_trip(signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        spectrum = torch.stft(signal, 64, window=window, return_complex=True)
        return spectrum, torch.istft(spectrum, 64, window=window)

    failures: list[BaseException] = []
    barrier = threading.Barrier(len(signals))

    def work(signal: torch.Tensor, expected: tuple[torch.Tensor, torch.Tensor]) -> None:
        try:
            barrier.wait()
            for _ in range(100):
                for actual, wanted in zip(round_trip(signal), expected, strict=True):
                    assert torch.equal(actual, wanted)
        except BaseException as error:
            failures.append(error)

    with tms.patch(backend="mlx", strict=True):
        alone = [round_trip(signal) for signal in signals]
        threads = [
            threading.Thread(target=work, args=pair) for pair in zip(signals, alone, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert tms.stats().calls == {("stft", "mlx"): 808, ("istft", "mlx"): 808}


#: Its argument: the backend.
INTERRUPTED = """\
import signal, sys, torch, torch_mlx_spectro as tms
from torch_mlx_spectro.backends.cpu import memory
memory.MIN_BYTES = 1 << 20  # results of this size are made of memory that is kept
tms.patch(backend=sys.argv[1], strict=True)
window = torch.hann_window(512)
samples = torch.randn(4, 400_000)
expected = torch.stft(samples, 512, window=window, return_complex=True)
interrupted = 0
for attempt in range(40):
    # After 1 to 40 milliseconds: somewhere else in the call each time.
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001 * (1 + attempt))
        while True:
            torch.stft(samples, 512, window=window, return_complex=True)
    except KeyboardInterrupt:
        interrupted += 1
    after = torch.stft(samples, 512, window=window, return_complex=True)
    assert torch.equal(after, expected)
    tms.stats()
assert interrupted == 40
store = memory.memory
assert not store._lock.locked() and store.held() <= store.limit
assert len({one.holder.data_ptr() for one in store._lent}) == len(store._lent)
assert (store.held() > 0) == (sys.argv[1] == "cpu")
"""


@pytest.mark.parametrize("backend", ["mlx", "cpu"])
def test_an_interrupt_leaves_no_lock_held_and_no_wrong_result(tmp_path: Path, backend: str) -> None:
    finished = python("-c", INTERRUPTED, backend, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("strict", [False, True])
def test_a_failure_inside_mlx_is_seen_and_passes(
    monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    mx = pytest.importorskip("mlx.core")
    signal, window = torch.randn(300), torch.hann_window(16)
    spectrum = torch.stft(signal, 16, window=window, return_complex=True)

    def failing(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of luck")

    with tms.patch(backend="mlx", strict=strict):
        with monkeypatch.context() as broken:
            for name in ("rfft", "irfft", "fft", "ifft"):
                broken.setattr(mx.fft, name, failing)
            with pytest.raises(RuntimeError, match="out of luck"):
                torch.stft(signal, 16, window=window, return_complex=True)
            with pytest.raises(RuntimeError, match="out of luck"):
                torch.istft(spectrum, 16, window=window)
        # Only the package's own refusals lead to native, and the next call is fine.
        assert (tms.stats().accelerated, tms.stats().native) == (0, 0)
        actual = torch.stft(signal, 16, window=window, return_complex=True)
        torch.testing.assert_close(actual, spectrum)
        torch.istft(spectrum, 16, window=window)
        assert (tms.stats().accelerated, tms.stats().native) == (2, 0)
