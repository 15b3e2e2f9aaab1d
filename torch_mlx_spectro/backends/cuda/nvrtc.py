"""Machine code of CUDA text: compiled by NVRTC through cuda.core, and kept on disk.

A file is named by what it was made from, written whole or not at all, and begins with a digest of
its name and contents. A file that is damaged or renamed, or a folder that cannot be written, costs
a compilation and nothing else. Code that others may write is not run (:mod:`.store.files`). Nothing
of CUDA is imported before the first text is compiled or looked up.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...errors import KernelRefused, find_error_line
from ...store import files as disk

#: Options that every text is compiled with. A product and a sum may become one fused operation (the
#: default), which only rounds less.
OPTIONS: Mapping[str, Any] = MappingProxyType(
    {"std": "c++17", "device_as_default_execution_space": True}
)

_DIGEST_BYTES = hashlib.sha256().digest_size
#: A file has some 100 KB.
_MAX_BYTES = 64 << 20


class CudaProblem(KernelRefused):
    """CUDA code cannot be made or run here; the text says why."""


def nvrtc_version() -> tuple[int, int]:
    """Return the version of the NVRTC that compiles.

    Raises:
        CudaProblem: there is none.
    """
    try:
        importlib.import_module("cuda.core")
        nvrtc = importlib.import_module("cuda.bindings.nvrtc")
        error, major, minor = nvrtc.nvrtcVersion()
    except (ImportError, AttributeError, RuntimeError) as missing:
        raise CudaProblem(
            f"cuda-core with NVRTC is not usable here ({str(missing).partition(chr(10))[0]}); "
            "pip install cuda-core"
        ) from missing
    if int(error) != 0:
        raise CudaProblem(f"NVRTC answers with {error}")
    return int(major), int(minor)


def architectures() -> tuple[int, ...]:
    """List what this NVRTC compiles for, as 10 * major + minor of a compute capability."""
    nvrtc_version()
    nvrtc = importlib.import_module("cuda.bindings.nvrtc")
    _, found = nvrtc.nvrtcGetSupportedArchs()
    return tuple(int(architecture) for architecture in found)


def default_folder() -> Path | None:
    """Return where compiled code is kept; None where the user has no home."""
    folder = disk.cache_folder()
    return None if folder is None else folder / "cuda"


def load_code(text: str, architecture: int, folder: Path | None) -> bytes:
    """Return the machine code of a text for an architecture (90 for sm_90), from disk if there.

    Raises:
        CudaProblem: there is no NVRTC here.
    """
    if folder is None:
        return compile_text(text, architecture)
    key = repr((text, architecture, sorted(OPTIONS.items()), nvrtc_version()))
    name = hashlib.sha256(key.encode()).hexdigest() + ".cubin"
    with disk.open_code_folder(folder) as kept:
        code = None if kept is None else _read(kept, name)
        if code is None:
            code = compile_text(text, architecture)
            if kept is not None:
                with contextlib.suppress(OSError):
                    disk.write_whole(kept.path / name, _digest(name, code) + code)
    return code


def compile_text(text: str, architecture: int) -> bytes:
    """Compile a text, whatever is on disk.

    Raises:
        CudaProblem: NVRTC does not compile it; half of an installation may be missing.
    """
    core = importlib.import_module("cuda.core")
    try:
        options = core.ProgramOptions(arch=f"sm_{architecture}", **OPTIONS)
        code: bytes = core.Program(text, "c++", options).compile("cubin").code
    except Exception as error:  # cuda.core's own, which are of several kinds
        said = find_error_line(error, "error:").strip()
        raise CudaProblem(f"NVRTC does not compile: {said}") from error
    return code


def _read(kept: disk.CodeFolder, name: str) -> bytes | None:
    whole = kept.read(name, _MAX_BYTES) or b""
    digest, code = whole[:_DIGEST_BYTES], whole[_DIGEST_BYTES:]
    return code if code and _digest(name, code) == digest else None


def _digest(name: str, code: bytes) -> bytes:
    return hashlib.sha256(name.encode() + code).digest()
