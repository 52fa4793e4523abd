import pytest

from tests.unit.objectstore.kit import TracedStore
from zerofs.errors import ObjectNotFoundError, PreconditionFailedError, UnavailableError
from zerofs.objectstore.faults import Fault, FaultyStore
from zerofs.objectstore.memory import MemoryStore
from zerofs.objectstore.metered import MeteredStore, Traced
from zerofs.telemetry.metrics import Metrics


async def test_every_call_is_counted_under_its_kind():
    store = TracedStore()
    await store.put("a", [b"12", b"345"])
    await store.put_if_absent("b", b"1234567", b"id")
    await store.put_if_match("b", b"12", (await store.head("b")).version, b"id")
    assert await store.get("a", 1, 3) == b"234"
    assert (await store.get_versioned("b"))[0] == b"12"
    await store.list("")
    await store.delete("a")
    assert store.kinds == ["put", "put_if_absent", "head", "put_if_match", "get", "get", "list", "delete"]
    assert store.metrics.snapshot() == {
        'store_received_bytes{kind="get"}': 5,
        'store_requests_total{kind="delete"}': 1,
        'store_requests_total{kind="get"}': 2,
        'store_requests_total{kind="head"}': 1,
        'store_requests_total{kind="list"}': 1,
        'store_requests_total{kind="put"}': 1,
        'store_requests_total{kind="put_if_absent"}': 1,
        'store_requests_total{kind="put_if_match"}': 1,
        'store_sent_bytes{kind="put"}': 5,
        'store_sent_bytes{kind="put_if_absent"}': 7,
        'store_sent_bytes{kind="put_if_match"}': 2,
    }
    assert store.trace[0] == Traced(kind="put", name="a", sent_bytes=5, received_bytes=0)
    assert store.trace[4] == Traced(kind="get", name="a", sent_bytes=0, received_bytes=3)


async def test_answers_are_no_errors_and_failures_are(world):
    faulty = FaultyStore(MemoryStore(), world.random)
    store = TracedStore(faulty)
    faulty.plan(Fault.BUSY)
    with pytest.raises(UnavailableError):
        await store.put("a", b"1")
    with pytest.raises(ObjectNotFoundError):
        await store.get("a")
    await store.put("a", b"1")
    with pytest.raises(PreconditionFailedError):
        await store.put_if_absent("a", b"1", b"id")
    assert [traced.error for traced in store.trace] == [
        "UnavailableError",
        "ObjectNotFoundError",
        "",
        "PreconditionFailedError",
    ]
    errors = {name: value for name, value in store.metrics.snapshot().items() if "errors" in name}
    assert errors == {'store_errors_total{error="UnavailableError",kind="put"}': 1}
    assert store.metrics.get("store_requests_total", kind="put") == 2
    assert store.metrics.get("store_sent_bytes", kind="put") == 1


async def test_no_trace_is_kept_unless_asked_for():
    metrics = Metrics()
    store = MeteredStore(MemoryStore(), metrics)
    await store.put("a", b"")
    assert metrics.snapshot() == {'store_requests_total{kind="put"}': 1}
