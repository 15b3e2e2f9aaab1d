"""The launcher for MPS: kernels on torch tensors, encoded into torch's own stream.

``torch.mps.compile_shader`` compiles a variant once. :mod:`.kernels.chooser` chooses among several
launches. Only a trial of shapes waits for the device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ...errors import KernelRefused, find_error_line
from ...kernels.arguments import CHECKING_KERNELS, Verdict
from ...kernels.chooser import WALK_AGREEMENT, Chooser, accept_first
from ...kernels.describe import MAX_COUNT, Launch
from ...kernels.launches import Template
from ...kernels.radices import EMULATED_CORES, guess_cores
from ...kernels.tables import make_table
from ...kernels.texts.mps import list_arguments, write_text
from ...native import private_state as torch_state
from ...store.caches import Cache, Recent, cached
from ..base import Optional
from ..device.launcher import Bound, TensorKernels, make_result

CACHE_ENTRIES = 1024


class MpsProblem(KernelRefused):
    """Metal does not compile a kernel, or runs none of its plans."""


@dataclass(frozen=True)
class _Ready:
    """A launch that the GPU accepts, and its kernel."""

    launch: Launch
    kernel: Callable[..., None]
    group: tuple[int, ...]
    table: torch.Tensor | None
    #: Bound in the place of a flag where no verdict is wanted.
    unread: torch.Tensor
    #: The chooser has chosen it, so it may be kept.
    is_chosen: bool = False

    def bind(
        self, strides: tuple[int, ...], allocate: Callable[[], torch.Tensor], edge: float = 1.0
    ) -> Bound:
        """Return a function that makes this launch on tensors; the input has these strides."""
        constants = {
            "strides": list(strides),
            "table": self.table,
            "parameters": list(self.launch.integers),
            "edge": float(edge),
        }
        _, *names = list_arguments(self.launch.kernel)
        at = names.index("window")
        before = [constants[name] for name in names[:at]]
        behind = [constants[name] for name in names[at + 1 :] if name in constants]
        kernel, grid, group = self.kernel, self.launch.grid, self.group
        unread = self.unread if self.launch.kernel in CHECKING_KERNELS else None

        def launch(first: torch.Tensor, window: Optional, flag: Optional = None) -> torch.Tensor:
            result = allocate()
            # A missing window is not read, but Metal wants a buffer in its place.
            read = first if window is None else window
            flags = () if unread is None else (unread if flag is None else flag,)
            kernel(first, *before, read, *behind, result, *flags, threads=grid, group_size=group)
            return result

        return launch


class MpsKernels(TensorKernels):
    """The kernels on MPS tensors.

    Args:
        compile_shader: ``torch.mps.compile_shader``, or what stands in for it.
        chooser: chooses among launches; one that tries no shapes if not given.
        cores: as in the base class.
    """

    def __init__(
        self,
        compile_shader: Callable[[str], Any],
        chooser: Chooser | None = None,
        cores: int | None = None,
    ) -> None:
        self.cores = cores
        self._compile_shader = compile_shader
        if chooser is not None:
            self.chooser = chooser
        #: Kernels, or why Metal refuses them.
        self._kernels: Recent[tuple[str, Template], Any] = Recent(CACHE_ENTRIES)
        #: By :meth:`_identify`: the best of several launches, which is so kept alive, and the one
        #: that is ready.
        self._ready: Cache[Any, tuple[Launch, _Ready]] = Cache(CACHE_ENTRIES)
        #: Tables by their plans, and the flag of :attr:`_Ready.unread`.
        self._constants: Recent[Any, torch.Tensor] = Recent(CACHE_ENTRIES)
        self._lock = threading.Lock()

    def refusal(self, launches: Sequence[Launch], device: torch.device) -> str | None:
        """Explain why none of these launches can be made here, or return None. Compiles them."""
        if self._find_ready(launches, device) is None:
            try:
                _, ready = accept_first(launches, partial(self._accept, device=device))
            except MpsProblem as problem:
                return str(problem)
            self._keep_ready(launches, device, ready)
        return None

    def run(
        self,
        launches: Sequence[Launch],
        first: torch.Tensor,
        window: Optional,
        stream: None = None,
        *,
        edge: float = 1.0,
        vanishing: Optional = None,
    ) -> torch.Tensor:
        ready = self._find_ready(launches, first.device)
        if ready is None or not ready.is_chosen:
            ready = self._choose(launches, first, window, edge)
        return self._launch(ready, first, window, edge, vanishing)

    def bind(
        self,
        launches: Sequence[Launch],
        device: torch.device,
        strides: tuple[int, ...],
        allocate: Callable[[], torch.Tensor],
        edge: float = 1.0,
    ) -> Bound | None:
        ready = self._find_ready(launches, device)
        if ready is None or not ready.is_chosen:
            return None
        return ready.bind(strides, allocate, edge)

    def _choose(
        self,
        launches: Sequence[Launch],
        first: torch.Tensor,
        window: Optional,
        edge: float,
    ) -> _Ready:
        """Choose a launch for calls like this one, and make it ready.

        Raises:
            MpsProblem: there is none.
        """
        device = first.device
        accept = partial(self._accept, device=device)

        def run(launch: Launch, count: int) -> list[torch.Tensor]:
            tried = accept(launch)
            results = [self._launch(tried, first, window, edge) for _ in range(count)]
            torch.mps.synchronize()
            return results

        launch, ready = self.chooser.choose(launches, accept, run, _is_equal, device)
        ready = replace(ready or accept(launch), is_chosen=True)
        self._keep_ready(launches, device, ready)
        return ready

    def _launch(
        self,
        ready: _Ready,
        first: torch.Tensor,
        window: Optional,
        edge: float,
        vanishing: Optional = None,
    ) -> torch.Tensor:
        allocate = partial(make_result, ready.launch, first.device)
        if 0 in ready.launch.shape:  # Metal launches no empty grid
            return allocate()
        return ready.bind(first.stride(), allocate, edge)(first, window, vanishing)

    def _find_ready(self, launches: Sequence[Launch], device: torch.device) -> _Ready | None:
        found = self._ready.find(self._identify(launches, device))
        return None if found is None else found[1]

    def _identify(self, launches: Sequence[Launch], device: torch.device) -> Any:
        # By identity, since hashing a launch takes longer than all else here. The launch is kept,
        # so no other object can have its identity.
        return id(launches[0]), device, self.chooser.is_fixed(launches[0])

    def _keep_ready(self, launches: Sequence[Launch], device: torch.device, ready: _Ready) -> None:
        self._ready.put(self._identify(launches, device), (launches[0], ready))

    def _accept(self, launch: Launch, device: torch.device) -> _Ready:
        """Compile a launch and make it ready; groups whose threads do not cooperate may shrink.

        Raises:
            MpsProblem: Metal does not compile it, or the GPU does not run its group.
        """
        if max(launch.grid) > MAX_COUNT:
            raise MpsProblem("more threads than Metal counts")
        with self._lock:
            kernel = self._kernel(launch.kernel, launch.template)
            unread = self._keep_constant("unread", device, np.array([Verdict.NOBODY_ASKS], "i4"))
            table = None
            if launch.plan is not None:
                table = self._keep_constant(launch.plan, device, make_table(launch.plan)[0])
        allowed: int = kernel.max_threads_per_threadgroup
        group = launch.threadgroup
        if launch.plan is None:
            group = (min(group[0], allowed), *group[1:])
        if group[0] > allowed:
            raise MpsProblem(
                f"the GPU allows {allowed} threads in a group of {launch.kernel}, not {group[0]}"
            )
        return _Ready(launch, kernel, group, table, unread)

    def _kernel(self, name: str, template: Template) -> Any:
        kernel = self._kernels.find((name, template))
        if kernel is None:
            try:
                library = self._compile_shader(write_text(name, template))
                kernel = getattr(library, f"spectro_{name}")
            except (SyntaxError, RuntimeError) as problem:
                kernel = f"Metal refuses spectro_{name}: {find_error_line(problem, 'error')}"
            self._kernels.put((name, template), kernel)
        if isinstance(kernel, str):
            raise MpsProblem(kernel)
        return kernel

    def _keep_constant(self, name: Any, device: torch.device, values: Any) -> torch.Tensor:
        """Copy values of the host to a device, once."""
        constant = self._constants.find((name, device))
        if constant is None:
            with torch_state.untransformed():
                constant = torch.from_numpy(values).to(device)
            self._constants.put((name, device), constant)
        return constant


def _is_equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two spectra are the same bits, and two signals the same but for rounding."""
    if not first.is_complex():
        return bool((first - second).abs().max() <= WALK_AGREEMENT * first.abs().max())
    bits = [torch.view_as_real(result).view(torch.int32) for result in (first, second)]
    return torch.equal(*bits)


@cached(4)
def _make_kernels(compile_shader: Callable[[str], Any]) -> MpsKernels:
    if getattr(compile_shader, "emulated", False):
        return MpsKernels(compile_shader, cores=EMULATED_CORES)
    chooser = Chooser(lambda: "torch mps", is_deterministic=torch_state.is_deterministic)
    return MpsKernels(compile_shader, chooser, torch_state.mps_cores() or guess_cores(""))


def mps_kernels() -> MpsKernels:
    """Return the kernels of this process; emulated ones while Metal is emulated."""
    return _make_kernels(torch.mps.compile_shader)
