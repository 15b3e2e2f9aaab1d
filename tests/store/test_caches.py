"""What was used last: bounded, and one value for all who ask at once."""

from __future__ import annotations

import threading

from torch_mlx_spectro.store.caches import Cache, Recent, preparations


def test_what_was_used_last_stays() -> None:
    recent: Recent[str, int] = Recent(3)
    for number, key in enumerate("abc"):
        assert recent.put(key, number) == number
    assert recent.find("a") == 0
    recent.put("b", 10)
    recent.put("d", 3)
    assert (recent.find("b"), recent.find("c"), len(recent)) == (10, None, 3)
    recent.put("e", 4)  # in the place of "a", the only one that was not looked at since
    assert [recent.find(key) for key in "abde"] == [None, 10, 3, 4]
    recent.clear()
    assert (len(recent), recent.find("b")) == (0, None)


def test_values_are_made_where_they_are_missing() -> None:
    cache: Cache[str, str] = Cache(2)
    for key in ("a", "b"):
        assert cache.get(key, key.upper) == key.upper()
    assert cache.get("a", lambda: "made again") == "A"
    assert cache.get("c", lambda: "C") == "C"
    assert cache.get("b", lambda: "made again") == "made again"
    assert len(cache) == 2


def test_what_is_there_is_replaced_only_if_it_is_to_be() -> None:
    cache: Cache[str, int] = Cache(2)
    assert cache.put("a", 1) == 1
    assert cache.put("a", 2, replace=False) == 1
    assert cache.put("a", 3) == cache.find("a") == 3
    cache.clear()
    assert cache.find("a") is None


def test_threads_that_make_a_value_at_once_get_the_same_one() -> None:
    cache: Cache[str, object] = Cache(2)
    both = threading.Barrier(2, timeout=10)
    got: list[object] = []

    def make() -> object:
        both.wait()
        return object()

    threads = [threading.Thread(target=lambda: got.append(cache.get("a", make))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got[0] is got[1]


def test_what_is_newly_kept_is_counted_and_what_is_found_is_not() -> None:
    cache: Cache[str, int] = Cache(2)
    before = preparations()
    cache.get("a", lambda: 1)
    assert preparations() == before + 1
    cache.get("a", lambda: 1)
    cache.put("a", 2, replace=False)
    assert cache.find("b") is None
    assert preparations() == before + 1
