"""What is known of calls: bounded, whatever the key, and free of a parent's lock."""

from __future__ import annotations

from torch_mlx_spectro.call_keys import Known
from torch_mlx_spectro.dispatching import MAX_SHAPES


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
