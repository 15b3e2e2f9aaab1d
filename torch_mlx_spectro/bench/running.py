"""A run: every backend against native torch on the cases of some tables.

Machines are described without the names of hosts, users or folders.
"""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path

import torch

import torch_mlx_spectro as tms

from ..backends import registry
from ..dispatch.autotune import MAX_TRIALS
from ..doctor.findings import list_versions
from ..native import functions as native
from . import mlx_arrays
from .cases import OURS, OWN, UNIT, Case, Table, Workload, describe_case, describe_disagreement
from .measuring import Clock, Side, choose_batch, compute_ratios, make_clock, summarise, take_turns
from .programs import PROGRAMS
from .schema import SCHEMA, VERSION, Accuracy, Failure, Machine, Report, Timing

NATIVE, AUTO = registry.NATIVE, "auto"

#: Calls after which ``auto`` has decided, whatever the times, among native and two other backends.
AUTO_WARM_UP = 3 * MAX_TRIALS

#: Called when a case is done, with how many are done, how many there are, and which one it was.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Settings:
    """How a run is measured.

    Samples are taken in several passes over all cases. What changes slowly (a processor's clock, a
    neighbour's load) then differs between the passes of one case, where it shows, and not between
    cases.

    Attributes:
        device: where the tensors are: ``"cpu"``, ``"mps"`` or ``"cuda"``.
        backends: what is timed beside native.
        passes: over all cases.
        samples: of each side in a pass.
        warm_up: calls of each side before the first pass.
        seconds_per_case: about how long all passes of an operation on a case take; as much again
            for each side's warm-up. One call of a warm-up and ``LEAST_SAMPLES`` samples of a pass
            are made however long they last.
        computes: whether results have to agree with native's; those of a stub's kernels do not.
    """

    device: str
    backends: tuple[str, ...]
    passes: int = 5
    samples: int = 4
    warm_up: int = 5
    seconds_per_case: float = 30.0
    computes: bool = True


def quick(settings: Settings) -> Settings:
    """Return the settings with fewer samples: good for a look, not for a claim."""
    return replace(settings, passes=3, samples=3, warm_up=2, seconds_per_case=3.0)


def find_backends(device: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Find the backends for tensors on this device, and why others of its backends cannot be used.

    Returns:
        The backends, ``auto`` last; and the reason for each that is not here, by backend.
    """
    signal = torch.zeros(1, 2048, device=device)
    window = torch.ones(512, device=device)
    reasons = {}
    for name in registry.list_backends(device):
        # By a call, which also shows if a backend is here but does not take this device.
        with tms.backend(registry.check_name(name, "backend")):
            route = tms.explain("stft", signal, 512, window=window, return_complex=True)
        if route.backend != name:
            reasons[name] = "; ".join(route.reasons) or "native torch computes it"
    return (
        *(name for name in registry.list_backends(device) if name not in reasons),
        AUTO,
    ), reasons


@contextmanager
def use_threads(number: int | None) -> Iterator[None]:
    """Make torch compute with so many threads; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class _Cell:
    """The measurements of an operation on a case."""

    table: str
    operation: str
    case: Case
    reference: str = NATIVE
    batch: int = 0
    taken: dict[str, list[list[float]]] = field(default_factory=dict)
    computed_by: dict[str, list[str]] = field(default_factory=dict)

    def failure(self, backend: str, reason: str) -> Failure:
        return {
            "table": self.table,
            "operation": self.operation,
            "case": describe_case(self.case),
            "backend": backend,
            "reason": reason,
        }


def measure(
    settings: Settings,
    tables: Mapping[str, Table],
    progress: Progress = lambda done, total, what: None,
    clock: Clock | None = None,
) -> Report:
    """Time and compare every backend of the settings with native torch.

    Each backend is strict: a call that it would leave to native is a failure, not a time. A result
    that differs from native's by more than rounding is a failure, too, and is not timed. An
    exception of a backend or of the device (out of memory) ends that case only.

    Args:
        settings: how to measure.
        tables: the tables by name; errors are measured for one without operations.
        progress: called after every case.
        clock: the clock; the device's own by default.

    Returns:
        The report, without ``costs`` and ``unavailable``.
    """
    clock = clock or make_clock(settings.device)
    where = describe_machine(settings.device)  # first: later its load would be ours
    cells = [
        _Cell(name, operation, case, table.reference)
        for name, table in tables.items()
        for case in table.cases
        for operation in table.operations
    ]
    exact = [
        (case, table.reference)
        for table in tables.values()
        if not table.operations or table.reference == OWN
        for case in table.cases
    ]
    total, done = len(exact) + settings.passes * len(cells), 0
    failures: list[Failure] = []
    accuracy: list[Accuracy] = []
    for case, reference in exact:
        accuracy += _errors(case, reference, settings, failures)
        progress(done := done + 1, total, f"errors, {case}")
    for number in range(settings.passes):
        for cell in cells:
            _pass(cell, settings, clock, first=number == 0, failures=failures)
            progress(done := done + 1, total, f"{cell.operation}, {cell.case}")
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "package": tms.__version__,
        "machine": where,
        "settings": {
            "backends": list(settings.backends),
            "tables": list(tables),
            "passes": settings.passes,
            "samples": settings.samples,
            "warm_up": settings.warm_up,
            "seconds_per_case": settings.seconds_per_case,
        },
        "timings": [timing for cell in cells for timing in _list_timings(cell)],
        "accuracy": accuracy,
        "costs": [],
        "failures": failures,
        "unavailable": {},
    }


def make_side(backend: str, workload: Workload, operation: str) -> Side:
    """Make a backend's side of an operation; native's calls do not pass through this package.

    Args:
        backend: a backend's name; :data:`.cases.UNIT` for the unit; or a side of MLX arrays.
    """
    if backend == UNIT:
        return Side(UNIT, nullcontext, workload.make_allocation())
    if backend in (OURS, OWN):
        given = workload.signals[0].cpu().numpy()
        made = mlx_arrays.make_call(backend, operation, workload.case, given)
        return Side(backend, nullcontext, made)
    namespace = native if backend == NATIVE else tms
    use = tms.patch if operation in PROGRAMS else tms.backend
    return Side(backend, choose_backend(backend, use), workload.call(operation, namespace))


def choose_backend(
    backend: str, use: Callable[..., AbstractContextManager[object]] = tms.backend
) -> Callable[[], AbstractContextManager[object]]:
    """Make a context in which this package's functions compute by this backend, or raise.

    ``auto`` may choose native; native torch itself needs no context.

    Args:
        backend: its name.
        use: makes the context: for this package's functions, or ``patch`` for torch's.
    """
    if backend == NATIVE:
        return nullcontext
    return partial(use, backend, strict=backend != AUTO, verify=0)


def _errors(
    case: Case, reference: str, settings: Settings, failures: list[Failure]
) -> list[Accuracy]:
    found: list[Accuracy] = []
    workload = Workload(case, settings.device)
    for backend in (reference, *settings.backends):
        try:
            if backend in (OURS, OWN):
                found.append(workload.measure_errors(mlx_arrays.make_namespace(backend), backend))
                continue
            with choose_backend(backend)():
                found.append(workload.measure_errors(native if backend == NATIVE else tms, backend))
        except RuntimeError as error:  # NotAccelerated, or the device's
            failures.append(_Cell("accuracy", "errors", case).failure(backend, str(error)))
    return found


def _pass(
    cell: _Cell, settings: Settings, clock: Clock, first: bool, failures: list[Failure]
) -> None:
    """Take the samples of one pass; in the first one, find out who takes part."""
    if not first and not cell.taken:
        return  # the reference failed
    try:
        workload = Workload(cell.case, settings.device)
        reference = make_side(cell.reference, workload, cell.operation)
        sides = [reference]
        if first:
            for backend in settings.backends:
                side = make_side(backend, workload, cell.operation)
                if reason := _warm_up(cell, side, workload, settings, clock):
                    failures.append(cell.failure(backend, reason))
                else:
                    sides.append(side)
            _call(reference, settings.warm_up, clock, settings.seconds_per_case)
            cell.batch = choose_batch(reference, clock)
        else:
            sides += [make_side(name, workload, cell.operation) for name in cell.taken][1:]
            for side in sides:
                _call(side, 1, clock)
        seconds = settings.seconds_per_case / settings.passes
        kept = workload.sets if settings.device != "cpu" else 1
        taken = take_turns(sides, clock, settings.samples, cell.batch, seconds, kept)
    except RuntimeError as error:  # raised by the device, mostly for lack of memory
        failures.append(cell.failure(cell.reference, f"{type(error).__name__}: {error}"))
        return
    for name, times in taken.items():
        cell.taken.setdefault(name, []).append(times)


def _warm_up(cell: _Cell, side: Side, workload: Workload, settings: Settings, clock: Clock) -> str:
    """Warm a side up and see who computes; return why it cannot be timed, or nothing."""
    count = max(settings.warm_up, AUTO_WARM_UP) if side.name == AUTO else settings.warm_up
    try:
        with side.context():
            got = side.call(0)
        if settings.computes:
            against = OWN if cell.reference == OWN else NATIVE
            expected = make_side(against, workload, cell.operation).call(0)
            if wrong := describe_disagreement(expected, got):
                return wrong
        _call(side, count, clock, settings.seconds_per_case)
        tms.reset_stats()
        _call(side, 1, clock)
    except RuntimeError as error:
        return f"{type(error).__name__}: {error}"
    counted = {backend for _, backend in tms.stats().calls}
    # Nothing is counted of native, nor of MLX arrays.
    cell.computed_by[side.name] = sorted(counted) or [OURS if side.name == OURS else NATIVE]
    return ""


def _call(side: Side, times: int, clock: Clock, seconds: float = math.inf) -> None:
    """Make so many calls, or fewer if the seconds run out."""
    end = clock.now() + seconds
    with side.context():
        for number in range(times):
            side.call(number)
            clock.finish()
            if clock.now() >= end:
                break


def _list_timings(cell: _Cell) -> Iterator[Timing]:
    for name, passes in cell.taken.items():
        relative = None
        if name != cell.reference:
            relative = summarise(
                [*chain.from_iterable(compute_ratios(cell.taken[cell.reference], passes))]
            )
        yield {
            "table": cell.table,
            "operation": cell.operation,
            "case": describe_case(cell.case),
            "backend": name,
            "computed_by": cell.computed_by.get(name, [name]),
            "batch": cell.batch,
            "passes": passes,
            "seconds": summarise([*chain.from_iterable(passes)]),
            "ratio": relative,
        }


_PACKAGES = ("python", "torch", "mlx", "numpy", "cuda-core")


def describe_machine(device: str) -> Machine:
    """Describe this machine, with tensors on ``device``."""
    # torch's own version string, whose local part says which build it is.
    found = list_versions(tms.__version__) | {"torch": torch.__version__}
    processor = _name_processor()
    return {
        "processor": processor,
        "cpus": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else processor,
        "system": f"{platform.system()} {platform.machine()}",
        "system_release": platform.mac_ver()[0] or platform.release(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {name: found[name] or "not installed" for name in _PACKAGES},
    }


def _name_processor() -> str:
    """Name the processor; on Linux and macOS by its model."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name[^:\n]*:(.*)", text, re.MULTILINE):
            return found[1].strip()
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        if name := told.stdout.strip():
            return name
    return platform.processor() or platform.machine()
