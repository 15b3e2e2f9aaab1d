"""Counts of the MLX API's caches."""

from __future__ import annotations

import threading

import mlx.core as mx
import pytest

from torch_mlx_spectro import (
    SpectralTransform,
    get_cache_debug_stats,
    get_transform_mlx,
    reset_cache_debug_stats,
)
from torch_mlx_spectro.mlx_api.caches import make_counted


def test_events_are_counted_where_the_environment_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, counted in (("0", 0), ("1", 1)):
        monkeypatch.setenv("SPEC_MLX_CACHE_STATS", value)
        reset_cache_debug_stats()
        transform = SpectralTransform(16, 4)
        spectrum = transform.stft(mx.zeros(60))
        for _ in range(3):
            transform.istft(spectrum)
        stats = get_cache_debug_stats(reset=True)
        assert stats["enabled"] is bool(counted)
        assert stats["counts"].get("ola_envelope_cache.miss", 0) == counted
        assert stats["counts"].get("ola_envelope_cache.hit", 0) == 2 * counted
        assert stats["counts"].get("ola_safety_cache.miss", 0) == counted
        # The third call has a graph, which was checked when it was made.
        assert stats["counts"].get("ola_safety_cache.hit", 0) == counted
        assert len(stats["recent_events"]) == 5 * counted
        assert get_cache_debug_stats()["counts"] == {}
    before = get_cache_debug_stats()["transform_cache"]
    for _ in range(2):
        get_transform_mlx(n_fft=16, hop_length=3)
    after = get_cache_debug_stats()["transform_cache"]
    assert after["hits"] + after["misses"] == before["hits"] + before["misses"] + 2
    assert after["hits"] > before["hits"]
    monkeypatch.undo()
    reset_cache_debug_stats()


def test_caches_are_bounded_and_give_every_thread_the_same_value() -> None:
    cache = make_counted("test", 4)
    for key in range(9):
        assert cache.get(key, lambda key=key: -key) == -key
    assert cache.info() == {"hits": 0, "misses": 9, "maxsize": 4, "currsize": 4}
    both = threading.Barrier(2)
    got: list[object] = []

    def make() -> object:
        both.wait(10)
        return object()

    threads = [
        threading.Thread(target=lambda: got.append(cache.get("same", make))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got[0] is got[1]
