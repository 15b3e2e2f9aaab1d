"""Whether a GPU computes the kernels' results to the bit as the emulator does.

A few launches have inputs of integers over powers of two, so that every machine has the same.
``golden.json`` has a digest of each result for every way in which a Metal compiler may compute:
with or without contraction of ``a * b + c`` within an expression, with subnormal numbers kept or
flushed. A GPU that agrees in none of them is not wrong for that; the self-check judges results.
This says which of the emulator's options stands for it.

``python -m torch_mlx_spectro.doctor.golden`` writes the file anew, where Metal can be emulated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .. import emulator
from ..backends.mps.launcher import MpsKernels
from ..core.params import IstftParams, StftParams, TensorFacts, resolve_istft, resolve_stft
from ..errors import KernelRefused
from ..kernels import describe, framing
from ..kernels.launches import Launch
from ..kernels.radices import EMULATED_CORES
from ..kernels.tables import make_table
from ..kernels.texts.mps import write_text
from ..mlx import runtime
from ..mlx.launcher import MetalKernels
from ..native import private_state as torch_state

FILE = Path(__file__).with_name("golden.json")
FORMAT = 1
#: Ways to compute, by their names in the file, and the emulator's options for each.
MODES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        f"{contraction}, subnormal numbers {subnormal}": {"contract": contract, "denormals": kept}
        for contraction, contract in (("contraction", True), ("no contraction", False))
        for subnormal, kept in (("flushed", "flush"), ("kept", "keep"))
    }
)

Values = npt.NDArray[Any]
#: Computes a launch on an input and a window, and returns the result on the host.
Run = Callable[[Launch, Values, Values], Values]
ROWS, FRAMES = 2, 24
#: Multiplies inputs so that many numbers on the way are subnormal.
SMALL = 2.0**-130


@dataclass(frozen=True)
class Probe:
    """One launch and its inputs."""

    launch: Launch
    first: Values
    window: Values


def list_probes() -> dict[str, Probe]:
    """List the launches that are compared, planned alike whatever GPU is here."""
    return dict(_list_probes())


def _list_probes() -> Iterator[tuple[str, Probe]]:
    for n_fft, hop in ((400, 100), (1024, 256), (1125, 225)):
        params, window = _resolve_signal(n_fft, hop), _make_window(n_fft)
        launch = describe.list_analyses(params, False, False, cores=EMULATED_CORES)[0]
        yield f"analysis {n_fft}", Probe(launch, _make_noise(ROWS, params.samples), window)
        back = _resolve_spectrum(n_fft, hop)
        spectrum = _make_spectrum(n_fft)
        launch = describe.list_syntheses(back, False, False, cores=EMULATED_CORES)[0]
        yield f"{launch.kernel} {n_fft}", Probe(launch, spectrum, window)
    params, window = _resolve_signal(1024, 256), _make_window(1024)
    launch = describe.list_analyses(params, False, False, cores=EMULATED_CORES)[0]
    small = (_make_noise(ROWS, params.samples) * np.float32(SMALL)).astype(np.float32)
    yield "analysis 1024, subnormal", Probe(launch, small, window)
    cut = framing.cut_frames(_resolve_signal(514, 128), False, False)
    samples = _resolve_signal(514, 128).samples
    yield "cut_frames 514", Probe(cut, _make_noise(ROWS, samples), _make_window(514))
    added = framing.add_frames(_resolve_spectrum(514, 128), False)
    frames = _make_noise(ROWS, FRAMES, 514)
    yield "add_frames 514", Probe(added, frames, _make_window(514))


def _resolve_signal(n_fft: int, hop: int) -> StftParams:
    signal, window = TensorFacts((ROWS, hop * (FRAMES - 1)), False), TensorFacts((n_fft,), False)
    return resolve_stft(signal, n_fft, hop, window=window, return_complex=True)


def _resolve_spectrum(n_fft: int, hop: int) -> IstftParams:
    spectrum, window = (ROWS, n_fft // 2 + 1, FRAMES), (n_fft,)
    return resolve_istft(TensorFacts(spectrum, True), n_fft, hop, window=TensorFacts(window, False))


def _make_noise(*shape: int) -> Values:
    """Make numbers between -1 and 1 that are integers over 2**15."""
    places = np.arange(np.prod(shape), dtype=np.uint64)
    mixed = (places * np.uint64(2654435761) + np.uint64(12345)) % np.uint64(1 << 32)
    values = (mixed >> np.uint64(16)).astype(np.float32) / np.float32(1 << 15) - np.float32(1)
    return values.reshape(shape)


def _make_window(n_fft: int) -> Values:
    """Make a window whose values are integers over 2**8, none of them zero."""
    ramp = np.minimum(np.arange(1, n_fft + 1), np.arange(n_fft, 0, -1))
    return (1 + ramp * 255 // n_fft).astype(np.float32) / np.float32(256)


def _make_spectrum(n_fft: int) -> Values:
    pairs = _make_noise(ROWS, FRAMES, n_fft // 2 + 1, 2)
    return np.ascontiguousarray(pairs).view(np.complex64)[..., 0]


def digest_results(run: Run) -> dict[str, str]:
    """Digest the result of each probe; the text of an error in its place."""
    found = {}
    for name, probe in list_probes().items():
        try:
            values = run(probe.launch, probe.first, probe.window)
        except (KernelRefused, RuntimeError, ValueError) as error:
            found[name] = f"{type(error).__name__}: {error}"
        else:
            found[name] = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]
    return found


def digest_tables() -> str:
    """Digest the twiddle factors, which NumPy computes on each machine."""
    plans = [probe.launch.plan for probe in list_probes().values()]
    tables = (make_table(plan)[0].tobytes() for plan in plans if plan is not None)
    return hashlib.sha256(b"".join(tables)).hexdigest()[:16]


def digest_texts() -> str:
    """Digest the text of the launches' kernels."""
    launches = [probe.launch for probe in list_probes().values()]
    texts = (write_text(launch.kernel, launch.template) for launch in launches)
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:16]


def list_runs() -> dict[str, Run]:
    """List what computes the kernels here, by backend: on a GPU of Apple's, or in the emulator."""
    found: dict[str, Run] = {}
    if runtime.unavailable_reason() is None:
        mx = runtime.runtime().mx
        if runtime.has_gpu() or getattr(mx.fast.metal_kernel, "emulated", False):
            found["mlx"] = _make_mlx_run(mx)
    if torch_state.mps_is_emulated():
        found["mps"] = _make_mps_run("cpu")
    elif torch.backends.mps.is_available() and hasattr(torch.mps, "compile_shader"):
        found["mps"] = _make_mps_run("mps")
    return found


def _make_mlx_run(mx: Any) -> Run:
    kernels = MetalKernels(mx, mx.fast.metal_kernel, cores=EMULATED_CORES)
    stream = mx.gpu if runtime.has_gpu() else None

    def run(launch: Launch, first: Values, window: Values) -> Values:
        result = kernels.run((launch,), mx.array(first), mx.array(window), stream)
        mx.eval(result)
        return np.array(result)

    return run


def _make_mps_run(device: str) -> Run:
    kernels = MpsKernels(torch.mps.compile_shader, cores=EMULATED_CORES)

    def run(launch: Launch, first: Values, window: Values) -> Values:
        read, weights = (torch.from_numpy(values).to(device) for values in (first, window))
        result: Values = kernels.run((launch,), read, weights).cpu().numpy()
        return result

    return run


def read_golden() -> dict[str, Any]:
    """Read the file."""
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def compare() -> list[dict[str, Any]]:
    """Compare what is here with the file.

    Returns:
        For each backend that computes the kernels, its name (``backend``), the modes in which all
        probes agree (``agrees``), what else is to be known (``note``), and for each probe the modes
        in which it agrees, or its error (``probes``).
    """
    runs = list_runs()
    if not runs:
        return []
    golden, notes = read_golden(), []
    if golden["texts"] != digest_texts():
        notes.append("the file is of other kernels")
    if golden["tables"] != digest_tables():
        notes.append("NumPy computes other twiddle factors here")
    return [
        {"backend": name, "note": "; ".join(notes), **judge(digest_results(run), golden["modes"])}
        for name, run in runs.items()
    ]


def judge(found: Mapping[str, str], modes: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Tell in which modes all digests agree, and in which each of them does."""
    return {
        "agrees": [mode for mode, wanted in modes.items() if wanted == found],
        "probes": {
            name: [mode for mode, wanted in modes.items() if wanted.get(name) == digest]
            or ([digest] if ":" in digest else [])
            for name, digest in found.items()
        },
    }


def compute_modes() -> dict[str, dict[str, str]]:
    """Compute the digests of all modes, in the emulator.

    Raises:
        emulator.Unavailable: there is none here.
    """
    modes = {}
    for name, options in MODES.items():
        with emulator.Machine(orders=("ascending",), **options).installed():
            modes[name] = digest_results(_make_mps_run("cpu"))
    return modes


def write_golden() -> None:
    """Write the file anew."""
    content = {
        "format": FORMAT,
        "texts": digest_texts(),
        "tables": digest_tables(),
        "modes": compute_modes(),
    }
    FILE.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_golden()
