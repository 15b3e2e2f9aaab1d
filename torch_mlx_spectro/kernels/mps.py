"""The launcher for MPS: kernels on torch tensors, encoded into torch's own stream.

A variant is compiled once, by ``torch.mps.compile_shader``. A GPU may allow a compiled kernel fewer
threads than a plan asks for: then the next plan is taken. Nothing here waits for the device.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from .describe import MAX_COUNT, Launch
from .mps_text import Variant, arguments_of, text_of, variant_of
from .plans import FftPlan
from .preparing import Preparation
from .tables import table_of
from .tensors import TensorKernels, result_of

CACHE_ENTRIES = 1024


class MpsProblem(RuntimeError):
    """Metal does not compile a kernel, or runs it by no plan."""


@dataclass(frozen=True)
class _Ready:
    """A launch that the GPU accepts, and its kernel."""

    launch: Launch
    kernel: Callable[..., None]
    names: tuple[str, ...]
    group: tuple[int, ...]
    integers: list[int]
    table: torch.Tensor | None


class MpsKernels(TensorKernels):
    """The kernels on MPS tensors.

    Args:
        compile_shader: ``torch.mps.compile_shader``, or what stands in for it.
    """

    def __init__(self, compile_shader: Callable[[str], Any]) -> None:
        self._compile_shader = compile_shader
        self._kernels: OrderedDict[Variant, Any] = OrderedDict()
        #: By the best of the launches: that one, and which is ready, or why none is.
        self._ready: OrderedDict[tuple[int, torch.device], tuple[Launch, _Ready | str]]
        self._ready = OrderedDict()
        self._tables: OrderedDict[tuple[FftPlan, torch.device], torch.Tensor] = OrderedDict()
        self._lock = threading.RLock()

    def refusal(self, launches: Sequence[Launch], device: torch.device) -> str | None:
        """Why none of these launches can be made here; None where one can. Compiles."""
        try:
            self._made_ready(launches, device)
        except MpsProblem as problem:
            return str(problem)
        return None

    def _run(
        self,
        launches: Sequence[Launch],
        first: torch.Tensor,
        *others: torch.Tensor,
        edge: float = 1.0,
    ) -> torch.Tensor:
        ready = self._made_ready(launches, first.device)
        result = result_of(ready.launch, first.device)
        if result.numel() == 0:
            return result  # Metal launches no empty grid
        known = {
            "strides": list(first.stride()),
            "table": ready.table,
            "parameters": ready.integers,
            "edge": float(edge),
        }
        tensors = iter((first, *others, result))
        arguments = [known[name] if name in known else next(tensors) for name in ready.names]
        ready.kernel(*arguments, threads=ready.launch.grid, group_size=ready.group)
        return result

    def prepare_window(
        self, made: Preparation, window: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A real window, padded and scaled, and behind it an inverse envelope's rows.

        Args:
            window: shape (win_length,), any stride, its bits resolved.

        Returns:
            Besides, of each column of the rows, whether they vanish (1) or not (0).
        """
        ready = self._made_ready((made.launch,), window.device)
        prepared = result_of(ready.launch, window.device)
        vanishes = torch.empty(made.verdicts, dtype=torch.float32, device=window.device)
        known = {"strides": list(window.stride()), "parameters": ready.integers}
        tensors = iter((window, prepared, vanishes))
        arguments = [known[name] if name in known else next(tensors) for name in ready.names]
        ready.kernel(*arguments, threads=ready.launch.grid, group_size=ready.group)
        return prepared, vanishes

    def _made_ready(self, launches: Sequence[Launch], device: torch.device) -> _Ready:
        """Raises MpsProblem, again and again without compiling again."""
        # By identity, since hashing a launch takes longer than all else here; it is kept, so that
        # no other can take its place.
        key = (id(launches[0]), device)
        with self._lock:
            known = self._ready.get(key)
            if known is None:
                try:
                    known = (launches[0], self._first_accepted(launches, device))
                except MpsProblem as problem:
                    known = (launches[0], str(problem))
                _keep(self._ready, key, known)
            else:
                self._ready.move_to_end(key)
        found = known[1]
        if isinstance(found, str):
            raise MpsProblem(found)
        return found

    def _first_accepted(self, launches: Sequence[Launch], device: torch.device) -> _Ready:
        """The first launch whose group the GPU accepts.

        Threads that do not cooperate come in groups of any size.
        """
        for launch in launches:
            if max(launch.grid) > MAX_COUNT:
                raise MpsProblem("more threads than Metal counts")
            kernel = self._kernel(variant_of(launch))
            allowed: int = kernel.max_threads_per_threadgroup
            group = launch.threadgroup
            if launch.plan is None:
                group = (min(group[0], allowed), *group[1:])
            if group[0] <= allowed:
                break
        else:
            raise MpsProblem(
                f"the GPU allows {allowed} threads in a group of {launch.kernel}, not {group[0]}"
            )
        table = None if launch.plan is None else self._table(launch.plan, device)
        names = arguments_of(launch.kernel)
        return _Ready(launch, kernel, names, group, list(launch.integers), table)

    def _kernel(self, variant: Variant) -> Any:
        kernel = self._kernels.get(variant)
        if kernel is None:
            try:
                library = self._compile_shader(text_of(variant))
                kernel = getattr(library, variant.name)
            except (SyntaxError, RuntimeError) as problem:
                raise MpsProblem(f"Metal refuses {variant.name}: {_said(problem)}") from problem
            _keep(self._kernels, variant, kernel)
        return kernel

    def _table(self, plan: FftPlan, device: torch.device) -> torch.Tensor:
        table = self._tables.get((plan, device))
        if table is None:
            table = torch.from_numpy(table_of(plan)[0]).to(device)
            _keep(self._tables, (plan, device), table)
        return table


def _said(problem: Exception) -> str:
    """The line that matters of what a compiler says."""
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    return next((line for line in lines if "error" in line), lines[0])


def _keep(cache: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    cache[key] = value
    while len(cache) > CACHE_ENTRIES:
        cache.popitem(last=False)


@lru_cache(maxsize=4)
def _kernels_of(compile_shader: Callable[[str], Any]) -> MpsKernels:
    return MpsKernels(compile_shader)


def mps_kernels() -> MpsKernels:
    """The kernels of this process; emulated ones while Metal is emulated."""
    return _kernels_of(torch.mps.compile_shader)
