"""From a text to a loaded library, by way of a cache on disk that processes share."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
from collections import OrderedDict
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from . import calls, lint, shader, translate
from .errors import Rejected
from .library import KernelLibrary, Runtime, load_runtime
from .toolchain import RUNTIME, Toolchain, sources_digest, toolchain

#: On disk; a library is 10 to 200 KB.
CACHE_FILES = 6000
CACHE_BYTES = 400 << 20
#: Loaded at a time.
LOADED = 512

# Where the library's own constants are: linker symbols.
_IMAGE = """
# 1 "image"
extern "C" {
extern __attribute__((visibility("hidden"))) const char __ehdr_start[];
extern __attribute__((visibility("hidden"))) const char _end[];
__attribute__((visibility("default"))) const void* mtl_image() {
  return (const void*)__ehdr_start;
}
__attribute__((visibility("default"))) const void* mtl_image_end() {
  return (const void*)_end;
}
}
"""


def default_cache_dir() -> Path:
    """Where compiled kernels are kept unless the machine is told otherwise."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("torch-mlx-spectro")) / "emulator"


@dataclass(frozen=True)
class Request:
    """What to compile: the text (transformed or not), the kernel's name, and how.

    Attributes:
        is_shader: it is of ``torch.mps.compile_shader``, not MLX's.
    """

    text: str
    name: str
    checked: bool
    is_shader: bool = False

    def key(self, tools: Toolchain) -> str:
        parts = (tools.identity, self.name, str(self.checked), str(self.is_shader), self.text)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


class Compiler:
    """Compiles each text once; the results are shared by all processes with the same cache.

    Args:
        cache_dir: a folder; made if missing.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._folder = cache_dir
        self._tools = toolchain()
        self._loaded: OrderedDict[str, KernelLibrary] = OrderedDict()
        self._lock = threading.Lock()
        self.compilations = 0

    def runtime(self) -> Runtime:
        """The runtime, compiled if this cache has none."""
        name = f"libmtl-{self._runtime_key()}.so"
        path = self._folder / name
        if not path.is_file():
            with self._workplace() as work:
                self._tools.compile_runtime(work / name, name, work)
                os.replace(work / name, path)
        return load_runtime(path)

    def load(self, request: Request) -> KernelLibrary:
        """The library of a kernel. The runtime must have been loaded before.

        Raises:
            Rejected: Metal's compiler would refuse the text.
        """
        key = request.key(self._tools)
        with self._lock:
            library = self._loaded.get(key)
            if library is None:
                facts = self._stored(key) or self._compile(request, key)
                if "rejected" in facts:
                    raise Rejected(facts["rejected"])
                library = KernelLibrary(
                    self._folder / f"{key}.so",
                    tuple(facts["arrays"]),
                    tuple(shader.Buffer(*buffer) for buffer in facts["buffers"]),
                )
                self._loaded[key] = library
            self._loaded.move_to_end(key)
            while len(self._loaded) > LOADED:
                self._loaded.popitem(last=False)
            return library

    def _runtime_key(self) -> str:
        return hashlib.sha256((self._tools.identity + sources_digest()).encode()).hexdigest()[:16]

    def _stored(self, key: str) -> dict[str, Any] | None:
        """Facts of a compiled kernel, if both of its files are there."""
        path = self._folder / f"{key}.json"
        try:
            facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            os.utime(path)
            if "rejected" not in facts:
                os.utime(self._folder / f"{key}.so")
        except (OSError, ValueError):
            return None
        return facts

    def _compile(self, request: Request, key: str) -> dict[str, Any]:
        self.compilations += 1
        facts: dict[str, Any]
        with self._workplace() as work:
            try:
                facts = self._build(request, work)
                os.replace(work / "kernel.so", self._folder / f"{key}.so")
            except Rejected as error:
                facts = {"rejected": str(error)}
            # Last, since it says that the library is there.
            (work / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
            os.replace(work / "facts.json", self._folder / f"{key}.json")
        self._evict()
        return facts

    def _build(self, request: Request, work: Path) -> dict[str, Any]:
        """Translate, compile and link into ``work``.

        Returns:
            The threadgroup variables' names, and what a shader's buffers are.
        """
        tools = self._tools
        buffers: list[shader.Buffer] = []
        if request.is_shader:
            tokens = translate.tokenize(self._preprocess(request, work))
            tokens = shader.without_others(tokens, request.name)
            signature, buffers = shader.signature(tokens, request.name)
        else:
            signature = translate.signature(request.text, request.name)
            tokens = translate.tokenize(self._preprocess(request, work))
        lint.check(tokens, request.name)
        text = translate.rewrite(tokens, request.name) + translate.entry(signature) + _IMAGE
        (work / "kernel.cpp").write_text(text, encoding="utf-8")
        sanitize = ["-fsanitize=thread"] if request.checked else []
        self._clang(
            request,
            work,
            *(*tools.metal, *sanitize, "-Xclang", "-disable-llvm-passes", "-emit-llvm", "-S"),
            *("kernel.cpp", "-o", "kernel.ll"),
        )
        calls.check((work / "kernel.ll").read_text(encoding="utf-8"), request.name)
        instrument = ["-mllvm", "-tsan-instrument-read-before-write=1"] if request.checked else []
        self._clang(
            request,
            work,
            *("-x", "ir", "-O1", *tools.common, *sanitize, *instrument),
            *("-c", "kernel.ll", "-o", "kernel.o"),
        )
        runtime = self._folder / f"libmtl-{self._runtime_key()}.so"
        tools.link(["kernel.o", str(runtime)], "kernel.so", "kernel.so", work)
        return {
            "arrays": translate.array_names(tokens, request.name),
            "buffers": [astuple(buffer) for buffer in buffers],
        }

    def _preprocess(self, request: Request, work: Path) -> str:
        text = lint.without_standard_includes(translate.without_instantiation(request.text))
        (work / "metal").write_text(text, encoding="utf-8")
        return self._clang(
            request,
            work,
            *("-x", "c++", "-E", "-undef", "-nostdinc", "-D__METAL__=1"),
            *("-D__METAL_VERSION__=310", "-D__HAVE_BFLOAT__=0", "metal"),
        )

    def _clang(self, request: Request, work: Path, *arguments: str) -> str:
        done = self._tools.call("clang", *arguments, cwd=work)
        if done.returncode != 0:
            message = done.stderr.replace(str(RUNTIME) + os.sep, "")
            raise Rejected(f"{request.name}: {message.strip()}")
        return done.stdout

    @contextlib.contextmanager
    def _workplace(self) -> Any:
        """A folder beside the cache's files, so that a finished file is moved in one step."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="work-", dir=self._folder) as work:
            yield Path(work)

    def _evict(self) -> None:
        """Remove the files that were used longest ago, beyond the cache's bounds."""
        entries = []
        for path in self._folder.glob("*.[js]*"):
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
