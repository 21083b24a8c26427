"""The cache of DNS answers and SPF results: bounded in number and in bytes."""

from __future__ import annotations

import gc
import tracemalloc

from chapps_tw.dns.cache import Cache
from chapps_tw.dns.messages import Answer


def test_a_value_expires() -> None:
    cache: Cache[str] = Cache(10, 10_000)
    cache.set("a", "1", 5.0)
    assert (cache.get("a", 4.9), cache.get("a", 5.0), cache.get("b", 0.0)) == ("1", None, None)


def test_the_oldest_entry_is_evicted_first() -> None:
    cache: Cache[str] = Cache(2, 10_000)
    for key in ("a", "b", "a", "c"):
        cache.set(key, key, 5.0)
    assert [cache.get(key, 0.0) for key in ("a", "b", "c")] == ["a", None, "c"]


def test_the_total_size_is_bounded() -> None:
    cache: Cache[str] = Cache(1000, 10_000)
    for number in range(20):
        cache.set(number, "x" * 3000, 5.0)
    assert [number for number in range(20) if cache.get(number, 0.0)] == [18, 19]
    cache.set("too long", "x" * 20_000, 5.0)
    assert (cache.get("too long", 0.0), cache.size) == (None, 0)


def test_the_estimated_size_is_not_below_the_real_one() -> None:
    for make in (_texts, _addresses, _names, _nothing):
        cache: Cache[Answer] = Cache(100_000, 1 << 18)
        gc.collect()
        tracemalloc.start()
        for number in range(1_500):
            cache.set((f"name{number}.example", "TXT"), make(number), 5.0)
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert taken < 1.1 * cache.size < 1.2 * (1 << 18), make.__name__


def _texts(number: int) -> Answer:
    return ((f"v=spf1 {number:04000}".encode(),), (b"%d" % number,))


def _addresses(number: int) -> Answer:
    return tuple(f"10.{number}.0.{n}" for n in range(200))


def _names(number: int) -> Answer:
    return tuple((n, f"mx{n}.name{number}.example") for n in range(10))


def _nothing(number: int) -> Answer:
    return ()
