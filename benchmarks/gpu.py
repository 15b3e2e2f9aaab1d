"""Speed and error of the cuda backend against native torch and memory, on one GPU in one run.

python benchmarks/gpu.py [--json FILE] [--markdown FILE]

Every case is first compared with float64. Ours is one launch, timed from CUDA graphs; native torch
is timed by events around calls (torch.istft waits for the device, so no graph can hold it), both by
wall clock through their public functions, too.
Inputs and outputs rotate through more memory than the cache has. Spectra have real DC and Nyquist
bins: torch.istft on CUDA uses their imaginary parts, which the definition has not.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_timing import Call, by_events, by_graph, by_wall, copy_bandwidth, error, memcpy_time

import torch_mlx_spectro as tms
from torch_mlx_spectro.backends.cuda.launcher import cuda_kernels
from torch_mlx_spectro.core.params import IstftParams, StftParams
from torch_mlx_spectro.kernels import describe
from torch_mlx_spectro.native import functions as native

#: Memory that inputs and outputs rotate through: three times an H100's cache.
ROTATED_BYTES = 160_000_000
MAPS = ("stft", "istft", "istft bins")
Row = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """At least ``ratio`` times as fast as torch, and ``bound`` at most."""

    ratio: float
    bound: float | None = None
    of: str = "floor"  # or "memcpy", or "us"


@dataclass(frozen=True)
class Case:
    """``rows`` signals of ``samples``; targets in the order of MAPS."""

    rows: int
    samples: int
    n_fft: int
    hop: int
    targets: tuple[Target, Target, Target] | None = None

    @property
    def frames(self) -> int:
        return 1 + self.samples // self.hop

    @property
    def nbytes(self) -> int:
        """Of input and output."""
        return self.rows * (4 * self.samples + 8 * self.frames * (self.n_fft // 2 + 1))

    def __str__(self) -> str:
        return f"{self.rows} x {self.samples}, {self.n_fft}/{self.hop}"


_SMALL = (Target(4, 1, "memcpy"), Target(12, 1.2, "memcpy"), Target(10, 1.4, "memcpy"))
_LARGE = (Target(3.5, 1.2), Target(10, 1.35), Target(8.5, 1.65))
CASES = (
    Case(1, 16_000, 512, 128, (Target(10, 3, "us"), Target(30, 4, "us"), Target(30))),
    Case(4, 160_000, 1024, 256, _SMALL),
    Case(8, 160_000, 1024, 256, _SMALL),
    Case(4, 1_300_000, 1024, 256, _LARGE),
    Case(8, 480_000, 1024, 256, _LARGE),
    Case(
        *(2, 352_800, 2048, 441),
        (Target(3.5, 1, "memcpy"), Target(10, 1.6, "memcpy"), Target(8, 1.9, "memcpy")),
    ),
    Case(8, 441_000, 4096, 1024, (Target(3.4, 1.35), Target(8, 1.75), Target(5.5, 2.6))),
    Case(
        *(2, 441_000, 6144, 1024),
        (Target(3, 1.3, "memcpy"), Target(6, 2.5, "memcpy"), Target(4.5, 3.3, "memcpy")),
    ),
    Case(16, 1_300_000, 1024, 256, (Target(3.7, 1.06), Target(9, 1.12), Target(8, 1.4))),
    Case(8, 480_000, 400, 160),
    Case(8, 480_000, 512, 128),
    Case(8, 480_000, 2048, 512),
)
#: Forward and backward of istft(stft(x)).
ROUND_TRIP, ROUND_TRIP_RATIO = CASES[3], 8.0


class Data:
    """A case's inputs, as many as the rotation needs, and how each map is called on them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.sets = max(2, min(64, -(-ROTATED_BYTES // case.nbytes)))
        generator = torch.Generator("cuda").manual_seed(1)
        self.window = torch.hann_window(case.n_fft, device="cuda")
        shape = (case.rows, case.samples)
        self.signals = [self._randn(shape, generator) for _ in range(self.sets)]
        self.spectra = [self._spectrum(generator) for _ in range(self.sets)]
        self.sizes: Row = {"n_fft": case.n_fft, "hop_length": case.hop}

    @staticmethod
    def _randn(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        return torch.randn(shape, device="cuda", generator=generator)

    def _spectrum(self, generator: torch.Generator) -> torch.Tensor:
        """In memory as stft leaves it: (rows, frames, bins)."""
        bins = self.case.n_fft // 2 + 1
        parts = self._randn((self.case.rows, self.case.frames, bins, 2), generator)
        parts[:, :, 0, 1] = 0
        parts[:, :, -1, 1] = 0
        return torch.view_as_complex(parts).transpose(1, 2)

    def inputs(self, name: str) -> list[torch.Tensor]:
        if name == "stft":
            return self.signals
        if name == "istft bins":
            self.spectra = [spectrum.contiguous() for spectrum in self.spectra]
        return self.spectra

    def call(self, namespace: Any, name: str, inputs: list[torch.Tensor]) -> Call:
        """The map on input ``i`` modulo their number."""
        sizes, window = dict(self.sizes), self.window
        if name == "stft":
            stft = namespace.stft
            return lambda i: stft(
                inputs[i % self.sets], window=window, **sizes, return_complex=True
            )
        istft, length = namespace.istft, self.case.samples
        return lambda i: istft(inputs[i % self.sets], window=window, **sizes, length=length)

    def exact(self, name: str, given: torch.Tensor) -> torch.Tensor:
        """The map in float64."""
        window = self.window.double()
        if name == "stft":
            result = native.stft(given.double(), window=window, **self.sizes, return_complex=True)
        else:
            wide = given.to(torch.complex128)
            result = native.istft(wide, window=window, **self.sizes, length=self.case.samples)
        return torch.as_tensor(result)


def analysis_params(case: Case) -> StftParams:
    return StftParams(
        *(case.n_fft, case.hop, case.n_fft, 1.0, True, True, True, case.rows, case.frames),
        *(case.n_fft // 2 + 1, True, case.n_fft // 2, "reflect", False, case.samples),
    )


def synthesis_params(case: Case) -> IstftParams:
    n_fft, covered = case.n_fft, (case.frames - 1) * case.hop + case.n_fft
    kept = min(case.samples, covered - n_fft // 2)
    return IstftParams(
        *(n_fft, case.hop, n_fft, 1.0, True, False, True, case.rows, case.frames, n_fft // 2 + 1),
        *(covered, n_fft // 2, kept, case.samples - kept),
    )


def choose_launch(case: Case, name: str) -> describe.Launch:
    """The launch that a call of the map comes down to."""
    if name == "stft":
        return describe.list_analyses(analysis_params(case), False, False)[0]
    if name == "istft backward":
        adjoint = replace(analysis_params(case), pad_mode="constant")
        return describe.list_analyses(adjoint, False, False, case.n_fft / 2)[0]
    params, folded = synthesis_params(case), None
    if name == "stft backward":
        params = replace(params, kept=case.samples, zero_tail=0)
        folded = describe.Adjoint(case.n_fft // 2, "reflect", False, scale=0.5, edge=2.0)
    return describe.list_syntheses(params, False, name == "istft bins", folded)[0]


def make_call(
    data: Data, name: str, launch: describe.Launch, inputs: list[torch.Tensor]
) -> tuple[Call, list[torch.Tensor]]:
    """The launch alone, on input ``i`` modulo their number; and its results, as torch shapes them.

    The public function makes the same launch.
    """
    edge = {"stft backward": 2.0, "istft backward": 0.5}.get(name, 1.0)
    dtype = torch.complex64 if launch.complex_output else torch.float32
    results = [torch.full(launch.shape, torch.nan, dtype=dtype, device="cuda") for _ in inputs]
    shown = inputs[0] if inputs[0].dim() == 2 else inputs[0].transpose(1, 2)
    bind = partial(cuda_kernels().bind, (launch,), shown.device, shown.stride(), edge=edge)
    bound = [bind(partial(results.__getitem__, index)) for index in range(data.sets)]

    def call(i: int) -> None:
        bound[i % data.sets](inputs[i % data.sets], data.window)

    return call, [result.transpose(1, 2) if result.dim() == 3 else result for result in results]


def assert_ours(case: Case, data: Data, name: str, given: torch.Tensor) -> None:
    """A call that fell back to native would be timed as ours."""
    if name == "stft":
        route = tms.explain("stft", given, window=data.window, **data.sizes, return_complex=True)
    else:
        more = {**data.sizes, "length": case.samples}
        route = tms.explain("istft", given, window=data.window, **more)
    assert route.backend == "cuda", route


def measure_case(case: Case, bandwidth: float) -> Iterator[Row]:
    """A row for each map."""
    data = Data(case)
    floor = case.nbytes / bandwidth
    count = data.sets * max(1, min(100, int(2000 / max(10, floor))) // data.sets)
    memcpy = memcpy_time(case.nbytes, data.sets, count)
    for index, name in enumerate(MAPS):
        inputs = data.inputs(name)
        ours, torchs = data.call(tms, name, inputs), data.call(native, name, inputs)
        exact = data.exact(name, inputs[0])
        row: Row = {"case": str(case), "map": name, "floor": floor, "memcpy": memcpy}
        with tms.backend("cuda"):
            assert_ours(case, data, name, inputs[0])
            row["error"] = error(ours(0), exact)
            row["wall"] = by_wall(ours, count, data.sets)
        launch, results = make_call(data, name, choose_launch(case, name), inputs)
        launch(0)
        row["error"] = max(row["error"], error(results[0], exact))
        row["us"] = by_graph(launch, count, data.sets)
        row["error_torch"] = error(torchs(0), exact)
        row["us_torch"] = by_events(torchs, min(count, 20), data.sets)
        row["wall_torch"] = by_wall(torchs, min(count, 20), data.sets)
        row["ratio"] = row["us_torch"] / row["us"]
        row["ratio_wall"] = row["wall_torch"] / row["wall"]
        row["of_floor"] = row["us"] / floor
        if case.targets is not None:
            target = case.targets[index]
            scale = {"floor": floor, "memcpy": memcpy, "us": 1.0}[target.of]
            fits = target.bound is None or row["us"] <= target.bound * scale
            row["target"] = f">= {target.ratio:g}x"
            if target.bound is not None:
                row["target"] += f", <= {target.bound:g} {target.of}"
            row["met"] = bool(row["ratio"] >= target.ratio and fits)
        yield row


def round_trip(case: Case) -> Row:
    """Forward and backward of istft(stft(x)), with gradients for x."""
    data = Data(case)
    signal = data.signals[0].requires_grad_()
    cotangent = data.signals[1]
    taken: Row = {"case": str(case), "map": "round trip, forward + backward"}
    gradients = {}
    for key, namespace in (("", tms), ("_torch", native)):
        stft = data.call(namespace, "stft", [signal] * data.sets)

        def trip(i: int, namespace: Any = namespace, stft: Call = stft) -> torch.Tensor:
            back = data.call(namespace, "istft", [stft(0)] * data.sets)
            return torch.autograd.grad(back(0), signal, cotangent)[0]

        with tms.backend("cuda"):
            gradients[key] = trip(0)
            taken[f"us{key}"] = by_events(trip, 10, 2)
            taken[f"wall{key}"] = by_wall(trip, 10, 2)
    # Of torch the device's time in that; ours are four launches, as the device alone takes them.
    taken["us_calls"] = taken["us"]
    taken["us"] = 0.0
    for name in ("stft", "istft", "istft backward", "stft backward"):
        inputs = data.signals if name in ("stft", "istft backward") else data.spectra
        inputs = [given.detach() for given in inputs]
        launch, _ = make_call(data, name, choose_launch(case, name), inputs)
        taken[name] = by_graph(launch, 40, data.sets)
        taken["us"] += taken[name]
    taken["difference"] = error(gradients[""], gradients["_torch"].double())
    taken["ratio"] = taken["us_torch"] / taken["us"]
    taken["target"] = f">= {ROUND_TRIP_RATIO:g}x"
    taken["met"] = taken["ratio"] >= ROUND_TRIP_RATIO
    return taken


def list_kernels() -> list[Row]:
    """What became of the kernels that ran: registers, spills, groups that a core holds."""
    driver = __import__("cuda.bindings.driver", fromlist=["driver"])
    attribute = driver.CUfunction_attribute
    wanted = {
        "registers": attribute.CU_FUNC_ATTRIBUTE_NUM_REGS,
        "local_bytes": attribute.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES,
        "shared_bytes": attribute.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
    }
    rows = []
    for (variant, _), loaded in cuda_kernels()._kernels.items():
        kernel, function = driver.CUkernel(loaded.value), driver.CUfunction(loaded.value)
        template = dict(variant.template)
        row: Row = {"kernel": variant.kernel, "group": variant.group, "plan": str(variant.plan)}
        row["flags"] = {key: int(value) for key, value in template.items() if len(key) > 2}
        for key, which in wanted.items():
            status, row[key] = driver.cuKernelGetAttribute(which, kernel, driver.CUdevice(0))
            assert int(status) == 0, status
        status, row["groups_per_core"] = driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(
            function, variant.group, 0
        )
        assert int(status) == 0, status
        rows.append(row)
    return rows


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| case | map | µs | torch µs | ratio | of floor | of memcpy | wall ratio "
        "| error / torch's | target | met |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        floor = f"{row['of_floor']:.2f}" if "of_floor" in row else ""
        memcpy = f"{row['us'] / row['memcpy']:.2f}" if "memcpy" in row else ""
        errors = f"{row['error']:.1e} / {row['error_torch']:.1e}" if "error" in row else ""
        met = {True: "yes", False: "**no**", None: ""}[row.get("met")]
        wall = row["wall_torch"] / row["wall"]
        lines.append(
            f"| {row['case']} | {row['map']} | {row['us']:.1f} | {row['us_torch']:.0f} "
            f"| {row['ratio']:.1f} | {floor} | {memcpy} | {wall:.1f} | {errors} "
            f"| {row.get('target', '')} | {met} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    bandwidth = copy_bandwidth()
    report: Row = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "copy_bandwidth": bandwidth * 1e6,
    }
    print(f"{report['device']}, torch {report['torch']}, copy {bandwidth / 1e6:.2f} TB/s")
    rows = [row for case in CASES for row in measure_case(case, bandwidth)]
    rows.append(round_trip(ROUND_TRIP))
    report |= {"rows": rows, "kernels": list_kernels()}
    print(table(rows))
    if options.markdown:
        options.markdown.write_text(table(rows))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
