"""Host memory: bits that numpy cannot see, and copies into MLX."""

from __future__ import annotations

import threading

import mlx.core as mx
import numpy as np
import pytest

from torch_mlx_spectro.mlx.host import HostView, advise_huge_pages, copy_to_mlx


@pytest.mark.parametrize("conjugate", [False, True])
@pytest.mark.parametrize("negate", [False, True])
def test_a_block_has_its_tensors_values(conjugate: bool, negate: bool) -> None:
    memory = np.arange(24).reshape(4, 6) * (1 - 2j)
    view = HostView(memory, conjugate, negate)
    assert view.unresolved == (conjugate or negate)
    part = memory[::2, 1:5:2]
    expected = (np.conj(part) if conjugate else part) * (-1 if negate else 1)
    before = memory.copy()
    found = view.block(part)
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous
    target = np.zeros_like(expected)
    view.copy_block(part, target)
    np.testing.assert_array_equal(target, expected)
    np.testing.assert_array_equal(memory, before)


def test_a_dense_block_of_resolved_values_is_no_copy() -> None:
    memory = np.arange(6.0)
    assert np.shares_memory(HostView(memory, False, False).block(memory), memory)


@pytest.mark.parametrize("kind", [np.float32, np.complex64, np.int64, np.int32])
def test_an_array_comes_to_mlx_whole_and_as_a_copy(kind: type) -> None:
    values = np.arange(24, dtype=kind).reshape(4, 6)[::-1, ::2]
    array = copy_to_mlx(mx, values)
    found = np.array(array)
    assert found.dtype == kind
    np.testing.assert_array_equal(found, values)
    values[...] = 0
    assert int(np.abs(np.array(array)).sum()) > 0


def test_a_copied_array_crosses_threads() -> None:
    """MLX refuses lazy arrays of another thread; constants are kept without being evaluated."""
    kept: list[mx.array] = []

    def make() -> None:
        values = copy_to_mlx(mx, np.arange(6, dtype=np.float32))
        kept.extend([values, mx.sin(values)])

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(np.array(kept[0] + 1), np.arange(1, 7))
    with pytest.raises(RuntimeError, match="no Stream"):
        np.array(kept[1])


def test_advice_changes_no_values() -> None:
    memory = np.arange(2 << 20, dtype=np.float32)  # 8 MiB: large enough to be advised
    advise_huge_pages(memory.ctypes.data, memory.nbytes)
    advise_huge_pages(memory.ctypes.data, 1)
    np.testing.assert_array_equal(memory, np.arange(2 << 20, dtype=np.float32))
