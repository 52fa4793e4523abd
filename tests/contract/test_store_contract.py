"""What `zerofs.objectstore.api` promises, asked of every store and every decorator."""

import itertools

import pytest
import trio

from zerofs.errors import (
    CorruptionError,
    ObjectNotFoundError,
    ObjectStoreError,
    PreconditionFailedError,
    RangeError,
)
from zerofs.objectstore import conditional
from zerofs.objectstore.probe import BUCKET_ID_NAME, PROBE_PREFIX, adopt_bucket_id, probe, read_bucket_id
from zerofs.units import KIB, MIB

ID_A = bytes(range(16))
ID_B = bytes(range(16, 32))
BODY_A = ID_A + b" body of a"
BODY_B = ID_B + b" body of b, which is longer"

BAD_NAMES = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "./a",
    "a/.",
    "a b",
    "a\nb",
    "a\0b",
    "ä",
    "a\\b",
    "a%2fb",
    "a" * 201,
    "/".join(["a" * 100] * 6),
    ".zerofs_local",
    ".zerofs_local/x",
]


async def names_of(store, prefix="", start_after=""):
    return [info.name for info in await store.list(prefix, start_after)]


# --- put and get


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"some bytes",
        bytearray(b"a bytearray"),
        memoryview(b"a memoryview")[2:],
        [],
        [b"", b""],
        [b"one"],
        [b"one", b"", bytearray(b"two"), memoryview(b"three")],
        [b"%d," % number for number in range(3000)],
    ],
    ids=["empty", "bytes", "bytearray", "memoryview", "none", "empties", "one", "kinds", "3000"],
)
async def test_what_is_put_is_got(store, body):
    await store.put("some/name", body)
    expected = bytes(body) if isinstance(body, bytes | bytearray | memoryview) else b"".join(body)
    assert await store.get("some/name") == expected
    assert (await store.head("some/name")).size_bytes == len(expected)
    assert isinstance(await store.get("some/name"), bytes)


async def test_large_objects_come_back_whole_and_in_parts(store):
    pieces = [bytes([number % 251]) * 100_000 for number in range(30)]
    await store.put("large", pieces)
    whole = b"".join(pieces)
    assert await store.get("large") == whole
    assert await store.get("large", 99_000, 2 * MIB) == whole[99_000 : 99_000 + 2 * MIB]
    assert await store.get("large", 1_000_001) == whole[1_000_001:]


async def test_put_replaces_whole(store):
    await store.put("name", b"the first and longer one")
    await store.put("name", b"second")
    assert await store.get("name") == b"second"
    assert await names_of(store) == ["name"]


async def test_ranges_inside(store):
    await store.put("digits", b"0123456789")
    for start, length in ((0, None), (0, 10), (0, 1), (3, None), (3, 4), (3, 7), (9, None), (9, 1)):
        stop = 10 if length is None else start + length
        assert await store.get("digits", start, length) == b"0123456789"[start:stop]


async def test_ranges_that_are_not_inside_are_refused(store):
    await store.put("digits", b"0123456789")
    outside = [(0, 11), (5, 6), (10, None), (10, 1), (11, None), (400, 3)]
    for start, length in [*outside, (-1, None), (-1, 1), (0, 0), (3, 0), (0, -1)]:
        with pytest.raises(RangeError, match="digits"):
            await store.get("digits", start, length)


async def test_empty_objects(store):
    await store.put("empty", b"")
    assert await store.get("empty") == b""
    assert (await store.get_versioned("empty"))[0] == b""
    with pytest.raises(RangeError):
        await store.get("empty", 0, 1)


async def test_an_answer_above_the_callers_limit_is_refused(store):
    await store.put("ten", b"0123456789")
    assert await store.get("ten", limit_bytes=10) == b"0123456789"
    assert await store.get("ten", 2, 3, limit_bytes=3) == b"234"
    assert await store.get("ten", 7, limit_bytes=3) == b"789"
    assert (await store.get_versioned("ten", limit_bytes=10))[0] == b"0123456789"
    for call in (
        lambda: store.get("ten", limit_bytes=9),
        lambda: store.get("ten", 1, limit_bytes=8),
        lambda: store.get_versioned("ten", limit_bytes=9),
        lambda: store.get_versioned("ten", limit_bytes=0),
    ):
        with pytest.raises(CorruptionError, match=r"ten in .*bytes; such an object has at most"):
            await call()
    with pytest.raises(ObjectNotFoundError):
        await store.get("absent", limit_bytes=9)
    assert await store.get("ten") == b"0123456789"


async def test_absent_objects_are_not_found(store):
    await store.put("present/one", b"x")
    for name in ("absent", "present", "present/two", "present/one/below"):
        with pytest.raises(ObjectNotFoundError, match=name):
            await store.get(name)
        with pytest.raises(ObjectNotFoundError, match=name):
            await store.get(name, 1, 1)
        with pytest.raises(ObjectNotFoundError, match=name):
            await store.get_versioned(name)
        with pytest.raises(ObjectNotFoundError, match=name):
            await store.head(name)


async def test_many_at_once(store):
    async def one(number):
        body = b"%d" % number * 1000
        await store.put(f"many/{number}", body)
        assert await store.get(f"many/{number}") == body

    async with trio.open_nursery() as nursery:
        for number in range(25):
            nursery.start_soon(one, number)
    assert len(await store.list("many/")) == 25


# --- versions


async def test_a_version_is_the_same_everywhere_and_changes_with_the_object(store):
    seen = set()
    for body in (b"one", b"two", b"three"):
        await store.put("name", body)
        info = await store.head("name")
        assert info.name == "name"
        assert await store.get_versioned("name") == (body, info.version)
        assert await store.list("") == [info]
        assert info == await store.head("name")
        seen.add(info.version)
    assert len(seen) == 3


# --- conditional puts


async def test_create_only_if_absent(store):
    await store.put_if_absent("wal/1", BODY_A, ID_A)
    version = (await store.head("wal/1")).version
    for body, put_id in ((BODY_B, ID_B), (BODY_A, ID_A)):
        with pytest.raises(PreconditionFailedError, match="wal/1"):
            await store.put_if_absent("wal/1", body, put_id)
    assert await store.get_versioned("wal/1") == (BODY_A, version)


async def test_create_takes_pieces_and_empty_bodies(store):
    await store.put_if_absent("pieces", [ID_A, memoryview(b"rest")], ID_A)
    await store.put_if_absent("empty", b"", ID_A)
    assert await store.get("pieces") == ID_A + b"rest"
    assert await store.get("empty") == b""
    with pytest.raises(PreconditionFailedError):
        await store.put_if_absent("empty", b"no more", ID_B)


async def test_create_again_after_delete(store):
    await store.put_if_absent("name", BODY_A, ID_A)
    await store.delete("name")
    await store.put_if_absent("name", BODY_B, ID_B)
    assert await store.get("name") == BODY_B


async def test_replace_only_the_same_version(store):
    await store.put("name", BODY_A)
    version = (await store.head("name")).version
    await store.put_if_match("name", [ID_B, BODY_B], version, ID_B)
    assert await store.get("name") == ID_B + BODY_B
    with pytest.raises(PreconditionFailedError, match="name"):
        await store.put_if_match("name", BODY_A, version, ID_A)
    assert await store.get("name") == ID_B + BODY_B


async def test_replace_needs_an_object(store):
    await store.put("name", BODY_A)
    version = (await store.head("name")).version
    await store.delete("name")
    with pytest.raises(PreconditionFailedError, match="name"):
        await store.put_if_match("name", BODY_B, version, ID_B)
    with pytest.raises(PreconditionFailedError, match="never"):
        await store.put_if_match("never/was", BODY_B, version, ID_B)
    assert await names_of(store) == []


async def test_replace_refuses_a_version_of_another_kind(store):
    await store.put("name", BODY_A)
    with pytest.raises(PreconditionFailedError):
        await store.put_if_match("name", BODY_B, '"00000000000000000000000000000000"', ID_B)
    assert await store.get("name") == BODY_A


@pytest.fixture
def atomic(request):
    """For tests of races between threads."""
    if "moto" in request.node.callspec.id:
        pytest.skip("moto looks and stores in two steps, so two threads of it may both succeed")


async def race(contenders):
    """Run them at once; how many were not refused."""
    winners = []

    async def contend(number, contender):
        try:
            await contender()
        except PreconditionFailedError:
            return
        winners.append(number)

    async with trio.open_nursery() as nursery:
        for number, contender in enumerate(contenders):
            nursery.start_soon(contend, number, contender)
    return winners


async def test_of_many_creators_one_wins(store, atomic):
    for name in ("race/0", "race/1", "race/2"):
        bodies = [bytes([number]) * 16 for number in range(8)]
        winners = await race([lambda body=body, name=name: store.put_if_absent(name, body, body) for body in bodies])
        assert len(winners) == 1
        assert await store.get(name) == bodies[winners[0]]


async def test_of_many_replacers_one_wins(store, atomic):
    await store.put("race", b"start")
    for _ in range(3):
        version = (await store.head("race")).version
        bodies = [bytes([number]) * 16 for number in range(8)]
        winners = await race(
            [lambda body=body, version=version: store.put_if_match("race", body, version, body) for body in bodies]
        )
        assert len(winners) == 1
        assert await store.get("race") == bodies[winners[0]]
        await store.put("race", b"start again")


# --- delete and list


async def test_delete_is_idempotent(store):
    await store.delete("never/was")
    await store.put("a/name", b"x")
    await store.put("a/name2", b"y")
    await store.delete("a/name")
    await store.delete("a/name")
    await store.delete("a")
    assert await names_of(store) == ["a/name2"]
    with pytest.raises(ObjectNotFoundError):
        await store.get("a/name")


async def test_list_goes_by_string_and_sorts_by_byte(store):
    names = ["a-b", "a.b", "a/b", "a/b-c/d", "a/bc/d/e", "a0", "aB", "b", ".hidden", "Z/1"]
    for name in names:
        await store.put(name, name.encode())
    assert await names_of(store) == sorted(names)
    assert await names_of(store, "a") == ["a-b", "a.b", "a/b", "a/b-c/d", "a/bc/d/e", "a0", "aB"]
    assert await names_of(store, "a/") == ["a/b", "a/b-c/d", "a/bc/d/e"]
    assert await names_of(store, "a/b") == ["a/b", "a/b-c/d", "a/bc/d/e"]
    assert await names_of(store, "a/bc") == ["a/bc/d/e"]
    assert await names_of(store, ".h") == [".hidden"]
    assert await names_of(store, "b/") == []
    assert await names_of(store, "nothing/here") == []
    assert [info.size_bytes for info in await store.list("a/")] == [3, 7, 8]


async def test_list_starts_after_a_name(store):
    names = [f"n/{number:02}" for number in range(10)]
    for name in names:
        await store.put(name, b"")
    for prefix, start_after in itertools.product(("", "n/", "n/0"), ("", "a", "n/", "n/03", "n/035", "n/09", "z")):
        expected = [name for name in names if name.startswith(prefix) and name > start_after]
        assert await names_of(store, prefix, start_after) == expected


async def test_list_of_nothing(store):
    assert await store.list("") == []
    assert await store.list("some/where") == []


# --- names


@pytest.mark.parametrize(
    "call",
    [
        lambda store, name: store.get(name),
        lambda store, name: store.get_versioned(name),
        lambda store, name: store.head(name),
        lambda store, name: store.put(name, b"x"),
        lambda store, name: store.put_if_absent(name, b"x", b"x"),
        lambda store, name: store.put_if_match(name, b"x", "1", b"x"),
        lambda store, name: store.delete(name),
    ],
    ids=["get", "get_versioned", "head", "put", "put_if_absent", "put_if_match", "delete"],
)
async def test_bad_names_are_refused(store, call):
    for name in BAD_NAMES:
        with pytest.raises(ObjectStoreError, match="is not a name") as caught:
            await call(store, name)
        assert type(caught.value) is ObjectStoreError
    assert await store.list("") == []


async def test_bad_prefixes_are_refused(store):
    for prefix in ("/", "../", "a/../b", "a//", "*", "a b", "./", "a\0"):
        with pytest.raises(ObjectStoreError, match="is not the beginning"):
            await store.list(prefix)


async def test_names_up_to_the_limit(store):
    name = "/".join(["n" * 127] * 4)
    assert len(name) == 511
    await store.put(name, b"x")
    assert await names_of(store) == [name]
    assert await store.get(name) == b"x"
    await store.put("s" * 200, b"y")
    assert await store.get("s" * 200) == b"y"


# --- the rest


async def test_the_url_says_where_and_nothing_secret(store):
    assert store.url.partition("://")[0] in ("memory", "file", "s3")
    assert "secret" not in store.url
    assert "@" not in store.url
    with pytest.raises(ObjectNotFoundError, match=store.url.replace(".", r"\.")):
        await store.get("absent")


async def test_closing_twice(store):
    await store.put("name", b"x")
    await store.aclose()
    await store.aclose()


# --- what is built on the contract alone


async def test_conditional_create_and_replace(store, world):
    await conditional.create(store, world, "key", BODY_A, ID_A, 10)
    await conditional.create(store, world, "key", BODY_A, ID_A, 10)  # ours already: a lost reply looks like this
    with pytest.raises(PreconditionFailedError, match="key"):
        await conditional.create(store, world, "key", BODY_B, ID_B, 10)
    version = (await store.head("key")).version
    await conditional.replace(store, world, "key", BODY_B, version, ID_B, 10)
    await conditional.replace(store, world, "key", BODY_B, version, ID_B, 10)
    with pytest.raises(PreconditionFailedError, match="key"):
        await conditional.replace(store, world, "key", BODY_A, version, ID_A, 10)
    assert await store.get("key") == BODY_B


async def test_probe_accepts_the_store_and_cleans_up(store, world):
    for number in range(3):
        await store.put(f"{PROBE_PREFIX}0000000{number}-left-behind", b"x" * KIB)
    await store.put("other", b"stays")
    await probe(store, world)
    assert await names_of(store) == ["other"]


async def test_bucket_id_is_made_once(store, world):
    assert await read_bucket_id(store) is None
    first = await adopt_bucket_id(store, world)
    assert await adopt_bucket_id(store, world) == first
    assert await read_bucket_id(store) == first
    assert await store.get(BUCKET_ID_NAME) == first.encode()
