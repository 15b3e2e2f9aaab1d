"""The launcher for MPS: kernels on torch tensors, encoded into torch's own stream.

A variant is compiled once, by ``torch.mps.compile_shader``. A GPU may allow a compiled kernel fewer
threads than a plan asks for: then the next plan is taken. Nothing here waits for the device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...errors import KernelRefused, telling_line
from ...kernels.arguments import Verdict
from ...kernels.describe import MAX_COUNT, Launch
from ...kernels.radices import FftPlan
from ...kernels.tables import table_of
from ...kernels.texts.mps import Variant, arguments_of, text_of, variant_of
from ...kernels.tuning import Refused, Tuning
from ...native import private_state as torch_state
from ...store.caches import Recent, cached
from ..device.launcher import Optional, TensorKernels, result_of

CACHE_ENTRIES = 1024
#: Kernels that have groups of several shapes, with the same results.
TUNED = ("analysis",)


class MpsProblem(KernelRefused):
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
    #: Where a verdict goes that nobody asks for.
    unread: torch.Tensor
    #: No other shape is to be tried any more.
    settled: bool = True

    def encode(self, first: torch.Tensor, *others: torch.Tensor, edge: float = 1.0) -> None:
        """Launch on these tensors: the input, the window, the output, and where verdicts go."""
        known = {
            "strides": list(first.stride()),
            "table": self.table,
            "parameters": self.integers,
            "edge": float(edge),
        }
        tensors = iter((first, *others))
        arguments = [known[name] if name in known else next(tensors) for name in self.names]
        self.kernel(*arguments, threads=self.launch.grid, group_size=self.group)


class MpsKernels(TensorKernels):
    """The kernels on MPS tensors.

    Args:
        compile_shader: ``torch.mps.compile_shader``, or what stands in for it.
        tuning: times shapes of groups; None where times mean nothing.
        cores: of the GPU; None for those of the one that plans were sized for.
    """

    def __init__(
        self,
        compile_shader: Callable[[str], Any],
        tuning: Tuning | None = None,
        cores: int | None = None,
    ) -> None:
        self.cores = cores
        self._compile_shader = compile_shader
        self._tuning = tuning
        self._kernels: Recent[Variant, Any] = Recent(CACHE_ENTRIES)
        #: By the best of the launches: that one, and which is ready, or why none is.
        self._ready: Recent[tuple[int, torch.device], tuple[Launch, _Ready | str]]
        self._ready = Recent(CACHE_ENTRIES)
        self._tables: Recent[tuple[FftPlan, torch.device], torch.Tensor] = Recent(CACHE_ENTRIES)
        self._verdicts: Recent[torch.device, torch.Tensor] = Recent(CACHE_ENTRIES)
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
        window: Optional,
        stream: None = None,
        *,
        edge: float = 1.0,
        shapes: Callable[[], Sequence[Launch]] = tuple,
        vanishing: Optional = None,
    ) -> torch.Tensor:
        ready = self._made_ready(launches, first.device)
        result = self._launch(ready, first, window, edge, vanishing)
        if not ready.settled and result.numel():

            def run(launch: Launch, count: int) -> list[torch.Tensor]:
                try:
                    with self._lock:
                        tried = self._first_accepted([launch], first.device)
                except MpsProblem as problem:
                    raise Refused from problem
                results = [self._launch(tried, first, window, edge) for _ in range(count)]
                torch.mps.synchronize()
                return results

            self._settle(launches, shapes(), ready, first.device, run)
        return result

    def _settle(
        self,
        launches: Sequence[Launch],
        shapes: Sequence[Launch],
        ready: _Ready,
        device: torch.device,
        run: Callable[[Launch, int], list[torch.Tensor]],
    ) -> None:
        """Take the fastest shape from now on, as a trial tells, now or earlier."""
        tuning = self._tuning
        assert tuning is not None
        name, every = tuning.key(launches[0]), [*launches, *shapes]
        known = tuning.known(name, every)
        if known is None and shapes:
            tried = tuning.best(name, [ready.launch, *shapes], 0.0, run, _is_equal)
            known = len(launches) + tried - 1 if tried else None
        with self._lock:
            if known is not None:
                ready = self._first_accepted([every[known], *launches], device)
            key = (id(launches[0]), device)
            self._ready.put(key, (launches[0], replace(ready, settled=True)))

    def _launch(
        self,
        ready: _Ready,
        first: torch.Tensor,
        window: Optional,
        edge: float,
        vanishing: Optional = None,
    ) -> torch.Tensor:
        result = result_of(ready.launch, first.device)
        if result.numel() == 0:
            return result  # Metal launches no empty grid
        noted = ready.unread if vanishing is None else vanishing
        # What is not there is not read, but something has to be bound.
        given = first if window is None else window
        ready.encode(first, given, result, noted, edge=edge)
        return result

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
                self._ready.put(key, known)
        found = known[1]
        if isinstance(found, str):
            raise MpsProblem(found)
        return found

    def _first_accepted(self, launches: Sequence[Launch], device: torch.device) -> _Ready:
        """The first launch that Metal compiles, and whose group the GPU accepts."""
        problem = None
        for launch in launches:
            try:
                return self._accepted(launch, device)
            except MpsProblem as refused:
                problem = refused
        assert problem is not None, "there is a launch"
        raise problem

    def _accepted(self, launch: Launch, device: torch.device) -> _Ready:
        """Threads that do not cooperate come in groups of any size."""
        if max(launch.grid) > MAX_COUNT:
            raise MpsProblem("more threads than Metal counts")
        kernel = self._kernel(variant_of(launch))
        allowed: int = kernel.max_threads_per_threadgroup
        group = launch.threadgroup
        if launch.plan is None:
            group = (min(group[0], allowed), *group[1:])
        if group[0] > allowed:
            raise MpsProblem(
                f"the GPU allows {allowed} threads in a group of {launch.kernel}, not {group[0]}"
            )
        table = None if launch.plan is None else self._table(launch.plan, device)
        names = arguments_of(launch.kernel)
        settled = self._tuning is None or launch.kernel not in TUNED
        settled = settled or self._group(launch.kernel) is not None
        return _Ready(
            launch,
            kernel,
            names,
            group,
            list(launch.integers),
            table,
            self._unread(device),
            settled,
        )

    def _kernel(self, variant: Variant) -> Any:
        kernel = self._kernels.get(variant)
        if kernel is None:
            try:
                library = self._compile_shader(text_of(variant))
                kernel = getattr(library, variant.name)
            except (SyntaxError, RuntimeError) as problem:
                raise MpsProblem(
                    f"Metal refuses {variant.name}: {telling_line(problem, 'error')}"
                ) from problem
            self._kernels.put(variant, kernel)
        return kernel

    def _unread(self, device: torch.device) -> torch.Tensor:
        unread = self._verdicts.get(device)
        if unread is None:
            with torch_state.untransformed():
                unread = torch.tensor([Verdict.NOBODY_ASKS], dtype=torch.int32, device=device)
            self._verdicts.put(device, unread)
        return unread

    def _table(self, plan: FftPlan, device: torch.device) -> torch.Tensor:
        table = self._tables.get((plan, device))
        if table is None:
            with torch_state.untransformed():  # later calls have it, too
                table = torch.from_numpy(table_of(plan)[0]).to(device)
            self._tables.put((plan, device), table)
        return table


def _is_equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two spectra are the same bits."""
    bits = [torch.view_as_real(result).view(torch.int32) for result in (first, second)]
    return torch.equal(*bits)


@cached(4)
def _kernels_of(compile_shader: Callable[[str], Any]) -> MpsKernels:
    if getattr(compile_shader, "emulated", False):
        return MpsKernels(compile_shader)
    return MpsKernels(compile_shader, Tuning(lambda: "torch mps"), torch_state.mps_cores())


def mps_kernels() -> MpsKernels:
    """The kernels of this process; emulated ones while Metal is emulated."""
    return _kernels_of(torch.mps.compile_shader)
