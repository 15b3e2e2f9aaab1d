"""Processes of the parity suite: results in order, whatever becomes of a process, and their end."""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.context
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any

import pytest

from stft_parity import workers


@pytest.fixture(autouse=True)
def _interrupts_are_not_ignored() -> Iterator[None]:
    """As they are in a job of a shell's background, and in the processes that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Any:
    yield
    assert multiprocessing.active_children() == []


def work(barrier: Any, task: int) -> int:
    """The first of two tasks ends after the second."""
    if task == 1:
        barrier.set()
    if task == 0 and not barrier.wait(60):
        raise TimeoutError
    if task == 7:
        raise ValueError("seven")
    if task == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return task * task


class Barrier:
    """An event of two processes: a file, as what is spawned takes no more than a pickle."""

    def __init__(self, path: Any) -> None:
        self.path = path

    def set(self) -> None:
        self.path.touch()

    def wait(self, seconds: float) -> bool:
        waiting = threading.Event()
        for _ in range(int(seconds * 20)):
            if self.path.exists():
                return True
            waiting.wait(0.05)
        return False


def test_results_come_in_the_order_of_their_tasks(tmp_path: Any) -> None:
    function = functools.partial(work, Barrier(tmp_path / "second"))
    found = list(workers.compute(function, [0, 1, 2, 3, 4], 2))
    assert found == [0, 1, 4, 9, 16]


def test_what_a_task_raises_is_raised(tmp_path: Any) -> None:
    function = functools.partial(work, Barrier(tmp_path / "second"))
    with pytest.raises(ValueError, match="seven"):
        list(workers.compute(function, [7, 2], 2))


def test_a_process_that_dies_in_a_task_is_told() -> None:
    with pytest.raises(workers.Died, match="exit code -9"):
        list(workers.compute(functools.partial(work, None), [8, 2], 2))


class Deadly:
    """Ends the process that it is sent to while that is being set up."""

    def __setstate__(self, state: Any) -> None:
        os._exit(3)

    def __getstate__(self) -> Any:
        return {"x": 1}

    def __call__(self, task: int) -> int:
        return task


def test_a_process_that_dies_while_it_is_spawned_is_told() -> None:
    with pytest.raises(workers.Died, match="exit code 3"):
        list(workers.compute(Deadly(), [1, 2], 2))


def unsendable(task: int) -> Any:
    if task:
        return lambda: None
    raise type("Local", (Exception,), {})("cannot travel")


@pytest.mark.parametrize("task", [0, 1])
def test_what_cannot_be_sent_is_told(task: int) -> None:
    with pytest.raises(RuntimeError, match=r"cannot be sent: .*(cannot travel|lambda)"):
        list(workers.compute(unsendable, [task], 1))


def test_a_loop_that_is_left_ends_the_processes(tmp_path: Any) -> None:
    function = functools.partial(work, Barrier(tmp_path / "never"))
    results = workers.compute(function, [2, 0], 2)
    assert next(results) == 4
    results.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_an_interrupt_waits_until_all_processes_are_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[Any] = []
    start = multiprocessing.context.SpawnProcess.start

    def interrupted(process: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        start(process)
        started.append(process)

    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", interrupted)
    before = signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(KeyboardInterrupt):
        list(workers.compute(functools.partial(work, None), [2, 3], 2))
    assert [process.exitcode for process in started] == [-signal.SIGTERM] * 2
    assert before == (signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, ()))


class Interrupted:
    """Interrupts the process that it is sent to: while that is being set up, and in every task."""

    def __setstate__(self, state: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def __getstate__(self) -> Any:
        return {"x": 1}

    def __call__(self, task: int) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return task


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_interrupts_do_not_reach_the_processes() -> None:
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
    assert list(workers.compute(Interrupted(), [1, 2, 3], 2)) == [1, 2, 3]
