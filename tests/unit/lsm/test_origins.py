"""Where an SST lies: the epoch says it, and whatever goes wrong there names the place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.lsm.kit import VOLUME_ID
from zerofs import errors
from zerofs.errors import ConfigError, CorruptionError, MissingObjectError, ObjectStoreError
from zerofs.ids import KeyId
from zerofs.lsm.format.foreign import Foreign
from zerofs.lsm.origins import Origin, Origins
from zerofs.objectstore.memory import MemoryStore
from zerofs.testing.sealers import simulated_sealers
from zerofs.testing.world import SimWorld
from zerofs.transform.compression import DEFAULT_COMPRESSION
from zerofs.transform.frame import Kind, Sealer

KEYS = {KeyId(1): b"\x01" * 32, KeyId(2): b"\x02" * 32}
NONCE = b"n" * 24


def source(last_epoch, url="memory://a", keys=KEYS):
    return Foreign(url=url, volume_id=b"s" * 16, last_epoch=last_epoch, block_keys=keys, chunk_keys=keys)


def origins(open_source=None):
    sealers = simulated_sealers(VOLUME_ID)
    own = Origin(
        store=MemoryStore(),
        volume_id=VOLUME_ID,
        block=sealers.block,
        index=sealers.index,
        chunk=sealers.chunk,
        directory=sealers.directory,
    )
    return Origins(own, SimWorld(), open_source)


@given(st.sets(st.integers(1, 50), max_size=5), st.sets(st.integers(1, 50)), st.integers(1, 60))
def test_the_first_source_that_reaches_so_far_counts(epochs, detached, epoch):
    found = origins(lambda url: MemoryStore())
    table = [source(last, f"memory://{last}", {} if last in detached else KEYS) for last in sorted(epochs)]
    found.learn(table)
    found.learn(reversed(table))
    expected = min((last for last in epochs - detached if epoch <= last), default=None)
    origin = found.of(epoch)
    assert origin.source == ("" if expected is None else f"memory://{expected}")
    assert (origin is found.own) == (expected is None)
    assert len(found.all()) == len(epochs - detached) + 1


async def test_each_place_is_opened_once_and_closed():
    closed = []

    class Place(MemoryStore):
        async def aclose(self):
            closed.append(self)

    found = origins(lambda url: Place())
    found.learn([source(1), source(2), source(3, "memory://b")])
    assert found.of(1).store is found.of(2).store is not found.of(3).store
    await found.aclose()
    await found.aclose()
    assert len(closed) == 2


def test_a_clone_without_a_way_to_its_source_says_so():
    with pytest.raises(ConfigError, match="a clone of memory://a, which cannot be opened here"):
        origins().learn([source(1)])


class Failing(MemoryStore):
    """Every call fails as a test says."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    async def get(self, *arguments, **options):
        raise self.error

    async def list(self, *arguments):
        raise self.error


STORE_ERRORS = [
    error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, ObjectStoreError)
]


@pytest.mark.parametrize("kind", STORE_ERRORS)
async def test_what_goes_wrong_in_a_source_is_named(kind):
    found = origins(lambda url: Failing(kind("it fails")))
    found.learn([source(1)])
    origin = found.of(1)
    for call in (origin.get_part("compacted/x", 0, 1), origin.get("compacted/x", 10), origin.list("compacted/x")):
        with pytest.raises((ObjectStoreError, CorruptionError), match=r"compacted/x.* in the source of this clone"):
            await call
    own = Origin(
        store=Failing(kind("it fails")),
        volume_id=VOLUME_ID,
        block=origin.block,
        index=origin.index,
        chunk=origin.chunk,
        directory=origin.directory,
    )
    with pytest.raises((ObjectStoreError, CorruptionError)) as caught:
        await own.get_part("compacted/x", 0, 1)
    assert "source" not in str(caught.value)


async def test_missing_and_cut_short_are_corruption():
    store = MemoryStore()
    await store.put("compacted/x", b"abc")
    found = origins(lambda url: store)
    found.learn([source(1)])
    assert await found.of(1).get_part("compacted/x", 1, 2) == b"bc"
    with pytest.raises(CorruptionError, match="compacted/x: cut short in the source"):
        await found.of(1).get_part("compacted/x", 1, 3)
    with pytest.raises(MissingObjectError, match="compacted/y: missing in the source"):
        await found.of(1).get("compacted/y", 10)


def test_every_generation_opens_and_without_keys_nothing_does():
    found = origins(lambda url: MemoryStore())
    only_blocks = Foreign(url="memory://b", volume_id=b"s" * 16, last_epoch=2, block_keys=KEYS)
    found.learn([source(1), only_blocks])
    for current in KEYS:
        for kind in (Kind.META_BLOCK, Kind.META_INDEX, Kind.CHUNK, Kind.CHUNK_DIRECTORY):
            sealer = Sealer(
                volume_id=b"s" * 16, kind=kind, subkeys=KEYS, current=current, compression=DEFAULT_COMPRESSION
            )
            frame = sealer.seal(b"text", b"place", NONCE)
            for origin in (found.of(1), found.of(2)):
                opener = {
                    Kind.META_BLOCK: origin.block,
                    Kind.META_INDEX: origin.index,
                    Kind.CHUNK: origin.chunk,
                    Kind.CHUNK_DIRECTORY: origin.directory,
                }[kind]
                if origin is found.of(2) and kind in (Kind.CHUNK, Kind.CHUNK_DIRECTORY):
                    with pytest.raises(CorruptionError, match="which the keyring lacks"):
                        opener.open(frame, b"place", 100)
                else:
                    assert opener.open(frame, b"place", 100) == b"text"
