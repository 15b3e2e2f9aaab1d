"""The exception that programs catch, and the one that they never see."""

from __future__ import annotations

import pickle

import pytest

import torch_mlx_spectro as tms
from torch_mlx_spectro.errors import NotAccelerated, UnresolvedArguments

REASONS = ("dtype torch.float64 of input is not accelerated", "autocast is active")


def test_not_accelerated_names_the_operation_and_every_reason() -> None:
    error = NotAccelerated("istft", REASONS)
    assert error.op == "istft"
    assert error.reasons == REASONS
    assert str(error).startswith("istft was not accelerated")
    assert "strict" in str(error)
    for reason in REASONS:
        assert reason in str(error)


def test_not_accelerated_survives_the_way_back_from_a_worker_process() -> None:
    """Worker pools pickle exceptions; losing the reasons there would lose the diagnosis."""
    error = pickle.loads(pickle.dumps(NotAccelerated("stft", REASONS)))
    assert type(error) is NotAccelerated
    assert (error.op, error.reasons) == ("stft", REASONS)
    assert str(error) == str(NotAccelerated("stft", REASONS))


def test_not_accelerated_is_a_runtime_error_of_the_public_name() -> None:
    """torch's own refusals are RuntimeErrors: code that catches those catches ours."""
    assert tms.NotAccelerated is NotAccelerated
    with pytest.raises(RuntimeError, match="stft was not accelerated"):
        raise NotAccelerated("stft", ("because",))


def test_unresolved_arguments_cannot_be_taken_for_an_error_of_a_computation() -> None:
    """It leads to native torch; an exception out of a computation must not."""
    assert not issubclass(UnresolvedArguments, (RuntimeError, ValueError, TypeError))
    assert "UnresolvedArguments" not in tms.__all__
