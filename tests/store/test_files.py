"""Files that are whole or absent, regular, and nobody else's."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_process import python

from torch_mlx_spectro.store import files as disk


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_WARNED", set())


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def exchanges() -> bool:
    """Whether files can be exchanged here."""
    return sys.platform in ("linux", "darwin")


def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS."""
    monkeypatch.setattr(disk, "_exchange", lambda one, other: False)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_file_is_written_whole_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        no_exchange(monkeypatch)
    path = tmp_path / "file"
    for data in (b"first", b"second"):
        disk.write_whole(path, data)
        assert disk.read_regular(path, 100) == data
        assert [found.name for found in tmp_path.iterdir()] == ["file"]
    assert disk.read_regular(path, 2) == b"sec"
    assert permissions(path) == 0o600


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_what_is_made_is_its_users_alone(
    tmp_path: Path, umask: Callable[[int], int], mask: int
) -> None:
    umask(mask)
    path = tmp_path / "one" / "two" / "file"
    with disk.hold_lock(path, 0):
        disk.write_whole(path, b"")
    assert [permissions(folder) for folder in path.parents[:2]] == [0o700, 0o700]
    assert [permissions(file) for file in path.parent.iterdir()] == [0o600, 0o600]


def put_fifo(path: Path) -> None:
    """As another process might at any moment."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.skipif(not exchanges(), reason="this system cannot exchange files")
@pytest.mark.parametrize("there", [True, False], ids=["file", "nothing"])
def test_what_comes_between_look_and_write_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    path, make = tmp_path / "file", disk.tempfile.mkstemp
    if there:
        disk.write_whole(path, b"before")

    def late(**given: Any) -> tuple[int, str]:
        put_fifo(path)
        return make(**given)

    monkeypatch.setattr(disk.tempfile, "mkstemp", late)
    with pytest.raises(disk.Refused, match="it is a FIFO"):
        disk.write_whole(path, b"after")
    (found,) = tmp_path.iterdir()
    assert found.is_fifo()


@pytest.mark.parametrize("link", [False, True])
def test_what_comes_between_look_and_read_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: bool
) -> None:
    path, look = tmp_path / "file", disk._check_path
    path.write_text("before")
    (tmp_path / "other").write_text("somebody's")

    def late(path: Path) -> None:
        look(path)
        path.unlink()
        path.symlink_to("other") if link else os.mkfifo(path)

    monkeypatch.setattr(disk, "_check_path", late)
    problem = "symbolic links" if link else "it is a FIFO"  # which would be waited for
    with pytest.raises(OSError, match=problem):
        disk.read_regular(path, 10)


def test_without_an_exchange_a_folder_that_others_may_write_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    disk.write_whole(path, b"before")
    tmp_path.chmod(0o777)
    no_exchange(monkeypatch)
    with pytest.raises(disk.Refused, match="cannot exchange files"):
        disk.write_whole(path, b"after")
    assert [found.read_bytes() for found in tmp_path.iterdir()] == [b"before"]


def test_what_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError

    path = tmp_path / "file"
    disk.write_whole(path, b"before")
    no_exchange(monkeypatch)
    for owner, name in ((disk.os, "replace"), (disk.tempfile, "mkstemp")):
        monkeypatch.setattr(owner, name, refuse)
        with pytest.raises(PermissionError):
            disk.write_whole(path, b"after")
        assert [found.read_bytes() for found in tmp_path.iterdir()] == [b"before"]


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EPERM, errno.EACCES])
def test_what_an_exchange_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def refuse(*_: Any) -> int:
        disk.ctypes.set_errno(error)
        return -1

    library = SimpleNamespace(renameat2=refuse, renamex_np=refuse)
    monkeypatch.setattr(disk.ctypes, "CDLL", lambda *_, **__: library)
    if error == errno.EACCES:
        with pytest.raises(PermissionError):
            disk._exchange(tmp_path, tmp_path)
    else:  # as NFS does, and a container
        assert not disk._exchange(tmp_path, tmp_path)
    monkeypatch.setattr(disk.ctypes, "CDLL", lambda *_, **__: SimpleNamespace())
    assert not disk._exchange(tmp_path, tmp_path)  # a C library without it


def test_a_lock_is_given_back_though_a_child_has_its_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, take, handles = tmp_path / "file", disk._take_lock, list[int]()

    def note(handle: int) -> bool:
        handles.append(handle)
        return take(handle)

    monkeypatch.setattr(disk, "_take_lock", note)
    with disk.hold_lock(path, 0):
        childs = os.dup(handles[0])  # as a fork does: both are one lock
        with pytest.raises(TimeoutError), disk.hold_lock(path, 0.01):
            pass
    with disk.hold_lock(path, 0):
        pass
    os.close(childs)


@pytest.mark.parametrize("is_free", [True, False])
def test_windows_locks_by_its_own_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_free: bool
) -> None:
    """By a stand-in: this was not run on Windows."""
    asked: list[tuple[int, int]] = []

    def locking(handle: int, how: int, count: int) -> None:
        asked.append((how, count))
        if not is_free:
            raise PermissionError(errno.EACCES, "another process has it")

    module = SimpleNamespace(LK_NBLCK=2, LK_UNLCK=0, locking=locking)
    monkeypatch.setitem(sys.modules, "msvcrt", module)
    monkeypatch.setattr(sys, "platform", "win32")
    if is_free:
        with disk.hold_lock(tmp_path / "file", 0):
            assert asked == [(2, 1)]
        assert asked == [(2, 1), (0, 1)]
    else:
        with pytest.raises(TimeoutError), disk.hold_lock(tmp_path / "file", 0):
            pass


needs_owners = pytest.mark.skipif(sys.platform != "linux", reason="code is kept on Linux alone")


def opens(folder: Path) -> bool:
    with disk.open_code_folder(folder) as kept:
        return kept is not None


@needs_owners
def test_code_is_read_from_a_folder_of_ones_own(
    tmp_path: Path, umask: Callable[[int], int]
) -> None:
    umask(0)
    folder = tmp_path / "new" / "code"
    with disk.open_code_folder(folder) as kept:
        assert kept is not None
        disk.write_whole(kept.path / "a", b"code")
        assert kept.read("a", 4) == b"code"
        assert kept.read("a", 3) is None
        assert kept.has("a")
        assert kept.read("b", 4) is None
        assert not kept.has("b")
    assert permissions(folder) == permissions(folder.parent) == 0o700
    assert (folder / "a").read_bytes() == b"code"


@needs_owners
def test_a_folder_that_is_swapped_while_it_is_open_is_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    with disk.open_code_folder(folder) as kept:
        assert kept is not None
        folder.rename(tmp_path / "away")
        folder.mkdir()
        (folder / "a").write_bytes(b"another's")
        assert not kept.has("a")
        disk.write_whole(kept.path / "b", b"code")
    assert (tmp_path / "away" / "b").read_bytes() == b"code"


@needs_owners
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o1777])
def test_a_folder_that_others_may_write_is_told_of_once_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.setattr(disk, "_owns_group", lambda group: False)
    tmp_path.chmod(mode)
    told = f"from {re.escape(str(tmp_path))}: .* may write it. Each process compiles anew"
    with pytest.warns(RuntimeWarning, match=told):
        assert not opens(tmp_path)
    assert not opens(tmp_path)  # without a warning, which would fail the test
    assert permissions(tmp_path) == mode


@needs_owners
def test_a_folder_of_another_user_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(disk.os, "geteuid", lambda: owner + 1)
    with pytest.warns(RuntimeWarning, match=rf"belongs to another user \(number {owner}\)"):
        assert not opens(tmp_path)


@needs_owners
def test_a_folder_of_a_group_of_ones_own_is_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a umask of 002, as where every user has a group."""
    tmp_path.chmod(0o775)
    monkeypatch.setattr(disk, "_owns_group", lambda group: group == tmp_path.stat().st_gid)
    assert opens(tmp_path)
    monkeypatch.setattr(disk.os, "listxattr", lambda handle: ["system.posix_acl_access"])
    with pytest.warns(RuntimeWarning, match="its group may write it"):
        assert not opens(tmp_path)

    def refuse(handle: int) -> list[str]:
        raise OSError(errno.ENOTSUP, "no lists")

    monkeypatch.setattr(disk.os, "listxattr", refuse)
    assert opens(tmp_path)


ME, GROUP = SimpleNamespace(pw_name="me", pw_gid=7), 7
OTHER = SimpleNamespace(pw_name="other", pw_gid=8)


@pytest.mark.parametrize(
    ("users", "name", "members", "group", "alone"),
    [
        ([ME, OTHER], "me", [], GROUP, True),
        ([ME, OTHER], "me", ["me"], GROUP, True),
        ([ME, OTHER], "me", ["me", "other"], GROUP, False),
        ([ME, SimpleNamespace(pw_name="other", pw_gid=7)], "me", [], GROUP, False),
        ([ME], "users", [], GROUP, False),  # of a directory service that lists nobody
        ([ME, OTHER], "me", [], 9, False),
        ([ME, OTHER], "", [], GROUP, False),
    ],
)
def test_who_owns_a_group(
    monkeypatch: pytest.MonkeyPatch, users: Any, name: str, members: Any, group: int, alone: bool
) -> None:
    def find(number: int) -> Any:
        if not name:
            raise KeyError(number)
        return SimpleNamespace(gr_name=name, gr_mem=members)

    monkeypatch.setattr(pwd, "getpwuid", lambda number: ME)
    monkeypatch.setattr(pwd, "getpwall", lambda: users)
    monkeypatch.setattr(grp, "getgrgid", find)
    assert disk._owns_group.__wrapped__(group) is alone


@needs_owners
@pytest.mark.parametrize("unfit", ["writable", "link", "another user's", "fifo"])
def test_a_file_that_others_may_write_is_told_of_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unfit: str
) -> None:
    path = tmp_path / "code" / "a"
    path.parent.mkdir(0o700)
    path.write_bytes(b"code")
    if unfit == "writable":
        path.chmod(0o666)
    elif unfit == "another user's":
        try:
            os.chown(path, 1234, 1234)
        except PermissionError:
            pytest.skip("this user may give files to nobody")
    else:
        path.rename(tmp_path / "b")
        path.symlink_to(tmp_path / "b") if unfit == "link" else os.mkfifo(path)
    with disk.open_code_folder(path.parent) as kept:
        assert kept is not None
        with pytest.warns(
            RuntimeWarning, match=f"not run {re.escape(str(path))}: .* compiles anew"
        ):
            assert kept.read("a", 10) is None
        assert not kept.has("a")


def test_a_folder_that_cannot_be_made_is_none_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not opens(tmp_path / "file" / "code")


def test_without_owners_a_folder_of_code_is_below_the_users_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where this was not run."""
    monkeypatch.delattr(os, "geteuid", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "me")
    for folder, fits in (("me/AppData/Local/cache", True), ("shared", False), ("me too", False)):
        if not fits:
            with pytest.warns(RuntimeWarning, match="not in the profile of its user"):
                assert not opens(tmp_path / folder)
            continue
        with disk.open_code_folder(tmp_path / folder) as kept:
            assert kept is not None
            disk.write_whole(kept.path / "a", b"code")
            assert kept.read("a", 4) == b"code"


PRIVATE = """\
import os, sys, torch_mlx_spectro.store.files as disk
folder = disk.private_folder()
assert folder is disk.private_folder() and folder.stat().st_mode & 0o777 == 0o700
(folder / "code").touch()
if not os.fork():
    sys.exit()  # with the functions of atexit
os.wait()
assert (folder / "code").exists()
print(folder)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_private_folder_lasts_as_long_as_its_process(tmp_path: Path) -> None:
    finished = python("-W", "error", "-c", PRIVATE, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert not Path(finished.stdout.strip()).exists()
