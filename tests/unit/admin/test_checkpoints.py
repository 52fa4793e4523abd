"""zerofs.admin.checkpoints: what the control socket answers about checkpoints and garbage, on an engine in memory."""

import pytest
import trio

from tests.unit.lsm.kit import Bed, chunk_key
from zerofs.admin import checkpoints
from zerofs.admin.control import protocol
from zerofs.errors import CheckpointError, ReadOnlyError
from zerofs.units import CHUNK_SIZE


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path)
    await bed.create()
    return bed


def names(answer):
    protocol.encode_result(answer)  # it is JSON
    return [point["name"] for point in answer["checkpoints"]]


async def test_the_one_concerned_comes_first(bed):
    async with bed.open() as engine:
        for name in ("a", "b", "c"):
            made = await checkpoints.change(engine, "create", name)
        assert names(made) == ["c", "a", "b"]
        assert names(await checkpoints.change(engine, "list", None)) == ["a", "b", "c"]
        assert names(await checkpoints.change(engine, "delete", made["checkpoints"][2]["id"])) == ["b", "a", "c"]
        assert names(await checkpoints.change(engine, "list", None)) == ["a", "c"]


async def test_what_one_looks_like(bed):
    async with bed.open() as engine:
        bed.world.now_ns = lambda: 1_700_000_000_999_999_999
        (found,) = (await checkpoints.change(engine, "create", "a"))["checkpoints"]
        (point,) = engine.checkpoints.all()
        assert found == {
            "name": "a",
            "id": point.checkpoint_id.hex(),
            "manifest_id": point.manifest_id,
            "created_at": "2023-11-14T22:13:20Z",
        }


@pytest.mark.parametrize(("action", "name"), [("rename", "a"), (None, None), ("create", None), ("delete", 7)])
async def test_what_is_no_request(bed, action, name):
    async with bed.open() as engine:
        with pytest.raises(protocol.ControlError, match="'action' is create, copy, delete, release or list"):
            await checkpoints.change(engine, action, name)


async def test_errors_keep_their_kind(bed):
    async with bed.open() as engine:
        with pytest.raises(CheckpointError):
            await checkpoints.change(engine, "delete", "nothing")
    async with bed.open(read_only=True) as reader:
        assert names(await checkpoints.change(reader, "list", None)) == []
        with pytest.raises(ReadOnlyError):
            await checkpoints.change(reader, "create", "x")
        with pytest.raises(ReadOnlyError):
            await checkpoints.collect(reader, dry_run=True)


async def stored_bytes(bed):
    return sum(info.size_bytes for info in await bed.store.list(""))


async def test_deleting_gives_space_back_although_nobody_writes(bed, autojump_clock):
    async with bed.open() as engine:
        engine.commit([(chunk_key(1, i), bed.world.entropy(CHUNK_SIZE)) for i in range(20)])
        await checkpoints.change(engine, "create", "full")
        engine.commit([], [(b"chunk", b"chunl")])
        await trio.sleep(600)
        assert await stored_bytes(bed) > 20 * CHUNK_SIZE
        await checkpoints.change(engine, "delete", "full")
        await trio.sleep(5)
        assert await stored_bytes(bed) < 5 * CHUNK_SIZE
        requests = bed.requests()
        await trio.sleep(24 * 3600)
        assert bed.requests() == requests, "and then it is idle again"


async def test_a_report_of_the_collector(bed):
    async with bed.open() as engine:
        await engine.maintenance.stop()  # its own first pass would be faster
        engine.commit([(b"meta%d" % i, bed.world.entropy(100)) for i in range(20)])
        await engine.flush()
        await bed.store.put("wal/README", b"not ours")
        would = await checkpoints.collect(engine, dry_run=True)
        assert would["dry_run"] is True
        assert would["objects"]["wal"] > 0
        assert would["size_bytes"] > 0
        assert (would["strangers"], would["stranger_names"]) == (1, ["wal/README"])
        did = await checkpoints.collect(engine, dry_run=False)
        assert did["objects"]["wal"] == would["objects"]["wal"]
        assert (await checkpoints.collect(engine, dry_run=True))["objects"]["wal"] == 0


async def test_what_a_clone_needs_is_not_deleted_by_mistake(bed):
    async with bed.open() as engine:
        await checkpoints.change(engine, "create", "one")
        (made, *_) = (await checkpoints.change(engine, "copy", "clone-0123abcd", "one"))["checkpoints"]
        assert made["manifest_id"] == engine.checkpoints.all()[0].manifest_id
        for name in ("clone-0123abcd", made["id"]):
            with pytest.raises(CheckpointError, match=r"holds what a clone of this volume reads: run .* with --force"):
                await checkpoints.change(engine, "delete", name)
        await checkpoints.change(engine, "release", made["id"])
        assert [point.name for point in engine.checkpoints.all()] == ["one"]
        for of in ("two", None):
            with pytest.raises(CheckpointError, match="there is no checkpoint"):
                await checkpoints.change(engine, "copy", "another", of)
        with pytest.raises(CheckpointError, match="there is a checkpoint 'one' already"):
            await checkpoints.change(engine, "copy", "one", "one")
