"""The file of verdicts: many processes, damage, other versions, folders that refuse, forks."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest
from cli_process import python

from torch_mlx_spectro.settings import AutotuneSettings
from torch_mlx_spectro.store import files as disk
from torch_mlx_spectro.store import verdicts
from torch_mlx_spectro.store.verdicts import INTERVAL, MAX_ENTRIES, MAX_ENVIRONMENTS, Store

VERSIONS = {"torch": "1"}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a folder that is not there yet" / "verdicts.json"


def store_of(path: Path | None, torch: str = "1", **arguments: Any) -> Store:
    return Store(path, versions={"torch": torch}, **arguments)


def test_a_verdict_is_known_to_the_next_process(path: Path) -> None:
    first = store_of(path)
    assert first.get("routes", "a") is None
    first.put("routes", "a", {"winner": "mlx", "times": [0.5, 1]})
    assert first.get("routes", "a") == {"winner": "mlx", "times": [0.5, 1]}
    second = store_of(path)
    assert second.get("routes", "a") == {"winner": "mlx", "times": [0.5, 1]}
    assert second.get("threads", "a") is None
    assert second.sections() == {"routes": {"a": {"winner": "mlx", "times": [0.5, 1]}}}


def test_nothing_is_read_or_written_before_it_is_asked_for(path: Path) -> None:
    store_of(path)
    assert not path.parent.exists()
    assert store_of(path).get("routes", "a") is None
    assert store_of(path).flush()
    assert not path.parent.exists()


def test_what_is_returned_is_nobodys_to_change(path: Path) -> None:
    store, value = store_of(path), {"times": [1]}
    store.put("routes", "a", value)
    value["times"].append(2)
    store.get("routes", "a")["times"].append(3)
    store.sections()["routes"]["a"]["times"].append(4)
    assert store.get("routes", "a") == {"times": [1]}


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1, 2}, object(), [10**400], {"a": [1e300]}]
)
def test_only_json_is_kept(value: Any, path: Path) -> None:
    with pytest.raises((TypeError, ValueError)):
        store_of(path).put("routes", "a", value)
    assert not path.exists()


def test_verdicts_of_one_second_are_written_together(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[Path] = []
    write = disk.write_whole
    monkeypatch.setattr(
        disk, "write_whole", lambda path, data: (writes.append(path), write(path, data))
    )
    clock = Clock()
    store = store_of(path, clock=clock)
    for key in range(100):
        store.put("routes", str(key), key)
    assert len(writes) == 1
    clock.now += INTERVAL
    store.put("routes", "one more", 1)
    assert len(writes) == 2
    assert len(store_of(path).sections()["routes"]) == 101
    store.put("routes", "last", 1)
    assert len(writes) == 2
    assert store.flush()
    assert store.flush()
    assert len(writes) == 3
    assert store_of(path).get("routes", "last") == 1


def test_what_is_put_while_it_is_written_is_written_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, write = store_of(path), disk.write_whole

    def writing(path: Path, data: bytes) -> None:
        monkeypatch.undo()
        store.put("routes", "a", 2)
        store.put("routes", "b", 3)
        write(path, data)

    monkeypatch.setattr(disk, "write_whole", writing)
    store.put("routes", "a", 1)
    assert store_of(path).sections() == {"routes": {"a": 1}}
    assert store.flush()
    assert store_of(path).sections() == {"routes": {"a": 2, "b": 3}}


def test_what_could_not_be_written_is_written_with_what_came_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(path)

    def refuse(path: Path, data: bytes) -> None:
        monkeypatch.undo()
        store.put("routes", "a", 2)
        store.put("routes", "c", 3)
        raise PermissionError

    monkeypatch.setattr(disk, "write_whole", refuse)
    store.put("routes", "a", 1)
    assert not path.exists()
    assert store.flush()
    assert store_of(path).sections() == {"routes": {"a": 2, "c": 3}}


def test_the_oldest_entries_go(path: Path) -> None:
    store = store_of(path)
    for key in range(MAX_ENTRIES):
        store.put("routes", str(key), key)
    store.put("routes", "0", "renewed")
    store.put("routes", "new", 1)
    store.put("threads", "of another section", 1)
    assert store.flush()
    for known in (store, store_of(path)):
        assert len(known.sections()["routes"]) == MAX_ENTRIES
        assert known.get("routes", "0") == "renewed"
        assert known.get("routes", "1") is None
        assert known.get("routes", "new") == known.get("threads", "of another section") == 1


def test_an_upgrade_begins_anew_silently_and_leaves_the_others_theirs(path: Path) -> None:
    store_of(path, "1").put("routes", "a", 1)
    upgraded = store_of(path, "2")
    assert upgraded.get("routes", "a") is None
    upgraded.put("routes", "a", 2)
    assert (store_of(path, "1").get("routes", "a"), upgraded.get("routes", "a")) == (1, 2)
    for version in range(3, MAX_ENVIRONMENTS + 2):
        store_of(path, str(version)).put("routes", "a", version)
    assert store_of(path, "1").get("routes", "a") is None
    assert store_of(path, "2").get("routes", "a") == 2
    assert upgraded.warning == ""


DAMAGED = {
    "empty": b"",
    "cut off": b'{"format": 1, "environments": [{"vers',
    "not text": b"\xff\xfe\x00",
    "deep": b"[" * 200_000,
    "of another kind": b"[1, 2]",
    "without a format": b"{}",
    "of a later format": b'{"format": 2, "environments": []}',
    "without environments": b'{"format": 1}',
    "with other environments": b'{"format": 1, "environments": [3]}',
    "with other sections": b'{"format": 1, "environments": [{"versions": {}, "sections": []}]}',
    "of a true format": b'{"format": true, "environments": []}',
    **{
        f"with {name}": (
            b'{"format": 1, "environments": [{"versions": {"torch": "1"}, "sections": {"routes": '
            b'{"a": {"seconds": {"native": %s}, "measured": 1}}}}]}' % value
        )
        for name, value in {
            "ten to the 400": b"1" + b"0" * 400,
            "ten to the 5000": b"1" + b"0" * 5000,
            "1e999": b"1e999",
            "-1e300": b"-1e300",
            "NaN": b"NaN",
            "-Infinity": b"-Infinity",
            "many levels": b"[" * 600 + b"]" * 600,
        }.items()
    },
    "with other entries": (
        b'{"format": 1, "environments": [{"versions": {}, "sections": {"routes": 1}}]}'
    ),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_or_foreign_file_is_ignored_with_one_warning_and_replaced(
    content: bytes, path: Path
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    store = store_of(path)
    with pytest.warns(RuntimeWarning, match="ignores") as told:
        assert store.get("routes", "a") is None
    assert [str(warning.message) for warning in told] == [store.warning]
    assert str(path) in store.warning
    assert store.get("routes", "b") is None  # without a warning, which would fail the test
    store.put("routes", "a", 1)
    assert store_of(path).get("routes", "a") == 1


def test_a_file_that_is_too_long_is_ignored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_of(path).put("routes", "a", 1)
    monkeypatch.setattr(verdicts, "MAX_BYTES", 10)
    with pytest.warns(RuntimeWarning, match="more than 10 bytes"):
        assert store_of(path).get("routes", "a") is None


def test_a_warning_that_is_an_error_breaks_nothing_else(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"?")
    store = store_of(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="not JSON"):
            store.get("routes", "a")
        store.put("routes", "a", 1)
    assert store_of(path).get("routes", "a") == 1


def something_else(kind: str, path: Path) -> None:
    """Put something at a path that is no regular file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "a folder":
        path.mkdir()
    elif kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a device":  # a private one: as /dev/null
        try:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("this user may not make devices")
    else:
        (path.parent / "another file").write_text("somebody's")
        path.symlink_to("another file" if kind == "a symbolic link" else "nothing")


def look_at(path: Path) -> list[Any]:
    """What is in a folder: names, what they are, and what is in files."""
    return [
        (
            found.name,
            found.lstat().st_mode,
            found.lstat().st_ino,
            found.is_file() and found.read_bytes(),
        )
        for found in sorted(path.iterdir())
    ]


KINDS = ("a folder", "a FIFO", "a device", "a symbolic link", "a symbolic link to nothing")


ACTS: dict[str, Callable[[Store], Any]] = {
    "read": lambda store: store.get("routes", "a"),
    "written": lambda store: store.put("routes", "a", 1),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_stays_as_it_is_and_is_told_of_once(
    kind: str, act: Callable[[Store], Any], path: Path
) -> None:
    something_else(kind, path)
    before = look_at(path.parent)
    store = store_of(path)
    with pytest.warns(RuntimeWarning) as told:
        act(store)
    (warning,) = told
    assert str(warning.message) == store.warning
    assert f"ignores {path}, " in store.warning
    assert f"it is {kind.removesuffix(' to nothing')}, not a regular file" in store.warning
    store.put("routes", "a", 2)
    assert store.flush()
    assert (store.get("routes", "a"), store.path) == (2, None)
    assert look_at(path.parent) == before, "a lock, or something temporary, was left"


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_that_is_no_file_stays_as_it_is(kind: str, path: Path) -> None:
    store_of(path).put("routes", "a", 1)
    lock = path.with_name(f"{path.name}.lock")
    lock.unlink()
    something_else(kind, lock)
    before, store = look_at(path.parent), store_of(path)
    with pytest.warns(RuntimeWarning, match="not a regular file"):
        store.put("routes", "b", 1)
    assert store.sections()["routes"] == {"a": 1, "b": 1}
    assert look_at(path.parent) == before


def test_the_home_of_nobody_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPEC_MLX_AUTOTUNE_CACHE_PATH", "~nobody-of-this-name/verdicts.json")
    monkeypatch.setattr(verdicts, "_process", {})
    monkeypatch.setattr(verdicts.atexit, "register", lambda function: None)
    store = verdicts.store()
    with pytest.warns(RuntimeWarning, match="there is no home of ~nobody-of-this-name"):
        store.put("routes", "a", 1)
    assert store.flush()
    assert store.get("routes", "a") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_link_above_the_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "cache").symlink_to("large disk")
    store = store_of(tmp_path / "cache" / "verdicts.json")
    store.put("routes", "a", 1)
    assert store_of(tmp_path / "large disk" / "verdicts.json").get("routes", "a") == 1


def test_a_folder_that_cannot_be_made_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = store_of(tmp_path / "file" / "verdicts.json")
    store.put("routes", "a", 1)
    assert not store.flush()
    assert store.get("routes", "a") == 1


@pytest.mark.parametrize("error", [PermissionError, TimeoutError])
def test_a_folder_that_can_only_be_read_is_read(
    error: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_of(path).put("routes", "a", 1)

    def refuse(path: Path, patience: float) -> Any:
        raise error

    monkeypatch.setattr(disk, "hold_lock", refuse)
    store = store_of(path)
    assert store.get("routes", "a") == 1
    store.put("routes", "b", 1)
    assert store.get("routes", "b") == 1
    assert not store.flush()
    monkeypatch.undo()
    assert store.flush()
    assert store_of(path).get("routes", "b") == 1


def test_the_folder_of_a_user_without_home_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    assert disk.cache_folder() is not None
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: "~/.cache/x")
    assert disk.cache_folder() is None

    def refuse(*_: object, **__: object) -> str:
        raise RuntimeError("could not determine the home directory for '~/.cache'")

    monkeypatch.setattr(platformdirs, "user_cache_dir", refuse)
    assert disk.cache_folder() is None


def test_without_a_path_verdicts_live_as_long_as_the_process() -> None:
    store = store_of(None)
    store.put("routes", "a", 1)
    assert store.get("routes", "a") == 1
    assert store.flush()


def test_a_lock_that_another_process_keeps_is_not_waited_for_long(path: Path) -> None:
    path.parent.mkdir()
    store = store_of(path)
    with filelock.FileLock(f"{path}.lock"):  # as earlier versions took it
        store.put("routes", "a", 1)
        assert not path.exists()
    assert store.flush()
    assert store_of(path).get("routes", "a") == 1


WRITER = """\
import sys
from pathlib import Path
from torch_mlx_spectro.store.verdicts import Store
store = Store(Path(sys.argv[1]), versions={"torch": "1"})
sys.stdin.readline()
for key in range(40):
    store.put("routes", f"{sys.argv[2]}-{key}", {"of": sys.argv[2]})
    store.flush()
    assert store.get("routes", f"{sys.argv[2]}-{key}") == {"of": sys.argv[2]}
while not store.flush():
    pass
"""


def test_eight_processes_lose_nothing(path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WRITER, str(path), str(number)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    known = store_of(path).sections()
    assert known == {
        "routes": {f"{n}-{key}": {"of": str(n)} for n in range(8) for key in range(40)}
    }
    assert json.loads(path.read_bytes())["format"] == verdicts.FORMAT
    assert {found.name for found in path.parent.iterdir()} <= {path.name, f"{path.name}.lock"}


def test_threads_lose_nothing(path: Path) -> None:
    store = store_of(path)
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        for key in range(30):
            store.put("routes", f"{number}-{key}", number)
            store.flush()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.flush()
    assert len(store_of(path).sections()["routes"]) == 240


FORK = """\
import os, sys
from pathlib import Path
import filelock
from torch_mlx_spectro.store import verdicts
path = Path(sys.argv[1])
store = verdicts.store()
assert store.path == path and store is verdicts.store()
store.put("routes", "parent", 1)
store.put("routes", "waits", 1)  # for a second, or for the end
lock = filelock.FileLock(f"{path}.lock")
with lock, store._lock, store._writing:  # as threads of the parent might
    child = os.fork()
    if not child:
        assert verdicts.store() is store
        assert store.get("routes", "parent") == 1
        store.put("routes", "child", 1)
        assert not store.flush(0.01)  # its parent has the lock
        os.write(1, b"child\\n")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
child = os.fork()
if not child:
    store.put("routes", "second child", 1)
    assert store.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert "waits" not in path.read_text()  # which the parent has to write
"""


def test_a_forked_child_is_not_stopped_and_writes_what_is_its_own(path: Path) -> None:
    finished = python(
        "-W",
        "error",
        "-c",
        FORK,
        str(path),
        cwd=path.parent.parent,
        variables={"SPEC_MLX_AUTOTUNE_CACHE_PATH": str(path)},
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "child\n"
    store = Store(path)
    assert list(store.sections()["routes"]) == ["parent", "second child", "waits"]


def test_where_verdicts_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def find_path(**changed: Any) -> Path | None:
        plain: dict[str, Any] = {"measure": True, "persist": True, "cache_path": None}
        return verdicts.find_path(AutotuneSettings(**{**plain, **changed}, threads={}))

    monkeypatch.setattr(disk, "cache_folder", lambda: tmp_path)
    assert find_path() == tmp_path / "verdicts.json"
    assert find_path(cache_path="/elsewhere/v.json") == Path("/elsewhere/v.json")
    assert find_path(cache_path="~/v.json") == Path.home() / "v.json"
    assert find_path(cache_path="~no such user/v.json") == Path("~no such user/v.json")
    assert find_path(persist=False) is find_path(persist=False, cache_path="/elsewhere") is None
    monkeypatch.setattr(disk, "cache_folder", lambda: None)
    assert find_path() is None


def test_versions_name_everything_that_verdicts_hold_for() -> None:
    versions = verdicts.current_versions()
    assert set(versions) == {"torch_mlx_spectro", "torch", "mlx", "kernels", "system", "processor"}
    assert all(isinstance(value, str) and value for value in versions.values())
    assert verdicts._version("no such package as this") == ""
    assert Store(None).versions() == versions
