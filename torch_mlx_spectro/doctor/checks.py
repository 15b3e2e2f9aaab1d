"""What every available backend computes here, and whether it is right.

A small stft, istft and gradient are compared with float64 (:func:`check`). ``explain`` says for
real tensors which backend would compute them (:func:`matrix`).
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch

import torch_mlx_spectro as tms

from ..backends.registry import NATIVE, check_name, list_backends, list_present_devices, load
from ..calls.timer import HostTimer
from ..verify import criterion as agreement

N_FFT, HOP, SAMPLES = 512, 128, 16384
#: Results that are computed while earlier ones are read, and the factor from one to the next: a
#: power of two, so that all have the same bits except in their exponents.
ROUNDS, STEP = 12, 2.0
#: Samples before the signal in its memory. Storage offsets may get lost between torch and MLX.
OFFSET = 3


@dataclass(frozen=True)
class Check:
    """The result of checking one backend.

    Attributes:
        backend, device: who computed, and where the tensors were.
        ok: whether nothing was raised, and the errors are rounding.
        error: what was wrong; empty otherwise.
        max_error: by result, the largest absolute errors against float64: that of ``"native"``
            torch on the CPU, and the backend's (:func:`name_computation`).
        seconds: how long it took, the first use of the backend included.
        calls: the calls that this process counted meanwhile, by ``"operation/backend"``.
    """

    backend: str
    device: str
    ok: bool
    error: str = ""
    max_error: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    calls: dict[str, int] = field(default_factory=dict)


def list_pairs() -> tuple[tuple[str, str], ...]:
    """List every (backend, device) to check here; native torch only on devices besides the CPU."""
    return tuple(
        (name, device)
        for device in list_present_devices()
        for name in (*([NATIVE] if device != "cpu" else []), *list_backends(device))
        if name == NATIVE or load(name).explain_absence(device) is None
    )


def check(backend: str, device: str) -> Check:
    """Compare one backend with float64, and with native torch's own error on the CPU.

    Raises nothing, whatever is broken.
    """
    before = Counter(tms.stats().as_dict()["calls"])
    timer = HostTimer(time.perf_counter, lambda: None)  # needs no wait: results are read anyway
    timer.begin()
    errors: dict[str, dict[str, float]] = {}
    try:
        errors, peaks = measure(backend, device)
        wrong = [
            result
            for result, found in errors.items()
            # NaN is wrong, too.
            if not found[name_computation(backend, device)]
            <= _allow_error(found["native"], peaks[result])
        ]
        problem = f"errors of {', '.join(wrong)} are more than rounding" if wrong else ""
    except Exception as error:  # doctor reports whatever a broken backend raises
        problem = f"{type(error).__name__}: {error}"
    calls = dict(Counter(tms.stats().as_dict()["calls"]) - before)
    if not problem and backend != "native":
        disturbed = find_disturbed(backend, device)
        problem = f"memory was used again of results {', '.join(disturbed)}" if disturbed else ""
    timer.end()
    return Check(backend, device, not problem, problem, errors, timer.read_host(), calls)


def name_computation(backend: str, device: str) -> str:
    """Name a computation; ``"native"`` alone is the name of native torch's on the CPU."""
    return f"native on {device}" if backend == "native" else backend


def _allow_error(own: float, peak: float) -> float:
    """Return the error allowed: a multiple of native's, plus a share of the largest value.

    Both are as in verification.
    """
    return agreement.MARGIN * (agreement.OWN_ERROR * own + agreement.SHARE_OF_PEAK * peak)


def measure(backend: str, device: str) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Measure the largest errors against float64, by result and computation; and largest values.

    The errors of native torch on the CPU, to which others are compared, are called ``"native"``.
    """
    exact = _compute("native", "cpu", torch.float64)
    results = {
        "native": _compute("native", "cpu", torch.float32),
        name_computation(backend, device): _compute(backend, device, torch.float32),
    }
    errors = {
        name: {who: float((got[name] - value).abs().max()) for who, got in results.items()}
        for name, value in exact.items()
    }
    return errors, {name: float(value.abs().max()) for name, value in exact.items()}


def find_disturbed(backend: str, device: str) -> list[str]:
    """Find earlier results that later calls, or later commands of torch, have changed.

    This happens to a backend whose results lie in memory that the device's other commands do not
    wait for, or that is reused while torch still reads it. Nothing here waits for the device.
    """
    noise = torch.Generator().manual_seed(1)
    signal = torch.randn(SAMPLES, generator=noise).to(device)
    window = torch.hann_window(N_FFT).to(device)
    found: dict[str, list[torch.Tensor]] = {}
    with tms.backend(check_name(backend, "backend"), strict=True, verify=0):
        for round in range(ROUNDS):
            # torch's commands read this after the result is freed; the next may get its memory.
            louder = signal * STEP**round
            spectrum = tms.stft(louder, N_FFT, HOP, window=window, return_complex=True)
            found.setdefault("read after it was released", []).append(spectrum.abs())
            del spectrum
            # Changed in place, and read afterwards.
            spectrum = tms.stft(louder, N_FFT, HOP, window=window, return_complex=True)
            spectrum.mul_(2.0)
            spectrum.add_(spectrum)
            found.setdefault("changed in place", []).append(spectrum.abs() / 4.0)
            found.setdefault("kept", []).append(spectrum)
    disturbed = [
        name
        for name, (first, *others) in found.items()
        if not all(
            torch.allclose(other.cpu(), first.cpu() * STEP**step)
            for step, other in enumerate(others, 1)
        )
    ]
    first = found["changed in place"][0].cpu()
    if not torch.allclose(first, found["read after it was released"][0].cpu()):
        disturbed.append("the first one")
    return disturbed


def _compute(backend: str, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Compute a spectrum, the signal back and a gradient; return them as float64 on the CPU."""
    noise = torch.Generator().manual_seed(0)
    chirp = torch.sin(torch.arange(OFFSET + SAMPLES, dtype=torch.float64) ** 2 / SAMPLES)
    chirp += 0.1 * torch.randn(OFFSET + SAMPLES, dtype=torch.float64, generator=noise)
    weights = torch.randn(SAMPLES, dtype=torch.float64, generator=noise).to(dtype).to(device)
    window = torch.hann_window(N_FFT, dtype=torch.float64).to(dtype).to(device)
    signal = chirp.to(dtype).to(device)[OFFSET:].requires_grad_()
    # Without verification, which the program may have asked for: it would compute more.
    with tms.backend(check_name(backend, "backend"), strict=backend != "native", verify=0):
        spectrum = tms.stft(signal, N_FFT, HOP, window=window, return_complex=True)
        back = tms.istft(spectrum, N_FFT, HOP, window=window, length=SAMPLES)
        (gradient,) = torch.autograd.grad(back, signal, weights)
    results = {"stft": spectrum, "istft": back, "gradient": gradient}
    return {
        name: value.detach().cpu().to(torch.complex128 if value.is_complex() else torch.float64)
        for name, value in results.items()
    }


#: Rows and samples of a clip of some seconds, and of a long recording: ``auto`` may choose another
#: backend for each.
SHORT, LONG = (1, 1 << 15), (4, 1 << 20)


@dataclass(frozen=True)
class Kind:
    """A kind of call.

    Attributes:
        name: its name in reports.
        n_fft: length of the transform; the hop is a quarter of it.
        shape: rows and samples.
        dtype: the signal's dtype.
        gradient: whether the signal requires a gradient.
    """

    name: str
    n_fft: int
    shape: tuple[int, int] = LONG
    dtype: torch.dtype = torch.float32
    gradient: bool = False


KINDS = (
    Kind("n_fft 1024", 1024),
    Kind("n_fft 1024, short", 1024, SHORT),
    Kind("n_fft 1024, with gradient", 1024, gradient=True),
    Kind("n_fft 1024, complex signal", 1024, dtype=torch.complex64),
    Kind("n_fft 960", 960),
    Kind("n_fft 1021, a prime", 1021),
    Kind("n_fft 1024, float64", 1024, SHORT, torch.float64),
)


def matrix() -> list[dict[str, Any]]:
    """List who would compute every kind of call on every device that is here.

    Returns:
        For each call, by ``auto`` and by each backend for its device: the call (``kind``, ``op``,
        ``device``), the backend that the program names (``asked``), and ``backend``, ``kernel`` and
        ``reasons`` as in :class:`torch_mlx_spectro.Route`.
    """
    cells: list[dict[str, Any]] = []
    for device, kind in itertools.product(list_present_devices(), KINDS):
        if device == "mps" and kind.dtype is torch.float64:
            continue  # MPS has no float64
        for op, arguments in (("stft", _stft), ("istft", _istft)):
            subject = {"kind": kind.name, "op": op, "device": device}
            try:
                call, keywords = arguments(kind, device)
            except Exception as error:  # a device may be there and refuse memory
                cells.append({**subject, "asked": "any", **_format_error(error)})
                continue
            for asked in ("auto", *list_backends(device)):
                cells.append({**subject, "asked": asked, **_explain(asked, op, call, keywords)})
    return cells


def _explain(
    asked: str, op: str, call: tuple[Any, ...], keywords: dict[str, Any]
) -> dict[str, object]:
    try:
        with tms.backend(check_name(asked, "backend"), verify=0):
            route = tms.explain(op, *call, **keywords)
    except Exception as error:  # doctor reports whatever a broken backend raises
        return _format_error(error)
    return {"backend": route.backend, "kernel": route.kernel, "reasons": route.reasons}


def _format_error(error: Exception) -> dict[str, object]:
    return {"backend": "none", "kernel": "", "reasons": (f"{type(error).__name__}: {error}",)}


def _stft(kind: Kind, device: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    signal = torch.empty(kind.shape, dtype=kind.dtype, device=device)
    signal.requires_grad_(kind.gradient)
    return (signal, kind.n_fft), {"window": _window(kind, device), "return_complex": True}


def _istft(kind: Kind, device: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Make the arguments of the istft of a spectrum that lies in memory as stft leaves it."""
    rows, samples = kind.shape
    bins = kind.n_fft if kind.dtype.is_complex else kind.n_fft // 2 + 1
    frames = 1 + samples // (kind.n_fft // 4)
    dtype = torch.promote_types(kind.dtype, torch.complex32)
    spectrum = torch.empty((rows, frames, bins), dtype=dtype, device=device).transpose(1, 2)
    spectrum.requires_grad_(kind.gradient)
    return (spectrum, kind.n_fft), {
        "window": _window(kind, device),
        "onesided": not kind.dtype.is_complex,
        "return_complex": kind.dtype.is_complex,
    }


def _window(kind: Kind, device: str) -> torch.Tensor:
    return torch.hann_window(kind.n_fft, dtype=kind.dtype.to_real(), device=device)
