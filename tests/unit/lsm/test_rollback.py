"""What a host remembers of a volume, and every way to show it something else: refused by name unless accepted."""

import logging
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.lsm.kit import VOLUME_ID, Bed, Crash
from zerofs.errors import CheckpointError, ConfigError, RollbackError
from zerofs.lsm.format.manifest import MAX_ERAS, Era, decode_manifest, encode_manifest, tag_of
from zerofs.lsm.format.names import wal_name
from zerofs.lsm.lineage import Finding, claim_of, completed, continued, find_manifest, find_wal
from zerofs.lsm.manifests import ManifestStore
from zerofs.lsm.witness import Claim, Places, Seen, Witness

WAYS = pytest.mark.parametrize("way", [{}, {"read_only": True}, {"checkpoint": "point"}], ids=str)


@pytest.fixture
async def bed(tmp_path):
    bed = Bed(tmp_path)
    await bed.create()
    async with bed.open(host="first") as engine:
        engine.commit([(b"meta0", b"x")])
        await engine.checkpoints.create("point")
    return bed


async def write(bed: Bed, key: bytes, *, host: str, flushes: int = 1, crash: bool = False) -> None:
    """One session. A flush is a manifest, a sync only a WAL object."""
    try:
        async with bed.open(host=host) as engine:
            for number in range(flushes):
                engine.commit([(key, b"%d" % number)])
                await engine.flush()
            engine.commit([(key, b"x")])
            await engine.sync()
            if crash:
                raise Crash
            await engine.maintenance.collect()
    except Crash:
        pass


async def snapshot(bed: Bed) -> dict[str, bytes]:
    return {info.name: await bed.store.get(info.name) for info in await bed.store.list("")}


async def restore(bed: Bed, objects: dict[str, bytes]) -> None:
    for info in await bed.store.list(""):
        await bed.store.delete(info.name)
    for name, body in objects.items():
        await bed.store.put(name, body)


async def refused(bed: Bed, match: str, *, host: str, **way) -> None:
    before = await snapshot(bed)
    with pytest.raises(RollbackError, match=match):
        async with bed.open(host=host, **way):
            pass
    assert await snapshot(bed) == before


# --- forks of the history


@WAYS
@pytest.mark.parametrize("flushes", [1, 5, 200])
async def test_a_fork_is_another_timeline_whatever_its_length(bed, way, flushes):
    """Host B is shown an old state and goes on from there, beyond the ids that host A has seen."""
    old = await snapshot(bed)
    await write(bed, b"meta1", host="A", flushes=2)
    await restore(bed, old)
    await write(bed, b"meta2", host="B", flushes=flushes)
    await write(bed, b"meta2", host="B")
    await refused(bed, "another timeline|older state", host="A", **way)
    async with bed.open(host="B") as engine:
        assert await engine.get(b"meta2") == b"x"


@WAYS
async def test_a_host_that_only_reads_notices_a_fork_too(bed, way):
    old = await snapshot(bed)
    await write(bed, b"meta1", host="A", flushes=2)
    async with bed.open(host="reader", **(way or {"read_only": True})):
        pass
    await restore(bed, old)
    await write(bed, b"meta2", host="B", flushes=9)
    await refused(bed, "another timeline", host="reader", **(way or {"read_only": True}))


async def test_the_seen_manifest_put_back_into_the_fork_proves_nothing(bed):
    old = await snapshot(bed)
    await write(bed, b"meta1", host="A")
    seen = Witness(bed.folder / "A", VOLUME_ID).load()
    name = f"manifest/{seen.manifest_id:020d}.manifest"
    ours = await bed.store.get(name)
    await restore(bed, old)
    await write(bed, b"meta2", host="B", flushes=9)
    await bed.store.put(name, ours)
    await refused(bed, "another timeline", host="A")
    await bed.store.delete(name)
    await refused(bed, "another timeline", host="A")


async def test_acknowledged_wal_that_was_withheld_from_the_next_writer_is_missed(bed):
    """No manifest is lost: B claims from the very one that A saw last, but is not shown A's last WAL object."""
    await write(bed, b"meta1", host="A", crash=True)
    tip = [info.name for info in await bed.store.list("wal/")][-1]
    await bed.store.delete(tip)
    await write(bed, b"meta2", host="B", crash=True, flushes=0)
    await refused(bed, "not the one that was acknowledged", host="A")
    await write(bed, b"meta2", host="B", flushes=3)
    await refused(bed, "another timeline", host="A")


async def test_a_reader_misses_wal_of_the_writer_before_the_newest_claim(bed):
    """It saw a claim without a fence, and above it the WAL of the writer before."""
    await write(bed, b"meta1", host="A", crash=True)
    store_tip = [info.name for info in await bed.store.list("wal/")][-1]

    class Stop(Exception):
        pass

    class StopsBeforeItsFence(type(bed.world)):
        def reached(self, point: str) -> None:
            if point == "open_after_claim_before_fence":
                raise Stop

    real, bed.world = bed.world, StopsBeforeItsFence()
    with pytest.raises(Stop):
        async with bed.open(host="B"):
            pass
    bed.world = real
    async with bed.open(host="reader", read_only=True) as reader:
        assert await reader.get(b"meta1") == b"x"
    await bed.store.delete(store_tip)
    await write(bed, b"meta2", host="C", flushes=3)
    await refused(bed, "another timeline", host="reader", read_only=True)


async def test_a_roll_back_can_be_accepted_and_the_history_goes_on(bed):
    old = await snapshot(bed)
    await write(bed, b"meta1", host="A", flushes=3)
    await write(bed, b"meta1", host="bystander", flushes=1)
    await restore(bed, old)
    async with bed.open(host="A", accept_rollback=True) as engine:
        assert await engine.get(b"meta1") is None
        engine.commit([(b"meta2", b"x")])
    for _ in range(3):
        await write(bed, b"meta3", host="A")
    # Whoever has only seen what both have in common goes on; whoever saw more is told that it is gone, once.
    await write(bed, b"meta3", host="first")
    await refused(bed, "another timeline", host="bystander")
    async with bed.open(host="bystander", accept_rollback=True):
        pass
    await write(bed, b"meta3", host="bystander")
    await write(bed, b"meta3", host="A")
    await write(bed, b"meta3", host="first")


async def test_looking_at_an_older_state_does_not_make_it_the_accepted_one(bed):
    old = await snapshot(bed)
    await write(bed, b"meta1", host="A")
    await restore(bed, old)
    async with bed.open(host="A", read_only=True, accept_rollback=True) as reader:
        assert await reader.get(b"meta0") == b"x"
    await refused(bed, "older state", host="A", read_only=True)


async def test_a_crash_amid_accepting_leaves_it_to_be_accepted_or_done(bed):
    old = await snapshot(bed)
    await write(bed, b"meta1", host="A", crash=True)
    await restore(bed, old)
    with pytest.raises(Crash):
        async with bed.open(host="A", accept_rollback=True) as engine:
            engine.commit([(b"meta2", b"x")])
            await engine.sync()
            raise Crash
    async with bed.open(host="A") as engine:
        assert await engine.get(b"meta2") == b"x"


@pytest.mark.parametrize("seed", range(4))
async def test_a_true_history_is_never_refused(bed, seed):
    """Many hosts in turn, each mostly away, all crashing now and then: nobody is told of a roll-back."""
    rng = random.Random(seed)
    for number in range(40):
        host = f"host {rng.randrange(6)}"
        if rng.random() < 0.3:
            async with bed.open(host=host, **rng.choice([{"read_only": True}, {"checkpoint": "point"}])):
                pass
        else:
            await write(bed, b"meta%d" % number, host=host, flushes=rng.randrange(3), crash=rng.random() < 0.5)


# --- what is remembered


async def test_a_reader_remembers_and_never_lowers(bed):
    async with bed.open(host="here", read_only=True):
        pass
    first = Witness(bed.folder / "here", VOLUME_ID).load()
    await write(bed, b"meta1", host="here")
    written = Witness(bed.folder / "here", VOLUME_ID).load()
    assert (written.manifest_id, written.wal_id) > (first.manifest_id, first.wal_id)
    witness = Witness(bed.folder / "here", VOLUME_ID)
    witness.raise_to(first)
    assert Witness(bed.folder / "here", VOLUME_ID).load() == written
    async with bed.open(host="here", checkpoint="point"):
        pass
    assert Witness(bed.folder / "here", VOLUME_ID).load().manifest_id >= written.manifest_id


async def test_a_checkpoint_that_is_not_there_is_still_said_so(bed):
    with pytest.raises(CheckpointError, match="no checkpoint 'other'"):
        async with bed.open(host="here", checkpoint="other"):
            pass


async def test_memory_that_cannot_be_read_is_named(bed):
    (bed.folder / "here").mkdir()
    path = bed.folder / "here" / f"{VOLUME_ID.hex()}.seen"
    path.mkdir()
    for way in ({}, {"read_only": True}):
        with pytest.raises(ConfigError, match=f"{path}, where this host remembers"):
            async with bed.open(host="here", **way):
                pass
    places = Places(bed.folder)
    places.remember("memory://", VOLUME_ID)
    (place,) = (bed.folder / "places").iterdir()
    assert places.volume_at("memory://") == VOLUME_ID.hex()
    place.unlink()
    place.mkdir()
    for ask in (places.knows, places.volume_at):
        with pytest.raises(ConfigError, match="cannot be read"):
            ask("memory://")


async def test_memory_that_cannot_be_written_is_told_once(bed, caplog):
    (bed.folder / "here").write_text("in the way")
    witness = Witness(Path("/proc/nowhere"), VOLUME_ID)
    seen = Seen(manifest_id=1, manifest_put_id=bytes(16), wal_id=1, wal_put_id=bytes(16))
    witness.claim = Claim(1, bytes(8))
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            witness.record(seen)
    assert caplog.text.count("cannot remember the state of the volume in /proc/nowhere") == 1


async def test_memory_of_another_form_is_replaced_whole(bed, caplog):
    (bed.folder / "here").mkdir()
    path = bed.folder / "here" / f"{VOLUME_ID.hex()}.seen"
    path.write_bytes(b"x" * 5000)
    await write(bed, b"meta1", host="here")
    assert "is damaged" in caplog.text
    assert Witness(bed.folder / "here", VOLUME_ID).load() is not None


# --- the rule


def manifest(bed_manifest, epoch: int, manifest_id: int, history=()):
    token = b"token of %07d" % epoch
    return replace(
        bed_manifest, epoch=epoch, token=token, manifest_id=manifest_id, tokens={epoch: token}, history=tuple(history)
    )


def seen(epoch: int, manifest_id: int, wal_id: int = 1) -> Seen:
    claim = Claim(epoch, tag_of(b"token of %07d" % epoch))
    return Seen(
        manifest_id=manifest_id,
        manifest_put_id=b"p" * 16,
        manifest_claim=claim,
        wal_id=wal_id,
        wal_put_id=b"w" * 16,
        wal_claim=claim,
    )


def era(epoch: int, manifest_id: int, wal_id: int | None = 5) -> Era:
    return Era(epoch=epoch, tag=tag_of(b"token of %07d" % epoch), manifest_id=manifest_id, wal_id=wal_id)


async def test_an_era_ends_where_the_next_claim_began(bed):
    any_manifest = await ManifestStore(bed.storage()).latest()
    newest = manifest(any_manifest, 7, 40, [era(5, 20, 8), era(6, 30, None)])
    for case, expected in [
        (seen(7, 39), Finding.INCLUDED),
        (seen(6, 30), Finding.INCLUDED),
        (seen(6, 31), Finding.ABSENT),
        (seen(5, 20), Finding.INCLUDED),
        (seen(5, 21), Finding.ABSENT),
        (seen(4, 3), Finding.ABSENT),
        (seen(8, 3), Finding.ABSENT),
        (replace(seen(6, 30), manifest_claim=Claim(6, bytes(8))), Finding.ABSENT),
        (replace(seen(7, 30), manifest_claim=Claim(7, bytes(8))), Finding.ABSENT),
        (seen(7, 40), Finding.ABSENT),  # the same id, another put-id
        (replace(seen(7, 40), manifest_put_id=newest.put_id), Finding.INCLUDED),
    ]:
        assert find_manifest(newest, case) is expected, case
    for case, expected in [
        (seen(5, 1, 8), Finding.INCLUDED),
        (seen(5, 1, 9), Finding.ABSENT),
        (seen(6, 1, 99), Finding.INCLUDED),
        (seen(7, 1, 99), Finding.INCLUDED),
        (seen(4, 1, 1), Finding.ABSENT),
    ]:
        assert find_wal(newest, case) is expected, case


async def test_a_history_is_bounded_and_what_fell_out_is_not_called_a_fork(bed):
    any_manifest = await ManifestStore(bed.storage()).latest()
    newest = manifest(any_manifest, 1, 1)
    for epoch in range(2, MAX_ERAS + 10):
        newest = manifest(newest, epoch, epoch, continued(newest))
    assert [era.epoch for era in newest.history] == list(range(9, MAX_ERAS + 9))
    assert find_manifest(newest, seen(9, 9)) is Finding.INCLUDED
    assert find_manifest(newest, seen(9, 10)) is Finding.ABSENT
    assert find_manifest(newest, seen(8, 8)) is Finding.FORGOTTEN
    assert find_wal(newest, seen(8, 8)) is Finding.FORGOTTEN
    text = encode_manifest(newest)
    assert len(text) < 20_000
    assert decode_manifest(text, epoch=newest.epoch, put_id=newest.put_id, name="x") == newest


async def test_ends_of_the_wal_are_filled_in_once(bed):
    any_manifest = await ManifestStore(bed.storage()).latest()
    claimed = replace(
        manifest(any_manifest, 9, 50, [era(4, 10, 3), era(5, 20, None), era(6, 30, None), era(8, 40, None)]), wal_mark=6
    )
    assert [era.wal_id for era in completed(claimed, {6: 11, 7: 13, 9: 14})] == [3, 6, 11, 13]
    assert claim_of(claimed) == Claim(9, tag_of(claimed.token))


async def test_every_session_leaves_an_era_with_both_ends(bed):
    for number in range(3):
        await write(bed, b"meta%d" % number, host="here", crash=number == 1)
    async with bed.open(host="here") as engine:
        await engine.flush()
        newest = engine.manifest
    assert [era.epoch for era in newest.history] == list(range(1, newest.epoch))
    assert None not in [era.wal_id for era in newest.history]
    ends = [(era.manifest_id, era.wal_id) for era in newest.history]
    assert ends == sorted(ends)
    assert wal_name(ends[-1][1] + 1) in [info.name for info in await bed.store.list("wal/")]
