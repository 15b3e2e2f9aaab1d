"""What a call leaves behind is seen and set again; tensors are altered where torch lets them be."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from small_calls import stft_case

from stft_parity.compare import aftermath
from stft_parity.compare.observing import observe

CHANGES = {
    "the grad mode": lambda: torch.set_grad_enabled(False),
    "the default dtype": lambda: torch.set_default_dtype(torch.float64),
    "the number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "the use of deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "the anomaly mode": lambda: torch.autograd.set_detect_anomaly(True, check_nan=False),
    "the state of torch's random numbers": lambda: torch.rand(1),
    "the state of Python's random numbers": lambda: random.random(),
    "the state of NumPy's random numbers": lambda: np.random.rand(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_state_is_named_and_set_again(name: str) -> None:
    before = observe(CHANGES[name], (), {})
    after = observe(CHANGES[name], (), {})
    # The second call could not change it, had the first one's change stayed.
    assert (before.changed, after.changed) == ((name,), (name,))


def test_all_that_is_watched_is_tried() -> None:
    assert set(CHANGES) == set(aftermath._STATE)


def test_a_call_that_raises_is_watched_too() -> None:
    def failing() -> None:
        torch.rand(1)
        raise ValueError("too late")

    assert observe(failing, (), {}).changed == ("the state of torch's random numbers",)


@pytest.mark.parametrize(
    "x",
    [
        "torch.randn((3, 120), generator=g)",
        "torch.randn((1, 120), generator=g).expand(3, 120)",
        "torch.randn((3, 240), generator=g)[:, ::2]",
        "torch.randn((3, 120), dtype=torch.complex64, generator=g).conj()",
        "torch.randn((3, 120), generator=g).requires_grad_()",
    ],
)
def test_values_are_altered_in_place(x: str) -> None:
    tensors = stft_case(x=x).tensors()
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    versions = {name: tensor._version for name, tensor in tensors.items()}
    assert aftermath.alter_values(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(tensor.detach(), before[name] * aftermath.FACTORS[name])
        # A candidate may keep what it computed of a tensor by its version: that has to tell.
        assert tensor._version > versions[name]


def test_what_torch_does_not_let_be_written_to_is_left() -> None:
    with torch.inference_mode():
        tensor = torch.ones(4)
    assert not aftermath.alter_values({"x": tensor, "w": None})
    assert not aftermath.alter_values({"x": torch.ones(0), "w": torch.ones(3, dtype=torch.int64)})
    assert torch.equal(tensor, torch.ones(4))
