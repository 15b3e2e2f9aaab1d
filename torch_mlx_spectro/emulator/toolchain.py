"""clang and lld of the PyPI package ziglang, called directly, without zig's driver and its cache.

``zig clang`` starts in about 10 ms and knows nothing of libc; headers for the runtime come from
the package.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from . import standard
from .errors import EmulatorError, Unavailable

RUNTIME = Path(__file__).parent / "runtime"
_TIMEOUT_S = 300

#: Extensions of OpenCL that stand for things that Metal has (half) and has not (double).
_EXTENSIONS = "-cl_khr_fp64,-__opencl_c_fp64,+cl_khr_fp16"

#: Fused multiply-add and half conversions in hardware, where the CPU has them.
_X86_FEATURES = ("avx2", "bmi2", "f16c", "fma")


@dataclass(frozen=True)
class Toolchain:
    """A compiler for this machine.

    Args:
        zig: the program.
        target: LLVM's name of this machine.
        features: flags that choose the CPU's instructions.
        version: of ziglang.
    """

    zig: Path
    target: str
    features: tuple[str, ...]
    version: str

    @property
    def common(self) -> tuple[str, ...]:
        """The flags of every compilation; the front end has others for sums (arithmetic.py)."""
        return (
            *("-target", self.target, *self.features, "-fPIC", "-fvisibility=hidden"),
            *("-ffp-contract=off", "-fno-math-errno", "-fno-color-diagnostics"),
            "-ferror-limit=10",
        )

    @property
    def metal(self) -> tuple[str, ...]:
        """The flags for a kernel: Metal's literals are float, its address spaces OpenCL's."""
        return (
            *("-x", "clcpp", "-cl-std=clc++2021", "-cl-no-stdinc", "-nostdinc"),
            *("-cl-single-precision-constant", "-Xclang", f"-cl-ext={_EXTENSIONS}"),
            # Touches every page of a large frame, so that it cannot step over the guard.
            *("-O1", *self.common, "-fstack-clash-protection"),
            *("-Wno-unknown-attributes", "-Wno-unused-value", "-Wno-unknown-pragmas"),
            *("-include", str(RUNTIME / "prelude.h")),
        )

    @property
    def standard(self) -> tuple[str, ...]:
        """The flags for reading a kernel as strict C++14."""
        return (
            *standard.FLAGS,
            *("-target", self.target, "-fno-color-diagnostics", "-ferror-limit=100"),
            *("-include", str(RUNTIME / "prelude.h")),
        )

    @property
    def identity(self) -> str:
        """Return a text that changes with whatever changes the result of a compilation."""
        parts = [self.version, self.target, *self.features, *self.metal[:-1], *self.standard[:-1]]
        parts.append(sources_digest())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def call(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run zig.

        Raises:
            EmulatorError: it cannot be run.
        """
        try:
            return subprocess.run(
                [str(self.zig), *arguments],
                cwd=cwd,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EmulatorError(f"{self.zig}: {error}") from error

    def link(self, objects: Sequence[str], output: str, soname: str, cwd: Path) -> None:
        """Make a shared library; what is undefined is found when it is loaded.

        Raises:
            EmulatorError: the linker fails.
        """
        done = self.call(
            *("ld.lld", "-shared", "-soname", soname, "-z", "noexecstack", *objects, "-o", output),
            cwd=cwd,
        )
        if done.returncode != 0:
            raise EmulatorError(f"linking {output} failed: {done.stderr.strip()}")

    def compile_runtime(self, output: Path, soname: str, cwd: Path) -> None:
        """Compile and link runtime.cpp.

        Args:
            output: relative to ``cwd``, which may be named by a descriptor that zig does not have.

        Raises:
            EmulatorError: it does not compile.
        """
        library = self.zig.parent / "lib"
        libc = library / "libc" / "include"
        machine = self.target.split("-")[0]
        family = "x86" if machine == "x86_64" else machine
        folders = [f"{family}-linux-gnu", f"{machine}-linux-gnu", "generic-glibc"]
        folders += [f"{family}-linux-any", "any-linux-any"]
        includes = [library / "include", *(libc / folder for folder in folders)]
        done = self.call(
            *("clang", *self.common, "-std=c++17", "-O2", "-fno-exceptions", "-fno-rtti"),
            *("-fno-threadsafe-statics", "-nostdlibinc", "-D__GLIBC__=2", "-D__GLIBC_MINOR__=28"),
            *(part for folder in includes for part in ("-isystem", str(folder))),
            *("-c", str(RUNTIME / "runtime.cpp"), "-o", "runtime.o"),
            cwd=cwd,
        )
        if done.returncode != 0:
            raise EmulatorError(f"the emulator's runtime does not compile: {done.stderr.strip()}")
        self.link(["runtime.o"], str(output), soname, cwd)


def sources_digest() -> str:
    """Digest of the C++ sources and of the modules that write text for clang."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in sorted([*RUNTIME.glob("*.*"), *here.glob("*.py")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _features(machine: str) -> tuple[str, ...]:
    if machine != "x86_64":
        return ()  # every aarch64 has fused multiply-add
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    features = set(match[1].split()) if match else set()
    return tuple(f"-m{name}" for name in _X86_FEATURES) if features >= set(_X86_FEATURES) else ()


def reason_unavailable() -> str | None:
    """None where kernels can be compiled and run, else why not."""
    if not sys.platform.startswith("linux"):
        return "the Metal emulator runs on Linux"
    if platform.machine() not in {"x86_64", "aarch64"}:
        return f"the Metal emulator knows no machine {platform.machine()}"
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        return "the PyPI package ziglang (clang) is not installed"
    if not (Path(spec.origin).parent / "zig").is_file():
        return "ziglang is installed without its program"
    if importlib.util.find_spec("platformdirs") is None:
        return "the PyPI package platformdirs is not installed"
    if importlib.util.find_spec("mlx") is None:
        return "MLX is not installed"
    return None


@lru_cache(maxsize=1)
def toolchain() -> Toolchain:
    """The compiler.

    Raises:
        Unavailable: there is none.
    """
    reason = reason_unavailable()
    if reason is not None:
        raise Unavailable(reason)
    spec = importlib.util.find_spec("ziglang")
    assert spec is not None
    assert spec.origin is not None
    machine = platform.machine()
    return Toolchain(
        zig=Path(spec.origin).parent / "zig",
        target=f"{machine}-unknown-linux-gnu",
        features=_features(machine),
        version=importlib.metadata.version("ziglang"),
    )
