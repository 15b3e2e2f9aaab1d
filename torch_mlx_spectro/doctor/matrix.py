"""Which backend would compute what here, as ``explain`` tells it of real tensors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch

import torch_mlx_spectro as tms

from ..backends import registry

#: Rows x samples of a clip of some seconds, and of a long recording: ``auto`` may tell them apart.
SHORT, LONG = (1, 1 << 15), (4, 1 << 20)


@dataclass(frozen=True)
class Kind:
    """A kind of call.

    Attributes:
        name: for reports.
        n_fft: length of the transform; the hop is a quarter of it.
        shape: rows and samples.
        dtype: of the signal.
        gradient: whether a derivative is asked for.
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
    """Who would compute every kind of call on every device that is here.

    Returns:
        For each call, by ``auto`` and by each backend for its device: the call (``kind``, ``op``,
        ``device``), the backend that the program names (``asked``), and ``backend``, ``kernel`` and
        ``reasons`` as of :class:`torch_mlx_spectro.Route`.
    """
    cells: list[dict[str, Any]] = []
    for device, kind in itertools.product(registry.list_present_devices(), KINDS):
        if device == "mps" and kind.dtype is torch.float64:
            continue  # MPS has no float64
        for op, arguments in (("stft", _stft), ("istft", _istft)):
            place = {"kind": kind.name, "op": op, "device": device}
            try:
                call, keywords = arguments(kind, device)
            except Exception as error:  # a device that is there and refuses memory
                cells.append({**place, "asked": "any", **_tell_error(error)})
                continue
            for asked in ("auto", *registry.list_backends(device)):
                cells.append({**place, "asked": asked, **_explain(asked, op, call, keywords)})
    return cells


def _explain(
    asked: str, op: str, call: tuple[Any, ...], keywords: dict[str, Any]
) -> dict[str, object]:
    try:
        with tms.backend(asked, verify=0):
            route = tms.explain(op, *call, **keywords)
    except Exception as error:  # whatever a broken backend raises is what doctor is asked to tell
        return _tell_error(error)
    return {"backend": route.backend, "kernel": route.kernel, "reasons": route.reasons}


def _tell_error(error: Exception) -> dict[str, object]:
    return {"backend": "none", "kernel": "", "reasons": (f"{type(error).__name__}: {error}",)}


def _stft(kind: Kind, device: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    signal = torch.empty(kind.shape, dtype=kind.dtype, device=device)
    signal.requires_grad_(kind.gradient)
    return (signal, kind.n_fft), {"window": _window(kind, device), "return_complex": True}


def _istft(kind: Kind, device: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inverse, of a spectrum that lies as stft leaves it: frames first, then bins."""
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
    real = torch.float64 if kind.dtype is torch.float64 else torch.float32
    return torch.hann_window(kind.n_fft, dtype=real, device=device)
