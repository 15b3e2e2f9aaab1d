"""Compile a text to a loaded library, with a cache on disk that processes share."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

from ..store import files as disk
from . import shader
from .errors import EmulatorError, Rejected
from .library import KernelLibrary, Runtime, load_runtime
from .reading import IR, Request, call_clang, read
from .toolchain import sources_digest, toolchain

#: On disk; a library is 10 to 200 KB.
CACHE_FILES = 6000
CACHE_BYTES = 400 << 20
#: Loaded at a time.
LOADED = 512
_FACTS_BYTES = 1 << 20


def default_cache_dir() -> Path | None:
    """Return the default folder of compiled kernels; None where the user has no home."""
    folder = disk.cache_folder()
    return None if folder is None else folder / "emulator"


class Compiler:
    """Compiles each text once, for all processes with the same cache.

    Args:
        cache_dir: a folder; made if missing. If it is None, cannot be made, or others may write it,
            a folder of this process is used.
    """

    def __init__(self, cache_dir: Path | None) -> None:
        self._folder = cache_dir
        self._tools = toolchain()
        self._loaded: OrderedDict[str, KernelLibrary] = OrderedDict()
        self._lock = threading.Lock()
        self.compilations = 0

    def runtime(self) -> Runtime:
        """Return the runtime, compiled if this cache has none."""
        name = self._runtime_name()
        with self._open_folder() as kept:
            if not kept.has(name):
                with _workplace(kept) as work:
                    self._tools.compile_runtime(Path(name), name, work)
                    _keep(work / name, kept.path / name)
            return load_runtime(kept.path / name)

    def load(self, request: Request) -> KernelLibrary:
        """Return the library of a kernel. The runtime must have been loaded before.

        Raises:
            Rejected: Metal's compiler would refuse the text.
        """
        key = request.key(self._tools)
        with self._lock:
            library = self._loaded.get(key)
            if library is None:
                library = self._loaded[key] = self._find(request, key)
            self._loaded.move_to_end(key)
            while len(self._loaded) > LOADED:
                self._loaded.popitem(last=False)
            return library

    def _find(self, request: Request, key: str) -> KernelLibrary:
        with self._open_folder() as kept:
            facts = _read_facts(kept, key) or self._compile(kept, request, key)
            if "rejected" in facts:
                raise Rejected(facts["rejected"])
            return KernelLibrary(
                kept.path / f"{key}.so",
                tuple(facts["arrays"]),
                tuple(shader.Buffer(*buffer) for buffer in facts["buffers"]),
            )

    @contextlib.contextmanager
    def _open_folder(self) -> Iterator[disk.CodeFolder]:
        """The folder, or one of this process, from which compiled code may be run."""
        if self._folder is not None:
            with disk.open_code_folder(self._folder) as kept:
                if kept is not None:
                    yield kept
                    return
        self._folder = disk.private_folder()
        with disk.open_code_folder(self._folder) as kept:
            if kept is None:
                raise EmulatorError(f"{self._folder}: compiled kernels cannot be kept there")
            yield kept

    def _runtime_name(self) -> str:
        identity = self._tools.identity + sources_digest()
        return f"libmtl-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"

    def _compile(self, kept: disk.CodeFolder, request: Request, key: str) -> dict[str, Any]:
        self.compilations += 1
        facts: dict[str, Any]
        with _workplace(kept) as work:
            try:
                facts = self._build(request, work)
                _keep(work / "kernel.so", kept.path / f"{key}.so")
            except Rejected as error:
                facts = {"rejected": str(error)}
            # Last, since it says that the library is there.
            (work / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
            _keep(work / "facts.json", kept.path / f"{key}.json")
        _evict(kept.path)
        return facts

    def _build(self, request: Request, work: Path) -> dict[str, Any]:
        """Read, compile and link into ``work``.

        Returns:
            The threadgroup variables' names, and what a shader's buffers are.
        """
        tools = self._tools
        reading = read(tools, request, work)
        sanitize = ["-fsanitize=thread"] if request.checked else []
        instrument = ["-mllvm", "-tsan-instrument-read-before-write=1"] if request.checked else []
        call_clang(
            tools,
            request,
            work,
            *("-x", "ir", "-O1", *tools.common, *sanitize, *instrument),
            *("-c", IR, "-o", "kernel.o"),
        )
        runtime = os.path.join(os.pardir, self._runtime_name())  # zig inherits no descriptors
        tools.link(["kernel.o", runtime], "kernel.so", "kernel.so", work)
        return {
            "arrays": reading.arrays,
            "buffers": [astuple(buffer) for buffer in reading.buffers],
        }


def _read_facts(kept: disk.CodeFolder, key: str) -> dict[str, Any] | None:
    """Facts of a compiled kernel, if both of its files are there."""
    library = f"{key}.so"
    try:
        facts: dict[str, Any] = json.loads(kept.read(f"{key}.json", _FACTS_BYTES) or b"")
        if "rejected" not in facts:
            if not kept.has(library):
                return None
            os.utime(kept.path / library)
        os.utime(kept.path / f"{key}.json")
    except (OSError, ValueError):
        return None
    return facts


@contextlib.contextmanager
def _workplace(kept: disk.CodeFolder) -> Iterator[Path]:
    """Make a folder beside the cache's files, so that a finished file is moved in one step."""
    with tempfile.TemporaryDirectory(prefix="work-", dir=kept.path) as work:
        yield Path(work)


def _keep(made: Path, path: Path) -> None:
    """Move a finished file into the cache, for the user alone, whatever the umask."""
    made.chmod(0o600)
    os.replace(made, path)


def _evict(folder: Path) -> None:
    """Remove the files that were used longest ago, beyond the cache's bounds."""
    entries = []
    for path in folder.glob("*.[js]*"):
        with contextlib.suppress(OSError):
            status = path.stat()
            if not path.name.startswith("libmtl-"):
                entries.append((status.st_mtime, status.st_size, path))
    entries.sort()
    total = sum(size for _, size, _ in entries)
    while entries and (len(entries) > CACHE_FILES or total > CACHE_BYTES):
        _, size, path = entries.pop(0)
        total -= size
        with contextlib.suppress(OSError):
            path.unlink()
