"""Counters: nothing is lost, lines are the program's, and memory stays bounded."""

from __future__ import annotations

import inspect
import json
import logging
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from torch_mlx_spectro.dispatch import recording, statistics
from torch_mlx_spectro.dispatch.recording import Took
from torch_mlx_spectro.dispatch.statistics import (
    OTHER_REASONS,
    OTHER_SITES,
    Answer,
    Counters,
    Stats,
)


def here() -> tuple[FrameType, str]:
    """The caller's frame and its ``file:line``."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back, f"{__file__}:{frame.f_back.f_lineno}"


def count_from(counters: Counters, source: str, module: str, repeats: int = 1) -> None:
    """Count from code compiled out of ``source``, as if it were a module of that name."""
    code = compile(source, f"{module}.py", "exec")
    names: dict[str, Any] = {"__name__": module, "counters": counters, "Answer": Answer}
    names["getframe"] = sys._getframe
    for _ in range(repeats):
        exec(code, names)


def test_calls_are_counted_by_operation_backend_and_reason() -> None:
    counters = Counters()
    frame = here()[0]
    counters.count(Answer("stft", "mlx"), frame)
    counters.count(Answer("stft", "mlx"), frame)
    counters.count(Answer("istft", "mlx"), frame)
    counters.count(Answer("stft", "native"), frame)
    counters.count(Answer("istft", "native", ("one", "two")), frame)
    counters.count(Answer("stft", "native", ("two",)), frame)
    stats = counters.snapshot()
    assert (stats.accelerated, stats.native) == (3, 3)
    assert stats.calls == {
        ("stft", "mlx"): 2,
        ("istft", "mlx"): 1,
        ("stft", "native"): 2,
        ("istft", "native"): 1,
    }
    # A call with two reasons counts under both; one that native got by choice under none.
    assert stats.fallbacks == {"one": 1, "two": 2}
    assert stats.refused == 0


def test_what_is_natives_by_choice_is_no_fallback() -> None:
    counters = Counters()
    frame = here()[0]
    for by_choice in (True, True, False):
        counters.count(Answer("stft", "native", ("why",), by_choice), frame)
    stats = counters.snapshot()
    assert (stats.choices, stats.fallbacks, stats.native) == ({"why": 2}, {"why": 1}, 3)
    assert stats.as_dict()["choices"] == {"why": 2}


def test_a_call_that_was_refused_is_counted_with_its_reason_as_nobodys() -> None:
    counters = Counters()
    frame, site = here()
    counters.count(Answer("stft", statistics.REFUSED, ("why",)), frame)
    stats = counters.snapshot()
    assert (stats.accelerated, stats.native, stats.refused) == (0, 0, 1)
    assert stats.calls == {("stft", "refused"): 1}
    assert stats.fallbacks == {"why": 1}
    file, _, line = site.rpartition(":")
    refused = {"accelerated": 0, "native": 0, "refused": 1}
    assert stats.sites == {f"{file}:{int(line) + 1}": refused}


def test_sites_are_files_and_lines_of_the_caller() -> None:
    counters = Counters()
    counters.count(Answer("stft", "mlx"), here()[0])
    first = here()[1].rpartition(":")
    for backend in ("native", "mlx", "native"):
        frame, site = here()
        counters.count(Answer("stft", backend), frame)
    above = f"{first[0]}:{int(first[2]) - 1}"
    below = f"{site.rpartition(':')[0]}:{int(site.rpartition(':')[2]) + 1}"
    assert counters.snapshot().sites == {
        above: {"accelerated": 1, "native": 0},
        below: {"accelerated": 1, "native": 2},
    }


def test_two_calls_on_one_line_are_one_site() -> None:
    counters = Counters()
    count_from(
        counters,
        "counters.count(Answer('stft', 'mlx'), getframe()), "
        "counters.count(Answer('istft', 'mlx'), getframe())",
        "program",
        repeats=3,
    )
    assert counters.snapshot().sites == {"program.py:1": {"accelerated": 6, "native": 0}}


def test_code_that_lives_no_longer_keeps_its_counts_apart() -> None:
    """Ids of freed code objects are used again: two sites must not become one."""
    counters = Counters()
    for index in range(50):
        count_from(counters, "counters.count(Answer('stft', 'mlx'), getframe())", f"program{index}")
    assert len(counters.snapshot().sites) == 50


@pytest.mark.parametrize("module", sorted(statistics.TRANSPARENT))
def test_torchs_own_methods_are_transparent(module: str) -> None:
    """``tensor.stft`` calls torch.stft inside torch: that is not the program's line."""
    counters = Counters()
    names: dict[str, Any] = {"__name__": module, "Answer": Answer}
    source = "def method(count, frame):\n    return inner(count, frame)\n\n"
    source += "def inner(count, frame):\n    count(Answer('stft', 'mlx'), frame())\n"
    exec(compile(source, "torch_internal.py", "exec"), names)
    for _ in range(2):
        _, site = here()
        names["method"](counters.count, sys._getframe)
    count_from(counters, "counters.count(Answer('stft', 'mlx'), getframe())", "somewhere.else")
    below = f"{site.rpartition(':')[0]}:{int(site.rpartition(':')[2]) + 1}"
    sites = counters.snapshot().sites
    assert sites[below] == {"accelerated": 2, "native": 0}
    assert set(sites) == {below, "somewhere.else.py:1"}


def test_reset_and_snapshots_are_independent() -> None:
    counters = Counters()
    counters.count(Answer("stft", "mlx"), here()[0])
    before = counters.snapshot()
    counters.reset()
    assert counters.snapshot() == Stats(0, 0, {}, {}, {})
    assert before.accelerated == 1
    counters.count(Answer("istft", "native", ("why",)), here()[0])
    assert counters.snapshot().fallbacks == {"why": 1}
    assert before.calls == {("stft", "mlx"): 1}


def test_as_dict_is_json() -> None:
    counters = Counters()
    frame, site = here()
    counters.count(Answer("stft", "mlx"), frame)
    counters.count(Answer("istft", "native", ("why",)), frame)
    stats = counters.snapshot()
    told = stats.as_dict()
    assert json.loads(json.dumps(told)) == told
    file, _, line = site.rpartition(":")
    assert told == {
        "accelerated": 1,
        "native": 1,
        "calls": {"stft/mlx": 1, "istft/native": 1},
        "fallbacks": {"why": 1},
        "choices": {},
        "sites": {
            f"{file}:{int(line) + 1}": {"accelerated": 1, "native": 0},
            f"{file}:{int(line) + 2}": {"accelerated": 0, "native": 1},
        },
        "verified": 0,
        "mismatches": 0,
        "refused": 0,
        "estimated": {},
        "left": [],
    }


def test_what_was_measured_estimates_the_seconds_of_all_calls() -> None:
    counters, frame = Counters(), here()[0]
    for took, calls in ((Took(3.0, 1.0), 2), (Took(0.5, 0.25), 4), (None, 5)):
        for _ in range(calls):
            counters.count(Answer("stft", "cpu", took=took), frame)
    counters.count(Answer("istft", "native", ("why",), True, Took(2.0, 2.0)), frame)
    stats = counters.snapshot()
    assert stats.calls == {("stft", "cpu"): 11, ("istft", "native"): 1}
    assert stats.estimated == {("stft", "cpu"): (6, 3.0, 5.0), ("istft", "native"): (1, 2.0, 0.0)}
    assert stats.as_dict()["estimated"] == {
        "stft/cpu": {"calls": 6, "seconds": 3.0, "saved": 5.0},
        "istft/native": {"calls": 1, "seconds": 2.0, "saved": 0.0},
    }


def test_seconds_of_several_processes_add_up(tmp_path: Path) -> None:
    frame = here()[0]
    for took in (Took(3.0, 1.0), Took(0.5, 0.25)):
        counters = Counters()
        counters.record(tmp_path)
        counters.count(Answer("stft", "cpu", took=took), frame)
        counters.count(Answer("stft", "cpu"), frame)
    together = statistics.add_up(recording.read(tmp_path))
    assert together.calls == {("stft", "cpu"): 4}
    assert together.estimated == {("stft", "cpu"): (2, 1.25, 2.25)}


def test_times_are_bounded_and_no_call_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs whose calls are of ever new sizes have ever new times."""
    monkeypatch.setattr(statistics, "MAX_COUNTS", 20)
    counters, frame = Counters(), here()[0]
    for index in range(100):
        answer = Answer("stft", "cpu", took=Took(2.0 * index, float(index)))
        assert counters.sites(answer) is counters.sites(answer)
        counters.count(answer, frame)
    stats = counters.snapshot()
    assert stats.accelerated == 100
    assert stats.estimated["stft", "cpu"].calls == 20
    assert len(counters._sites_by_answer) <= 20 + 1


def test_sites_are_bounded_and_no_call_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that compiles code for every call must not fill the memory with its sites."""
    monkeypatch.setattr(statistics, "MAX_COUNTS", 20)
    counters = Counters()
    for index in range(100):
        source = f"counters.count(Answer('stft', 'native', ('reason {index}',)), getframe())"
        count_from(counters, source, f"program{index}")
    stats = counters.snapshot()
    assert stats.native == 100
    assert sum(site["native"] for site in stats.sites.values()) == 100
    assert stats.sites[OTHER_SITES] == {"accelerated": 0, "native": 80}
    assert stats.fallbacks[OTHER_REASONS] == 80
    assert sum(stats.fallbacks.values()) == 100
    assert len(counters._counts) <= 20 + 1
    # A call by choice stays without a reason, and a site that is known is still counted as such.
    count_from(counters, "counters.count(Answer('stft', 'native'), getframe())", "another")
    assert counters.snapshot().fallbacks[OTHER_REASONS] == 80


def test_counts_of_many_threads_add_up() -> None:
    counters, threads, calls = Counters(), 8, 2_000
    barrier = threading.Barrier(threads)
    interval = sys.getswitchinterval()

    def work(index: int) -> None:
        frame = sys._getframe()
        barrier.wait()
        for call in range(calls):
            reasons = ("why",) if call % 4 == 0 else ()
            counters.count(Answer("stft" if index % 2 else "istft", "native", reasons), frame)
            if call % 500 == 0:
                counters.snapshot()

    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    stats = counters.snapshot()
    assert stats.native == threads * calls
    assert stats.calls == {
        ("stft", "native"): threads * calls // 2,
        ("istft", "native"): threads * calls // 2,
    }
    assert stats.fallbacks == {"why": threads * calls // 4}
    assert sum(site["native"] for site in stats.sites.values()) == threads * calls


def test_a_forked_child_counts_from_zero_although_its_parent_was_counting() -> None:
    counters = Counters()
    counters.count(Answer("stft", "mlx"), here()[0])
    counters.count_verified(agrees=False)
    assert counters._lock.acquire(timeout=1)  # some thread of the parent held it
    counters.after_fork_in_child()
    assert counters.snapshot() == Stats(0, 0, {}, {}, {})
    counters.count(Answer("stft", "mlx"), here()[0])
    assert counters.snapshot().accelerated == 1


def test_what_was_measured_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "torch_mlx_spectro")
    counters, frame = Counters(), here()[0]
    for _ in range(2):
        counters.count(Answer("stft", "cpu", took=Took(3e-3, 1e-3)), frame, ("auto: faster",))
    counters.count(Answer("stft", "native", ("why",), True, Took(2.0, 2.0)), frame, ("why",))
    told = [record.getMessage().partition(f"{__file__}:")[2] for record in caplog.records]
    assert [line.partition(": ")[2] for line in told] == [
        "cpu: auto: faster; 1 ms a call, native 3 ms",
        "native: why; 2 s a call",
    ]


def test_a_handler_that_reads_the_statistics_does_not_wait_for_ever() -> None:
    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(counters.snapshot().accelerated)

    counters, seen = Counters(), list[int]()
    handler, level = Reader(), statistics.logger.level
    statistics.logger.addHandler(handler)
    statistics.logger.setLevel(logging.INFO)
    try:
        counters.count(Answer("stft", "cpu"), here()[0])
    finally:
        statistics.logger.removeHandler(handler)
        statistics.logger.setLevel(level)
    assert seen == [0]
    assert counters.snapshot().accelerated == 1
