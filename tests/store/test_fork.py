"""Functions that are called together: after a fork, and when caches are emptied."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from cli_process import python

from torch_mlx_spectro.store.caches import Cache, cached, clear_caches
from torch_mlx_spectro.store.fork import Callbacks


class Owner:
    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def note(self) -> None:
        self.calls.append(self.name)


def test_functions_are_called_in_the_order_in_which_they_came() -> None:
    callbacks, calls = Callbacks(), list[str]()
    first, second = Owner("first", calls), Owner("second", calls)
    callbacks.add(first.note)

    @callbacks.add
    def between() -> None:
        calls.append("between")

    callbacks.add(second.note)
    callbacks.call()
    assert calls == ["first", "between", "second"]


def test_a_method_is_forgotten_with_its_object() -> None:
    callbacks, calls = Callbacks(), list[str]()
    owners = [Owner(name, calls) for name in "abc"]
    for owner in owners:
        callbacks.add(owner.note)
    del owner, owners[1]
    gc.collect()
    callbacks.call()
    assert (calls, len(callbacks._entries)) == (["a", "c"], 2)


def test_objects_may_end_and_begin_while_functions_are_called() -> None:
    callbacks, calls = Callbacks(), list[str]()
    owners = [Owner("late", calls)]

    @callbacks.add
    def end() -> None:
        owners.append(Owner("new", calls))
        callbacks.add(owners.pop().note)
        del owners[:]
        gc.collect()

    callbacks.add(owners[0].note)
    callbacks.call()
    callbacks.call()
    assert (calls, len(callbacks._entries)) == (["late"], 1)


ENDED = """\
from torch_mlx_spectro.store.caches import Cache
kept = Cache(4)
class Circle:
    def __init__(self):
        self.cache, self.me = Cache(4), self
circle = Circle()
"""


def test_the_end_of_a_process_says_nothing(tmp_path: Path) -> None:
    for program in (ENDED, f"import torch_mlx_spectro.functional\n{ENDED}"):
        ended = python("-c", program, cwd=tmp_path)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_caches_and_cached_functions_are_emptied_and_their_counts_are() -> None:
    calls: list[int] = []

    @cached(2)
    def double(number: int) -> int:
        calls.append(number)
        return 2 * number

    told: list[tuple[bool, str]] = []
    cache: Cache[str, int] = Cache(3, lambda is_there, key: told.append((is_there, key)))
    for _ in range(2):
        assert [double(1), cache.get("a", lambda: 7)] == [2, 7]
    assert cache.info() == {"hits": 1, "misses": 1, "maxsize": 3, "currsize": 1}
    assert told == [(False, "a"), (True, "a")]
    clear_caches()
    assert cache.info() == {"hits": 0, "misses": 0, "maxsize": 3, "currsize": 0}
    assert (double(1), calls) == (2, [1, 1])


def test_kinds_of_arguments_may_be_told_apart() -> None:
    @cached(4, typed=True)
    def name(value: object) -> str:
        return type(value).__name__

    assert [name(1), name(True), name(1.0)] == ["int", "bool", "float"]


FORK = """\
import os
from torch_mlx_spectro.store.fork import after_fork
done = []
after_fork(lambda: done.append("child"))
child = os.fork()
if child == 0:
    os._exit(done != ["child"])
assert done == []
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_calls_them_and_the_parent_does_not(tmp_path: Path) -> None:
    ended = python("-c", FORK, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
