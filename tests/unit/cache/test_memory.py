"""The decoded cache: bounded, true to what was put, and not emptied by a scan."""

from hypothesis import given
from hypothesis import strategies as st

from zerofs.cache.memory import MemoryCache

ACTIONS = st.lists(
    st.tuples(st.sampled_from(["put", "get", "discard"]), st.integers(0, 30), st.integers(1, 40)), max_size=300
)


@given(ACTIONS)
def test_never_over_budget_and_never_wrong(actions):
    cache: MemoryCache[int, tuple[int, int]] = MemoryCache(100)
    newest: dict[int, tuple[int, int]] = {}
    for turn, (action, key, size) in enumerate(actions):
        if action == "put":
            newest[key] = (key, turn)
            cache.put(key, newest[key], size)
        elif action == "get":
            assert cache.get(key) in (None, newest.get(key))
        else:
            cache.discard(key)
            assert cache.get(key) is None
        assert 0 <= cache.size_bytes <= 100
    assert cache.size_bytes == sum(entry.size for entry in cache._entries.values())


def test_a_scan_does_not_evict_what_is_used():
    cache: MemoryCache[int, int] = MemoryCache(100)
    for key in range(50):
        cache.put(key, key, 1)
    for _ in range(2):
        for key in range(50):
            cache.get(key)
    for key in range(1000, 3000):
        cache.put(key, key, 1)
    assert sum(cache.get(key) is not None for key in range(50)) >= 45


def test_larger_than_the_budget_is_not_kept():
    cache: MemoryCache[int, int] = MemoryCache(10)
    cache.put(1, 1, 11)
    assert cache.get(1) is None
    assert cache.statistics()["bytes"] == 0


def test_what_nobody_asked_for_yet_is_no_more_than_new_after_its_first_use():
    cache = MemoryCache(1000)
    cache.put("read ahead", 1, 10, unasked=True)
    cache.put("read twice", 1, 10)
    assert cache.get("read ahead") == cache.get("read twice") == 1
    for i in range(200):
        cache.put(i, 0, 10)
    assert cache.peek("read twice") == 1
    assert cache.peek("read ahead") is None


def test_a_peek_leaves_no_trace():
    cache = MemoryCache(100)
    cache.put("a", 1, 10)
    for _ in range(5):
        assert cache.peek("a") == 1
    assert cache.peek("b") is None
    assert (cache.hits, cache.misses) == (0, 0)
    for i in range(30):
        cache.put(i, 0, 10)
    assert cache.peek("a") is None


def test_what_is_put_and_forgotten_leaves_nothing_behind():
    cache = MemoryCache(1 << 20)
    cache.put("stays", 1, 10)
    for i in range(10_000):
        cache.put(i, 0, 10)
        cache.discard(i)
    assert len(cache._small) + len(cache._main) < 200
    assert cache.get("stays") == 1


def test_what_went_unread_is_no_old_acquaintance():
    cache = MemoryCache(1000)
    cache.put("read ahead", 1, 10, unasked=True)
    for i in range(200):
        cache.put(i, 0, 10)
    assert cache.peek("read ahead") is None
    cache.put("read ahead", 1, 10)
    for i in range(200, 400):
        cache.put(i, 0, 10)
    assert cache.peek("read ahead") is None
