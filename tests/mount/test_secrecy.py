"""P1: nothing readable leaves the process (point 3 of the issue).

A volume is filled with random markers wherever a user's bytes can be: in contents of all sizes, names, targets of
symlinks, names and values of xattrs. Then everything that zerofs left anywhere is searched for them, for the password
and for the keys.
"""

import base64
import contextlib
import os
import random
import re
from pathlib import Path

import pytest
import trio

from tests.mount.leaks import Leaks
from tests.mount.stores import on_stores
from zerofs.config import load
from zerofs.crypto.kdf import Purpose, hkdf_sha256
from zerofs.crypto.secret import Secret
from zerofs.keys import vault
from zerofs.objectstore.open import open_store
from zerofs.telemetry.metrics import Metrics
from zerofs.world import World

pytestmark = pytest.mark.mount

KIB = 1024
MIB = 1024 * KIB
PASSWORD = base64.b32encode(random.SystemRandom().randbytes(35)).decode()


class Markers:
    """Random bytes that nobody else can have, kept by what they were used for."""

    def __init__(self) -> None:
        self._source = random.SystemRandom()
        self.made: dict[str, bytes] = {}

    def bytes(self, use: str, size: int = 4 * KIB) -> bytes:
        self.made[use] = self._source.randbytes(size)
        return self.made[use]

    def text(self, use: str, size: int = 48) -> bytes:
        """Letters and digits, as most names are: a log would show them as they are."""
        self.made[use] = base64.b32encode(self._source.randbytes(size)).rstrip(b"=")
        return self.made[use]

    def name(self, use: str, size: int = 120) -> bytes:
        """Any bytes that a name may have."""
        self.made[use] = bytes(self._source.choice(range(1, 256)) for _ in range(size)).replace(b"/", b"\x07")
        return self.made[use]


def write(path: bytes, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def leave_marks(root: bytes, markers: Markers, volume: str = "") -> None:
    """Use markers everywhere, below a directory that is called `volume`."""
    root = os.path.join(root, volume.encode())
    os.makedirs(root, exist_ok=True)

    def mark(kind, use, *size):
        return kind(f"{volume} {use}", *size)

    plain = os.path.join(root, mark(markers.text, "a directory"))
    odd = os.path.join(root, mark(markers.name, "an odd directory"))
    for folder in (plain, odd):
        os.mkdir(folder)
    write(os.path.join(plain, mark(markers.text, "a file")), mark(markers.bytes, "4 KiB of a file"))
    write(os.path.join(plain, mark(markers.name, "an odd file")), mark(markers.bytes, "an inline file", 900))
    write(os.path.join(odd, b"tiny"), mark(markers.bytes, "a tiny file", 16))
    write(os.path.join(odd, b"text"), mark(markers.text, "text in a file", 3000) * 3)
    write(os.path.join(odd, b"amid zeros"), bytes(70_000) + mark(markers.bytes, "amid zeros") + bytes(50_000))
    write(os.path.join(odd, b"repeated"), mark(markers.bytes, "repeated", 1000) * 500)
    write(os.path.join(odd, b"big"), mark(markers.bytes, "big", 8 * KIB) + b"".join(map(os.urandom, [KIB] * 1200)))
    os.symlink(mark(markers.text, "a target"), os.path.join(plain, b"symlink"))
    os.symlink(b"/" + mark(markers.name, "an odd target", 2000), os.path.join(plain, b"odd symlink"))
    path = os.path.join(plain, b"with xattrs")
    write(path, b"")
    os.setxattr(path, b"user." + mark(markers.text, "an xattr's name"), mark(markers.bytes, "an xattr's value"))
    os.setxattr(path, b"user.small", mark(markers.bytes, "a small xattr's value", 40))
    write(os.path.join(plain, b"renamed"), b"")
    os.rename(os.path.join(plain, b"renamed"), os.path.join(odd, mark(markers.text, "a new name")))
    removed = os.path.join(odd, mark(markers.text, "a removed file"))
    write(removed, mark(markers.bytes, "contents of a removed file"))
    os.unlink(removed)


def stumble(root: bytes, markers: Markers) -> None:
    """Run into errors with secret names: these are what gets logged."""
    absent = os.path.join(root, markers.text("an absent name"))
    for failing in (
        lambda: os.stat(absent),
        lambda: os.rmdir(os.path.join(root, b"zstd", markers.made["zstd a directory"])),
        lambda: os.mkdir(os.path.join(root, b"zstd", markers.made["zstd a directory"])),
        lambda: os.getxattr(root, b"user." + markers.text("an absent xattr")),
        lambda: os.stat(os.path.join(root, markers.text("too long", 400))),
        lambda: os.symlink(markers.bytes("too long a target", 5000).replace(b"\0", b"\1"), absent),
        lambda: os.setxattr(root, b"user.x", markers.bytes("too large a value", 100_000)),
    ):
        with contextlib.suppress(OSError, ValueError):
            failing()


def read_all(root: bytes) -> int:
    """Read everything; how many files did not let themselves be read."""
    failed = 0
    for folder, _, files in os.walk(root):
        for name in files:
            path = os.path.join(folder, name)
            os.listxattr(path, follow_symlinks=False)
            if not os.path.islink(path):
                try:
                    Path(os.fsdecode(path)).read_bytes()
                except OSError:
                    failed += 1
    return failed


def keys_of(mount) -> dict[str, bytes]:
    """The volume's data key and everything that is made of it."""

    async def unseal():
        settings, world = load(mount.config, mount.host.environ(PASSWORD)), World()
        async with contextlib.aclosing(open_store(settings.storage.url, settings.aws, world, Metrics())) as store:
            return await vault.unseal(store, world, Secret(PASSWORD.encode()))

    keyring = trio.run(unseal)
    keys = {}
    for generation in keyring._generations:
        keys[f"data key {generation.key_id}"] = bytes(generation.dek.reveal())
        for purpose in Purpose:
            keys[f"{purpose.name} key {generation.key_id}"] = hkdf_sha256(generation.dek.reveal(), purpose)
    return keys


def everything(lab, store, *mounts):
    """All that zerofs wrote or said: objects and what stands beside them, cache files, logs, notes, outputs."""
    for name in store.names():
        yield f"object {name}", store.read(name)
        yield f"the name of {name}", name.encode()
        yield f"metadata of {name}", store.metadata(name).encode()
    for mount in mounts:
        for path in sorted(mount.cache.rglob("*")):
            if path.is_file():
                yield f"cache file {path}", path.read_bytes()
    yield from lab.spoken()


@on_stores()
def test_no_marker_leaves_the_process(lab, store):
    markers = Markers()
    settings = {"filesystem": {"compression": "zstd-3"}, "cache": {"memory_size_gb": 0.02}}
    mount = lab.mount(store, settings=settings, password=PASSWORD, verbose=True)
    root = os.fsencode(mount.path)
    leave_marks(root, markers, "zstd")
    stumble(root, markers)
    mount.flush()
    with open(mount.path / "in the log", "wb") as file:
        file.write(markers.bytes("a file that stays in the WAL"))
        file.flush()
        os.fsync(file.fileno())
    mount.kill()
    mount.drop_cache()
    mount.configure(settings | {"filesystem": {"compression": "lz4"}})
    mount.start()
    assert read_all(root) == 0
    leave_marks(root, markers, "lz4")
    mount.cold_remount()
    assert read_all(root) == 0
    mount.zerofs("status")
    cached = mount.status()["engine"]["disk_cache"]
    mount.umount()
    secrets = markers.made | {"the password": PASSWORD.encode()} | keys_of(mount)
    found = list(everything(lab, store, mount))
    assert Leaks(secrets).find(found) == []
    assert "INFO" in lab.host.logs
    assert sum(place.startswith("object compacted/") for place, _ in found) > 2
    if store.kind != "file":
        assert cached["bytes"] > MIB
        assert sum(len(body) for place, body in found if place.startswith("cache file")) > MIB


def test_damage_is_told_without_names(lab, store):
    markers = Markers()
    mount = lab.mount(store, password=PASSWORD, verbose=True)
    root = os.fsencode(mount.path)
    leave_marks(root, markers)
    mount.umount()
    mount.drop_cache()
    for name in store.names():
        body = store.read(name)
        if name.startswith("compacted/") and len(body) > 100 * KIB:
            store.write(name, body[:50_000] + b"damaged" + body[50_007:])
    mount.start()
    assert read_all(root) > 0
    mount.umount()
    assert "input/output error" in lab.host.logs
    secrets = markers.made | {"the password": PASSWORD.encode()} | keys_of(mount)
    assert Leaks(secrets).find(everything(lab, store, mount)) == []


def test_a_clone_lets_out_no_key_of_its_source(lab, store):
    """Its manifests hold two of them, a worker is given one, and errors name the source."""
    markers = Markers()
    settings = {"lsm": {"memtable_size_mb": 0.064, "chunk_sst_size_mb": 0.25}}
    source = lab.mount(store, settings=settings, password=PASSWORD, verbose=True)
    leave_marks(os.fsencode(source.path), markers)
    source.zerofs("checkpoint", "create", "one", password=PASSWORD)
    dest = store.elsewhere()
    source.zerofs("checkpoint", "clone", "one", dest.url, "-v", password=PASSWORD)
    clone = lab.mount(dest, "clone", settings=settings, password=PASSWORD, verbose=True)
    assert read_all(os.fsencode(clone.path)) == 0
    leave_marks(os.fsencode(clone.path), markers, "of the clone")
    clone.umount()
    secrets = markers.made | {"the password": PASSWORD.encode()} | keys_of(source)
    secrets |= {f"{name} of the clone": key for name, key in keys_of(clone).items()}
    shown = clone.zerofs("debug", *[name for name in dest.names() if name.startswith("manifest/")], "--values", "-v")
    assert '"sources": [' in shown.stdout
    source.umount()
    store.root.rename(store.root.with_name("moved"))
    assert clone.zerofs("clone", "detach", "-v", check=False).returncode == 16
    store.root.with_name("moved").rename(store.root)
    assert Leaks(secrets).find(everything(lab, dest, source, clone)) == []
    clone.zerofs("clone", "detach", "-v")
    assert Leaks(secrets).find(everything(lab, dest, source, clone)) == []


def test_the_memory_of_the_process_is_its_own(lab, store):
    mount = lab.mount(store)
    limits = Path(f"/proc/{mount.pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), limits
    # Not dumpable: what lies in /proc belongs to root, whoever runs the process, and nobody else may attach.
    assert Path(f"/proc/{mount.pid}/mem").stat().st_mode & 0o077 == 0
    mount.umount()


def test_the_search_finds_what_is_there():
    secret = random.Random(1).randbytes(4 * KIB)
    leaks = Leaks({"secret": secret, "other": bytes(range(16))})
    for start, shift in ((0, 0), (1, 3), (1001, 5), (4080, 7)):
        body = bytes(1000 + shift) + secret[start : start + 16] + bytes(999)
        assert leaks.find([("here", body)]) == ["here holds 16 bytes of secret"]
        assert leaks.find([("here", bytes(1000 + shift) + secret[start : start + 15] + bytes(999))]) == []
    assert leaks.find([("log", b"xyz" + secret[100:120].hex().encode())]) == ["log holds 16 bytes of secret (hex)"]
    assert leaks.find([("log", b"z" + bytes(range(16)))]) == ["log holds 16 bytes of other"]
