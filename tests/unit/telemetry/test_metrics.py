from hypothesis import given
from hypothesis import strategies as st

from zerofs.telemetry.metrics import Metrics


def test_starts_empty():
    assert Metrics().snapshot() == {}


def test_add_and_get():
    metrics = Metrics()
    metrics.add("requests_total")
    metrics.add("requests_total", 4)
    assert metrics.get("requests_total") == 5


def test_set_replaces():
    metrics = Metrics()
    metrics.set("dirty_bytes", 10)
    metrics.set("dirty_bytes", 2.5)
    assert metrics.get("dirty_bytes") == 2.5


def test_get_of_what_was_never_touched_leaves_no_trace():
    metrics = Metrics()
    assert metrics.get("requests_total", kind="get") == 0
    assert metrics.snapshot() == {}


def test_labels_tell_numbers_apart_in_any_order():
    metrics = Metrics()
    metrics.add("requests_total", kind="get", outcome="ok")
    metrics.add("requests_total", 2, outcome="ok", kind="get")
    metrics.add("requests_total", 7, kind="put", outcome="ok")
    assert metrics.get("requests_total", outcome="ok", kind="get") == 3
    assert metrics.snapshot() == {
        'requests_total{kind="get",outcome="ok"}': 3,
        'requests_total{kind="put",outcome="ok"}': 7,
    }


def test_a_bound_counter_is_the_same_number():
    metrics = Metrics()
    counter = metrics.counter("bytes", kind="get")
    assert metrics.counter("bytes", kind="get") is counter
    counter.add(5)
    metrics.add("bytes", 1, kind="get")
    assert counter.value == metrics.get("bytes", kind="get") == 6
    counter.set(1)
    assert metrics.snapshot() == {'bytes{kind="get"}': 1}


def test_a_bound_counter_shows_in_the_snapshot_before_it_moves():
    metrics = Metrics()
    metrics.counter("errors_total")
    assert metrics.snapshot() == {"errors_total": 0}


def test_snapshot_is_sorted_and_a_copy():
    metrics = Metrics()
    for name in ("b", "a", "c"):
        metrics.add(name)
    snapshot = metrics.snapshot()
    assert list(snapshot) == ["a", "b", "c"]
    metrics.add("a")
    assert snapshot["a"] == 1


def test_label_values_are_escaped():
    metrics = Metrics()
    metrics.add("x", where='a"b\\c\nd')
    assert metrics.snapshot() == {'x{where="a\\"b\\\\c\\nd"}': 1}


def test_registries_are_independent():
    one, other = Metrics(), Metrics()
    one.add("x")
    assert other.get("x") == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["get", "put"]), st.integers(-9, 9))))
def test_sums(additions):
    metrics = Metrics()
    sums = {}
    for name, kind, amount in additions:
        metrics.add(name, amount, kind=kind)
        sums[f'{name}{{kind="{kind}"}}'] = sums.get(f'{name}{{kind="{kind}"}}', 0) + amount
    assert metrics.snapshot() == sums
