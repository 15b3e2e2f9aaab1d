"""Compiled libraries as Python sees them: the structs of launch.h, and loading."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Literal

from . import shader
from .errors import EmulatorError

#: One launch at a time in a process: the runtime keeps the launch in its own variables.
RUNNING = threading.Lock()

_LOADING = threading.Lock()
_RUNTIMES: OrderedDict[str, Runtime] = OrderedDict()
#: Names differ only where the sources change while a process runs.
_KEPT = 16

#: In which threads run: between barriers one after the other.
Order = Literal["ascending", "descending"] | tuple[Literal["random"], int]


class Buffer(ctypes.Structure):
    """``Buffer`` of launch.h."""

    _fields_ = (
        ("base", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("kind", ctypes.c_uint32),
        ("granule", ctypes.c_uint32),
        ("written", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("bytes_read", ctypes.c_uint64),
        ("bytes_written", ctypes.c_uint64),
        ("first_unwritten", ctypes.c_int64),
        ("unwritten", ctypes.c_uint64),
    )


class Report(ctypes.Structure):
    """``Report`` of launch.h."""

    _fields_ = (
        ("failure", ctypes.c_uint32),
        ("is_write", ctypes.c_uint32),
        ("space", ctypes.c_uint32),
        ("index", ctypes.c_uint32),
        ("offset", ctypes.c_int64),
        ("bytes", ctypes.c_uint32),
        ("thread", ctypes.c_uint32),
        ("group", ctypes.c_uint32),
        ("other_thread", ctypes.c_uint32),
        ("other_group", ctypes.c_uint32),
        ("other_write", ctypes.c_uint32),
        ("line", ctypes.c_int32),
        ("column", ctypes.c_int32),
        ("other_line", ctypes.c_int32),
        ("other_column", ctypes.c_int32),
        ("address", ctypes.c_uint64),
    )


class LaunchData(ctypes.Structure):
    """``Launch`` of launch.h."""

    _fields_ = (
        ("entry", ctypes.c_void_p),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("buffers", ctypes.POINTER(Buffer)),
        ("n_buffers", ctypes.c_uint32),
        ("order", ctypes.c_uint32),
        ("seed", ctypes.c_uint64),
        ("grid", ctypes.c_uint32 * 3),
        ("group", ctypes.c_uint32 * 3),
        ("checked", ctypes.c_uint32),
        ("flush", ctypes.c_uint32),
        ("threadgroup_limit", ctypes.c_uint32),
        ("image", ctypes.c_void_p),
        ("image_end", ctypes.c_void_p),
        ("threads_run", ctypes.c_uint64),
        ("threadgroup_bytes", ctypes.c_uint64),
        ("barriers", ctypes.c_uint64),
        ("simd_barriers", ctypes.c_uint64),
        ("report", Report),
    )


class Runtime:
    """runtime.cpp, loaded. Kernels' libraries find it by the name that they were linked with."""

    def __init__(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            # The mathematics that kernels call; Python itself may be linked without it.
            ctypes.CDLL("libm.so.6", mode=ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(str(path))
        self._library.mtl_run.argtypes = [ctypes.POINTER(LaunchData)]
        self._library.mtl_run.restype = ctypes.c_uint32
        self._library.mtl_size.argtypes = [ctypes.c_uint32]
        self._library.mtl_size.restype = ctypes.c_uint64
        for which, struct in enumerate((LaunchData, Buffer, Report)):
            if self._library.mtl_size(which) != ctypes.sizeof(struct):
                raise EmulatorError(f"{path}: {struct.__name__} has another layout")

    def run(self, launch: LaunchData) -> int:
        """Run a launch; returns its failure, 0 for none. The GIL is free meanwhile."""
        return int(self._library.mtl_run(ctypes.byref(launch)))


def load_runtime(path: Path) -> Runtime:
    """Load the runtime at ``path``, or return one of the same name that is loaded already.

    The loader finds libraries by name: kernels of a second cache folder use the first folder's
    runtime.
    """
    with _LOADING:
        runtime = _RUNTIMES.get(path.name)
        if runtime is None:
            runtime = _RUNTIMES[path.name] = Runtime(path)
            while len(_RUNTIMES) > _KEPT:
                _RUNTIMES.popitem(last=False)
        return runtime


class KernelLibrary:
    """A kernel's library, loaded.

    Args:
        path: the file.
        arrays: names of its threadgroup variables.
        buffers: of a shader: what its parameters say.
    """

    def __init__(
        self, path: Path, arrays: tuple[str, ...], buffers: tuple[shader.Buffer, ...] = ()
    ) -> None:
        self.arrays = arrays
        self.buffers = buffers
        self._library = ctypes.CDLL(str(path))
        self.entry = self._address("mtl_entry")
        self.image = self._address("mtl_image")
        self.image_end = self._address("mtl_image_end")

    def _address(self, name: str) -> int:
        symbol = getattr(self._library, name)
        if name == "mtl_entry":
            return ctypes.cast(symbol, ctypes.c_void_p).value or 0
        symbol.restype = ctypes.c_void_p
        return int(symbol())
