"""What a read-write open asks of a store before it trusts it: conditional writes that hold, and the bucket's id.

    .zerofs_compatibility_test_<uuid>   the probe's object; exists for a few requests
    .zerofs_bucket_id                   a UUID as 36 characters of text; made once, never changed

A store that ignores `If-None-Match` or `If-Match` would let two writers overwrite each other unseen: it is refused.
Not for read-only followers: they write nothing, and call `read_bucket_id`.
"""

import logging
import uuid

import trio

from zerofs.errors import (
    CorruptionError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreUnsuitableError,
    UnavailableError,
)
from zerofs.ids import PUT_ID_SIZE
from zerofs.objectstore import conditional
from zerofs.objectstore.api import ObjectStore
from zerofs.objectstore.backoff import full_jitter_s
from zerofs.world import World

log = logging.getLogger(__name__)

PROBE_PREFIX = ".zerofs_compatibility_test_"
BUCKET_ID_NAME = ".zerofs_bucket_id"

MAX_BUCKET_ID_SIZE = 1024
"""Far more than a UUID, so that what others left there is counted in the message."""

_BUCKET_ID_REMEDY = "restore it from a backup, or delete it (a new id only makes a new local cache)"

DEADLINE_S = 60.0
"""How long each step may take on a store that does not answer."""

_WRONG_VERSION = '"00000000000000000000000000000000"'
"""A well-formed ETag that no probe's object has."""


async def probe(store: ObjectStore, world: World, deadline_s: float = DEADLINE_S) -> None:
    """Return if the store honours conditional writes. Removes what crashed probes left behind.

    The object of a probe that runs elsewhere at this moment looks like a leftover and is removed too; that probe then
    believes that a second create succeeded. Hence a failed probe is repeated once, under a fresh name.
    Requests: one list, three puts, one delete; one more delete for each leftover.

    Raises:
        StoreUnsuitableError: it does not, twice.
        UnavailableError: the store does not answer. Other ObjectStoreErrors: it refuses.
    """
    for leftover in await store.list(PROBE_PREFIX):
        log.info("removing %s, left behind by a start-up that did not finish", leftover.name)
        await store.delete(leftover.name)
    failure = await _probe_once(store, world, deadline_s)
    if failure:
        log.warning("the store %s %s; asking once more", store.url, failure)
        failure = await _probe_once(store, world, deadline_s)
    if failure:
        raise StoreUnsuitableError(
            f"the store {store.url} {failure}: writers could overwrite each other unseen. Use a store that supports "
            "conditional writes (If-None-Match and If-Match on PUT), or update its server"
        )


def probe_name(world: World) -> str:
    """A fresh name for an object that shows something by being put; what is left of it the next probe removes."""
    return f"{PROBE_PREFIX}{_new_uuid(world)}"


async def _probe_once(store: ObjectStore, world: World, deadline_s: float) -> str:
    """What the store does wrong, or nothing. Ends with the probe's object removed."""
    name = probe_name(world)
    put_id = world.entropy(PUT_ID_SIZE)
    failure = ""
    try:
        await conditional.create(store, world, name, put_id, put_id, deadline_s)
    except PreconditionFailedError:
        failure = "refuses to create an object under a fresh name"
    if not failure and not await _is_refused(_Attempt(store, name, None, world), world, deadline_s):
        failure = "created an object that existed already (it ignores If-None-Match)"
    if not failure and not await _is_refused(_Attempt(store, name, _WRONG_VERSION, world), world, deadline_s):
        failure = "replaced an object although its version was another (it ignores If-Match)"
    await store.delete(name)
    return failure


class _Attempt:
    """A put that a good store must refuse."""

    def __init__(self, store: ObjectStore, name: str, version: str | None, world: World) -> None:
        self._store = store
        self._name = name
        self._version = version
        self._put_id = world.entropy(PUT_ID_SIZE)

    async def __call__(self) -> None:
        if self._version is None:
            await self._store.put_if_absent(self._name, self._put_id, self._put_id)
        else:
            await self._store.put_if_match(self._name, self._put_id, self._version, self._put_id)


async def _is_refused(attempt: _Attempt, world: World, deadline_s: float) -> bool:
    """Whether the store refuses. An attempt without an answer is repeated: a good store refuses each one."""
    deadline = trio.current_time() + deadline_s
    failures = 0
    while True:
        try:
            await attempt()
        except PreconditionFailedError:
            return True
        except UnavailableError:
            failures += 1
            pause_s = full_jitter_s(world.random, failures, conditional.FIRST_PAUSE_S, conditional.LONGEST_PAUSE_S)
            if trio.current_time() + pause_s >= deadline:
                raise
            await trio.sleep(pause_s)
        else:
            return False


async def read_bucket_id(store: ObjectStore) -> str | None:
    """The bucket's id, or None if it has none yet. Requests: one.

    Raises:
        CorruptionError: the object is there and holds something else.
    """
    try:
        data = await store.get(BUCKET_ID_NAME, limit_bytes=MAX_BUCKET_ID_SIZE)
    except ObjectNotFoundError:
        return None
    except CorruptionError as exc:
        raise CorruptionError(f"{exc}: {_BUCKET_ID_REMEDY}") from exc
    text = data.decode("ascii", "replace")
    try:
        is_canonical = str(uuid.UUID(text)) == text
    except ValueError:
        is_canonical = False
    if not is_canonical:
        raise CorruptionError(
            f"{BUCKET_ID_NAME} in {store.url} holds no UUID but {len(data)} other bytes: {_BUCKET_ID_REMEDY}"
        )
    return text


async def adopt_bucket_id(store: ObjectStore, world: World, deadline_s: float = DEADLINE_S) -> str:
    """The bucket's id, made now if it has none; of several that make one at a time all return the winner's.

    Requests: one, for a new bucket two. Raises CorruptionError as `read_bucket_id`, ObjectStoreError as `create`.
    """
    found = await read_bucket_id(store)
    while found is None:
        text = _new_uuid(world)
        body = text.encode("ascii")
        try:
            # The UUID is as random as a put-id, and is the whole body.
            await conditional.create(store, world, BUCKET_ID_NAME, body, body, deadline_s)
        except PreconditionFailedError:
            found = await read_bucket_id(store)
        else:
            found = text
    return found


def _new_uuid(world: World) -> str:
    return str(uuid.UUID(bytes=world.entropy(16), version=4))
