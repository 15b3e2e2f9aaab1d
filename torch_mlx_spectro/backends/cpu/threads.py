"""Work that torch's own threads share, each taking the next part when it has done one.

Torch's operations on a block share their work among threads that wait for each other at the end of
each operation, several times a block. Where other programs keep the cores busy, each such wait is
for whichever thread the system has put aside. Here threads wait for each other once a call.

The threads are those of torch's OpenMP library, so that they are as many as the program has told
torch to use, and ready when torch's are. Within a team of OpenMP's, torch and MKL compute with one
thread each: neither setting of the program is touched. A forked child is as well off as natively.
Where torch has no such library (macOS, Windows), torch shares the work on each part as ever.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch

Part = TypeVar("Part")


@lru_cache(maxsize=1)
def find_team() -> Callable[[Callable[[Any], None], int], None] | None:
    """What calls a function in each of so many threads: ``GOMP_parallel`` of torch's OpenMP.

    GNU's library has it, and so have LLVM's and Intel's on Linux. None where torch has another.
    """
    if sys.platform != "linux" or "backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        loaded = ctypes.CDLL(str(library), mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        parallel: Any = loaded.GOMP_parallel
    except (OSError, AttributeError):
        return None
    in_c = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    parallel.restype = None
    parallel.argtypes = (in_c, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    return lambda function, threads: parallel(in_c(function), None, threads, 0)


def share(parts: Sequence[Part], work: Callable[[Part], None]) -> None:
    """Do the work on all parts, in no order, by as many threads as torch has.

    Args:
        work: differentiates nothing.
    """
    team, threads = find_team(), min(torch.get_num_threads(), len(parts))
    if team is None or threads < 2:
        for part in parts:
            work(part)
        return
    left = iter(parts)
    errors: list[BaseException] = []
    has_ended = False
    caller, is_inference = threading.get_ident(), torch.is_inference_mode_enabled()

    def take(_: Any) -> None:
        nonlocal has_ended
        try:
            # Of a thread's modes this one alone matters: without it the caller's tensors may
            # not be written. The caller itself, whom an interrupt may stop anywhere, changes none.
            is_caller = threading.get_ident() == caller
            with nullcontext() if is_caller else torch.inference_mode(is_inference):
                for part in left:
                    work(part)
                    if errors:
                        break
            has_ended |= is_caller
        except BaseException as error:  # raised where the caller sees it
            errors.append(error)

    team(take, threads)
    if errors:
        raise errors[0]
    if not has_ended:
        # An interrupt of the caller between the C function and the first line is only reported;
        # meanwhile another thread may have done all parts.
        raise KeyboardInterrupt
