"""What Metal makes of the kernels: their texts as files, and what each compiled one allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..emulator.capture import Capture
from ..errors import KernelRefused, Problem
from ..kernels.arguments import OUTPUTS
from ..kernels.launches import Launch
from ..kernels.texts.mps import write_text
from ..kernels.variants import list_usual_variants, list_variants
from ..mlx import runtime
from ..mlx.launcher import MetalKernels
from ..native import private_state as torch_state

#: Seconds after which no further kernel is compiled for the usual table.
SECONDS = 30.0
#: What MLX puts before a text; the header is in its wheels, below ``include``.
MLX_BEGIN = '#include "mlx/backend/metal/kernels/utils.h"\n'


def examine_pipelines(
    every: bool = False, clock: Callable[[], float] = time.perf_counter
) -> list[dict[str, Any]]:
    """Compile kernels by torch, and read what each allows; nothing where torch has no MPS.

    Args:
        every: all variants, without a limit of time. Otherwise a few that programs usually need.

    Returns:
        For each kernel its ``name``, ``group`` (threads that a launch has), ``allowed`` (the most
        that Metal allows), ``width`` (of a SIMD group), ``seconds`` of compilation, and ``error``:
        why Metal refuses it, else empty.
    """
    is_there = torch_state.mps_is_emulated() or torch.backends.mps.is_available()
    if not is_there or not hasattr(torch.mps, "compile_shader"):
        return []
    return list(_compile(list_variants() if every else list_usual_variants(), every, clock))


def _compile(
    variants: Mapping[str, Launch], every: bool, clock: Callable[[], float]
) -> Iterator[dict[str, Any]]:
    begun = clock()
    for name, launch in variants.items():
        begin = clock()
        if not every and begin - begun > SECONDS:
            return
        found = {"allowed": 0, "width": 0, "error": ""}
        try:
            library = torch.mps.compile_shader(write_text(launch.kernel, launch.template))
            kernel = getattr(library, f"spectro_{launch.kernel}")
            found["allowed"] = int(kernel.max_threads_per_threadgroup)
            found["width"] = int(kernel.thread_execution_width)
        except (SyntaxError, RuntimeError, KernelRefused) as error:
            found["error"] = f"{type(error).__name__}: {error}"
        group, seconds = launch.threadgroup[0], clock() - begin
        yield {"name": name, "group": group, "seconds": seconds, **found}


def write_kernels(folder: Path) -> int:
    """Write each variant's exact text, as torch and as MLX would hand it to Metal's compiler.

    The files of MLX include what MLX puts before a text from the headers in its wheel. Where there
    is no MLX, torch's alone are written.

    Returns:
        How many files were written.

    Raises:
        Problem: the folder cannot be written.
    """
    texts = {
        f"torch-{name}.metal": write_text(launch.kernel, launch.template)
        for name, launch in list_variants().items()
    }
    if runtime.unavailable_reason() is None:
        texts |= dict(_list_mlx_texts())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="ascii")
    except OSError as error:
        raise Problem(f"the kernels cannot be written: {error}") from None
    return len(texts)


def _list_mlx_texts() -> Iterator[tuple[str, str]]:
    """Yield the texts that MLX generates. Its windows are whole, and there is always one."""
    mx = runtime.runtime().mx
    kernels = MetalKernels(mx, _find_real(mx.fast.metal_kernel))
    captures: dict[str, Capture] = {}
    for name, launch in list_variants().items():
        flags = dict(launch.template)
        if flags["WINDOW"] != 1:
            continue
        kernel = launch.kernel
        if kernel not in captures:
            captures[kernel] = Capture(mx, kernels.make_kernel(launch))
        call = {
            "template": list(launch.template),
            "grid": launch.grid,
            "threadgroup": launch.threadgroup,
            "output_shapes": [launch.shape] * len(OUTPUTS[kernel]),
            "output_dtypes": [mx.complex64 if launch.complex_output else mx.float32],
        }
        given = kernels.list_inputs(launch, *_make_inputs(mx, launch))
        captured = captures[kernel]([mx.array(value) for value in given], call)
        yield f"mlx-{name}.metal", MLX_BEGIN + captured.text


def _find_real(factory: Any) -> Any:
    """Return MLX's own function where an emulator has taken its place."""
    owner = getattr(factory, "__self__", None)
    return getattr(owner, "_real", factory)


def _make_inputs(mx: Any, launch: Launch) -> tuple[Any, Any]:
    """Make an input and a window of a launch's kinds; nobody reads them."""
    flags = dict(launch.template)
    is_spectrum = launch.kernel in ("synthesis", "synthesis_walk")
    is_complex = is_spectrum or bool(flags.get("COMPLEX_SIGNAL"))
    shape = (4, 4, 4) if is_spectrum else (4, 4)
    first = mx.zeros(shape, mx.complex64 if is_complex else mx.float32)
    window = mx.zeros((16,), mx.complex64 if flags.get("COMPLEX_WINDOW") else mx.float32)
    return first, window
