"""What is known of calls: bounded, whatever the key, and free of a parent's lock."""

from __future__ import annotations

import torch

from torch_mlx_spectro.calls.key import Known, key_of, spelling_of
from torch_mlx_spectro.dispatch import run as dispatching
from torch_mlx_spectro.dispatch.run import MAX_SHAPES


def test_what_is_known_is_bounded_and_keys_may_be_unhashable() -> None:
    settled: Known[bool] = Known(MAX_SHAPES)
    settled.put(([],), True)
    assert not settled.get(([],))
    for shape in range(MAX_SHAPES):
        settled.put(shape, True)
    assert settled.get(0)
    settled.put("one more", True)
    assert settled.get("one more")
    assert not settled.get(0)


def test_the_lock_of_a_parent_does_not_stop_its_forked_child() -> None:
    settled: Known[bool] = Known(MAX_SHAPES)
    assert settled._lock.acquire(timeout=1)
    settled.after_fork_in_child()
    settled.put("shape", True)
    assert settled.get("shape")


def test_deterministic_algorithms_are_another_decision() -> None:
    signal = torch.randn(100)

    def keys() -> list[object]:
        shape = dispatching.shape_of_call(signal, (signal, 16), {})
        spelling = spelling_of("stft", "auto", signal, None, (signal, 16), {})
        return [shape, key_of(spelling, signal, None, False)]

    before = keys()
    torch.use_deterministic_algorithms(True)
    try:
        assert all(key not in before for key in keys())
    finally:
        torch.use_deterministic_algorithms(False)
    assert keys() == before


def test_arguments_that_are_equal_and_of_other_types_are_other_calls() -> None:
    """``True == 1 == 1.0``, of which torch rejects two."""
    signal = torch.randn(100)
    spellings = {
        spelling_of("stft", "mlx", signal, None, (signal, 16, n), {}) for n in (1, True, 1.0)
    }
    assert len(spellings) == 3
