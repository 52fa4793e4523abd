"""Each row has a workload, and the workloads do on a plain directory what they say."""

import shutil

import pytest

from benches.load import WORKLOADS
from benches.programs import Programs, _percentiles
from benches.rows import FILES, PROGRAMS, SUITES
from benches.sources import UNITS, Sources

FILES_COUNT = 50


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sources")
    Sources(directory).make(FILES_COUNT)
    return directory


def test_each_row_has_its_workload():
    assert {row.workload for row in FILES} == set(WORKLOADS)
    assert {name for row in PROGRAMS for name in (row.workload, row.prepared_by) if name} == {
        name for name in vars(Programs) if not name.startswith("_")
    }
    for suite in SUITES.values():
        assert len({row.title for row in suite.rows}) == len(suite.rows)


def test_the_workloads_in_their_order(tmp_path, sources):
    (tmp_path / "mount").mkdir()
    programs = Programs(tmp_path / "mount", 2, FILES_COUNT, sources)
    operations = {}
    for row in PROGRAMS:
        if all(map(shutil.which, row.needs)):
            for workload in filter(None, (row.prepared_by, row.workload)):
                done = getattr(programs, workload)()
                assert done.seconds > 0
                operations[workload] = done.operations
    assert operations["sqlite"] == FILES_COUNT // 10
    assert operations["parallel_write"] == operations["parallel_read"] == 16
    assert operations.get("build", UNITS + 1) == UNITS + 1
    assert list((tmp_path / "mount").iterdir()) == []


@pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is missing: apt-get install rsync")
def test_a_tree_that_rsync_would_copy_again_is_no_result(tmp_path, sources):
    programs = Programs(tmp_path, 1, FILES_COUNT, sources)
    programs.rsync()
    next((tmp_path / "copy").rglob("*.txt")).write_text("something else")
    with pytest.raises(SystemExit, match="1 files changed"):
        programs.rsync_again()


def test_sources_are_the_same_each_time(tmp_path, sources):
    Sources(tmp_path).make(FILES_COUNT)
    one, other = (
        {path.relative_to(root): path.read_bytes() for path in (root / "tree").rglob("*.txt")}
        for root in (tmp_path, sources)
    )
    assert one == other
    assert len(one) == FILES_COUNT


def test_percentiles_of_what_fio_measured():
    job = {
        "read": {"clat_ns": {"percentile": {"50.000000": 1_000_000, "99.900000": 2_500_000}}},
        "write": {"clat_ns": {}},
        "sync": {"lat_ns": {"percentile": {"99.000000": 7_000_000}}},
    }
    assert _percentiles(job) == {"read p50": 1.0, "read p99.9": 2.5, "sync p99": 7.0}
