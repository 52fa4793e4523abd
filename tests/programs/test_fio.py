"""fio: what it wrote, each block with its checksum, is what it reads, at once and after a cold remount."""

from tests.programs import kit

pytestmark = kit.MARKS

SEED = 7

JOBS = {
    "sequential": "--rw=write --bs=128k --size=24m --ioengine=psync --numjobs=2",
    "random": "--rw=randwrite --bs=4k --size=12m --ioengine=psync --numjobs=2",
    "odd sizes": "--rw=randwrite --bsrange=512-200k --bs_unaligned=1 --size=16m --ioengine=psync",
    "async": "--rw=randwrite --bssplit=4k/50:32k/30:256k/20 --size=24m --ioengine=libaio --iodepth=16",
    "direct": "--rw=randwrite --bs=16k --size=16m --ioengine=libaio --iodepth=8 --direct=1",
    "mapped": "--rw=randwrite --bs=4k --size=8m --ioengine=mmap",
    "synced": "--rw=randwrite --bs=8k --size=2m --ioengine=psync --fsync=8",
}


def fio(mount, name, *options):
    """One job, over the files that bear its name."""
    return kit.attempt(
        *("fio", f"--name={name}", f"--directory={mount.path}", *JOBS[name].split()),
        *("--verify=crc32c", "--verify_fatal=1", f"--randseed={SEED}", "--randrepeat=1", "--group_reporting"),
        "--fallocate=truncate",  # else it makes a file anew that is a little shorter than it asked for
        *options,
        cwd=mount.path,
    )


def test_every_block_is_verified_at_once_and_after_a_cold_remount(mount):
    kit.need("fio")
    for name in JOBS:
        code, said = fio(mount, name, "--do_verify=1", "--end_fsync=1")
        assert code == 0, said
    mount.cold_remount()
    for name in JOBS:
        code, said = fio(mount, name, "--verify_only=1")
        assert code == 0, said
    change_a_byte(min(mount.path.glob("random.1.*")))
    code, said = fio(mount, "random", "--verify_only=1")
    assert code != 0, "what all this is worth"
    assert "crc32c: verify failed" in said


def change_a_byte(path):
    data = path.read_bytes()
    offset = len(data) // 2 + 1000
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes([data[offset] ^ 1]))
