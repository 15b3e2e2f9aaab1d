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
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from ..store import files as disk
from . import arithmetic, calls, comparisons, lint, shader, standard, translate, words
from .arithmetic import AS_METAL, Arithmetic
from .errors import EmulatorError, Rejected
from .function_arguments import deduce_function_parameters
from .library import KernelLibrary, Runtime, load_runtime
from .toolchain import RUNTIME, Toolchain, sources_digest, toolchain

#: On disk; a library is 10 to 200 KB.
CACHE_FILES = 6000
CACHE_BYTES = 400 << 20
#: Loaded at a time.
LOADED = 512
_FACTS_BYTES = 1 << 20

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


def default_cache_dir() -> Path | None:
    """Return the default folder of compiled kernels; None where the user has no home."""
    folder = disk.cache_folder()
    return None if folder is None else folder / "emulator"


@dataclass(frozen=True)
class Request:
    """What to compile: the text (transformed or not), the kernel's name, and how.

    Attributes:
        is_shader: it is of ``torch.mps.compile_shader``, not MLX's.
        arithmetic: how its kernels round.
    """

    text: str
    name: str
    checked: bool
    is_shader: bool = False
    arithmetic: Arithmetic = AS_METAL

    def key(self, tools: Toolchain) -> str:
        how = (self.checked, self.is_shader, self.arithmetic)
        parts = (tools.identity, self.name, str(how), self.text)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


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
        """Translate, compile and link into ``work``.

        Returns:
            The threadgroup variables' names, and what a shader's buffers are.
        """
        tools = self._tools
        words.check_ascii(request.text)
        buffers: list[shader.Buffer] = []
        if request.is_shader:
            tokens = translate.tokenize(self._preprocess(request, work))
            tokens = shader.without_others(tokens, request.name)
            signature, buffers = shader.signature(tokens, request.name)
        else:
            signature = translate.signature(request.text, request.name)
            tokens = translate.tokenize(self._preprocess(request, work))
        words.check(tokens)
        lint.check(tokens, request.name)
        end = translate.entry(signature) + _IMAGE
        self._read(
            request,
            work,
            translate.rewrite(tokens, request.name) + end,
            translate.rewrite(deduce_function_parameters(tokens), request.name) + end,
        )
        sanitize = ["-fsanitize=thread"] if request.checked else []
        instrument = ["-mllvm", "-tsan-instrument-read-before-write=1"] if request.checked else []
        self._clang(
            request,
            work,
            *("-x", "ir", "-O1", *tools.common, *sanitize, *instrument),
            *("-c", "kernel.ll", "-o", "kernel.o"),
        )
        runtime = os.path.join(os.pardir, self._runtime_name())  # zig inherits no descriptors
        tools.link(["kernel.o", runtime], "kernel.so", "kernel.so", work)
        return {
            "arrays": translate.array_names(tokens, request.name),
            "buffers": [astuple(buffer) for buffer in buffers],
        }

    def _preprocess(self, request: Request, work: Path) -> str:
        text = lint.without_standard_includes(translate.without_instantiation(request.text))
        text = arithmetic.spell_pragmas(text)
        (work / "metal").write_text(text, encoding="utf-8")
        return self._clang(
            request,
            work,
            *("-x", "c++", "-E", "-undef", "-nostdinc", "-D__METAL__=1"),
            *("-D__METAL_VERSION__=310", "-D__HAVE_BFLOAT__=0", "metal"),
        )

    def _read(self, request: Request, work: Path, *texts: str) -> None:
        """Let clang read a text in both ways, with Metal's meaning of comparisons of vectors."""
        while True:
            ir, refusal = "", None
            try:
                ir = self._read_once(request, work, *texts)
            except Rejected as error:
                refusal = error
            if refusal is None and not comparisons.has_vector_comparisons(ir):
                break
            changed = self._wrap_comparisons(request, work, *texts)
            if changed == texts:
                if refusal is not None:
                    raise refusal
                break
            texts = changed  # of which clang may now understand more
        calls.check(ir, request.name)
        (work / "kernel.ll").write_text(arithmetic.fuse(ir), encoding="utf-8")

    def _read_once(self, request: Request, work: Path, strict: str, text: str) -> str:
        """Read a text as C++14, and another spelling of it as C++ for OpenCL; returns LLVM's."""
        (work / "kernel.cpp").write_text(strict, encoding="utf-8")
        done = self._tools.call("clang", *self._tools.standard, "kernel.cpp", cwd=work)
        errors = standard.list_errors(done.stderr)
        if errors:
            message = "\n".join(errors).replace(str(RUNTIME) + os.sep, "")
            raise Rejected(f"{request.name}: as C++14: {message}")
        (work / "kernel.cpp").write_text(text, encoding="utf-8")
        self._clang(
            request,
            work,
            *(*self._tools.metal, *request.arithmetic.flags),
            *(["-fsanitize=thread"] if request.checked else []),
            *("-Xclang", "-disable-llvm-passes", "-emit-llvm", "-S"),
            *("kernel.cpp", "-o", "kernel.ll"),
        )
        return (work / "kernel.ll").read_text(encoding="utf-8")

    def _wrap_comparisons(self, request: Request, work: Path, *texts: str) -> tuple[str, ...]:
        changed = []
        for text in texts:
            (work / "kernel.cpp").write_text(text, encoding="utf-8")
            flags = (*self._tools.metal, "-fsyntax-only", "-Xclang", "-ast-dump=json")
            done = self._tools.call("clang", *flags, "kernel.cpp", cwd=work)
            try:
                changed.append(comparisons.wrap(text, done.stdout))
            except Rejected as error:
                raise Rejected(f"{request.name}: {error}") from error
        return tuple(changed)

    def _clang(self, request: Request, work: Path, *arguments: str) -> str:
        done = self._tools.call("clang", *arguments, cwd=work)
        if done.returncode != 0:
            message = done.stderr.replace(str(RUNTIME) + os.sep, "")
            raise Rejected(f"{request.name}: {message.strip()}")
        return done.stdout


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
