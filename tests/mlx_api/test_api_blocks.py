"""Memory of MLX's own that blocks write into."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from torch_mlx_spectro.mlx import host
from torch_mlx_spectro.mlx_api import functions


@pytest.mark.parametrize("shape", [(1,), (3, 5), (0, 4), (2, 1 << 20), (7, 11, 13)])
@pytest.mark.parametrize("kind", [np.float32, np.complex64])
def test_what_is_written_is_what_mlx_reads(shape: tuple[int, ...], kind: type) -> None:
    array, memory = host.make_uninitialised(mx, shape, kind)
    assert array.shape == memory.shape == shape
    assert array.dtype == (mx.complex64 if kind is np.complex64 else mx.float32)
    values = np.arange(memory.size, dtype=np.float32).reshape(shape)
    memory[...] = values
    np.testing.assert_array_equal(np.array(array), values.astype(kind))
    np.testing.assert_array_equal(np.array(array + 1), (values + 1).astype(kind))


@pytest.mark.parametrize("shape", [(0, 3), (2, 5), (3, host.COPIED_BYTES // 8)])
@pytest.mark.parametrize("kind", [np.float32, np.complex64])
def test_an_array_is_filled_whether_it_is_copied_or_not(shape: tuple[int, int], kind: type) -> None:
    kept: list[np.ndarray] = []
    values = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape).astype(kind)

    def fill(memory: np.ndarray) -> None:
        kept.append(memory)
        memory[...] = values

    array = host.fill_array(mx, shape, kind, fill)
    assert array.dtype == (mx.complex64 if kind is np.complex64 else mx.float32)
    np.testing.assert_array_equal(np.array(array), values)
    is_copy = not np.shares_memory(np.array(array, copy=False), kept[0])
    assert is_copy == (kept[0].nbytes <= host.COPIED_BYTES)


def test_every_array_has_memory_of_its_own() -> None:
    first, memory = host.make_uninitialised(mx, (1000,), np.float32)
    memory[...] = 1
    second, other = host.make_uninitialised(mx, (1000,), np.float32)
    other[...] = 2
    assert float(first.sum()) == 1000
    assert float(second.sum()) == 2000


def test_only_large_host_arrays_with_values_are_served() -> None:
    signal, seen = mx.zeros(8), []
    assert functions.serves(functions.WORTHWHILE, signal)
    assert not functions.serves(functions.WORTHWHILE - 1, signal)

    def look(x: mx.array) -> mx.array:
        seen.append(functions.serves(functions.WORTHWHILE, x))
        return x

    mx.compile(look)(signal)
    assert seen == [False]
