"""Real trees through a real mount and back, identical in everything that can be seen (points 2 and 7 of the issue)."""

import random

import pytest

from tests.mount import trees
from tests.mount.harness import TINY
from tests.mount.hosts import peak_memory_bytes
from tests.mount.stores import on_stores
from tests.mount.trees import MIB, differences, snapshot

pytestmark = pytest.mark.mount


def fill(lab, root, packages):
    """Everything that point 2 names, made in `root` or copied into it; what was copied stays beside the mount."""
    plain = lab.root / "plain"
    plain.mkdir()
    trees.standard_library(plain / "stdlib", packages)
    trees.oddities(plain / "oddities")
    trees.repository(lab.root / "repository")
    trees.copy(plain / "stdlib", root)
    trees.copy(plain / "oddities", root)
    trees.clone(lab.root / "repository", root / "clone")
    trees.oddities(root / "oddities made here")
    trees.database(root / "words.sqlite")
    return plain


def check(mount, plain, before):
    """What is mounted now is what was written."""
    assert differences(before, snapshot(mount.path), same_filesystem=True) == []
    for name in ("stdlib", "oddities"):
        assert differences(snapshot(plain / name), snapshot(mount.path / name), same_filesystem=False) == []
    trees.check_times(mount.path / "oddities made here" / "times")
    trees.check_repository(mount.path / "clone")
    trees.check_database(mount.path / "words.sqlite")


@on_stores()
def test_a_real_tree_survives_a_cold_remount(lab, store):
    mount = lab.mount(store)
    plain = fill(lab, mount.path, trees.SLICE)
    before = snapshot(mount.path)
    check(mount, plain, before)
    mount.cold_remount()
    check(mount, plain, before)
    assert mount.status()["metrics"]["chunk_fetches"] > 0
    mount.umount()


@on_stores("file", "minio")
def test_a_real_tree_survives_tiny_limits(lab, store):
    mount = lab.mount(store, settings=TINY)
    plain = fill(lab, mount.path, trees.SLICE)
    before = snapshot(mount.path)
    written = mount.status()
    assert written["metrics"]["flushes"] > 5
    assert written["metrics"]["chunk_ssts"] > 10
    mount.cold_remount()
    check(mount, plain, before)
    read = mount.status()
    assert written["metrics"]["compactions"] > 0, "runs were merged"
    assert read["metrics"]["block_fetches"] > 0
    assert read["metrics"]["chunk_fetches"] > 20
    assert read["engine"]["chunk_cache"]["evictions"] > 0
    assert read["engine"]["block_cache"]["evictions"] > 0
    if store.kind != "file":
        assert read["engine"]["disk_cache"]["evicted_files"] > 0
    mount.umount()


@on_stores("file", "minio")
def test_four_times_the_memory_budget(lab, store, record_property):
    budget = 48 * 10**6
    settings = {"cache": {"memory_size_gb": budget / 10**9, "disk_size_gb": 0.05}}
    source = lab.root / "source"
    source.mkdir()
    for number in range(12):
        half = random.Random(number).randbytes(8 * MIB)
        (source / f"file {number}").write_bytes(half + bytes(half[index % 4096] for index in range(4096)) * 2048)
    assert sum(path.stat().st_size for path in source.iterdir()) > 4 * budget
    mount = lab.mount(store, settings=settings)
    idle = peak_memory_bytes(mount.pid)
    trees.copy(source, mount.path)
    mount.flush()
    peaks = {"idle": idle, "after writing": peak_memory_bytes(mount.pid)}
    mount.cold_remount()
    assert differences(snapshot(source), snapshot(mount.path / "source"), same_filesystem=False) == []
    peaks["after reading"] = peak_memory_bytes(mount.pid)
    status = mount.status()
    assert status["engine"]["chunk_cache"]["evictions"] > 0
    assert status["metrics"]["chunk_fetch_bytes"] > budget
    mount.umount()
    record_property("peak memory in MB", {name: peak // 10**6 for name, peak in peaks.items()})
    print(f"\npeak memory of the daemon on {store.kind}, in MB:", {name: peak // 10**6 for name, peak in peaks.items()})
    assert max(peaks.values()) < idle + 3 * budget


@pytest.mark.slow
@on_stores()
def test_the_whole_standard_library_survives_a_cold_remount(lab, store):
    mount = lab.mount(store)
    plain = fill(lab, mount.path, None)
    before = snapshot(mount.path)
    mount.cold_remount()
    check(mount, plain, before)
    mount.umount()
