"""Helpers of the keys room's tests that are not fixtures."""

import trio

from zerofs.crypto.kdf import Purpose
from zerofs.keys.chain import context_of, open_chain
from zerofs.keys.format import SIDECAR_NAME, decode_sidecar
from zerofs.keys.password import check_password
from zerofs.keys.slots import open_private_key
from zerofs.objectstore.decorator import Kind as Call
from zerofs.objectstore.decorator import StoreDecorator
from zerofs.transform.compression import DEFAULT_COMPRESSION
from zerofs.transform.frame import Kind

OLD, NEW, THIRD = (check_password(text) for text in ("correct horse", "battery staple", "third horse"))
WRONG = "Failed to unwrap DEK: Invalid password or corrupted key"
PLACE, NONCE = b"place", b"n" * 24


def seal(keyring):
    return keyring.sealer(Purpose.CHUNKS, Kind.CHUNK, DEFAULT_COMPRESSION).seal(b"data", PLACE, NONCE)


def opens(keyring, frame):
    return keyring.sealer(Purpose.CHUNKS, Kind.CHUNK, DEFAULT_COMPRESSION).open(frame, PLACE, 4) == b"data"


def open_sidecar(data, password):
    """All secrets of a sidecar, for a test that then alters it as somebody who knows them would."""
    sidecar = decode_sidecar(data)
    private_key = open_private_key(context_of(sidecar), sidecar.slots[0], password)
    return open_chain(sidecar, 0, private_key)


async def put(store, data):
    await store.put(SIDECAR_NAME, data)


async def load(store):
    return await store.get(SIDECAR_NAME)


class Gate(StoreDecorator):
    """Holds calls of one kind until `count` of them have come, so that they overlap."""

    def __init__(self, inner, kind, count):
        super().__init__(inner)
        self._kind, self._left, self._open = kind, count, trio.Event()

    async def _around(self, request, call):
        if request.kind is self._kind and not self._open.is_set():
            self._left -= 1
            if self._left == 0:
                self._open.set()
            await self._open.wait()
        return await call()


class Afterwards(StoreDecorator):
    """Does something to the store right after a replacement, before the read-back."""

    def __init__(self, inner, act):
        super().__init__(inner)
        self._act = act

    async def _around(self, request, call):
        result = await call()
        if request.kind is Call.PUT_IF_MATCH:
            await self._act()
        return result
