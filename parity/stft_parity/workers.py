"""Processes that compute a list of tasks, and end with the loop that asks for the results."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, cast

Task = TypeVar("Task")
Result = TypeVar("Result")


class Died(RuntimeError):
    """A process ended before its task did."""


def compute(
    function: Callable[[Task], Result], tasks: Sequence[Task], processes: int
) -> Generator[Result, None, None]:
    """Yield the results of ``function`` for all tasks, in the order of these.

    An interrupt reaches this process alone. However the loop ends, the processes end with it: close
    the iterator where it may not come to its end.

    Args:
        function: sent to each process once, by pickle, as tasks and results are.
        tasks: each for one process.
        processes: how many are spawned: what this one has started may not live on in a forked one.

    Raises:
        Died: a process has ended, by a crash or by memory running out.
        Exception: what the function raised.
    """
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, BaseProcess] = {}
    try:
        with _interrupts_held():
            for _ in range(min(processes, len(tasks))):
                ours, theirs = context.Pipe()
                started = context.Process(target=_work, args=(theirs, function))
                started.start()
                theirs.close()
                workers[ours] = started
        yield from _in_order(workers, tasks)
    except BaseException:
        for process in workers.values():
            process.terminate()
        raise
    finally:
        for connection in workers:
            connection.close()  # a process that waits for a task ends
        for process in workers.values():
            process.join()


def _in_order(workers: dict[Connection, BaseProcess], tasks: Sequence[Any]) -> Iterator[Any]:
    """Give every process that waits the next task, and yield results as their turn comes."""
    left = iter(enumerate(tasks))
    given: dict[Connection, int] = {}
    done: dict[int, Any] = {}
    for turn in range(len(tasks)):
        while turn not in done:
            for connection in cast(list[Connection], wait(list(workers))):
                error = result = None
                following = next(left, None)
                try:
                    error, result = connection.recv()
                    if following is not None:
                        connection.send(following[1])
                except (EOFError, ConnectionError):
                    workers[connection].join()
                    code = workers[connection].exitcode
                    raise Died(f"a process ended with exit code {code}") from None
                if error is not None:
                    raise error
                if connection in given:
                    done[given.pop(connection)] = result
                if following is not None:
                    given[connection] = following[0]
        yield done.pop(turn)


def _work(connection: Connection, function: Callable[[Any], Any]) -> None:
    """Say that this process is up, then answer every task by an exception or a result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where the mask is not inherited
    answer: tuple[Exception | None, Any] = (None, None)
    try:
        while True:
            try:
                connection.send(answer)
            except (AttributeError, TypeError, pickle.PicklingError):
                found = answer[0] if answer[0] is not None else answer[1]
                connection.send((RuntimeError(f"cannot be sent: {found!r}"), None))
            task = connection.recv()
            try:
                answer = None, function(task)
            except Exception as error:
                answer = error, None
    except (EOFError, ConnectionError):
        return  # nobody asks any more


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end only; what is spawned meanwhile never has it.

    An interrupt while a process is being started would leave one that nobody knows, with half of
    what it was to be sent.
    """
    is_main = threading.current_thread() is threading.main_thread()
    held: list[Any] = []
    before: Any = signal.getsignal(signal.SIGINT)
    masked = getattr(signal, "pthread_sigmask", None)
    mask = masked(signal.SIG_BLOCK, ()) if masked else ()
    try:
        if is_main and callable(before):
            # Besides the mask: other threads of this process take signals, too.
            signal.signal(signal.SIGINT, lambda *given: held.append(given))
        if masked:
            # Started by the first process otherwise, when it unblocks what is blocked here.
            resource_tracker.ensure_running()
            masked(signal.SIG_BLOCK, {signal.SIGINT})  # inherited
        yield
    finally:
        if masked:
            masked(signal.SIG_SETMASK, mask)
        if is_main and callable(before):
            signal.signal(signal.SIGINT, before)
    if held:
        before(*held[0])
