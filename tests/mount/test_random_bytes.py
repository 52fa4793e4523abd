"""Random operations on files, each answer compared with bytes in memory: `bytes_at_random` can do so for hours."""

import os

import pytest

from tests.mount.bytes_at_random import Stage, run, settings
from tests.mount.harness import Lab

pytestmark = pytest.mark.mount

SLOW = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_programs_are_right_about_a_plain_directory(tmp_path, seed):
    """Otherwise they would prove nothing about a mount."""
    (tmp_path / "files").mkdir()
    try:
        os.close(os.open(tmp_path / "files" / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError as error:
        pytest.skip(f"NOT TESTED: no O_DIRECT in {tmp_path}: {error}")
    run(Stage(tmp_path / "files", None), tmp_path / "log", seed=seed, workers=2, rounds=range(4))


@pytest.mark.parametrize(
    ("seed", "rounds"),
    [pytest.param(1, 3, id="few"), *(pytest.param(seed, 60, id=f"many-{seed}", marks=SLOW) for seed in (2, 3))],
)
@pytest.mark.parametrize("writeback", [True, False], ids=["writeback", "writethrough"])
def test_every_byte_is_what_was_written_last(fuse, tmp_path, writeback, seed, rounds):
    with Lab(tmp_path, patience_s=100 + 25 * rounds) as lab:
        mount = lab.mount(lab.local_store(), settings=settings(writeback=writeback))
        stage = Stage(mount.path, mount)
        run(stage, tmp_path / "log", seed=seed, workers=2, rounds=range(rounds))
        mount.zerofs("fsck")
    counters = ["wal_objects", "flushes", "compactions", "chunk_ssts", "block_fetches", "chunk_fetches"]
    for counter in [*counters, *(["repacked_ssts", "collected_objects"] if rounds > 10 else [])]:
        assert stage.metrics[counter], f"{counter}: the seed did not reach it"
