"""Transforms of real frames by the MKL within torch, with plans that are kept, into place.

``torch.fft`` makes a plan anew in each call, and a result in memory of its own, which ``out=``
copies. On 16 cores of a Xeon that made half of an stft's time. Where torch shows MKL's functions,
as its packages for Linux on x86-64 do, they are called here. The bits are those of ``torch.fft``,
which computes whatever is refused here.

The functions and their numbers are those of Intel's "oneMKL Developer Reference for C", chapter
"Fourier Transform Functions". Threads may use one plan at the same time.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...store.caches import Cache

#: Plans that are kept; each is some tens of KiB.
MAX_PLANS = 64
#: Frames of a row below which rows that lie apart are left to torch, which takes all at once.
FEW_FRAMES = 16

# Parameters of a plan, and their values.
(BACKWARD_SCALE, TRANSFORMS, CONJUGATE_EVEN_STORAGE, PLACEMENT) = (5, 7, 10, 11)
(INPUT_DISTANCE, OUTPUT_DISTANCE, THREAD_LIMIT, DESTROY_INPUT) = (14, 15, 27, 28)
(REAL, COMPLEX_COMPLEX, NOT_INPLACE, AVOID) = (33, 39, 44, 52)


class Mkl(NamedTuple):
    """MKL's functions: one that creates a plan for each dtype of real frames, and the others."""

    create: dict[torch.dtype, Any]
    set_value: Any
    commit: Any
    forward: Any
    backward: Any
    free: Any


@lru_cache(maxsize=1)
def find_mkl() -> Mkl | None:
    """The functions in the library that torch has loaded; None where it shows none."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    handle = ctypes.c_void_p
    try:
        library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        single, double = library.DftiCreateDescriptor_s_1d, library.DftiCreateDescriptor_d_1d
        found = Mkl(
            {torch.float32: single, torch.float64: double},
            library.DftiSetValue,
            library.DftiCommitDescriptor,
            library.DftiComputeForward,
            library.DftiComputeBackward,
            library.DftiFreeDescriptor,
        )
    except (OSError, AttributeError):
        return None
    for create in found.create.values():
        create.argtypes = (ctypes.POINTER(handle), ctypes.c_int, ctypes.c_long)
    found.set_value.argtypes = (handle, ctypes.c_int)
    found.commit.argtypes = (handle,)
    found.forward.argtypes = found.backward.argtypes = (handle, handle, handle)
    found.free.argtypes = (ctypes.POINTER(handle),)
    for function in (*found.create.values(), *found[1:]):
        function.restype = ctypes.c_long
    return found


class Kind(NamedTuple):
    """What a plan is made for.

    Attributes:
        dtype: of the frames.
        batch: frames that are transformed at once.
        distances: values from frame to frame, and from spectrum to spectrum.
        is_inverse: spectra become frames.
        threads: that share the frames, at most.
    """

    dtype: torch.dtype
    n_fft: int
    batch: int
    distances: tuple[int, int]
    is_inverse: bool
    threads: int


class MklError(Exception):
    """MKL makes or runs no such plan; torch then tells why, or does without."""


class MklPlan:
    """A plan, which is freed when nobody holds it any more.

    Raises:
        MklError: there can be no such plan.
    """

    _handle: ctypes.c_void_p | None = None

    def __init__(self, mkl: Mkl, kind: Kind) -> None:
        self._mkl, self._handle = mkl, ctypes.c_void_p()
        self._compute = mkl.backward if kind.is_inverse else mkl.forward
        _check(mkl.create[kind.dtype](ctypes.byref(self._handle), REAL, kind.n_fft))
        source, target = reversed(kind.distances) if kind.is_inverse else kind.distances
        for parameter, value in (
            (PLACEMENT, ctypes.c_int(NOT_INPLACE)),
            (CONJUGATE_EVEN_STORAGE, ctypes.c_int(COMPLEX_COMPLEX)),
            (DESTROY_INPUT, ctypes.c_int(AVOID)),
            (TRANSFORMS, ctypes.c_long(kind.batch)),
            (INPUT_DISTANCE, ctypes.c_long(source)),
            (OUTPUT_DISTANCE, ctypes.c_long(target)),
            (THREAD_LIMIT, ctypes.c_long(kind.threads)),
            (BACKWARD_SCALE, ctypes.c_double(1.0 / kind.n_fft)),
        ):
            _check(mkl.set_value(self._handle, parameter, value))
        _check(mkl.commit(self._handle))

    def run(self, source: int, target: int) -> None:
        """Transform what lies at one address to another.

        Raises:
            MklError: it failed, for example for want of memory.
        """
        _check(self._compute(self._handle, source, target))

    def __del__(self) -> None:
        if self._handle:
            self._mkl.free(ctypes.byref(self._handle))


def _check(status: int) -> None:
    if status:
        raise MklError(status)


_plans: Cache[Kind, MklPlan] = Cache(MAX_PLANS)


def transform(frames: torch.Tensor, out: torch.Tensor) -> bool:
    """Write the onesided spectra of real frames; whether that could be done.

    Args:
        frames: shape (rows, frames, n_fft).
        out: shape (rows, frames, bins).
    """
    return _run(frames, out, is_inverse=False)


def invert(spectra: torch.Tensor, out: torch.Tensor) -> bool:
    """Write the inverse transforms of onesided spectra, as ``torch.fft.irfft`` computes them.

    Args:
        spectra: shape (rows, frames, bins); their conjugate and negative bits are not read.
        out: shape (rows, frames, n_fft).

    Returns:
        Whether that could be done.
    """
    return _run(out, spectra, is_inverse=True)


def _run(frames: torch.Tensor, spectra: torch.Tensor, *, is_inverse: bool) -> bool:
    """Transform frames to spectra or back; whether that could be done."""
    mkl = find_mkl()
    if mkl is None or frames.dtype not in mkl.create or spectra.dtype.to_real() != frames.dtype:
        return False
    rows, count, n_fft = frames.shape
    if not (rows and count) or frames.stride(2) != 1 or spectra.stride(2) != 1:
        return False
    distances = (frames.stride(1), spectra.stride(1))
    if rows == 1 or (frames.stride(0), spectra.stride(0)) == (
        count * distances[0],
        count * distances[1],
    ):
        rows, count = 1, rows * count
    elif count < FEW_FRAMES:
        return False
    kind = Kind(frames.dtype, n_fft, count, distances, is_inverse, torch.get_num_threads())
    tensors = (spectra, frames) if is_inverse else (frames, spectra)
    (source, source_row), (target, target_row) = (
        (one.data_ptr(), one.stride(0) * one.itemsize) for one in tensors
    )
    try:
        plan = _plans.get(kind, lambda: MklPlan(mkl, kind))
        for row in range(rows):
            plan.run(source + row * source_row, target + row * target_row)
    except MklError:
        return False
    return True
