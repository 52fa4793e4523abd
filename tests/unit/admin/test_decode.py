"""zerofs.admin.decode: every kind of object is taken apart, and nothing of it that is secret is shown."""

import json

import pytest

from tests.unit.admin import damage
from tests.unit.admin.damage import mounted, write
from tests.unit.admin.test_backup import sidecar
from tests.unit.lsm.kit import Bed, Crash
from zerofs.admin.decode import Wanted, decode_clear, decode_key_object, decode_object, open_volume_objects
from zerofs.errors import CorruptionError, UnsupportedFormatError
from zerofs.lsm.format.names import manifest_name, sst_name, wal_name
from zerofs.lsm.manifests import ManifestStore


@pytest.fixture
async def bed(tmp_path):
    """A volume with a checkpoint, a floor, and a WAL that nobody flushed."""
    bed = Bed(tmp_path)
    await damage.make(bed)
    async with mounted(bed) as (engine, fs):
        await engine.checkpoints.create("then")
        await fs.symlink(damage.ROOT, 1, b"link", b"secret target")
        inode = await write(fs, b"attributed", b"secret content")
        await fs.setxattr(damage.ROOT, inode, b"user.a", b"secret value")
        await engine.maintenance.collect()
    with pytest.raises((Crash, BaseExceptionGroup)):
        async with mounted(bed) as (_, fs):
            await write(fs, b"late", b"secret content 2")
            await fs.unlink(damage.ROOT, 2, b"file1")
            await fs.sync()
            raise Crash
    return bed


async def shown(bed, name, **wanted):
    opened = await open_volume_objects(bed.storage())
    return await decode_object(opened, name, await bed.store.get(name), Wanted(**wanted))


async def everything(bed, **wanted):
    found = [await shown(bed, info.name, **wanted) for info in await bed.store.list("") if "/" in info.name]
    return found, json.dumps(found)


async def test_every_object_is_decoded(bed):
    found, text = await everything(bed)
    assert {it["kind"] for it in found} == {"manifest", "floor", "wal", "meta sst", "chunk sst"}
    newest = await damage.newest(bed)
    by_name = {it["object"]: it for it in found}
    manifest = by_name[manifest_name(newest.manifest_id)]
    assert manifest["checkpoints"][0]["name"] == "then"
    assert [tree["prefix"] for tree in manifest["trees"]] == ["meta", "chunk", "space"]
    assert manifest["history"][0]["epoch"] == 1
    assert by_name["manifest/floor"]["floor"] > 1
    wal = by_name[wal_name(newest.wal_mark + 1)]
    assert (wal["record"], wal["row_count"]) == ("fence", 0)
    assert '"record": "rows"' in text
    chunks = by_name[sst_name((await damage.chunk_ssts(bed))[0])]
    assert chunks["frames"][0]["key"]["row"] == "chunk"
    assert chunks["frames"][0]["offset"] == 64


async def test_neither_keys_nor_tokens_nor_contents_are_shown(bed):
    tokens = set()
    for info in await bed.store.list("manifest/"):
        if info.name != "manifest/floor":
            number = int(info.name[9:29])
            tokens |= set((await ManifestStore(bed.storage()).load(number)).tokens.values())
    for wanted in ({}, {"rows": True}, {"values": True}):
        _, text = await everything(bed, **wanted)
        assert not any(token.hex() in text for token in tokens)
        for secret in (b"secret target", b"secret content", b"secret value"):
            assert secret.decode() not in text
            assert (secret.hex() in text) == ("values" in wanted)


async def test_rows_are_named_for_what_they_are(bed):
    found, text = await everything(bed, rows=True)
    rows = {row["row"] for it in found for row in it.get("rows", ())}
    assert rows >= {"superblock", "counters", "inode", "dentry", "dirscan", "xattr", "chunk", "register"}
    assert "damaged" not in text
    assert '"name": "late"' in text
    assert '"deleted": true' in text


async def test_clear_fields_need_no_key(bed):
    for info in await bed.store.list(""):
        clear = decode_clear(info.name, await bed.store.get(info.name))
        assert clear["size"] == info.size_bytes
        assert clear["header"]["volume_id"] == bytes(range(16)).hex()


async def test_the_key_object():
    body = await sidecar()
    key = decode_key_object("zerofs.key", body)
    assert key["volume_id"] == bytes(range(16)).hex()
    assert key["slots"][0]["kdf"] == "argon2id"
    assert key["slots"][0]["cost"]["memory_kib"] == 8192


async def test_what_does_not_decode_is_named(bed):
    opened = await open_volume_objects(bed.storage())
    for info in await bed.store.list(""):
        body = await bed.store.get(info.name)
        for at in (0, 5, 33, 40, 70):
            damaged = bytearray(body)
            damaged[at] ^= 0x81
            with pytest.raises((CorruptionError, UnsupportedFormatError), match=info.name):
                await decode_object(opened, info.name, bytes(damaged), Wanted(values=True))
    with pytest.raises(CorruptionError, match="not an object of a volume"):
        decode_clear("x", b"")
    with pytest.raises(CorruptionError, match="shorter than a header"):
        decode_clear("x", b"ZFSM")


async def test_an_object_of_a_forgotten_epoch(bed):
    opened = await open_volume_objects(bed.storage())
    opened.tokens.clear()
    (sst, *_) = await damage.meta_ssts(bed)
    with pytest.raises(CorruptionError, match="--clear shows"):
        await decode_object(opened, sst.name, await bed.store.get(sst.name), Wanted())


async def test_without_a_manifest_the_rest_is_not_hidden(bed):
    name = manifest_name((await damage.newest(bed)).manifest_id)
    await damage.flip(bed.store, name, 100)
    opened = await open_volume_objects(bed.storage())
    assert opened.tokens == {}
    chunks = next(info.name for info in await bed.store.list("compacted/"))
    assert decode_clear(chunks, await bed.store.get(chunks))["kind"] in ("chunk sst", "meta sst")
