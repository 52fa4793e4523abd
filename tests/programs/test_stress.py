"""stress-ng: each of its filesystem stressors checks what it does, and finds nothing wrong."""

import errno
import fcntl
import os
import re
import sys

import pytest

from tests.mount.posix.users import outcome
from tests.programs import kit

pytestmark = kit.MARKS

STRESSORS = {
    "names": "chdir dir dirdeep dirmany filename getdent link mknod rename symlink",
    "attributes": "access chmod chown fstat handle touch utime xattr",
    "contents": "aio aiol copy-file dentry hdd iomix mmap msync open readahead seek sendfile splice sync-file",
    "ranges": "fallocate fpunch fsize",
    "watchers": "dnotify dup fanotify fcntl file-ioctl flock inotify lease locka lockf lockofd",
}

OPTIONS = {
    "chdir": "--chdir-dirs 256",
    "dentry": "--dentries 64",
    "hdd": "--hdd-bytes 8M --hdd-opts wr-rnd,rd-rnd,fsync",
    "iomix": "--iomix-bytes 2M",
    "mmap": "--mmap-file --mmap-bytes 8M",
    "readahead": "--readahead-bytes 16M",
    "seek": "--seek-size 16M",
    "sync-file": "--sync-file-bytes 4M",
}

SECONDS = (2, 8, 30)
"""More time for those that did not come to their first step: setting thousands of attributes, 2 MiB with O_SYNC."""

FIEMAP, FLAGS = "FUSE has no FS_IOC_FIEMAP", "there are no file flags"
LEFT_OUT = {
    "fiemap": FIEMAP,
    "chattr": FLAGS,
    "inode-flags": FLAGS,
    "verity": FLAGS,
    "io": "sync(2), which is for all disks of the machine",
    "ioprio": "about the scheduler of a disk",
    "bind-mount": "about mounts",
    "binderfs": "about mounts",
    "eventfd": "about no files",
    "procfs": "about /proc",
}

FS_IOC_GETFLAGS, FS_IOC_FIEMAP = 0x80086601, 0xC020660B

LIMITED = """
import os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for call in (lambda: os.pwrite(file, b"beyond", 100_000), lambda: os.ftruncate(file, 100_001)):
    try:
        call()
    except OSError as error:
        print(error.errno)
"""


@pytest.mark.parametrize("group", STRESSORS)
def test_stressors(mount, group):
    kit.need_root()
    kit.need("stress-ng")
    wrong = []
    for name in STRESSORS[group].split():
        for seconds in SECONDS:
            code, said = kit.attempt(
                *("stress-ng", f"--{name}", "1" if name == "xattr" else "2", "--verify", "--metrics-brief"),
                *("--temp-path", mount.path, "--timeout", f"{seconds}s", *OPTIONS.get(name, "").split()),
                cwd=mount.path,
            )
            done = re.search(rf"^stress-ng: metrc: \[\d+\] {name} +(\d+) ", said, re.MULTILINE)
            failed = code or done is None or "fail:" in said
            if failed or int(done[1]):
                break
        if failed or not int(done[1]):
            wrong.append(f"{name}: {code}\n{said[-2000:]}")
    assert not wrong, "\n".join(wrong)
    assert os.listdir(mount.path) == [], "they removed all that they made"


def test_every_stressor_is_used_or_left_out_for_a_reason_that_holds(mount):
    kit.need("stress-ng")
    _, said = kit.attempt("stress-ng", "--class", "filesystem?", cwd=mount.path)
    known = set(said.partition("stressors: ")[2].split())
    assert len(known) > 30
    assert known <= {name for group in STRESSORS.values() for name in group.split()} | LEFT_OUT.keys()
    path = mount.path / "file"
    with path.open("w+b") as file:
        assert outcome(fcntl.ioctl, file, FS_IOC_FIEMAP, bytes(32)) == "ENOTSUP", FIEMAP
        assert outcome(fcntl.ioctl, file, FS_IOC_GETFLAGS, bytes(8)) == "ENOTTY", FLAGS
    said = kit.run(sys.executable, "-c", LIMITED, path, cwd=mount.path)
    assert said.split() == [str(errno.EFBIG)] * 2, "the limit of file sizes holds"
