"""Creating and opening the sidecar."""

import logging
import random
import traceback

import pytest
import trio

from tests.unit.keys.support import NEW, OLD, WRONG, Gate, load, open_sidecar, opens, seal
from zerofs.crypto.kdf import DEFAULT_COST, KdfCost
from zerofs.errors import (
    CorruptionError,
    KeyMissingError,
    UnavailableError,
    WrongPasswordError,
)
from zerofs.keys import vault
from zerofs.keys.format import MAX_SIDECAR_SIZE, SIDECAR_NAME, decode_sidecar
from zerofs.objectstore.decorator import Kind as Call
from zerofs.objectstore.decorator import StoreDecorator
from zerofs.objectstore.faults import Fault, FaultyStore
from zerofs.objectstore.memory import MemoryStore
from zerofs.world import Lane, World


async def has_sidecar(store):
    return bool(await store.list(SIDECAR_NAME))


async def test_create_then_unseal_with_the_real_kdf_in_threads(store, cost):
    frame = seal(await vault.create(store, World(), OLD, cost))
    assert opens(await vault.unseal(store, World(), OLD), frame)
    with pytest.raises(WrongPasswordError):
        await vault.unseal(store, World(), NEW)


async def test_argon2_runs_in_the_cpu_lane(store, world, cost, kdf_calls):
    await vault.create(store, world, OLD, cost)
    await vault.change_password(store, world, OLD, NEW)
    assert world.lanes == [
        (Lane.CPU, name) for name in ("protect", "open_private_key", "open_private_key", "protect", "open_private_key")
    ]


async def test_the_default_cost(store, world, kdf_calls):
    await vault.create(store, world, OLD)
    assert decode_sidecar(await load(store)).slots[0].protector.cost == DEFAULT_COST
    assert {call["memory_cost"] for call in kdf_calls} == {65536}


async def test_what_is_created(store, world, frame):
    data = await load(store)
    sidecar = decode_sidecar(data)
    (slot,) = sidecar.slots
    assert (slot.label, slot.kind) == ("password", 1)
    assert (await vault.unseal(store, world, OLD)).key_ids == (1,)
    assert [info.name for info in await store.list("")] == ["zerofs.key"]


async def test_two_volumes_share_nothing(world, cost, kdf_calls):
    parts = []
    for _ in range(2):
        store = MemoryStore()
        await vault.create(store, world, OLD, cost)
        data = await load(store)
        sidecar = decode_sidecar(data)
        slot = sidecar.slots[0]
        parts.append(
            {
                sidecar.put_id,
                sidecar.volume_id,
                sidecar.authority,
                sidecar.keyring_nonce,
                slot.public_key,
                slot.root_nonce,
                slot.protector.salt,
                slot.protector.nonce,
                open_sidecar(data, OLD).root.reveal(),
                open_sidecar(data, OLD).generations[0].dek.reveal(),
            }
        )
        assert len(parts[-1]) == 10
    assert not parts[0] & parts[1]


async def test_nothing_secret_is_stored(store, frame):
    data = await load(store)
    opened = open_sidecar(data, OLD)
    secrets = [OLD, opened.root, opened.private_key, opened.authority_private, opened.generations[0].dek]
    for secret in secrets:
        value = secret.reveal()
        assert all(value[start : start + 8] not in data for start in range(len(value) - 7))


async def test_unseal_without_a_sidecar_names_it_and_the_remedy(store, world):
    with pytest.raises(
        KeyMissingError, match=r"zerofs\.key is missing in memory://: restore it from a backup"
    ) as caught:
        await vault.unseal(store, world, OLD)
    assert caught.value.exit_code == 13
    with pytest.raises(KeyMissingError, match=r"zerofs\.key"):
        await vault.change_password(store, world, OLD, NEW)


async def test_wrong_password(store, world, frame):
    with pytest.raises(WrongPasswordError, match=WRONG) as caught:
        await vault.unseal(store, world, NEW)
    assert str(caught.value) == WRONG


async def test_the_loser_of_a_creation_adopts_the_winners_keys(store, world, cost, kdf_calls):
    keyrings = []

    async def create():
        keyrings.append(await vault.create(gate, world, OLD, cost))

    gate = Gate(store, Call.PUT_IF_ABSENT, 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(create)
        nursery.start_soon(create)
    assert keyrings[0].volume_id == keyrings[1].volume_id
    assert opens(keyrings[0], seal(keyrings[1]))


async def test_the_loser_with_another_password_is_told(store, world, cost, frame):
    before = await load(store)
    with pytest.raises(WrongPasswordError):
        await vault.create(store, world, NEW, cost)
    assert await load(store) == before


async def test_create_refuses_a_cost_beyond_the_limits(store, world, kdf_calls):
    with pytest.raises(CorruptionError, match="refused before it ran"):
        await vault.create(store, world, OLD, KdfCost(memory_kib=1 << 21))
    assert kdf_calls == []
    assert not await has_sidecar(store)


@pytest.mark.parametrize("fault", [Fault.LOST_REPLY, Fault.FAIL_BEFORE, Fault.CONFLICT, Fault.BUSY])
async def test_create_with_an_ambiguous_put(store, world, cost, kdf_calls, autojump_clock, fault):
    faulty = FaultyStore(store, random.Random(1))
    faulty.plan(fault, Call.PUT_IF_ABSENT)
    frame = seal(await vault.create(faulty, world, OLD, cost))
    assert opens(await vault.unseal(store, world, OLD), frame)


async def test_create_during_an_outage_is_not_success(store, world, cost, kdf_calls, autojump_clock):
    faulty = FaultyStore(store, random.Random(1))
    faulty.partitioned = True
    with pytest.raises(UnavailableError):
        await vault.create(faulty, world, OLD, cost)
    assert not await has_sidecar(store)


@pytest.mark.parametrize("point", ["keys_after_derive_before_create", "keys_after_create_before_read_back"])
async def test_a_crash_while_creating(store, world, cost, kdf_calls, point):
    world.crash_at = point
    with pytest.raises(KeyboardInterrupt):
        await vault.create(store, world, OLD, cost)
    assert await has_sidecar(store) == (point == "keys_after_create_before_read_back")
    world.crash_at = None
    frame = seal(await vault.create(store, world, OLD, cost))
    assert opens(await vault.unseal(store, world, OLD), frame)


async def test_a_store_that_stores_something_else_is_noticed(world, cost, kdf_calls):
    store = MemoryStore()

    class Cutting(StoreDecorator):
        async def _around(self, request, call):
            result = await call()
            if request.kind is Call.PUT_IF_ABSENT:
                await store.put(SIDECAR_NAME, (await load(store))[:-1])
            return result

    with pytest.raises(CorruptionError, match=r"zerofs\.key: cut short"):
        await vault.create(Cutting(store), world, OLD, cost)


async def test_no_secret_in_logs_errors_or_reprs(store, world, frame, caplog):
    caplog.set_level(logging.DEBUG)
    data = await load(store)
    opened = open_sidecar(data, OLD)
    texts = [repr(opened), str(opened), repr(await vault.unseal(store, world, OLD))]
    for attempt in (lambda: vault.unseal(store, world, NEW), lambda: vault.change_password(store, world, NEW, OLD)):
        with pytest.raises(WrongPasswordError) as caught:
            await attempt()
        texts.append("".join(traceback.format_exception(caught.value)))
    await vault.change_password(store, world, OLD, NEW)
    texts.append(caplog.text)
    for secret in (OLD, NEW, opened.root, opened.private_key, opened.authority_private, opened.generations[0].dek):
        value = secret.reveal()
        for text in texts:
            assert value.decode("latin-1") not in text
            assert value.hex() not in text
            assert repr(value)[2:-1] not in text


async def test_a_sidecar_of_any_size_is_not_read(store, world):
    await store.put(SIDECAR_NAME, bytes(MAX_SIDECAR_SIZE + 1))
    with pytest.raises(CorruptionError, match=r"zerofs\.key in .*: 131073 bytes; such an object has at most 131072"):
        await vault.unseal(store, world, OLD)
