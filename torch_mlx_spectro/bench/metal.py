"""What Metal kernels move, counted in the emulator. No clock of any Mac is in these numbers.

A checked machine counts every byte of device memory once for each threadgroup that reads or writes
it. That is at least what leaves the caches, since neighbouring groups find in them what both read.
MLX's own operations beside the kernels of mlx-spectro cannot be emulated: MLX's graph says what
their inputs and outputs are, each is counted once, and shapes that are only viewed cost nothing.

Rows of a batch share nothing. Of this project's launches one row is computed, of as many as the
launch was planned for, and counted as often.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any, TypedDict
from unittest.mock import patch

import torch

from ..core.params import TensorFacts, resolve_istft, resolve_stft
from ..emulator import Launch, Machine
from ..emulator import available as explain_no_emulator
from ..errors import Problem
from ..mlx.launcher import MetalKernels
from ..mlx.runtime import runtime
from ..native import functions as native
from .cases import ISTFT, STFT, TABLES, Case, describe_case, describe_disagreement
from .running import Progress
from .schema import CaseFacts

SCHEMA, VERSION = "torch-mlx-spectro-metal", 1
PEER = "mlx_spectro"


@dataclass(frozen=True)
class Gpu:
    """An Apple GPU as Apple describes it.

    Attributes:
        cores: that it has at most under this name.
        bandwidth: of its memory, in bytes a second.
    """

    name: str
    cores: int
    bandwidth: float


#: Source: Apple's announcements: M2 of June 2022, M4 of May 2024, M4 Max of October 2024.
GPUS = (Gpu("M2", 10, 100e9), Gpu("M4", 10, 120e9), Gpu("M4 Max", 40, 546e9))
#: Primitives of MLX that give the same memory another shape.
VIEWS = {
    *("AsStrided", "Broadcast", "CustomTransforms", "Depends", "ExpandDims", "Flatten", "Reshape"),
    *("Slice", "Split", "Squeeze", "StopGradient", "Swapaxes", "Transpose", "Unflatten"),
}
_BYTES = {"complex64": 8, "float32": 4, "int32": 4, "uint32": 4, "int64": 8}


class Counts(TypedDict):
    """The counts of one call.

    ``read`` and ``written`` have bytes of device memory. ``memory`` is the threadgroup memory of
    the launch that has most, in bytes. ``barriers`` is how often a group's threads wait for each
    other in all launches, and ``simd_barriers`` how often those of a SIMD group do. ``operations``
    has MLX's own ones. ``floor`` is ``read + written`` over the bytes of signal and spectrum.
    ``predicted`` has seconds that these bytes take at the bandwidth of named GPUs, and ``seconds``
    what counting took here.
    """

    operation: str
    case: CaseFacts
    side: str
    launches: int
    kernels: list[str]
    operations: list[str]
    read: int
    written: int
    memory: int
    barriers: float
    simd_barriers: float
    floor: float
    predicted: dict[str, float]
    seconds: float


@dataclass
class _Moved:
    """What launches and operations have moved."""

    kernels: list[str] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    read: int = 0
    written: int = 0
    memory: int = 0
    barriers: float = 0.0
    simd_barriers: float = 0.0

    def add_launches(self, launches: Sequence[Launch], times: int) -> None:
        """Add launches of a checked machine, each for so many rows."""
        for launch in launches:
            assert launch.device_read is not None
            assert launch.device_written is not None
            assert launch.constant_read is not None
            groups, simds = _count_groups(launch)
            self.kernels.append(launch.kernel)
            self.read += times * (launch.device_read + launch.constant_read)
            self.written += times * launch.device_written
            self.memory = max(self.memory, launch.threadgroup_bytes)
            self.barriers += launch.barriers / groups
            self.simd_barriers += launch.simd_barriers / simds

    def add_operation(self, fact: dict[str, Any]) -> None:
        """Add an operation of MLX's graph."""
        self.operations.append(fact["name"])
        self.read += sum(map(_count_bytes, fact["inputs"]))
        self.written += sum(map(_count_bytes, fact["outputs"]))


def _count_groups(launch: Launch) -> tuple[int, int]:
    """Count a launch's groups, and its SIMD groups."""
    groups = threads = 1
    for extent, group in zip(launch.grid, launch.threadgroup, strict=True):
        groups *= -(-extent // group)
        threads *= min(extent, group)
    return groups, groups * -(-threads // 32)


def _count_bytes(described: tuple[str, tuple[int, ...], Any]) -> int:
    _, shape, dtype = described
    size = _BYTES[str(dtype).rpartition(".")[2]]
    for extent in shape:
        size *= extent
    return size


def find_peer() -> str | None:
    """Return the version of mlx-spectro that is installed, or None."""
    if importlib.util.find_spec(PEER) is None:
        return None
    try:
        return metadata.version("mlx-spectro")
    except metadata.PackageNotFoundError:
        return "of unknown version"


def measure_metal(
    show: Progress, cases: Sequence[Case] = TABLES[STFT].cases, cores: Sequence[int] = (10, 40)
) -> dict[str, Any]:
    """Count both functions on every case.

    Returns:
        A report: ``counts`` is a list of :class:`Counts`.

    Raises:
        Problem: there is no emulator, or a result is wrong.
    """
    if (reason := explain_no_emulator()) is not None:
        raise Problem(f"--table metal: {reason}")
    # Threads in any order give the same bits (the tests show it), and one is counted.
    machine = Machine(("ascending",), checked=True)
    counts: list[Counts] = []
    peer, total = find_peer(), 2 * len(cases)
    for operation in (STFT, ISTFT):
        for case in cases:
            show(len(counts), total * (len(cores) + (peer is not None)), f"{operation}, {case}")
            counts += [_count_ours(machine, operation, case, number) for number in cores]
            if peer is not None:
                counts.append(_count_peer(machine, operation, case))
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "gpus": [vars(gpu) for gpu in GPUS],
        "unavailable": {} if peer else {"mlx-spectro": "is not installed"},
        "peer": peer,
        "counts": counts,
    }


def _make_tensors(case: Case, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make a window, a signal and its spectrum, both of so many rows."""
    generator = torch.Generator().manual_seed(0)
    window = torch.hann_window(case.n_fft)
    signal = torch.randn(rows, case.samples, generator=generator)
    sizes = case.n_fft, case.hop_length
    spectrum = native.stft(signal, *sizes, window=window, return_complex=True)
    return window, signal, spectrum


def _count_ours(machine: Machine, operation: str, case: Case, cores: int) -> Counts:
    """Count the launch that is planned for the whole batch and a GPU of so many cores."""
    mx, rows = runtime().mx, case.rows
    kernels = MetalKernels(mx, machine.metal_kernel, cores=cores)
    window, signal, spectrum = _make_tensors(case, 1)
    sizes, facts = (case.n_fft, case.hop_length), TensorFacts((case.n_fft,), False)
    values = mx.array(window.numpy())
    if operation == STFT:
        expected, given = spectrum, mx.array(signal.numpy())
        shape = (rows, case.samples)
        params = resolve_stft(TensorFacts(shape, False), *sizes, window=facts, return_complex=True)
        launches = kernels.list_spectra(params, False, values)
    else:
        expected, given = signal, mx.array(spectrum.mT.contiguous().numpy())
        shape = (rows, *spectrum.shape[1:])
        resolved = resolve_istft(
            TensorFacts(shape, True), *sizes, window=facts, length=case.samples
        )
        launches = kernels.list_signals(resolved, values, False)
    planned = launches[0]
    launch = replace(
        planned, grid=(planned.grid[0], 1, planned.grid[2]), shape=(1, *planned.shape[1:])
    )

    def compute() -> torch.Tensor:
        result = torch.from_numpy(_to_numpy(mx, kernels.run((launch,), given, values, None)))
        return result.mT if operation == STFT else result

    moved, seconds = _Moved(), _run_checked(machine, compute, expected, f"{operation}, {case}")
    moved.add_launches(machine.launches, rows)
    return _tell(operation, case, f"ours, {cores} cores", moved, seconds)


def _count_peer(machine: Machine, operation: str, case: Case) -> Counts:
    """Count a call of mlx-spectro: its kernels here, and MLX's operations by their shapes."""
    mx = runtime().mx
    _, signal, spectrum = _make_tensors(case, case.rows)
    with machine.installed():
        from mlx_spectro import SpectralTransform, spectral_ops  # type: ignore[import-not-found]

        spectral_ops._SPEC_MLX_AUTOTUNE = False  # it would time emulated kernels
        transform = SpectralTransform(
            n_fft=case.n_fft, hop_length=case.hop_length, window_fn="hann"
        )

        def call(array: Any) -> Any:
            if operation == STFT:
                return transform.stft(array)
            return transform.istft(array, length=case.samples)

        first, expected = (signal, spectrum) if operation == STFT else (spectrum, signal)
        given = mx.array(first.numpy())
        mx.eval(call(given[:1]))  # makes its envelope, which later calls know
        moved, facts = _Moved(), list[dict[str, Any]]()
        seconds = _run_checked(
            machine,
            lambda: torch.from_numpy(_to_numpy(mx, call(given))),
            expected,
            f"mlx-spectro, {operation}, {case}",
        )
        moved.add_launches(machine.launches, 1)
        # MLX cannot export it; what it copies, if it does, is not counted.
        with patch.object(mx, "contiguous", lambda array, *_, **__: array):
            mx.export_function(facts.append, call, given)
    for fact in facts:
        name = fact.get("name")
        if fact["type"] == "primitive" and name not in VIEWS and name != "CustomKernel":
            moved.add_operation(fact)
    return _tell(operation, case, "mlx-spectro", moved, seconds)


def _to_numpy(mx: Any, array: Any) -> Any:
    import numpy as np

    mx.eval(array)
    return np.array(array)


def _run_checked(
    machine: Machine, compute: Callable[[], torch.Tensor], expected: torch.Tensor, what: str
) -> float:
    """Compute a result whose launches the machine notes, and return the seconds that it took.

    Raises:
        Problem: the result is not native's.
    """
    machine.launches.clear()
    started = time.perf_counter()
    result = compute()
    seconds = time.perf_counter() - started
    if wrong := describe_disagreement(expected, result):
        raise Problem(f"{what}: {wrong}")
    return seconds


def _tell(operation: str, case: Case, side: str, moved: _Moved, seconds: float) -> Counts:
    total = moved.read + moved.written
    return {
        "operation": operation,
        "case": describe_case(case),
        "side": side,
        "launches": len(moved.kernels) + len(moved.operations),
        "kernels": moved.kernels,
        "operations": moved.operations,
        "read": moved.read,
        "written": moved.written,
        "memory": moved.memory,
        "barriers": moved.barriers,
        "simd_barriers": moved.simd_barriers,
        "floor": total / case.nbytes,
        "predicted": {
            gpu.name: total / gpu.bandwidth
            for gpu in GPUS
            if not side.startswith("ours") or side == f"ours, {gpu.cores} cores"
        },
        "seconds": seconds,
    }
