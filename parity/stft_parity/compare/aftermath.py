"""What a call leaves behind: torch's state, and what a later call makes of what was kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from stft_parity.cases import Tensors

#: By what the tensors of a case are multiplied for a later call: neither product leaves a
#: transform as it was, which is linear in the first and of degree one or minus one in the second.
FACTORS = {"x": -0.75, "w": 1.5}

#: One case in so many has a later call: it costs three of the reference's.
LATER = 4

#: What belongs to the program, with how it is read and how it is set again.
_STATE: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the use of deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "the anomaly mode": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "the state of torch's random numbers": (
        lambda: bytes(torch.get_rng_state().numpy()),
        lambda state: torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8)),
    ),
    "the state of Python's random numbers": (random.getstate, random.setstate),
    "the state of NumPy's random numbers": (
        lambda: tuple(
            part.tolist() if isinstance(part, np.ndarray) else part
            for part in np.random.get_state()
        ),
        np.random.set_state,
    ),
}


@contextmanager
def watch_state() -> Iterator[list[str]]:
    """Name what of the program's state is changed within, and set it again."""
    before = {name: read() for name, (read, _) in _STATE.items()}
    changed: list[str] = []
    try:
        yield changed
    finally:
        for name, (read, write) in _STATE.items():
            if read() != before[name]:
                changed.append(name)
                write(before[name])


def alter_values(tensors: Tensors) -> bool:
    """Multiply the values of tensors in place, as far as torch lets them; whether any was."""
    found = False
    for name, factor in FACTORS.items():
        tensor = tensors.get(name)
        if (
            not isinstance(tensor, torch.Tensor)
            or not tensor.numel()
            or tensor.is_inference()
            or not (tensor.is_floating_point() or tensor.is_complex())
        ):
            continue
        # Of elements that are one in memory only the first may be written to.
        once = tensor[tuple(slice(0, 1 if stride == 0 else None) for stride in tensor.stride())]
        try:
            with torch.no_grad():
                once.mul_(factor)
        except RuntimeError:  # elements that overlap otherwise
            continue
        found = True
    return found
