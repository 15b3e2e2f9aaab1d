"""Verdicts about this machine, kept from one process to the next in one JSON file.

A verdict is a JSON value under a section and a key: which backend is the fastest for a call kind
(``"routes"``), which was wrong (``"quarantined"``), how many threads suit a kernel (``"threads"``).

Verdicts hold for the versions of torch, MLX, this package and its kernels, and for one machine. The
file has the verdicts of several such environments side by side, so two environments on one disk do
not replace each other's. An upgrade begins anew, without a warning. One warning is given for a file
that cannot be understood, and for a path where there is something else than a file or nothing
(:mod:`.store.files`), which stays as it is.

    {"format": 1,
     "environments": [{"versions": {"torch": ...}, "sections": {"routes": {...}}}, ...]}

A failure here costs a program time and nothing else: if a file cannot be read, written or locked,
verdicts live as long as the process.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import json
import os
import platform
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ..settings import AutotuneSettings, autotune_settings
from ..version import __version__
from . import files as disk
from . import sources
from .fork import after_fork

#: Version of the file's format. A file of another version is not read.
FORMAT = 1
#: Most entries of a section, and environments of a file; the oldest are dropped.
MAX_ENTRIES = 512
MAX_ENVIRONMENTS = 4
#: Most bytes of a file; one of ours has a few hundred bytes an entry.
MAX_BYTES = 8 << 20
#: Most levels of dictionaries and lists in a file, and its largest number.
MAX_DEPTH = 16
MAX_NUMBER = 1 << 63
#: Seconds between writes: the verdicts of a program's first second take two writes, not hundreds.
INTERVAL = 1.0
#: Seconds to wait for another process's write, while the program runs and at its end.
PATIENCE = 0.1
PATIENCE_AT_EXIT = 1.0

Json = Any  # null, booleans, numbers, strings, and lists and dictionaries of them
Sections = dict[str, dict[str, Json]]


class Store:
    """Verdicts of one environment, in memory and in a file.

    The file is read when the first verdict is asked for. When one is put, the file is written,
    merged with what other processes have written meanwhile.

    Args:
        path: of the file; None keeps verdicts in memory only. So does a path that must not be
            touched, once that is found.
        versions: what the verdicts hold for; by default :func:`current_versions`.
        clock: returns seconds; a test passes its own.

    Attributes:
        path: of the file; None where there is none.
        warning: what the program was warned of; "" if nothing.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        versions: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.warning = ""
        self._unreported = ""  # the part of it that the program was not yet warned of
        self._given_versions = versions
        self._clock = clock
        self._sections: Sections | None = None
        self._next_write = float("-inf")
        self._begin()
        after_fork(self._begin)

    def _begin(self) -> None:
        """Begin in a process, also a forked one, whose parent writes what is unwritten there."""
        self._lock = threading.Lock()  # of what is in memory
        self._writing = threading.Lock()  # of the file, within this process
        #: What is not in the file yet, nor being written.
        self._unwritten: Sections = {}

    def get(self, section: str, key: str) -> Json | None:
        """Return the verdict of a key; None if there is none."""
        with self._hold():
            return copy.deepcopy(self._load_sections().get(section, {}).get(key))

    def put(self, section: str, key: str, value: Json) -> None:
        """Keep a verdict.

        Raises:
            TypeError, ValueError: the value is not JSON.
        """
        value = json.loads(json.dumps(value, allow_nan=False))
        if not _is_plain(value):
            raise ValueError("a verdict has too large a number, or too many levels")
        with self._hold():
            for sections in (self._load_sections(), self._unwritten):
                _merge_entries(sections, {section: {key: value}})
            is_time = self._clock() >= self._next_write
        if is_time:
            self.flush(PATIENCE)

    def sections(self) -> Sections:
        """Return a copy of every verdict, the oldest of a section first."""
        with self._hold():
            return copy.deepcopy(self._load_sections())

    def versions(self) -> Mapping[str, str]:
        """What these verdicts hold for."""
        return current_versions() if self._given_versions is None else self._given_versions

    def flush(self, patience: float = PATIENCE_AT_EXIT) -> bool:
        """Write what is not in the file yet, and return whether all of it is there now.

        Args:
            patience: seconds to wait for another process that is writing.
        """
        if not self._writing.acquire(blocking=False):
            return False  # another thread is at it
        written, unwritten = False, Sections()
        try:
            with self._lock:
                unwritten, self._unwritten = self._unwritten, {}
                self._next_write = self._clock() + INTERVAL
            written = not unwritten or self._write(unwritten, patience)
        finally:
            self._writing.release()
            with self._hold():
                if not written:
                    _merge_entries(unwritten, self._unwritten)
                    self._unwritten = unwritten
        return written

    @contextlib.contextmanager
    def _hold(self) -> Iterator[None]:
        """Hold the lock of what is in memory; give warnings when it is released."""
        with self._lock:
            yield
            message, self._unreported = self._unreported, ""
        if message:
            warnings.warn(message, RuntimeWarning, stacklevel=4)

    def _load_sections(self) -> Sections:
        if self._sections is None:
            self._sections = self._ours(self._read())
            _merge_entries(self._sections, self._unwritten)
        return self._sections

    def _ours(self, environments: list[dict[str, Any]]) -> Sections:
        versions = dict(self.versions())
        found = (entry["sections"] for entry in environments if entry["versions"] == versions)
        return next(found, {})

    def _read(self) -> list[dict[str, Any]]:
        """Read every environment in the file; none, with a warning, if it cannot be understood."""
        path = self.path
        if path is None:
            return []
        try:
            return _environments(disk.read_regular(path, MAX_BYTES))
        except disk.Refused as refused:
            self._leave_file(refused)
        except OSError:
            pass
        except ValueError as error:  # of JSON and of UTF-8, too
            self._warn(f"{error}. It measures again, and replaces the file")
        return []

    def _write(self, unwritten: Sections, patience: float) -> bool:
        """Merge verdicts into the file, and return whether it has them now."""
        path = self.path
        if path is None:
            return True
        try:
            with disk.hold_lock(path, patience):
                content = {"format": FORMAT, "environments": self._merge(unwritten)}
                disk.write_whole(path, json.dumps(content).encode())
                return True
        except disk.Refused as refused:
            self._leave_file(refused)
        except OSError:
            pass
        return False

    def _merge(self, unwritten: Sections) -> list[dict[str, Any]]:
        environments = self._read()
        sections, versions = self._ours(environments), dict(self.versions())
        _merge_entries(sections, unwritten)
        others = [entry for entry in environments if entry["versions"] != versions]
        return [*others, {"versions": versions, "sections": sections}][-MAX_ENVIRONMENTS:]

    def _leave_file(self, refused: disk.Refused) -> None:
        self._warn(f"{refused}. Nothing there is changed, and verdicts last as long as the process")
        self.path = None

    def _warn(self, problem: str) -> None:
        """Note what is wrong with the file, once; the warning is given when no lock is held."""
        if not self.warning:
            self.warning = (
                f"torch_mlx_spectro ignores {self.path}, in which it keeps what it has measured: "
                f"{problem}"
            )
            self._unreported = self.warning


def _environments(data: bytes) -> list[dict[str, Any]]:
    """Parse the content of a file.

    Raises:
        ValueError: it is not one of ours, or of another format; the text says what is wrong.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError("it is not a file of verdicts")
    if not _is_plain(content):
        raise ValueError("it has too large a number, or too many levels")
    if repr(content["format"]) != repr(FORMAT):  # true equals 1
        raise ValueError(
            f"its format is {content['format']!r:.40}, and this version reads {FORMAT}"
        )
    environments = content.get("environments")
    if not (isinstance(environments, list) and all(map(_is_environment, environments))):
        raise ValueError("its verdicts are damaged")
    return environments


def _is_environment(entry: Any) -> bool:
    match entry:
        case {"versions": dict(), "sections": dict(sections)}:
            return all(isinstance(one, dict) for one in sections.values())
    return False


def _is_plain(value: Json, depth: int = MAX_DEPTH) -> bool:
    """Whether a value may be copied, compared and computed with, whoever wrote the file."""
    if isinstance(value, (dict, list)):
        inner = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_is_plain(one, depth - 1) for one in inner)
    # NaN is in no range; JSON's 1e999 is infinite.
    return not isinstance(value, (int, float)) or -MAX_NUMBER <= value <= MAX_NUMBER


def _merge_entries(sections: Sections, more: Sections) -> None:
    """Make entries the newest of their sections, and drop the oldest where there are too many."""
    for section, added in more.items():
        entries = sections.setdefault(section, {})
        for key, value in added.items():
            entries.pop(key, None)
            entries[key] = value
        while len(entries) > MAX_ENTRIES:
            del entries[next(iter(entries))]


def current_versions() -> dict[str, str]:
    """Return what verdicts depend on besides their keys: software, kernels, machine."""
    system = platform.mac_ver()[0] or platform.release()
    return {
        "torch_mlx_spectro": __version__,
        "torch": _version("torch"),
        "mlx": _version("mlx"),
        "kernels": sources.digest(),
        "system": f"{platform.system()} {system}",
        "processor": f"{platform.machine()} {_processor()} x{os.cpu_count()}",
    }


def _version(package: str) -> str:
    """Read a package's version from its metadata, so that neither torch nor MLX is loaded."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    """Return the processor's name, as far as it can be found without starting a program."""
    if sys.platform == "darwin":
        import ctypes

        name, size = ctypes.create_string_buffer(256), ctypes.c_size_t(256)
        with contextlib.suppress(OSError, AttributeError):
            # In one library with everything else of the system's interface.
            ask = ctypes.CDLL(None).sysctlbyname
            if ask(b"machdep.cpu.brand_string", name, ctypes.byref(size), None, 0) == 0:
                return name.value.decode(errors="replace")
        return ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return ""


#: The store of this process, once it was asked for. ``setdefault`` is one step for all threads.
_process: dict[str, Store] = {}


def store() -> Store:
    """Return the store of this process.

    Raises:
        ValueError: an environment variable has an unknown value.
    """
    found = _process.get("store")
    if found is None:
        made = Store(find_path(autotune_settings()))
        found = _process.setdefault("store", made)
        if found is made:
            atexit.register(made.flush)
    return found


def find_path(settings: AutotuneSettings) -> Path | None:
    """Return where verdicts are kept under these settings; None where they are not."""
    if not settings.persist:
        return None
    if settings.cache_path is not None:
        # A path like ~nobody/x stays: it is refused, with a warning, when it is used.
        return Path(os.path.expanduser(settings.cache_path))
    folder = disk.cache_folder()
    return None if folder is None else folder / "verdicts.json"
