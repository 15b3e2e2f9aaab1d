"""Files on disk that are whole or absent, regular, and the user's own.

This module is the home of two rules:

- A path is read and written only where there is a regular file, or nothing. Whatever else is there
  (a device, a FIFO, a symbolic link, a folder) stays as it is. The folders above may be symbolic
  links, as many a user's ``~/.cache`` is.
- Compiled code is run only from a folder and a file that nobody but the user may write.

Folders are made for their user alone, whatever the umask. Permissions of what exists are checked
and never changed.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from .caches import cached

if sys.platform != "win32":
    import fcntl
    import grp
    import pwd

#: With these flags no symbolic link is followed, and opening a FIFO does not wait.
_WITH_CARE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

_KINDS = MappingProxyType(
    {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
)

#: Two names exchanged in one step: Linux's RENAME_EXCHANGE, and macOS's RENAME_SWAP.
_EXCHANGE = 2
_HERE = -100  # AT_FDCWD
#: Errors of systems, file systems (such as NFS) and containers that cannot exchange names.
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM)

#: Texts of the warnings that were given, each once in a process.
_WARNED: set[str] = set()


class Refused(OSError):
    """A path must not be touched, or its code not be run; the text says what is there."""


def cache_folder() -> Path | None:
    """Return the cache folder by the platform's convention; None where the user has no home."""
    import platformdirs  # takes a millisecond that a program without accelerated calls need not pay

    try:
        folder = Path(platformdirs.user_cache_dir("torch_mlx_spectro", appauthor=False))
    except RuntimeError:  # as pathlib says it: in a container a user may have no home at all
        return None
    return folder if folder.is_absolute() else None  # older ones leave "~" where it is unknown


def make_folder(folder: Path) -> None:
    """Make a folder, and the missing ones above it, for the user alone.

    Raises:
        OSError: it cannot be made.
    """
    try:
        folder.mkdir(0o700, exist_ok=True)
    except FileNotFoundError:
        make_folder(folder.parent)
        folder.mkdir(0o700, exist_ok=True)


def read_regular(path: Path, most: int) -> bytes:
    """Read a regular file; if it has more than ``most`` bytes, read one more than those.

    Raises:
        Refused: something else is there.
        OSError: nothing is there, or it cannot be read.
    """
    with _open_regular(path) as file:
        return file.read(most + 1)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, where there is nothing or a regular file.

    Raises:
        Refused: something else is there.
        OSError: it cannot be written.
    """
    _check_path(path)
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent)  # for the user alone
    new = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        _put(new, path)
    finally:
        # Not a file only where what was exchanged for it could not be put back.
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.lstat(new).st_mode):
                new.unlink()


@contextlib.contextmanager
def hold_lock(path: Path, patience: float) -> Iterator[None]:
    """Hold a file's lock between processes, in a folder that is made if missing.

    The lock file lies beside the file. The system releases the lock of a process that ends. A
    forked child does not share its parent's.

    Args:
        patience: seconds to wait for another process.

    Raises:
        Refused: at one of the two paths is neither a regular file nor nothing.
        OSError: another process keeps it, or there are no locks here.
    """
    lock = path.with_name(f"{path.name}.lock")
    for one in (path, lock):
        _check_path(one)
    make_folder(path.parent)
    with open(lock, "ab", opener=_open_with_care) as file:
        _check_regular(os.fstat(file.fileno()))
        deadline = time.monotonic() + patience
        while not _take_lock(file.fileno()):
            if time.monotonic() >= deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process keeps the lock", str(lock))
            time.sleep(0.005)
        try:
            yield
        finally:
            _release_lock(file.fileno())


@dataclass(frozen=True)
class CodeFolder:
    """An open folder of compiled code that nobody but its user may write.

    Attributes:
        folder: its path as it is named.
        path: its path by its descriptor, so that nobody who may write a folder above it can replace
            it.
    """

    folder: Path
    path: Path

    def read(self, name: str, most: int) -> bytes | None:
        """Read a file; None where no file of this name may be run, or it has more bytes."""
        with contextlib.suppress(OSError), self._open_file(name) as file:
            data = file.read(most + 1)
            return data if len(data) <= most else None
        return None

    def has(self, name: str) -> bool:
        """Whether there is a file of this name that may be run."""
        with contextlib.suppress(OSError), self._open_file(name):
            return True
        return False

    @contextlib.contextmanager
    def _open_file(self, name: str) -> Iterator[BinaryIO]:
        try:
            with _open_regular(self.path / name) as file:
                _check_writers(file.fileno())
                yield file
        except Refused as refused:
            path = self.folder / name
            _warn_once(f"torch_mlx_spectro does not run {path}: {refused}. It compiles anew")
            raise


@contextlib.contextmanager
def open_code_folder(folder: Path) -> Iterator[CodeFolder | None]:
    """Open a folder of compiled code, made if missing; None, with a warning, if others write it.

    It is None without a warning where the folder can be neither read nor made.
    """
    with contextlib.ExitStack() as stack:
        found = None
        with contextlib.suppress(OSError):
            make_folder(folder)
            distrust = explain_distrust(folder)
            if distrust:
                _warn_once(distrust)
            found = CodeFolder(folder, stack.enter_context(_open_trusted(folder)))
        yield found


def explain_distrust(folder: Path) -> str:
    """Explain why code in a folder is not run; "" if it is, or would be if there were a folder."""
    try:
        with _open_trusted(folder):
            return ""
    except Refused as refused:
        return (
            f"torch_mlx_spectro runs no compiled code from {folder}: {refused}. Each process"
            " compiles anew. Remove the folder: the next process makes one that only its user may"
            " write"
        )
    except OSError:
        return ""


@lru_cache(maxsize=1)
def private_folder() -> Path:
    """Make a folder for what may be kept nowhere else; it is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="torch_mlx_spectro-"))  # for the user alone
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a forked child leaves it to its parent
        shutil.rmtree(folder, ignore_errors=True)


def _check_path(path: Path) -> None:
    """Refuse a path that is no regular file, without opening it: devices may react to that."""
    if path.parts and path.parts[0].startswith("~"):
        raise Refused(f"there is no home of {path.parts[0]}")
    with contextlib.suppress(FileNotFoundError):
        _check_regular(os.lstat(path))


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise Refused(f"it is {kind}, not a regular file")


@contextlib.contextmanager
def _open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading."""
    _check_path(path)
    with open(path, "rb", opener=_open_with_care) as file:
        _check_regular(os.fstat(file.fileno()))  # another file may be there by now
        yield file


def _open_with_care(path: str, flags: int) -> int:
    return os.open(path, flags | _WITH_CARE, 0o600)


def _put(new: Path, path: Path) -> None:
    """Put a file where there is nothing, or in the place of a regular file, and of nothing else.

    To look first and rename then would replace what came there in between. A link replaces nothing.
    An exchange loses nothing: what comes out is checked, and put back if it is no file. Whoever
    reads meanwhile finds one file or the other.
    """
    with contextlib.suppress(OSError):  # something is there, or this file system has no links
        os.link(new, path)
        return
    if _exchange(new, path):
        try:
            _check_regular(os.lstat(new))
        except Refused:
            _exchange(new, path)
            raise
        return
    # Where nobody else may write the folder, nobody else can come in between.
    with _open_trusted(path.parent, "the folder cannot exchange files, and others may write it"):
        _check_path(path)
        os.replace(new, path)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange what two names stand for; return whether this system and file system can.

    Raises:
        OSError: they can, and did not.
    """
    names = os.fsencode(one), os.fsencode(other)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            failed = library.renamex_np(*names, _EXCHANGE)
        else:
            failed = library.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE)
    except (AttributeError, TypeError):  # older systems, and Windows
        return False
    error = ctypes.get_errno()
    if failed and error not in _CANNOT:
        raise OSError(error, os.strerror(error), str(other))
    return not failed


def _take_lock(handle: int) -> bool:
    """Take the lock of a file; return whether that succeeded."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter on Windows
        return False
    return True


def _release_lock(handle: int) -> None:
    """Release the lock, even if a child was forked meanwhile and has the descriptor, too."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_UN)


@contextlib.contextmanager
def _open_trusted(folder: Path, problem: str = "") -> Iterator[Path]:
    """Yield a path to a folder that nobody else may write, as long as it is open.

    Args:
        problem: text of the refusal where others may; by default it says who they are.

    Raises:
        Refused: others may write it.
    """
    if not hasattr(os, "geteuid"):
        # Windows: what is below a user's profile only that user, and administrators, may write.
        if Path.home().resolve() not in folder.resolve().parents:
            raise Refused(problem or "it is not in the profile of its user")
        yield folder
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            _check_writers(handle)
        except Refused as refused:
            raise Refused(problem or str(refused)) from None
        # Only Linux has such paths, and only there is code kept in folders.
        yield Path(f"/proc/self/fd/{handle}") if sys.platform == "linux" else folder
    finally:
        os.close(handle)


def _check_writers(handle: int) -> None:
    """Refuse what belongs to another user, or what another user may write."""
    if not hasattr(os, "geteuid"):
        return  # Windows: its folder says it
    status = os.fstat(handle)
    if status.st_uid != os.geteuid():
        raise Refused(f"it belongs to another user (number {status.st_uid})")
    if status.st_mode & stat.S_IWOTH:
        raise Refused("every user may write it")
    if status.st_mode & stat.S_IWGRP and not (_owns_group(status.st_gid) and _has_no_list(handle)):
        raise Refused("its group may write it")


@cached(16)
def _owns_group(group: int) -> bool:
    """Whether a group is the user's own, with nobody else in it.

    Where users have groups of their own, which have their names, the umask is often 002. OpenSSH as
    Debian builds it asks for members, too. The name is checked as well, since a directory service
    may not list all members.
    """
    try:
        user, found = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    others = {other.pw_name for other in pwd.getpwall() if other.pw_gid == group}
    is_own = (user.pw_gid, user.pw_name) == (group, found.gr_name)
    return is_own and {*found.gr_mem, *others} <= {user.pw_name}


def _has_no_list(handle: int) -> bool:
    """Whether no list of further users stands behind the permissions of the group."""
    with contextlib.suppress(AttributeError, OSError):  # macOS; a file system without such lists
        return "system.posix_acl_access" not in os.listxattr(handle)
    return True


def _warn_once(text: str) -> None:
    if text not in _WARNED:
        _WARNED.add(text)
        warnings.warn(text, RuntimeWarning, stacklevel=3)
