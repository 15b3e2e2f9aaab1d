"""clang, out of the package ``ziglang``, and the cache of what it compiled."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import struct
import subprocess
import tempfile
import threading
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import Rejected
from .translate import lint, translate

_HERE = Path(__file__).resolve().parent
#: Libraries kept on disk, and loaded at once.
MAX_FILES = 4000
MAX_LOADED = 4000
TIMEOUT_SECONDS = 300

_FLAGS = (
    *("-std=c++17", "-O1", "-g0", "-fPIC", "-shared", "-nostdlib", "-fvisibility=hidden"),
    *("-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-fno-builtin-memset"),
    *("-fno-sanitize=undefined", "-fno-stack-protector"),
    *("-ffp-contract=off", "-fno-math-errno"),
    *("-Wno-unknown-attributes", "-Werror=vla", "-Werror=double-promotion", "-Werror=return-type"),
)
_KERNEL_FLAGS = {
    False: (),
    # Past zig, which would link a library of its own for the checks.
    True: ("-DSPECTRO_CHECKED=1", "-Xclang", "-fsanitize=thread", "-fno-slp-vectorize"),
}
#: Writable sections that a kernel's library may have.
_SHF_WRITE, _SHF_ALLOC = 1, 2


def unavailable_reason() -> str | None:
    """Why nothing can be compiled here; None when it can."""
    if platform.machine() not in ("x86_64", "aarch64") or os.name != "posix":
        return f"the emulator does not know {platform.machine()} on {platform.system()}"
    if importlib.util.find_spec("ziglang") is None:
        return "ziglang is missing: pip install 'torch-mlx-spectro[emulate]'"
    return None


@lru_cache(maxsize=1)
def _zig() -> tuple[str, str]:
    """Path and version of zig."""
    reason = unavailable_reason()
    if reason is not None:
        raise RuntimeError(reason)
    spec = importlib.util.find_spec("ziglang")
    assert spec is not None
    assert spec.origin is not None
    program = str(Path(spec.origin).with_name("zig"))
    version = subprocess.run([program, "version"], capture_output=True, text=True, check=True)
    return program, version.stdout.strip()


def default_cache_dir() -> Path:
    """Where compiled kernels are kept."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("torch-mlx-spectro")) / "emulator"


class Compiler:
    """Compiles and loads; one for each cache folder.

    Args:
        folder: where libraries are kept, made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def machine(self) -> Any:
        """The library that runs launches."""
        return self._load((_HERE / "machine.cpp").read_text(), (), is_kernel=False)

    def kernel(self, text: str, checked: bool) -> Any:
        """The library of a kernel's text.

        Raises:
            Rejected: clang refuses it, or Metal would.
        """
        return self._load(text, _KERNEL_FLAGS[checked], is_kernel=True)

    def _load(self, text: str, flags: tuple[str, ...], is_kernel: bool) -> Any:
        key = self._key(text, flags)
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
                return self._loaded[key]
            path = self._folder / f"{key}.so"
            if not path.exists():
                if is_kernel:
                    lint(text)
                self._compile(translate(text) if is_kernel else text, flags, path, is_kernel)
            library = ctypes.CDLL(str(path))
            self._loaded[key] = library
            while len(self._loaded) > MAX_LOADED:
                self._loaded.popitem(last=False)
            return library

    def _key(self, text: str, flags: tuple[str, ...]) -> str:
        parts = [text, *flags, *_FLAGS, _zig()[1], platform.machine(), _cpu(), _own_sources()]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]

    def _compile(self, program: str, flags: tuple[str, ...], path: Path, is_kernel: bool) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as work:
            source, library = Path(work) / "kernel.cpp", Path(work) / "kernel.so"
            source.write_text(program)
            command = [_zig()[0], "c++", *_FLAGS, *flags, f"-I{_HERE}", "-mcpu=native"]
            command += [str(source), "-o", str(library)]
            caches = {name: str(self._folder / "zig") for name in _ZIG_CACHES}
            finished = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env={**os.environ, **caches},
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
            if finished.returncode != 0:
                raise Rejected(finished.stderr.replace(work, "").strip())
            if is_kernel:
                _check_sections(library)
            os.replace(library, path)
        self._forget_old()

    def _forget_old(self) -> None:
        files = sorted(self._folder.glob("*.so"), key=lambda path: path.stat().st_mtime)
        for path in files[: max(0, len(files) - MAX_FILES)]:
            path.unlink(missing_ok=True)


_ZIG_CACHES = ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")


@lru_cache(maxsize=1)
def _own_sources() -> str:
    """The prelude and the machine are part of every library's key."""
    return "".join((_HERE / name).read_text() for name in ("hooks.h", "prelude.h"))


@lru_cache(maxsize=1)
def _cpu() -> str:
    """What ``-mcpu=native`` stands for: a cache may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _check_sections(library: Path) -> None:
    """Reject writable variables: a kernel's program has none but constants."""
    image = library.read_bytes()
    table = struct.unpack_from("<Q", image, 0x28)[0]
    size, count, names = struct.unpack_from("<HHH", image, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", image, table + i * size) for i in range(count)]
    strings = headers[names][4]
    for name, _kind, flags, _address, _offset, length in headers:
        end = image.index(b"\0", strings + name)
        title = image[strings + name : end].decode()
        writable = flags & _SHF_WRITE and flags & _SHF_ALLOC
        if writable and length and title.split(".")[1] in ("data", "bss", "tdata", "tbss"):
            if title.startswith((".data.rel.ro", ".bss.rel.ro")):
                continue
            raise Rejected(f"the program has variables of its own, static or global ({title})")


def constants_of(library: Any) -> tuple[int, int]:
    """Address and bytes of what a loaded library maps: its constants are among it (Linux)."""
    path = os.path.realpath(library._name)
    begin = end = 0
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return 0, 0
    for line in lines:
        if line.endswith(path):
            low, high = (int(part, 16) for part in line.split()[0].split("-"))
            begin, end = min(begin or low, low), max(end, high)
    return begin, end - begin
