"""What a curve says of its points."""

import argparse

import pytest

from benches.growth import CURVES, Point, figures_of, sizes, summarise

MB = 1_000_000


def point(curve, size, us, peak=100 * MB):
    return Point(
        workload=curve.title,
        unit=curve.unit,
        size=size,
        us=us,
        server_cpu_us=1.0,
        requests=0.0,
        sent_bytes=0.0,
        peak_bytes=peak,
        runs_us=(us,),
    )


CREATE, READ = CURVES["file"][0], CURVES["MiB"][1]


@pytest.mark.parametrize(("us", "met"), [(129.0, True), (131.0, False)])
def test_a_million_files_are_judged_by_ten_thousand(us, met):
    growth, memory = figures_of([point(CREATE, 10_000, 100.0), point(CREATE, 1_000_000, us)])
    assert (growth.judged, growth.met) == (True, met)
    assert growth.measured == f"{us / 100:.2f} x"
    assert memory.met


def test_fewer_are_not_judged_and_without_the_reference_nothing_is_said():
    growth, _ = figures_of([point(CREATE, 10_000, 100.0), point(CREATE, 100_000, 900.0)])
    assert growth.verdict == "not judged"
    assert len(figures_of([point(CREATE, 1_000_000, 900.0)])) == 1
    assert figures_of([]) == []


def test_memory_is_that_of_the_worst():
    (memory,) = figures_of([point(READ, 10, 1.0), point(READ, 1024, 1.0, peak=700 * MB)])
    assert memory.verdict == "MISSED"
    assert "1,024" in memory.what


def test_a_point_is_the_median_of_its_runs():
    runs = [
        {
            "seconds": seconds,
            "server_cpu_seconds": 0.1,
            "server_peak_bytes": peak,
            "counted": {"requests": 5, "sent_bytes": 4096},
        }
        for seconds, peak in ((1.0, 3), (9.0, 7), (2.0, 5))
    ]
    found = summarise(CREATE, 1000, runs)
    assert found.us == 2000.0
    assert found.server_cpu_us == pytest.approx(100.0)
    assert found.requests == 0.005
    assert found.peak_bytes == 7


def test_sizes_are_a_sorted_list():
    assert sizes("100,10") == [10, 100]
    assert sizes("") == []
    with pytest.raises(argparse.ArgumentTypeError):
        sizes("0,3")
