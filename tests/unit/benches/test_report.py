"""Figures of several runs become figures of one operation."""

from benches.report import costs


def run(*, operations, moved_bytes=0, peak=None, **counted):
    return {
        "operations": operations,
        "moved_bytes": moved_bytes,
        "server_cpu_seconds": 0.5,
        "server_peak_bytes": peak,
        "counted": counted,
    }


def test_costs_are_per_operation_of_all_runs():
    found = costs(
        [
            run(operations=10, moved_bytes=400, peak=7, requests=2, sent_bytes=500, received_bytes=0),
            run(operations=30, moved_bytes=1200, peak=9, requests=6, sent_bytes=1500, received_bytes=0),
        ]
    )
    assert found["server_cpu_us_per_operation"] == 1e6 / 40
    assert found["server_peak_bytes"] == 9
    assert found["store_requests_per_operation"] == 8 / 40
    assert found["store_sent_bytes_per_operation"] == 2000 / 40
    assert found["sent_amplification"] == 2000 / 1600
    assert found["received_amplification"] == 0


def test_what_is_not_counted_is_not_zero():
    found = costs([run(operations=10)])
    assert found["store_requests_per_operation"] is None
    assert found["sent_amplification"] is None
    assert found["server_peak_bytes"] is None
    assert found["hit_rates"] == {}


def test_hit_rates_of_the_caches_that_were_asked():
    found = costs([run(operations=1, a_hits=3, a_misses=1, b_hits=0, b_misses=0)])
    assert found["hit_rates"] == {"a": 0.75}
