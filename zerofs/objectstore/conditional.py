"""One logical conditional put over a network that loses replies: sent once per try, resolved by looking.

After a refusal or an unknown outcome the object itself says whose it is: a put-id in its first 64 bytes tells our own
put from everybody else's. Only a match of these bytes and of the size is success; an unknown outcome never is.

    our put, reply lost      the object is ours           success
    our put never arrived    absent, or the old version   the same bytes again, after a pause
    our put arrives late     absent, then ours            the second try is refused, the look says ours: success
    somebody else's put      another's                    PreconditionFailedError
    the store stays silent   not known                    UnavailableError at the deadline

The bytes are the same in every try, so it does not matter which of our tries had the effect.
"""

import enum
import logging
from collections.abc import Awaitable, Callable

import trio

from zerofs.errors import ObjectNotFoundError, ObjectStoreError, PreconditionFailedError, RangeError, UnavailableError
from zerofs.objectstore.api import Body, ObjectStore, body_prefix, body_size
from zerofs.objectstore.backoff import full_jitter_s
from zerofs.world import World

log = logging.getLogger(__name__)

IDENTIFYING_BYTES = 64
"""How much of an object's beginning is read to tell whose it is. The put-id lies within."""

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


class _Finding(enum.Enum):
    OURS = enum.auto()
    ANOTHERS = enum.auto()
    UNTOUCHED = enum.auto()
    UNKNOWN = enum.auto()


async def create(store: ObjectStore, world: World, name: str, body: Body, put_id: bytes, deadline_s: float) -> None:
    """Make the object exist with exactly this body, unless another one exists.

    `put_id` must stand in the first 64 bytes of the body and be unique to it. Requests: one put when all goes well; a
    head, and a get if the size matches, after each doubt. A look is cut short at the deadline, a put under way is not.

    Raises:
        PreconditionFailedError: another's object has the name. Ours was never there, unless somebody replaces objects
            of this name.
        UnavailableError: still unknown when `deadline_s` seconds had passed.
        ObjectStoreError: the store refuses. If an earlier try ended in doubt, the outcome is as unknown as above.
    """

    async def put() -> None:
        await store.put_if_absent(name, body, put_id)

    await _resolve(_Put(store, name, body, put_id, None), world, put, deadline_s)


async def replace(
    store: ObjectStore, world: World, name: str, body: Body, version: str, put_id: bytes, deadline_s: float
) -> None:
    """Replace the object if it still has `version`, with exactly this body. Otherwise as `create`.

    Raises:
        PreconditionFailedError: the object has another version that is not this body, or is gone. After a doubt ours
            may have been there in between, and whoever replaced it has seen it: read again, and decide anew.
        UnavailableError, ObjectStoreError: as `create`.
    """

    async def put() -> None:
        await store.put_if_match(name, body, version, put_id)

    await _resolve(_Put(store, name, body, put_id, version), world, put, deadline_s)


class _Put:
    """What is to be put, and how to see whether it was."""

    def __init__(self, store: ObjectStore, name: str, body: Body, put_id: bytes, replaces: str | None) -> None:
        self.store = store
        self.name = name
        self._replaces = replaces
        self._size_bytes = body_size(body)
        self._prefix = body_prefix(body, IDENTIFYING_BYTES)
        assert put_id, "a put-id cannot be empty"
        assert put_id in self._prefix, f"{name}: the put-id is not in the first {IDENTIFYING_BYTES} bytes"

    async def look(self) -> _Finding:
        try:
            info = await self.store.head(self.name)
            if self._replaces is not None and info.version == self._replaces:
                return _Finding.UNTOUCHED
            if info.size_bytes != self._size_bytes:
                return _Finding.ANOTHERS
            found = await self.store.get(self.name, 0, len(self._prefix))
        except ObjectNotFoundError:
            return _Finding.UNTOUCHED if self._replaces is None else _Finding.ANOTHERS
        except (UnavailableError, RangeError):
            return _Finding.UNKNOWN  # RangeError: it was replaced by a shorter one between the two requests.
        return _Finding.OURS if found == self._prefix else _Finding.ANOTHERS


async def _resolve(wanted: _Put, world: World, put: Callable[[], Awaitable[None]], deadline_s: float) -> None:
    deadline = trio.current_time() + deadline_s
    failures = 0
    finding = _Finding.UNTOUCHED
    doubt: ObjectStoreError | None = None
    while True:
        if finding is _Finding.UNTOUCHED:
            try:
                await put()
            except (PreconditionFailedError, UnavailableError) as exc:
                doubt = exc
            else:
                return
        finding = _Finding.UNKNOWN
        with trio.move_on_at(deadline):
            finding = await wanted.look()
        if finding is _Finding.OURS:
            log.info("%s: the outcome of the put was in doubt, and it is ours (%s)", wanted.name, doubt)
            return
        if finding is _Finding.ANOTHERS:
            raise PreconditionFailedError(f"{wanted.name} in {wanted.store.url} is another's") from doubt
        failures += 1
        pause_s = full_jitter_s(world.random, failures, FIRST_PAUSE_S, LONGEST_PAUSE_S)
        if trio.current_time() + pause_s >= deadline:
            raise UnavailableError(
                f"{wanted.name} in {wanted.store.url}: not known after {deadline_s:g} s whether it was stored ({doubt})"
            ) from doubt
        await trio.sleep(pause_s)
